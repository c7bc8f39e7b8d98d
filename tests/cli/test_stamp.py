"""`samdiag stamp`: the spec goes into the checkpoint, and nothing else changes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from samdiag.formats import open_checkpoint
from tests.cli.conftest import Run

CATALOG = ("--model", "digits-mlp", "--data", "digits", "--loss", "cross_entropy")
PROJECT = """
model = { gallery = "digits-mlp", args = { hidden = 8 } }
data = { gallery = "digits", num_samples = 64 }
loss = "cross_entropy"
sam = { rho = 0.25, momentum = 0.5 }
"""


@pytest.fixture
def checkpoint(work: Path) -> Path:
    """A file with metadata of its own."""
    torch.manual_seed(0)
    tensors = {"w": torch.randn(3, 4), "half": torch.randn(5).half(), "brain": torch.randn(2, 2).bfloat16()}
    save_file(tensors, work / "a.safetensors", metadata={"format": "pt", "author": "somebody"})
    return work / "a.safetensors"


def test_what_the_command_line_says(run: Run, checkpoint: Path) -> None:
    before = load_file(checkpoint)
    ran = run("stamp", checkpoint, *CATALOG, "--rho", "0.25", "--lr", "0.5", "--nesterov", "--batch-size", "32")
    assert ran.code == 0
    found = open_checkpoint(checkpoint)
    assert found.stamp == {
        "model": {"gallery": "digits-mlp", "args": {}},
        "data": {"gallery": "digits", "args": {}},
        "loss": {"name": "cross_entropy"},
        "sam": {"rho": 0.25, "lr": 0.5, "nesterov": True, "batch_size": 32},
    }
    assert found.metadata == {"format": "pt", "author": "somebody"}
    after = load_file(checkpoint)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name].view(torch.uint8), before[name].view(torch.uint8)) for name in before)


def test_what_the_project_file_says_and_the_command_line_overrules(run: Run, work: Path, checkpoint: Path) -> None:
    (work / "samdiag.toml").write_text(PROJECT)
    ran = run("stamp", checkpoint, "--rho", "0.5")
    assert ran.code == 0
    assert "data.num_samples is left out" in ran.err
    stamp = open_checkpoint(checkpoint).stamp
    assert stamp["sam"] == {"rho": 0.5, "momentum": 0.5}
    assert stamp["model"] == {"gallery": "digits-mlp", "args": {"hidden": 8}}
    assert stamp["data"] == {"gallery": "digits", "args": {}}


def test_what_a_named_file_says(run: Run, work: Path, checkpoint: Path) -> None:
    (work / "other.toml").write_text(PROJECT)
    assert run("stamp", checkpoint, "--from", "other.toml").code == 0
    assert open_checkpoint(checkpoint).stamp["sam"] == {"rho": 0.25, "momentum": 0.5}


def test_the_stamped_file_is_all_that_inspect_needs(run: Run, work: Path) -> None:
    from samdiag.gallery.digits import mlp

    torch.manual_seed(0)
    save_file(mlp(hidden=4).state_dict(), work / "b.safetensors")
    model = '--config=model={ gallery = "digits-mlp", args = { hidden = 4 } }\ndata="digits"\nloss="cross_entropy"'
    assert run("stamp", "b.safetensors", model, "--rho", "0.125").code == 0
    ran = run("inspect", "b.safetensors", "--explain")
    assert ran.code == 0
    assert "0.125" in ran.out
    assert "stamp in the checkpoint" in ran.out


def test_show_prints_a_samdiag_toml(run: Run, checkpoint: Path) -> None:
    run("stamp", checkpoint, *CATALOG, "--rho", "0.25")
    ran = run("stamp", checkpoint, "--show")
    assert ran.code == 0
    assert tomllib.loads(ran.out) == open_checkpoint(checkpoint).stamp


def test_show_where_there_is_none(run: Run, checkpoint: Path) -> None:
    ran = run("stamp", checkpoint, "--show")
    assert (ran.code, ran.out) == (3, "")
    assert "has no stamp" in ran.err


def test_show_escapes_what_a_terminal_would_obey(run: Run, work: Path) -> None:
    text = '{"model": "\\u001b[31m\\u202e"}'
    save_file({"w": torch.zeros(2)}, work / "evil.safetensors", metadata={"samdiag": text})
    ran = run("stamp", "evil.safetensors", "--show")
    assert "\x1b" not in ran.out
    assert "\u202e" not in ran.out
    assert "model" in ran.out


def test_remove_leaves_the_file_as_it_was(run: Run, checkpoint: Path) -> None:
    run("stamp", checkpoint, *CATALOG)
    once = checkpoint.read_bytes()
    assert run("stamp", checkpoint, "--remove").code == 0
    found = open_checkpoint(checkpoint)
    assert (found.stamp, found.metadata) == (None, {"format": "pt", "author": "somebody"})
    run("stamp", checkpoint, *CATALOG)
    assert checkpoint.read_bytes() == once
    assert "had no stamp" in [run("stamp", checkpoint, "--remove"), run("stamp", checkpoint, "--remove")][1].err


def test_a_hugging_face_directory_of_one_file(run: Run, work: Path, checkpoint: Path) -> None:
    (work / "hf").mkdir()
    checkpoint.rename(work / "hf" / "model.safetensors")
    assert run("stamp", "hf", *CATALOG).code == 0
    assert open_checkpoint(work / "hf").stamp["model"] == {"gallery": "digits-mlp", "args": {}}


@pytest.mark.parametrize("name", ["a.pt", "folder"])
def test_what_has_no_room_says_where_it_can_go(run: Run, work: Path, name: str) -> None:
    (work / "folder").mkdir()
    torch.save({"w": torch.zeros(2)}, work / "a.pt")
    ran = run("stamp", name, *CATALOG)
    assert ran.code == 2
    assert "room for a stamp" in ran.err
    assert "--sidecar" in ran.err


def test_a_sidecar_beside_any_format_is_heard(run: Run, work: Path) -> None:
    torch.save({"w": torch.zeros(2)}, work / "a.pt")
    assert run("stamp", "a.pt", *CATALOG, "--rho", "0.375", "--sidecar").code == 0
    assert tomllib.loads((work / "a.pt.samdiag.toml").read_text())["sam"] == {"rho": 0.375}
    ran = run("inspect", "a.pt", "--explain")
    assert "0.375" in ran.out
    assert "sidecar" in ran.out
    again = run("stamp", "a.pt", *CATALOG, "--sidecar")
    assert (again.code, "--force" in again.err) == (2, True)
    assert run("stamp", "a.pt", *CATALOG, "--sidecar", "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "train.py:model", "--data", "digits", "--loss", "mse"), "may not name code"),
        (("--config", 'problem = "problems.py:problem"'), "code of your own"),
        ((*CATALOG, "--rho", "-1"), "greater than 0"),
        ((*CATALOG, "--data", "digtis"), "did you mean 'digits'?"),
        (("--show", "--remove"), "exclude"),
        (("--show", "--rho", "0.1"), "take no settings"),
        ((), "nothing says"),
    ],
)
def test_what_is_refused_changes_nothing(run: Run, checkpoint: Path, arguments: tuple[str, ...], said: str) -> None:
    before = checkpoint.read_bytes()
    ran = run("stamp", checkpoint, *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("said", [("--rho", "0.1"), ("--model", "digits-mlp")])
def test_what_is_left_to_say_is_what_a_stamp_can(run: Run, checkpoint: Path, said: tuple[str, ...]) -> None:
    ran = run("stamp", "a.safetensors", *said)
    assert ran.code == 2
    assert "samdiag stamp a.safetensors --model … --data … --loss …, or --from FILE" in ran.err
    assert "CKPT" not in ran.err
    assert "train.py" not in ran.err


def test_several_files_and_one_that_is_missing(run: Run, work: Path, checkpoint: Path) -> None:
    ran = run("stamp", checkpoint, "missing.safetensors", *CATALOG)
    assert ran.code == 3
    assert "does not exist" in ran.err
    assert open_checkpoint(checkpoint).stamp is not None
