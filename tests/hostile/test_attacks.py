"""The table of attacks: each is built, looked at with every command that reads checkpoints, and fails closed."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from samdiag.cli.app import app
from tests.cli.conftest import Ran, Run
from tests.hostile import __path__ as here
from tests.hostile.attack import CKPT, Attack, Ground
from tests.hostile.guard import bounded, watched
from tests.hostile.printing import check

MODULES = [module.name for module in pkgutil.iter_modules(here) if module.name.startswith("attacks_")]
ATTACKS: list[Attack] = [
    attack for name in MODULES for attack in importlib.import_module(f"tests.hostile.{name}").ATTACKS
]
COMMANDS = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
OTHERS = [  # every other way in which a checkpoint is read: whatever they answer, nothing may run
    command
    for command in (
        ("inspect", CKPT, "--rho", "0.1", "--explain"),
        ("info", CKPT),
        ("init", CKPT, "--output", "-"),
    )
    if command[0] in COMMANDS
]


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below `folder` with its size and time of modification."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(root, name))
            found[os.path.relpath(os.path.join(root, name), folder)] = (
                (status.st_size, status.st_mtime_ns) if name in files else (0, 0)
            )
    return found


def carry_out(command: tuple[str, ...], path: Path, ground: Ground, run: Run, makes: frozenset[str]) -> Ran:
    """The command on the hostile path, with everything that must not happen checked."""
    before = tree(ground.work.parent)
    search_path, modules = list(sys.path), set(sys.modules)
    with bounded(), watched() as events:
        ran = run(*(str(path) if argument == CKPT else argument for argument in command))
    assert not ground.marker.exists(), "the payload ran"
    assert not events, events
    after = tree(ground.work.parent)
    names = {name for name in before.keys() | after.keys() if not name.startswith(".cache")}  # of datasets
    changed = {name for name in names if before.get(name) != after.get(name)}
    assert changed <= {os.path.join("work", name) for name in makes}, changed
    assert str(ground.download) not in sys.path[: len(sys.path) - len(search_path) + 1]
    imported = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - modules}
    assert not {name for name, file in imported.items() if file.startswith((str(ground.download), str(ground.outside)))}
    check(ran)
    return ran


def test_names_are_unique() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_attack(attack: Attack, ground: Ground, run: Run, record_property: Callable[[str, object], None]) -> None:
    path = attack.make(ground)
    ran = carry_out(attack.command, path, ground, run, attack.makes)
    said = ran.out + ran.err
    assert ran.code == attack.code if attack.code is not None else ran.code in {2, 3}, said
    assert attack.says in said
    assert not [text for text in attack.silent if text in said]
    for command in OTHERS if attack.everywhere else ():
        assert carry_out(command, path, ground, run, frozenset()).code in {0, 2, 3}
    record_property("attacks", 1)
