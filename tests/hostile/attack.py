"""One row of the table of attacks: what is written, what is run on it, and how it must end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CKPT = "<checkpoint>"  # stands for the path that `make` returns
OWN = ("inspect", CKPT, "--rho", "0.1", "--problem", "problems.py:problem")  # the user names the problem
ALONE = ("inspect", CKPT, "--rho", "0.1")  # nobody but the checkpoint says what it is of

EXAMINED, USAGE, UNDECIDED = 0, 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where an attack takes place.

    Attributes:
        work: the folder that the user works in: problems.py, which is honest.
        download: a folder in it for what came from elsewhere; the attack writes here.
        outside: a folder beside `work` that nothing named by an artifact may reach; `secret.safetensors` in it holds
            honest weights, so that a reader that does go there succeeds.
        marker: a file that the payloads try to create.
    """

    work: Path
    download: Path
    outside: Path
    marker: Path

    @property
    def secret(self) -> Path:
        return self.outside / "secret.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A hostile file or folder and its proper end.

    Attributes:
        name: class and variant, as the test's id.
        make: writes it and returns the path to give to the command.
        code: the exit code; None: 2 or 3, where it is a matter of which reader notices first.
        says: part of what is printed, on either stream.
        command: arguments, with CKPT for the path.
        makes: names of files that the command itself writes into the working folder.
        everywhere: whether the other commands look at it too; False for the few that take seconds to parse.
        silent: texts that must not be printed, e.g. an argument's value that the attack tried to push.
    """

    name: str
    make: Callable[[Ground], Path]
    says: str
    code: int | None = UNDECIDED
    command: tuple[str, ...] = OWN
    makes: frozenset[str] = frozenset()
    silent: tuple[str, ...] = ()
    everywhere: bool = True


def write(path: Path, content: bytes | str) -> Path:
    """The file with its folders; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
