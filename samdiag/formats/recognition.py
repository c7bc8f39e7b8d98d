"""From a path to a Checkpoint, by what the file contains and not by what it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from samdiag import registry
from samdiag.errors import CannotDecide, SamdiagError
from samdiag.formats.checkpoint import Checkpoint
from samdiag.formats.content import Content, look_at
from samdiag.formats.refused import refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way of storing weights.

    Attributes:
        recognises: whether the first bytes are of this format, however damaged the rest may be.
        open: the Checkpoint, or CannotDecide with what is wrong with the file.
    """

    recognises: Callable[[Content], bool]
    open: Callable[[Content], Checkpoint]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`, opened without running anything it contains.

    A safetensors file is read up to its header; a torch file is memory-mapped with `weights_only=True`, which nothing
    turns off.

    Raises:
        UsageError: there is no such file, or it is a folder (exit 2).
        CannotDecide: the file is damaged, of a format that samdiag does not read, or a pickle of code (exit 3).
    """
    content = look_at(Path(path))
    for entry in registry.FORMATS.values():
        known: Format = registry.load(entry)
        if known.recognises(content):
            return _open(known, content)
    raise refusal(content)


def _open(known: Format, content: Content) -> Checkpoint:
    """The checkpoint; whatever a hostile or damaged file makes a reader raise becomes CannotDecide."""
    try:
        return known.open(content)
    except SamdiagError:
        raise
    except MemoryError:
        raise CannotDecide(f"{content.name} does not fit into memory", "inspect it on a machine with more") from None
    except Exception as error:
        reason = f"{type(error).__name__} while reading it"
        raise CannotDecide(f"{content.name} is damaged: {reason}", "write the checkpoint again") from error
