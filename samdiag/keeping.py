"""What one measurement leaves for the next one, on other weights of the same problem."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Keep:
    """Values that do not depend on the weights, made once: the data on its device, the guarded loss.

    Attributes:
        latest: values that the last measurement replaced: the eigenvectors that it ended with.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        self.latest: dict[str, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned the first time that `key` was asked for."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found
