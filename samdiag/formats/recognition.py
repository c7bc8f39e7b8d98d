"""From a file to a Checkpoint, by what the file contains and not by what it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from samdiag import registry
from samdiag.errors import CannotDecide, SamdiagError
from samdiag.formats.checkpoint import Checkpoint
from samdiag.formats.content import Content
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


def open_file(content: Content) -> Checkpoint:
    """The checkpoint that a file is, alone.

    Raises:
        CannotDecide: the file is damaged, of a format that samdiag does not read, or a pickle of code (exit 3).
    """
    for entry in registry.FORMATS.values():
        known: Format = registry.load(entry)
        if known.recognises(content):
            with damage_told(content.name):
                return known.open(content)
    raise refusal(content)


@contextmanager
def damage_told(name: str) -> Iterator[None]:
    """A context in which whatever a hostile or damaged file makes a reader raise becomes CannotDecide."""
    try:
        yield
    except SamdiagError:
        raise
    except MemoryError:
        raise CannotDecide(f"{name} does not fit into memory", "inspect it on a machine with more") from None
    except Exception as error:
        reason = f"{type(error).__name__} while reading it"
        raise CannotDecide(f"{name} is damaged: {reason}", "write the checkpoint again") from error
