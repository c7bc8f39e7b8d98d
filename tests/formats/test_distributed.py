"""Folders of torch.distributed.checkpoint: put together exactly, and refused wherever a claim does not hold."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorProperties

from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.formats import Checkpoint, open_checkpoint
from tests.formats.folders import pieces, write_distributed

W = torch.arange(12.0).reshape(4, 3)


def save(folder: Path, saved: dict[str, Any]) -> Checkpoint:
    """`saved` by torch's own writer, in one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(saved, checkpoint_id=folder, no_dist=True)
    return open_checkpoint(folder)


def refused(path: Path, kind: type[SamdiagError] = CannotDecide) -> str:
    with pytest.raises(kind) as caught:
        open_checkpoint(path).weights()
    assert "\n" not in caught.value.what + caught.value.todo
    assert str(path) in caught.value.what or caught.value.what.startswith("'")
    return caught.value.what


@pytest.fixture
def trained(network: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    network(torch.randn(8, 2)).square().mean().backward()
    optimizer.step()
    optimizer.param_groups[0]["rho"] = 0.07
    return network, optimizer.state_dict()


@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_pieces_are_put_together(tmp_path: Path, num: int) -> None:
    write_distributed(tmp_path / "a", pieces("model.w", W, num), {"model.w": W.shape})
    assert torch.equal(open_checkpoint(tmp_path / "a").weights()["w"], W)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_dtypes_scalars_and_empty_tensors(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.ones(3, 2).to(dtype), "b": torch.tensor(1).to(dtype), "c": torch.ones(0, 4).to(dtype)}
    weights = save(tmp_path, tensors).weights()
    assert {name: value.shape for name, value in weights.items()} == {name: t.shape for name, t in tensors.items()}
    assert all(value.dtype == dtype for value in weights.values())
    assert torch.equal(weights["a"].double(), torch.ones(3, 2).double())


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "module", "app.model", ""])
def test_weights_in_nested_dictionaries(
    tmp_path: Path, wrapper: str, trained: tuple[nn.Module, dict[str, Any]]
) -> None:
    network, optimizer = trained
    inner: Any = {**network.state_dict()}
    for key in reversed(wrapper.split(".") if wrapper else []):
        inner = {key: inner}
    checkpoint = save(tmp_path, {**inner, "optimizer": optimizer, "step": {"step": torch.tensor(3)}, "epoch": 4})
    weights = checkpoint.weights()
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    assert {name: hint.value for name, hint in checkpoint.hints.items()} == {
        "sam.rho": 0.07,
        "sam.lr": 0.1,
        "sam.momentum": 0.9,
        "sam.dampening": 0.0,
        "sam.weight_decay": 1e-3,
        "sam.nesterov": False,
    }


def test_momentum_in_the_optimizers_order(tmp_path: Path, trained: tuple[nn.Module, dict[str, Any]]) -> None:
    network, optimizer = trained
    velocity = save(tmp_path, {"model": network.state_dict(), "optim": optimizer}).velocity()
    assert velocity is not None
    flat, notes = velocity.flat(network)
    expected = torch.cat([optimizer["state"][index]["momentum_buffer"].reshape(-1) for index in range(6)])
    assert notes == ()
    assert flat is not None
    assert torch.equal(flat, expected.double())


@pytest.mark.parametrize("before", ["optim.", "optimizer.", ""])
def test_flattened_settings_and_momentum(tmp_path: Path, before: str) -> None:
    stored = {**pieces("w", W, 2), **pieces(f"{before}state.w.momentum_buffer", 2 * W, 2)}
    shapes = dict.fromkeys(("w", f"{before}state.w.momentum_buffer"), W.shape)
    values = {f"{before}param_groups.w.{key}": value for key, value in (("lr", 0.1), ("rho", 0.05), ("momentum", 0.9))}
    checkpoint = open_checkpoint(write_distributed(tmp_path / "a", stored, shapes, values))
    assert checkpoint.hints["sam.rho"].value == 0.05
    assert checkpoint.weights().keys() == {"w"}
    velocity = checkpoint.velocity()
    assert velocity is not None
    assert velocity.names == ("w",)
    assert torch.equal(velocity.tensors[0], 2 * W)  # type: ignore[arg-type]


def test_groups_saved_as_one_value(tmp_path: Path) -> None:
    groups = [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0]}, {"lr": 0.2, "params": [1]}]
    folder = write_distributed(
        tmp_path / "a", pieces("model.w", W), {"model.w": (4, 3)}, {"optim.param_groups": groups}
    )
    checkpoint = open_checkpoint(folder)
    assert checkpoint.hints["sam.lr"].value == 0.1
    assert checkpoint.adam
    assert any("differ in lr" in note for note in checkpoint.notes)


def test_averaged_weights_on_request(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, {"model": {"w": W}, "ema": {"w": 2 * W}})
    assert torch.equal(checkpoint.weights()["w"], W)
    assert torch.equal(checkpoint.weights("ema")["w"], 2 * W)
    assert any("EMA" in note for note in checkpoint.notes)
    with pytest.raises(UsageError, match="no EMA weights"):
        save(tmp_path / "raw", {"model": {"w": W}}).weights("ema")


@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("numbered", [True, False])
def test_a_folder_saved_between_the_two_steps_of_sam(tmp_path: Path, between: bool, numbered: bool) -> None:
    start = {"b": W, "a": torch.ones(3)}
    move = {"b": torch.zeros(4, 3), "a": torch.tensor([0.0, 0.3, 0.4])}  # of length 0.5
    now = {name: value + move[name] * (1 if between else 7) for name, value in start.items()}
    state = {str(i) if numbered else name: {"old_p": old} for i, (name, old) in enumerate(start.items())}
    groups = [{"lr": 0.1, "rho": 0.5, "params": list(state)}]
    checkpoint = save(tmp_path, {"model": now, "optim": {"state": state, "param_groups": groups}})
    weights = checkpoint.weights()
    assert all(torch.equal(weights[name], (start if between else now)[name]) for name in start)
    assert any("between the two SAM steps" in note for note in checkpoint.notes) == between


def test_the_header_alone_says_what_tensors_there_are(tmp_path: Path) -> None:
    save(tmp_path, {"model": {"w": W.bfloat16(), "n": torch.tensor(1)}})
    code = f"import sys; from samdiag.formats import open_checkpoint; c = open_checkpoint({str(tmp_path)!r})"
    code += "; print(c.tensor_infos()['w'], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "TensorInfo(dtype='bfloat16', shape=(4, 3), num_bytes=24) False"


def test_several_models_and_none(tmp_path: Path) -> None:
    with pytest.raises(CannotDecide, match="several models: generator, critic"):
        save(tmp_path / "a", {"generator": {"w": W}, "critic": {"w": W}})
    with pytest.raises(CannotDecide, match="optimizer's state and no weights"):
        save(tmp_path / "b", {"optim": {"state": {"w": {"momentum_buffer": W}}, "param_groups": [{"lr": 0.1}]}})
    with pytest.raises(CannotDecide, match="no tensors"):
        save(tmp_path / "c", {"epoch": 3})


def test_a_model_whose_modules_are_called_model(tmp_path: Path) -> None:
    """Names with dots are the module's own where the folder says how it was nested."""
    assert save(tmp_path, {"model.w": W, "head.w": W}).weights().keys() == {"model.w", "head.w"}


@pytest.mark.parametrize(
    ("boxes", "shape", "what"),
    [
        ({(0, 0): (2, 3)}, (4, 3), "6 of its 12"),
        ({(0, 0): (2, 3), (3, 0): (2, 3)}, (4, 3), "outside its shape"),
        ({(0, 0): (3, 3), (1, 0): (3, 1)}, (4, 3), "overlap"),
        ({(0, 0): (2, 3), (1, 0): (2, 3)}, (4, 3), "overlap"),
        ({(0, 0): (2, 2), (0, 1): (2, 2), (2, 0): (2, 2)}, (4, 3), "overlap"),
        ({(0, 0, 0): (4, 3, 1)}, (4, 3), "dimensions"),
        ({(0, 0): (4, 3)}, (2**40, 3), "12 of its"),
        ({(0, 0): (4, 3)}, (-1, 3), "list of counts"),
        ({(0, 0): (4, 3)}, (2**70, 3), "integer of 9 bytes"),
    ],
)
def test_pieces_must_cover_their_tensor(
    tmp_path: Path, boxes: dict[tuple[int, ...], tuple[int, ...]], shape: tuple[int, ...], what: str
) -> None:
    stored = {MetadataIndex("w", offset): torch.ones(sizes) for offset, sizes in boxes.items()}
    if any(abs(size) >= 2**63 for size in shape):
        shape = (2**62, 2**62)
        what = "12 of its"
    assert what in refused(write_distributed(tmp_path / "a", stored, {"w": shape}))


def test_a_grid_of_pieces_is_honest(tmp_path: Path) -> None:
    stored = {MetadataIndex("w", (i, j)): W[i : i + 2, j : j + 2].clone() for i in (0, 2) for j in (0, 2)}
    assert torch.equal(open_checkpoint(write_distributed(tmp_path / "a", stored, {"w": (4, 3)})).weights()["w"], W)


@pytest.mark.parametrize("file", ["../x.distcp", "/tmp/x.distcp", "a/x.distcp", "..", "", "x\0y"])
def test_a_file_that_is_a_path_is_refused(tmp_path: Path, file: str) -> None:
    folder = write_distributed(tmp_path / "a", pieces("w", W), {"w": (4, 3)})
    stored = pickle.loads((folder / ".metadata").read_bytes())
    for info in stored.storage_data.values():
        info.relative_path = file
    (folder / ".metadata").write_bytes(pickle.dumps(stored))
    assert "no bare file name" in refused(folder)


def change(folder: Path, **info: Any) -> Path:
    """Another claim about where the first piece lies."""
    stored = pickle.loads((folder / ".metadata").read_bytes())
    first = next(iter(stored.storage_data.values()))
    for name, value in info.items():
        setattr(first, name, value)
    (folder / ".metadata").write_bytes(pickle.dumps(stored))
    return folder


@pytest.mark.parametrize(
    ("info", "what"),
    [
        ({"length": 10}, "needs 24 bytes"),
        ({"length": 10**6}, "truncated"),
        ({"offset": 10**9}, "truncated"),
        ({"offset": -1}, "no place"),
        ({"offset": True}, "no place"),
        ({"length": 2.0}, "no place"),
        ({"offset": 1}, "share bytes"),
        ({"length": 200}, "not one of torch.save"),
        ({"relative_path": "missing.distcp"}, "lacks missing.distcp"),
        ({"transform_descriptors": ["zstd"]}, "storage extension"),
    ],
)
def test_places_must_hold(tmp_path: Path, info: dict[str, Any], what: str) -> None:
    assert what in refused(change(write_distributed(tmp_path / "a", pieces("w", W, 2), {"w": (4, 3)}), **info))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write_distributed(tmp_path / "a", pieces("w", W), {"w": (4, 3)})
    (folder / "__0_0.distcp").rename(tmp_path / "elsewhere")
    (folder / "__0_0.distcp").symlink_to(tmp_path / "elsewhere")
    assert "link out of its folder" in refused(folder)


@pytest.mark.parametrize(
    "stored", [torch.ones(12), torch.ones(4, 3, dtype=torch.int32), [1.0], torch.ones(4, 3).to_sparse()]
)
def test_a_stream_must_hold_what_the_metadata_say(tmp_path: Path, stored: Any) -> None:
    folder = write_distributed(tmp_path / "a", pieces("w", W), {"w": (4, 3)})
    torch.save(stored, tmp_path / "stream")
    (folder / "__0_0.distcp").write_bytes((tmp_path / "stream").read_bytes())
    what = refused(change(folder, offset=0, length=(tmp_path / "stream").stat().st_size))
    assert "another shape or dtype" in what or "not a dense tensor" in what


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch was-run",)


def test_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    honest = pieces("w", W)
    assert "posix.system" in refused(write_distributed(tmp_path / "a", honest, {"w": (4, 3)}, metadata=Runs()))
    nested = Metadata(state_dict_metadata={"w": Runs()})  # type: ignore[dict-item]
    assert "posix.system" in refused(write_distributed(tmp_path / "b", honest, {"w": (4, 3)}, metadata=nested))
    in_stream = write_distributed(tmp_path / "c", {MetadataIndex("w", (0, 0)): W}, {"w": (4, 3)})
    torch.save([Runs(), "x" * 200], tmp_path / "stream")
    (in_stream / "__0_0.distcp").write_bytes((tmp_path / "stream").read_bytes())
    change(in_stream, length=(tmp_path / "stream").stat().st_size)
    assert "wants to run code" in refused(in_stream)
    with pytest.raises(CannotDecide, match="wants to run code"):
        open_checkpoint(write_distributed(tmp_path / "d", honest, {"w": (4, 3)}, {"optim.param_groups": Runs()}))
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ([], "a Metadata is missing"),
        (Metadata(state_dict_metadata={}), "where the data lies"),
        (Metadata(state_dict_metadata=[]), "no table of what was saved"),  # type: ignore[arg-type]
        (Metadata(state_dict_metadata={"w": 3}, storage_data={}), "neither a tensor nor a value"),  # type: ignore[dict-item]
        (Metadata(state_dict_metadata={"w": MetadataIndex("w")}, storage_data={}), "neither"),  # type: ignore[dict-item]
        (Metadata(state_dict_metadata={}, storage_data={"w": 3}), "MetadataIndex is missing"),
        (Metadata(state_dict_metadata={}, storage_data={MetadataIndex("w"): 3}), "_StorageInfo is missing"),
        (Metadata(state_dict_metadata={"n" * 2000: 3}, storage_data={}), "1024 characters"),  # type: ignore[dict-item]
    ],
)
def test_metadata_of_another_kind(tmp_path: Path, metadata: Any, what: str) -> None:
    assert what in refused(write_distributed(tmp_path / "a", pieces("w", W), {"w": (4, 3)}, metadata=metadata))


def test_tensors_that_are_not_dense(tmp_path: Path) -> None:
    sparse = TensorProperties(dtype=torch.float32, layout=torch.sparse_coo)
    with pytest.raises(CannotDecide, match="not a dense tensor"):
        open_checkpoint(write_distributed(tmp_path / "a", pieces("w", W), {"w": (4, 3)}, properties=sparse))
    odd = TensorProperties(dtype=torch.quint8)
    assert "quint8" in refused(write_distributed(tmp_path / "b", pieces("w", W), {"w": (4, 3)}, properties=odd))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_metadata_and_data(tmp_path: Path, kept: float) -> None:
    for name, what in ((".metadata", "damaged"), ("__0_0.distcp", "truncated")):
        folder = write_distributed(tmp_path / name, pieces("w", W, 2), {"w": (4, 3)})
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * kept)])
        assert what in refused(folder)


def test_metadata_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_distributed(tmp_path / "a", pieces("w", W, 4), {"w": (4, 3)})
    for name, what in (("MAX_METADATA_BYTES", "more than the 0"), ("MAX_TENSORS", "more than 0 entries")):
        with monkeypatch.context() as patch:
            patch.setattr(f"samdiag.formats.distributed_metadata.{name}", 0)
            assert what in refused(folder)
    stored = {MetadataIndex("w", (0, j)): W[:, j : j + 1].clone() for j in range(3)}
    grid = write_distributed(tmp_path / "b", stored, {"w": (4, 3)})
    monkeypatch.setattr("samdiag.formats.distributed_metadata.MAX_OVERLAP_CHECKS", 2)
    assert "too many pieces" in refused(grid)


def test_a_compressed_stream_is_not_unpacked(tmp_path: Path) -> None:
    import zipfile

    folder = write_distributed(tmp_path / "a", pieces("w", W), {"w": (4, 3)})
    with zipfile.ZipFile(folder / "__0_0.distcp", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(10_000_000))
    size = (folder / "__0_0.distcp").stat().st_size
    assert "unpacks to 10000000 bytes" in refused(change(folder, length=size))


def test_a_file_that_changed_since_it_was_opened(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, {"model": {"w": W}})
    with (tmp_path / "__0_0.distcp").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CannotDecide, match="changed"):
        checkpoint.weights()


def test_the_fingerprint_is_of_metadata_and_data(tmp_path: Path) -> None:
    found = {
        open_checkpoint(write_distributed(tmp_path / "a", pieces("w", value), {"w": (4, 3)})).fingerprint
        for value in (W, W, W + 1)
    }
    assert len(found) == 2


def test_the_folders_that_accelerate_writes_for_fsdp(tmp_path: Path, trained: tuple[nn.Module, dict[str, Any]]) -> None:
    network, optimizer = trained
    save(tmp_path / "pytorch_model_fsdp_0", {"model": network.state_dict()})
    with pytest.raises(CannotDecide, match="no weights"):
        save(tmp_path / "optimizer_0", {"optimizer": optimizer})
    (tmp_path / "trainer_state.json").write_text('{"train_batch_size": 8}')
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "torch-distributed"
    assert checkpoint.path == tmp_path
    assert checkpoint.weights().keys() == network.state_dict().keys()
    assert checkpoint.hints["sam.rho"].value == 0.07
    assert checkpoint.hints["sam.batch_size"].value == 8
    velocity = checkpoint.velocity()
    assert velocity is not None
    assert len(velocity.tensors) == 6
    (tmp_path / "pytorch_model_fsdp_1").mkdir()
    with pytest.raises(UsageError, match="several models"):
        open_checkpoint(tmp_path)


def test_several_optimizers(tmp_path: Path) -> None:
    groups = {f"optim{number}.param_groups.0.lr": number / 10 for number in range(1, 18)}
    two = dict(list(groups.items())[:2])
    folder = write_distributed(tmp_path / "a", pieces("w", W), {"w": (4, 3)}, {**two, "optim2.param_groups.0.rho": 0.1})
    checkpoint = open_checkpoint(folder)
    assert checkpoint.hints["sam.lr"].value == 0.2
    assert any("several optimizers" in note for note in checkpoint.notes)
    with pytest.raises(CannotDecide, match="17 optimizers"):
        open_checkpoint(write_distributed(tmp_path / "b", pieces("w", W), {"w": (4, 3)}, groups))
