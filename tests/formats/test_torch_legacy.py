"""Files in the layout of torch before 1.6: read without torch's own reader of it."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from samdiag.errors import CannotDecide
from samdiag.formats import open_checkpoint
from samdiag.formats.torch_legacy import MAGIC, PROTOCOL


@pytest.fixture
def save_legacy(tmp_path: Path):
    def write(saved: Any, name: str = "old.pt") -> Path:
        torch.save(saved, tmp_path / name, _use_new_zipfile_serialization=False)
        return tmp_path / name

    return write


def head() -> bytes:
    """The first three pickles of such a file."""
    system = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return MAGIC + pickle.dumps(PROTOCOL, 2) + pickle.dumps(system, 2)


class Pickler(pickle.Pickler):
    """Writes any tuple that is marked as a storage as a persistent id, whatever it claims."""

    def persistent_id(self, item: Any) -> Any:
        return item[1] if isinstance(item, tuple) and item[:1] == ("persistent",) else None


def claiming(path: Path, *claim: Any, keys: tuple[str, ...] = ("0",), data: bytes = b"") -> Path:
    """A file whose pickle is one persistent id."""
    stream = io.BytesIO()
    Pickler(stream, 2).dump({"w": ("persistent", claim)})
    path.write_bytes(head() + stream.getvalue() + pickle.dumps(list(keys), 2) + data)
    return path


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_comes_back(save_legacy, dtype: torch.dtype) -> None:
    saved = {"a": (torch.randn(7, 3) * 100).to(dtype), "b": torch.arange(5).to(dtype)}
    found = open_checkpoint(save_legacy(saved)).weights()
    assert all(found[name].dtype == dtype and torch.equal(found[name], saved[name]) for name in saved)


def test_views_and_ties_and_strides_come_back(save_legacy) -> None:
    whole = torch.randn(6, 4)
    saved = {"whole": whole, "rows": whole[2:4], "turned": whole.t(), "again": whole, "empty": torch.zeros(0, 3)}
    found = open_checkpoint(save_legacy(saved)).weights()
    assert all(torch.equal(found[name], saved[name]) for name in saved)
    assert found["turned"].data_ptr() == found["whole"].data_ptr()


def test_it_is_the_same_checkpoint_as_in_the_new_layout(save_legacy, save, network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.25, momentum=0.5)
    network(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    saved = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    old, new = open_checkpoint(save_legacy(saved)), open_checkpoint(save(saved))
    assert (old.format, new.format) == ("torch-legacy", "torch-zip")
    assert {name: hint.value for name, hint in old.hints.items()} == {n: h.value for n, h in new.hints.items()}
    assert old.weights().keys() == new.weights().keys()
    assert all(torch.equal(value, new.weights()[name]) for name, value in old.weights().items())
    assert torch.equal(old.velocity().tensors[0], new.velocity().tensors[0])


def test_the_weights_are_mapped_and_not_copied(save_legacy) -> None:
    path = save_legacy({"w": torch.zeros(4_000_000)})
    before = _anonymous()
    weights = open_checkpoint(path).weights()
    assert float(weights["w"].sum()) == 0
    assert _anonymous() - before < 4_000_000  # of 16 MB


def _anonymous() -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("RssAnon:")[1].split()[0])


class Payload:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, object]:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("place", ["protocol", "system", "saved", "keys"])
def test_a_payload_is_not_run_wherever_it_lies(tmp_path: Path, place: str) -> None:
    marker = str(tmp_path / "marker")
    payload = pickle.dumps(Payload(marker), 2)
    system = {"protocol_version": PROTOCOL, "little_endian": True}
    parts = {
        "protocol": pickle.dumps(PROTOCOL, 2),
        "system": pickle.dumps(system, 2),
        "saved": pickle.dumps({}, 2),
        "keys": pickle.dumps([], 2),
    }
    path = tmp_path / "old.pt"
    path.write_bytes(MAGIC + b"".join((parts | {place: payload}).values()))
    with pytest.raises(CannotDecide, match="wants to run"):
        open_checkpoint(path)
    assert not os.path.exists(marker)
    pickle.loads(payload)
    assert os.path.exists(marker)


def test_source_code_that_it_names_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = claiming(tmp_path / "old.pt", "module", torch.nn.Parameter, "train.py", "print()")
    with pytest.raises(CannotDecide):
        open_checkpoint(path)
    assert [item.name for item in tmp_path.iterdir()] == ["old.pt"]


F = torch.FloatStorage


@pytest.mark.parametrize(
    ("claim", "keys", "data"),
    [
        (("storage", F, "0", "cpu", 2**40, None), ("0",), struct.pack("<q", 2**40)),  # larger than the file
        (("storage", F, "0", "cpu", 2**62, None), ("0",), b""),
        (("storage", F, "0", "cpu", -1, None), ("0",), b""),
        (("storage", F, "0", "cpu", 2, None), ("0",), struct.pack("<q", 3) + bytes(12)),  # two sizes
        (("storage", F, "0", "cpu", 2, None), ("0", "1"), struct.pack("<q", 2) + bytes(8)),  # one key too many
        (("storage", F, "0", "cpu", 2, None), (), struct.pack("<q", 2) + bytes(8)),  # one too few
        (("storage", F, "0", "cpu", 2, ("1", 1, 5)), ("0",), struct.pack("<q", 2) + bytes(8)),  # a view out of it
        (("storage", F, "0"), ("0",), b""),
        (("storage", "float", "0", "cpu", 2, None), ("0",), b""),
    ],
)
def test_claims_that_the_file_does_not_keep(tmp_path: Path, claim: Any, keys: Any, data: bytes) -> None:
    with pytest.raises(CannotDecide, match="damaged"):
        open_checkpoint(claiming(tmp_path / "old.pt", *claim, keys=keys, data=data))


def test_the_same_claim_kept_is_read(tmp_path: Path) -> None:
    path = claiming(tmp_path / "old.pt", "storage", F, "0", "cpu", 2, None, data=struct.pack("<q", 2) + bytes(8))
    with pytest.raises(CannotDecide, match="nothing that looks like weights"):  # a bare storage, read without trouble
        open_checkpoint(path)


def test_a_tensor_may_not_reach_beyond_its_storage(save_legacy, tmp_path: Path) -> None:
    path = save_legacy({"w": torch.zeros(300)})
    content = path.read_bytes()
    claimed = content.replace(b"M,\x01\x85", b"M,\x7f\x85")  # the size in the tensor's call: 300 → 32 556
    assert claimed != content
    path.write_bytes(claimed)
    with pytest.raises(CannotDecide):
        open_checkpoint(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated(save_legacy, kept: float) -> None:
    path = save_legacy({"w": torch.randn(500), "v": torch.randn(500)})
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CannotDecide):
        open_checkpoint(path)


def test_another_byte_order(tmp_path: Path) -> None:
    system = {"protocol_version": PROTOCOL, "little_endian": False}
    (tmp_path / "old.pt").write_bytes(MAGIC + pickle.dumps(PROTOCOL, 2) + pickle.dumps(system, 2))
    with pytest.raises(CannotDecide, match="byte order"):
        open_checkpoint(tmp_path / "old.pt")
