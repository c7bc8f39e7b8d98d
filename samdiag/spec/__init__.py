"""What a checkpoint belongs to: who says it, whom to believe, and the Problem that results."""

from samdiag.spec.build import Built, build_problem
from samdiag.spec.discover import Resolution, resolve
from samdiag.spec.stamp import stamp

__all__ = ["Built", "Resolution", "build_problem", "resolve", "stamp"]
