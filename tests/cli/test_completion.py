"""What the shell is offered, and that offering it imports nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from samdiag.cli import completion
from samdiag.registry import LOSSES, VARIANTS

IMPORTED = (
    "import sys\nsys.argv[0] = 'samdiag'\nfrom samdiag.cli.app import main\ntry:\n    main()\nfinally:\n"
    "    print('HEAVY', [n for n in ('torch', 'numpy', 'timm', 'transformers') if n in sys.modules], file=sys.stderr)"
)
TRAIN = """
raise SystemExit("this file was run")
from torch import nn
class Net(nn.Module): ...
def data(): ...
def problem(): ...
"""


def offered(folder: Path, *words: str, shell: str = "bash") -> tuple[list[str], str]:
    """What `samdiag words…<TAB>` offers in a shell, and what was imported for it."""
    line = ["samdiag", *words]
    environment = {**os.environ, "_SAMDIAG_COMPLETE": f"complete_{shell}", "HOME": str(folder)}
    environment |= {"COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
    environment |= {"_TYPER_COMPLETE_ARGS": " ".join(line), "_TYPER_COMPLETE_WORD_TO_COMPLETE": line[-1]}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )
    return done.stdout.split(), done.stderr.strip().splitlines()[-1]


@pytest.fixture
def project(work: Path) -> Path:
    (work / "problems.py").unlink()
    (work / "train.py").write_text(TRAIN)
    (work / "runs" / "notes.md").touch()
    (work / "runs" / "b.ckpt").touch()
    return work


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ini",), ["init"]),
        (("inspect", "ru"), ["runs/"]),
        (("inspect", "runs/"), ["runs/a.safetensors", "runs/b.ckpt"]),
        (("init", "runs/b"), ["runs/b.ckpt"]),
        (("inspect", "x", "--format", "j"), ["json", "junit"]),
        (("inspect", "x", "--variant", "asam"), ["asam", "asam-samsung"]),
        (("inspect", "x", "--loss", "cross"), ["cross_entropy"]),
        (("inspect", "x", "--fail-on", "bou"), ["bounce"]),
        (("inspect", "x", "--fail-on", "bounce,saddle-a"), ["bounce,saddle-attraction"]),
        (("sweep", "x", "--model", "dig"), ["digits-mlp"]),
        (("inspect", "x", "--model", "tr"), ["train.py:Net"]),
        (("inspect", "x", "--problem", ""), ["train.py:problem"]),
        (("inspect", "x", "--device", "cu"), ["cuda", "cuda:0"]),
        (("demo", "be"), ["beale"]),
    ],
)
def test_what_is_offered(project: Path, words: tuple[str, ...], expected: list[str]) -> None:
    found, imported = offered(project, *words)
    assert found == expected
    assert imported == "HEAVY []"


def test_the_names_of_the_registry() -> None:
    choice = completion.for_setting("sam.variant")
    assert choice is not None
    assert choice("") == list(VARIANTS)
    loss = completion.for_setting("loss")
    assert loss is not None
    assert set(LOSSES) <= set(loss(""))


def test_every_closed_list_of_the_schema_is_offered() -> None:
    from samdiag.spec.schema import Spec

    closed = set()
    for table in ("sam", "measure"):
        for key in getattr(Spec.model_fields[table].annotation, "model_fields", {}):
            if completion.choices(f"{table}.{key}"):
                closed.add(f"{table}.{key}")
    assert closed == set(completion.CHOSEN)


def test_a_list_of_verdicts_does_not_repeat_itself() -> None:
    assert "bounce,bounce" not in completion.fail_on("bounce,b")
    assert "never" in completion.fail_on("")
    assert "bounce,never" not in completion.fail_on("bounce,")


@pytest.mark.parametrize("typed", ["nowhere/x", "a\0b", "/"])
def test_paths_that_are_none(work: Path, typed: str) -> None:
    assert isinstance(completion.checkpoints(typed), list)


def test_hidden_files_are_offered_when_they_are_begun(work: Path) -> None:
    (work / ".old.pt").touch()
    assert ".old.pt" not in completion.checkpoints("")
    assert completion.checkpoints(".old") == [".old.pt"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_installs(work: Path, shell: str) -> None:
    home = work / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'samdiag'; from samdiag.cli.app import main; main()",
            "--install-completion",
            shell,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert f"{shell} completion installed" in done.stdout
    assert any(path.is_file() for path in home.rglob("*"))
