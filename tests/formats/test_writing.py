"""Checkpoints written beside others: names and dtypes kept, states that torch.optim.SGD reads, nothing written over."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats import open_checkpoint, writing
from samdiag.formats.checkpoint import Checkpoint
from samdiag.formats.writing import (
    Outline,
    Taken,
    choose_targets,
    optimizer_state,
    save_object,
    save_tensors,
    tensors_to_store,
)


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "run.safetensors"
    save_file(network().state_dict(), path, metadata={"format": "pt", "who": "me", "samdiag": "{}"})
    return path


@pytest.fixture
def outline(source: Path) -> Outline:
    return Outline.of(open_checkpoint(source), network())


def stored(source: Path, model: nn.Module, old: dict[str, Tensor], *, still_there: bool = True) -> dict[str, Tensor]:
    """What is written of `model` where the old file held `old`."""
    checkpoint = Checkpoint(path=source, format="safetensors", fingerprint="", load=lambda _: old)
    return tensors_to_store(model, Outline.of(checkpoint, model), old if still_there else None)


# ---------------------------------------------------------------- names


def test_names_beside_the_old_file_count_up(source: Path) -> None:
    first = choose_targets(source)
    assert [p.name for p in first.all] == ["run.treated.safetensors", "run.treated.optimizer.pt", "run.treated.jsonl"]
    first.log.touch()  # whichever of the three is taken
    second = choose_targets(source)
    assert second.checkpoint.name == "run.treated-2.safetensors"
    assert second.optimizer is not None
    second.optimizer.touch()
    assert choose_targets(source).checkpoint.name == "run.treated-3.safetensors"


def test_a_torch_file_holds_both(source: Path) -> None:
    found = choose_targets(source, source.with_name("new.pt"))
    assert found.optimizer is None
    assert found.log.name == "new.jsonl"
    assert choose_targets(source.with_name("old.pt")).checkpoint.name == "old.treated.safetensors"


@pytest.mark.parametrize("taken", ["out.safetensors", "out.optimizer.pt", "out.jsonl"])
def test_nothing_that_exists_is_accepted(source: Path, taken: str) -> None:
    source.with_name(taken).touch()
    with pytest.raises(UsageError, match="exists already"):
        choose_targets(source, source.with_name("out.safetensors"))


def test_a_dangling_link_is_a_file(source: Path) -> None:
    out = source.with_name("out.safetensors")
    out.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already"):
        choose_targets(source, out)


def test_the_source_itself_is_refused(source: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        choose_targets(source, source)


@pytest.mark.parametrize(
    ("out", "log", "what"),
    [
        ("out.bin", None, "no kind of checkpoint"),
        ("out", None, "no kind of checkpoint"),
        ("nowhere/out.pt", None, "cannot write"),
        ("out.pt", "nowhere/log.jsonl", "cannot write"),
        ("out.pt", "out.pt", "both checkpoint and log"),
        ("a\0b.pt", None, "not a file name"),
    ],
)
def test_bad_names_are_refused(source: Path, out: str, log: str | None, what: str) -> None:
    folder = source.parent
    with pytest.raises(UsageError, match=what):
        choose_targets(source, folder / out, None if log is None else folder / log)


def test_a_long_name_is_shortened(tmp_path: Path) -> None:
    source = tmp_path / ("é" * 120 + ".safetensors")  # 240 bytes and the suffix: as long as a name may be
    found = choose_targets(source)
    assert all(len(p.name.encode()) <= 255 for p in found.all)
    found.checkpoint.touch()
    assert choose_targets(source).checkpoint.name.endswith(".treated-2.safetensors")


def test_a_name_in_another_encoding_is_kept(tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    assert os.fsencode(choose_targets(source).checkpoint.name) == b"caf\xe9.treated.safetensors"


# ---------------------------------------------------------------- tensors


def changed(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.123)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_names_and_dtypes(source: Path, dtype: torch.dtype) -> None:
    model = network()
    old = {n: (v.to(dtype) if v.is_floating_point() else v).clone() for n, v in model.state_dict().items()}
    model.load_state_dict(old)
    new = stored(source, changed(model), old)
    assert list(new) == list(old)
    assert all(new[n].dtype == old[n].dtype for n in old)
    assert torch.equal(new["0.weight"], model[0].weight.detach().to(dtype))
    assert not torch.equal(new["0.weight"], old["0.weight"])
    assert torch.equal(new["1.running_mean"], old["1.running_mean"])


def test_what_did_not_change_keeps_every_bit(source: Path) -> None:
    """float64 weights in a float32 model lose digits on loading: those of a frozen layer must not be written back."""
    model = network()
    old = {n: v.double() + 1e-12 if v.is_floating_point() else v for n, v in model.state_dict().items()}
    model.load_state_dict(old)
    with torch.no_grad():
        model[2].bias.add_(1.0)
    new = stored(source, model, old)
    assert torch.equal(new["0.weight"], old["0.weight"])
    assert torch.equal(new["2.bias"], model[2].bias.detach().double())
    gone = stored(source, model, old, still_there=False)  # then what the model read of it
    assert torch.equal(gone["0.weight"], model[0].weight.detach().double())


def test_tied_weights_are_written_as_they_were(tmp_path: Path, source: Path, outline: Outline) -> None:
    model = changed(Tied())
    both = stored(source, model, model.state_dict())
    save_tensors(tmp_path / "both.safetensors", both, outline, stamp=None)  # shares no memory
    assert set(load_file(tmp_path / "both.safetensors")) == {"first.weight", "second.weight"}
    one = stored(source, model, {"first.weight": torch.zeros(3, 3)})
    assert list(one) == ["first.weight"]
    assert torch.equal(one["first.weight"], model.first.weight)


def test_wrapped_names_become_the_models_own(source: Path) -> None:
    model = changed(network())
    lightning = {f"model.{name}": torch.zeros_like(v) for name, v in model.state_dict().items()}
    new = stored(source, model, lightning)
    assert list(new) == list(model.state_dict())
    assert torch.equal(new["0.weight"], model[0].weight)
    parallel = stored(source, nn.DataParallel(model), model.state_dict())
    assert torch.equal(parallel["0.weight"], model[0].weight)


def test_tensors_that_the_model_lacks_stay(source: Path) -> None:
    counter = torch.tensor(7)
    old = {"weight": torch.zeros(1, 1), "norm.num_batches_tracked": counter}
    new = stored(source, nn.Linear(1, 1), old, still_there=False)
    assert torch.equal(new["norm.num_batches_tracked"], counter)


# ---------------------------------------------------------------- optimizer state


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_state_goes_on_in_torch_sgd(tmp_path: Path, outline: Outline, nesterov: bool) -> None:
    """The next step of torch.optim.SGD with it is x − lr·v′ with v′ = gamma·v + g (Nesterov: x − lr(g + gamma·v′))."""
    model = network().double()
    velocity = torch.randn(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    state = optimizer_state(model, velocity, lr=0.3, momentum=0.7, rho=0.05, nesterov=nesterov, adaptive=False)
    save_object(tmp_path / "o.pt", state, outline)
    read = torch.load(tmp_path / "o.pt", weights_only=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.load_state_dict(read)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    model(torch.ones(5, 3, dtype=torch.float64)).square().sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    optimizer.step()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    moved = 0.7 * velocity + gradient
    expected = before - 0.3 * (gradient + 0.7 * moved if nesterov else moved)
    assert torch.allclose(after, expected, rtol=1e-12)
    assert optimizer.param_groups[0]["rho"] == 0.05


def test_frozen_parameters_have_a_place_and_no_buffer() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    state = optimizer_state(model, torch.arange(count).double(), lr=0.1, momentum=0.9, rho=1.0)
    assert state["param_groups"][0]["params"] == list(range(6))
    assert 0 not in state["state"]
    assert torch.equal(state["state"][1]["momentum_buffer"], torch.arange(4.0))
    torch.optim.SGD(model.parameters(), lr=0.1).load_state_dict(state)


def test_without_momentum_there_are_no_buffers() -> None:
    state = optimizer_state(network(), torch.ones(30), lr=0.1, momentum=0.0, rho=1.0)
    assert state["state"] == {}


def test_hints_and_momentum_of_one_file_are_read_back(tmp_path: Path, outline: Outline) -> None:
    model = changed(network())
    velocity = torch.randn(sum(p.numel() for p in model.parameters()))
    state = optimizer_state(
        model, velocity.double(), lr=0.2, momentum=0.5, rho=0.1, weight_decay=0.01, dampening=0.25, adaptive=True
    )
    save_object(tmp_path / "new.pt", {"model": tensors_to_store(model, outline), "optimizer": state}, outline)
    found = open_checkpoint(tmp_path / "new.pt")
    assert {name: hint.value for name, hint in found.hints.items()} == {
        **{"sam.rho": 0.1, "sam.lr": 0.2, "sam.momentum": 0.5, "sam.weight_decay": 0.01, "sam.dampening": 0.25},
        **{"sam.variant": "asam", "sam.nesterov": False},
    }
    assert torch.equal(found.weights()["0.weight"], model[0].weight)
    buffers = found.velocity()
    assert buffers is not None
    assert torch.equal(buffers.flat(model)[0], velocity.double())


# ---------------------------------------------------------------- files


def test_metadata_stays_and_the_stamp_is_new(tmp_path: Path, source: Path) -> None:
    source.chmod(0o440)
    outline = Outline.of(open_checkpoint(source), network())
    source.unlink()
    out = tmp_path / "new.safetensors"
    save_tensors(out, {"x": torch.ones(2)}, outline, stamp='{"loss": "mse"}')
    with safe_open(out, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "who": "me", "samdiag": '{"loss": "mse"}'}
    assert out.stat().st_mode & 0o777 == 0o640  # one's own file can be written
    save_tensors(tmp_path / "bare.safetensors", {"x": torch.ones(2)}, outline, stamp=None)
    with safe_open(tmp_path / "bare.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "who": "me"}


def test_a_file_that_came_meanwhile_is_not_written_over(tmp_path: Path, outline: Outline) -> None:
    out = tmp_path / "new.safetensors"
    out.write_text("mine")
    with pytest.raises(Taken, match="meanwhile"):
        save_tensors(out, {"x": torch.ones(2)}, outline, stamp=None)
    assert out.read_text() == "mine"
    assert _leftovers(tmp_path) == []


def _leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


class Full:
    """A stream on a full disk."""

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, _: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> None: ...


def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, outline: Outline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "open", lambda *_: Full(), raising=False)
    with pytest.raises(CannotDecide, match="No space left on device"):
        save_object(tmp_path / "o.pt", {"x": torch.ones(1000)}, outline)
    assert not (tmp_path / "o.pt").exists()
    assert _leftovers(tmp_path) == []


def test_an_interruption_leaves_no_half_file(tmp_path: Path, outline: Outline, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", save)
    with pytest.raises(KeyboardInterrupt):
        save_tensors(tmp_path / "o.safetensors", {"x": torch.ones(2)}, outline, stamp=None)
    assert sorted(os.listdir(tmp_path)) == ["run.safetensors"]
