"""Every expected failure: the exit code, one line of what was found, one of what to do, nothing on stdout."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.cli.conftest import HONEST, Ran, Run, network, save

A = "runs/a.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One way to fail.

    Attributes:
        args: of `samdiag inspect`; what is not said is filled in with the honest problem.
        prepare: writes the files, in the working folder.
        code: the exit code; `what` and `todo` are parts of the two lines.
    """

    code: int
    what: str
    todo: str
    args: tuple[str, ...] = (A, *HONEST)
    prepare: Callable[[], Any] = field(default=lambda: None)


def wrong(function: str, what: str, todo: str, code: int = 2) -> Mistake:
    """A mistake inside problems.py."""
    return Mistake(code=code, what=what, todo=todo, args=(A, "--rho", "0.1", "--problem", f"problems.py:{function}"))


def flags(*given: str, what: str, todo: str, code: int = 2) -> Mistake:
    return Mistake(code=code, what=what, todo=todo, args=(A, "--problem", "problems.py:problem", *given))


def file(name: str, prepare: Callable[[], Any], what: str, todo: str, code: int = 3) -> Mistake:
    """A mistake in the checkpoint file."""
    return Mistake(code=code, what=what, todo=todo, args=(name, *HONEST), prepare=prepare)


def cut(name: str, keep: int) -> Callable[[], Any]:
    return lambda: Path(name).write_bytes(Path(A).read_bytes()[:keep])


def flip_header() -> None:
    content = bytearray(Path(A).read_bytes())
    content[20:24] = b"\xff\xfe\xfd\xfc"
    Path("broken.safetensors").write_bytes(content)


def with_nan() -> None:
    weights = network().state_dict()
    weights["0.weight"][1, 0] = torch.nan
    save_file(weights, "nan.safetensors")


def other_shape() -> None:
    save_file(nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).state_dict(), "shape.safetensors")


MISTAKES = {
    # ---- the file
    "missing file": file("runs/b.safetensors", lambda: None, "does not exist", "holds: a.safetensors", code=2),
    "missing folder": file("run/a.safetensors", lambda: None, "does not exist", "there is no folder run", code=2),
    "empty file": file("e.pt", lambda: Path("e.pt").touch(), "e.pt is empty", "write the file again"),
    "text": file("t.pt", lambda: Path("t.pt").write_text("hello"), "not a checkpoint: text", "torch.save"),
    "truncated header": file("c.safetensors", cut("c.safetensors", 40), "c.safetensors", "again"),
    "truncated data": file("c.safetensors", cut("c.safetensors", -9), "c.safetensors", "again"),
    "corrupt header": file("broken.safetensors", flip_header, "broken.safetensors", "again"),
    "truncated zip": file(
        "z.pt",
        lambda: (
            torch.save(network().state_dict(), "z.pt"),
            Path("z.pt").write_bytes(Path("z.pt").read_bytes()[:900]),
        ),
        "truncated or damaged",
        "copy or save the file again",
    ),
    "pickled module": file(
        "m.pt", lambda: torch.save(network(), "m.pt"), "wants to run torch.nn", "save the weights alone"
    ),
    "plain pickle": file(
        "p.pkl", lambda: Path("p.pkl").write_bytes(pickle.dumps({"w": 1})), "plain Python pickle", "never run"
    ),
    "no tensors": file("n.pt", lambda: torch.save({"epoch": 3}, "n.pt"), "n.pt", "state"),
    "NaN weights": file("nan.safetensors", with_nan, "0.weight has 1 NaN or infinite value", "take an earlier one"),
    "other shape": file("shape.safetensors", other_shape, "another shape", "arguments of its factory", code=2),
    "other names": file(
        "w.safetensors", lambda: save({"w": [1.0]}, "w.safetensors"), "do not fit the model", "as it was", code=2
    ),
    # ---- the problem
    "factory raises": wrong(
        "raises", "raised FileNotFoundError: no folder /data/cifar10 at problems.py:", "correct it"
    ),
    "no such function": wrong("problm", "has no 'problm'; did you mean 'problem'", "define it"),
    "no Problem": wrong("returns_a_number", "returned a int", "return samdiag.Problem"),
    "no such module": flags("--rho", "1", "--problem", "nowhere:problem", what="not found", todo="samdiag.toml"),
    "no such file": flags("--rho", "1", "--problem", "nowhere.py:problem", what="no such file", todo="looked in"),
    "no reference": flags("--rho", "1", "--problem", "nowhere", what="module:function", todo="command line"),
    "loss raises": wrong("loss_raises", "the loss raised KeyError: 'labels'", "loss(model, batch)"),
    "vector loss": wrong("loss_vector", "the loss is not a scalar: it has shape (16,)", "loss.mean()"),
    "float loss": wrong("loss_float", "the loss returned float, not a tensor", "0-dim tensor"),
    "NaN loss": wrong("loss_nan", "the loss is nan", "take an earlier checkpoint", code=3),
    "infinite loss": wrong("loss_infinite", "the loss is inf", "take an earlier checkpoint", code=3),
    "constant loss": wrong("loss_constant", "does not depend on the model's parameters", "compute it from the model"),
    "detached loss": wrong("loss_detached", "does not depend on the model's parameters", "detach()"),
    "loss of another model": wrong("loss_of_another_model", "does not depend on the model's", "compute it from"),
    "random loss": wrong("loss_random", "the loss is not deterministic", "remove the randomness", code=3),
    "no batches": wrong("no_batches", "the data is empty", "check the path and the split"),
    "empty batch": wrong("empty_batch", "a batch has no samples", "drop empty batches"),
    "generator": wrong("generator", "can be read only once", "not a generator"),
    "loader changes": wrong("loader_changes", "the data loader is not deterministic", "list(loader)", code=3),
    "loader raises": wrong("loader_raises", "the data raised OSError: stale file handle", ""),
    "nothing to train": wrong("frozen", "no trainable parameters", "requires_grad=True"),
    "out of memory": wrong("memory_for_none", "out of memory on a batch of 1 sample(s)", "--device cpu", code=3),
    "empty dataset": Mistake(
        code=2,
        what="no batches",
        todo="at least one",
        args=(
            *(A, "--rho", "0.1", "--model", "problems.py:model", "--loss", "cross_entropy"),
            *("--data", "problems.py:no_data"),
        ),
    ),
    "half a spec": Mistake(
        code=2,
        what="nothing says data or loss",
        todo="--data",
        args=(A, "--rho", "0.1", "--model", "problems.py:model"),
    ),
    # ---- the settings
    "no rho": flags(what="rho is not known", todo="--rho 0.05"),
    "rho zero": flags("--rho", "0", what="sam.rho = 0.0 (command line)", todo="command line"),
    "rho negative": flags("--rho", "-0.1", what="sam.rho = -0.1", todo="command line"),
    "rho NaN": flags("--rho", "nan", what="sam.rho = nan", todo="command line"),
    "rho infinite": flags("--rho", "inf", what="sam.rho = inf", todo="command line"),
    "negative lr": flags("--rho", "1", "--lr", "-1", what="sam.lr = -1.0", todo="command line"),
    "momentum 1": flags("--rho", "1", "--momentum", "1", what="sam.momentum = 1.0", todo="command line"),
    "variant": flags("--rho", "1", "--variant", "bsam", what="sam.variant = 'bsam'", todo="command line"),
    "device": flags("--rho", "1", "--device", "tpu", what="measure.device = 'tpu'", todo="command line"),
    "dtype": flags("--rho", "1", "--dtype", "float16", what="measure.dtype = 'float16'", todo="command line"),
    "samples": flags("--rho", "1", "--samples", "0", what="measure.samples = 0", todo="command line"),
    "tol": flags("--rho", "1", "--tol", "0", what="measure.tol = 0.0", todo="command line"),
    "eigenvalues": flags(
        "--rho", "1", "--num-eigenvalues", "0", what="measure.num_eigenvalues = 0", todo="command line"
    ),
    "seed": flags("--rho", "1", "--seed", "-1", what="measure.seed = -1", todo="command line"),
    "config": flags("--rho", "1", "--config", "nowhere.toml", what="neither a file nor TOML", todo="sam.rho=0.05"),
    "config TOML": flags("--rho", "1", "--config", "sam.rho=", what="not valid TOML", todo="correct"),
    "config key": flags("--config", "sam.roh=1", what="sam.roh (--config) is unknown; did you mean", todo="rho"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_two_lines_and_nothing_on_stdout(mistake: Mistake, work: Path, inspect: Run) -> None:
    mistake.prepare()
    ran = inspect(*mistake.args)
    assert ran.code == mistake.code, ran.err
    assert ran.out == ""
    lines = [
        line
        for line in ran.err.splitlines()
        if line not in {"before the failure", "a line of the training script's own"}
    ]
    what, todo, *_ = lines
    assert what.startswith("samdiag: ")
    assert mistake.what in what
    assert todo.startswith("  ")
    assert todo.strip()
    assert mistake.todo in "\n".join(lines[1:])
    assert all(line.startswith("  ") for line in lines[1:])
    assert "internal error" not in ran.err


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_same_as_json(mistake: Mistake, work: Path, inspect: Run, valid: Callable[[Any], None]) -> None:
    mistake.prepare()
    ran = inspect(*mistake.args, "--format", "json")
    assert ran.code == mistake.code
    valid(ran.report)
    failure = ran.report["failure"]
    assert mistake.what in failure["what"]
    assert mistake.todo in failure["todo"]
    assert failure["exit_code"] == mistake.code
    assert ran.report["verdict"] == "undecided"
    assert ran.report["checkpoint"]["path"] == mistake.args[0]
    assert ran.report["measurements"] is None


def test_no_spec_prints_the_lines_to_add(work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1")
    assert ran.code == 2
    assert ran.out == ""
    assert "nothing says which model, data and loss the checkpoint belongs to" in ran.err.splitlines()[0]
    for line in ('problem = "train:problem"', 'pythonpath = ["."]', "[tool.samdiag]", "--problem train.py:problem"):
        assert line in ran.err


def test_the_lines_to_add_work(work: Path, inspect: Run) -> None:
    """What the message says, followed to the letter."""
    (work / "training.py").write_text((work / "problems.py").read_text())
    (work / "samdiag.toml").write_text('problem = "training:problem"\npythonpath = ["."]\n')
    assert inspect(A, "--rho", "0.1").code == 0


@pytest.mark.parametrize("format", ["text", "json"])
def test_rho_that_is_no_number(format: str, work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "abc", "--format", format)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == ["samdiag: --rho 'abc' is not a number", "  give a positive number, e.g. --rho 0.05"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "no checkpoint is named"),
        ((A, "--lr", "abc"), "--lr"),
        ((A, "--roh", "1"), "--rho"),
        ((A, "--format", "yaml"), "choose text or json or markdown"),
        ((A, "--fail-on", "minimun"), "did you mean `minimum`?"),
        ((A, "--fail-on", ","), "--fail-on is empty"),
        ((A, "--fail-on", "never,any"), "write `never` alone"),
        ((A, "--output", "nowhere/report.txt"), "give --output a file in a folder that exists"),
        ((A, "--output", "runs"), "give --output a file"),
    ],
)
def test_bad_flags_stop_before_anything_is_read(
    arguments: tuple[str, ...], part: str, work: Path, inspect: Run
) -> None:
    ran = inspect(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert part in ran.err


def test_a_missing_gpu_is_said(work: Path, inspect: Run) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    ran = inspect(A, *HONEST, "--device", "cuda")
    assert (ran.code, ran.out) == (2, "")
    assert "torch sees no GPU" in ran.err
    assert "--device cpu" in ran.err


# ---------------------------------------------------------------- out of memory


def test_halves_the_batch_and_goes_on(work: Path, inspect: Run, valid: Callable[[Any], None]) -> None:
    whole = inspect(A, *HONEST, "--format", "json").report
    for function in ("memory_for_four", "memory_for_four_backward"):
        ran = inspect(A, "--rho", "0.1", "--problem", f"problems.py:{function}", "--format", "json")
        assert ran.code == 0, ran.err
        valid(ran.report)
        assert any("memory ran out: batches were halved" in note for note in ran.report["measurements"]["notes"])
        for name in ("loss", "grad_norm", "lambda_max", "lambda_min", "perturbed_grad_norm"):
            ours, theirs = ran.report["measurements"][name]["value"], whole["measurements"][name]["value"]
            assert ours == pytest.approx(theirs, rel=1e-3)


def test_memory_only_for_the_comparison_in_float64(work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1", "--problem", "problems.py:memory_for_four_in_float64", "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.report["measurements"]["self_check"]["passed"]


def test_cross_check_after_halving(work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1", "--problem", "problems.py:memory_for_four", "--cross-check", "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.report["measurements"]["second_opinion"]["lambda_max_agrees"]


def test_no_memory_at_all_for_float64(work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1", "--problem", "problems.py:memory_for_none_in_float64", "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.report["measurements"]["self_check"]["finite_difference_error"] is None


def test_no_memory_for_the_model(work: Path, inspect: Run) -> None:
    ran = inspect(A, "--rho", "0.1", "--problem", "problems.py:raises_out_of_memory")
    assert ran.code == 3
    assert "out of memory" in ran.err


# ---------------------------------------------------------------- bugs of our own


def explode(*_: object, **__: object) -> None:
    raise ZeroDivisionError("the message\nof the bug")


def check_internal(ran: Ran) -> None:
    assert (ran.code, ran.out) == (3, "")
    what, todo = [line for line in ran.err.splitlines() if "training script" not in line]
    assert "internal error: ZeroDivisionError at test_failures.py:" in what
    assert "the message of the bug" in what
    assert "please report it" in todo


def test_a_bug_asks_to_be_reported(work: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samdiag.verdicts.judge_all", explode)
    check_internal(inspect(A, *HONEST))


@pytest.mark.parametrize(
    "name", ["measuring.measure_gap", "measuring.measure_ridge", "curved.check_products", "curved.measure_spectrum"]
)
def test_a_bug_while_measuring_is_not_the_users(
    name: str, work: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"samdiag.measure.{name}", explode)
    check_internal(inspect(A, *HONEST))
