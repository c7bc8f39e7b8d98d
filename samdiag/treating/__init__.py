"""Following a prescription: `treat_problem` in memory, `treat` on a checkpoint file."""

from samdiag.treating.checkpoint import treat
from samdiag.treating.course import treat_problem

__all__ = ["treat", "treat_problem"]
