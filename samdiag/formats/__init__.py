"""Checkpoint files: recognised by content, read without ever running what they contain."""

from samdiag.formats.checkpoint import Checkpoint, Hint
from samdiag.formats.opening import open_checkpoint

__all__ = ["Checkpoint", "Hint", "open_checkpoint"]
