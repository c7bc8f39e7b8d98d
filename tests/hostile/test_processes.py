"""Code that lies beside a checkpoint, met by a process that is started in that very folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CALL, process
from tests.hostile.attack import Ground, write
from tests.hostile.containers import state, torch_bytes

MODULES = (  # files that Python, torch or samdiag would import if the folder were searched
    *("torch.py", "numpy/__init__.py", "safetensors.py", "samdiag.py", "typer.py", "pydantic.py", "rich/__init__.py"),
    *("sitecustomize.py", "usercustomize.py", "json.py", "random.py", "conftest.py", "transformers/__init__.py"),
    *("timm.py", "pickle.py", "zipfile.py", "__init__.py", "__main__.py", "evil.pth", "model.py", "modeling.py"),
)
STARTS = {
    "the script": ("-c", CALL),  # what the console script does; its sys.path lacks the working folder
    "python -m samdiag": ("-m", "samdiag"),
}


def hostile_folder(ground: Ground) -> Path:
    """A downloaded folder: a checkpoint with honest weights among modules that create the marker when imported."""
    source = f"open({str(ground.marker)!r}, 'w').close()\n"
    for name in MODULES:
        write(ground.download / name, f"import os; {source}" if name.endswith(".pth") else source)
    write(ground.download / "model.pt", torch_bytes(state()))
    return ground.download


@pytest.mark.parametrize("command", [("inspect", "model.pt", "--rho", "0.1"), ("info", "model.pt")], ids=lambda c: c[0])
def test_modules_beside_the_checkpoint(
    command: tuple[str, ...], ground: Ground, record_property: Callable[[str, object], None]
) -> None:
    """As the console script starts: its own folder is searched, the working folder is not."""
    folder = hostile_folder(ground)
    script = Path(sys.executable).with_name("samdiag")
    assert script.exists(), "install the package: pip install -e ."
    ran = process(*command, python=(str(script),), cwd=folder, env=_environment(ground))
    assert not ground.marker.exists()
    assert ran.code in {0, 2}, ran.err
    assert "Traceback" not in ran.err
    record_property("attacks", len(MODULES))


def test_python_m_in_the_folder_itself(ground: Ground, record_property: Callable[[str, object], None]) -> None:
    """`python -m` puts the working folder first on its search path, before samdiag can say no: with -P it does not."""
    folder = hostile_folder(ground)
    ran = process("info", "model.pt", python=("-P", "-m", "samdiag"), cwd=folder, env=_environment(ground))
    assert not ground.marker.exists()
    assert ran.code == 0, ran.err
    record_property("attacks", 1)


def test_a_module_named_on_the_command_line_is_not_taken_from_there(
    ground: Ground, record_property: Callable[[str, object], None]
) -> None:
    folder = hostile_folder(ground)
    script = Path(sys.executable).with_name("samdiag")
    command = ("inspect", "model.pt", "--rho", "0.1", "--problem", "modeling:problem")
    ran = process(*command, python=(str(script),), cwd=folder, env=_environment(ground))
    assert not ground.marker.exists()
    assert ran.code == 2
    assert "never searched" in ran.err
    record_property("attacks", 1)


def test_a_project_file_beside_the_checkpoint(ground: Ground, record_property: Callable[[str, object], None]) -> None:
    """The search begins where the user stands, not where the checkpoint lies."""
    folder = hostile_folder(ground)
    for name, text in (
        ("samdiag.toml", 'problem = "modeling:problem"\npythonpath = ["."]\n'),
        ("pyproject.toml", '[tool.samdiag]\nproblem = "modeling:problem"\npythonpath = ["."]\n'),
    ):
        write(folder / name, text)
        script = Path(sys.executable).with_name("samdiag")
        ran = process("inspect", "download/model.pt", "--rho", "0.1", python=(str(script),), cwd=ground.work)
        assert not ground.marker.exists()
        assert ran.code == 2
        assert "modeling" not in ran.err
        (folder / name).unlink()
    record_property("attacks", 2)


def _environment(ground: Ground) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
