"""Project files that others could have written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.hostile.attack import Ground, write
from tests.hostile.containers import state, torch_bytes
from tests.hostile.guard import bounded, watched

ROOT = hasattr(os, "getuid") and os.getuid() == 0
NAMES = ("samdiag.toml", "pyproject.toml")


def evil(ground: Ground, name: str) -> str:
    """Settings that run a file, which creates the marker."""
    source = f"open({str(ground.marker)!r}, 'w').close()\ndef problem(): raise SystemExit\n"
    write(ground.work / "evil.py", source)
    settings = 'problem = "evil.py:problem"\n'
    return f"[tool.samdiag]\n{settings}" if name == "pyproject.toml" else settings


def _world_writable_file(path: Path, text: str, _: Ground) -> None:
    write(path, text).chmod(0o666)


def _world_writable_folder(path: Path, text: str, _: Ground) -> None:
    write(path, text)
    path.parent.chmod(0o777)


def _another_owner(path: Path, text: str, _: Ground) -> None:
    os.chown(write(path, text), 12345, 12345)


def _sticky_folder_of_another(path: Path, text: str, _: Ground) -> None:
    """As /tmp: everybody may create files there, nobody may replace another's."""
    _another_owner(path, text, _)
    path.parent.chmod(0o1777)


def _link_to_another_owner(path: Path, text: str, ground: Ground) -> None:
    target = write(ground.outside / path.name, text)
    os.chown(target, 12345, 12345)
    path.symlink_to(target)


def _link_to_world_writable(path: Path, text: str, ground: Ground) -> None:
    target = write(ground.outside / path.name, text)
    target.chmod(0o666)
    path.symlink_to(target)


def _link_into_world_writable_folder(path: Path, text: str, ground: Ground) -> None:
    """The link is the user's own; what it leads to can be replaced by anybody."""
    target = write(ground.outside / path.name, text)
    ground.outside.chmod(0o777)
    path.symlink_to(target)


WAYS = {
    "everybody may write to it": (_world_writable_file, False),
    "everybody may write to its folder": (_world_writable_folder, False),
    "it belongs to another": (_another_owner, True),
    "it belongs to another in a sticky folder": (_sticky_folder_of_another, True),
    "it is a link to another's": (_link_to_another_owner, True),
    "it is a link to what everybody may write": (_link_to_world_writable, False),
    "it is a link into a folder of everybody's": (_link_into_world_writable_folder, False),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_refused(way: str, name: str, ground: Ground, run: Run, record_property: Callable[[str, object], None]) -> None:
    put, needs_root = WAYS[way]
    if needs_root and not ROOT:
        pytest.skip("only root may give files away")
    checkpoint = write(ground.work / "runs" / "model.pt", torch_bytes(state()))
    put(ground.work / name, evil(ground, name), ground)
    for command in (("inspect", checkpoint, "--rho", "0.1"), ("inspect", checkpoint, "--rho", "0.1", "--explain")):
        with bounded(), watched() as events:
            ran = run(*command)
        assert ran.code == 2, ran.err
        assert "is refused" in ran.err
        assert not ground.marker.exists()
        assert not events
    record_property("attacks", 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"x" * 2_000_000, "larger"),
        (b"\xff\xfe", "UTF-8"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "TOML"),
        (b"a" + b".a" * 30_000 + b" = 1", ""),
        (b"x = " + b"9" * 900_000, ""),
        (b'problem = "a:b"\n\x1b[2J', "TOML"),
        (b'"\x1b[2J" = 1', "TOML"),
        (b'"\\u001b[2J" = 1', "unknown"),
        (b'sam.rho = "\\u202e\\u001b]0;x\\u0007"', "sam.rho"),
        (b"sam.rho = inf", "sam.rho"),
        (b"sam.rho = 1e400", "sam.rho"),
        (b"measure.seed = 99999999999999999999999", "measure.seed"),
    ],
    ids=[
        *("too large", "no UTF-8", "deep", "a key of 30 000 parts", "an integer of 900 000 digits", "escape"),
        *("escape in a key", "escaped escape", "escape in a value", "infinity", "overflow", "large seed"),
    ],
)
def test_its_text_is_bounded_and_escaped(
    content: bytes, says: str, ground: Ground, run: Run, record_property: Callable[[str, object], None]
) -> None:
    from tests.hostile.printing import check

    checkpoint = write(ground.work / "runs" / "model.pt", torch_bytes(state()))
    write(ground.work / "samdiag.toml", content)
    with bounded(), watched() as events:
        ran = run("inspect", checkpoint, "--rho", "0.1")
    assert ran.code == 2, ran.err
    assert says in ran.err
    assert not events
    check(ran)
    record_property("attacks", 1)
