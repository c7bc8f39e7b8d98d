"""A data request's `args`, taken one by one with their types; what is left over is unknown and an error."""

from __future__ import annotations

from typing import Any

from samdiag.errors import UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.requests import Request
from samdiag.suggesting import did_you_mean


class Options:
    """The arguments of one request, each asked for by name; `finish` complains of the others."""

    def __init__(self, request: Request, table: str = "data") -> None:
        self._given = dict(request.args)
        self._source = request.source
        self._prefix = f"{table}.args"
        self._known: list[str] = []

    def text(self, name: str, default: str) -> str:
        return str(self._take(name, default, "a text", str))

    def optional_text(self, name: str) -> str | None:
        found = self._take(name, None, "a text", str)
        return None if found is None else str(found)

    def choice(self, name: str, default: str | None, allowed: tuple[str, ...]) -> str | None:
        found = self._take(name, default, " or ".join(allowed), str)
        if found is not None and found not in allowed:
            raise self._wrong(name, found, f"one of {', '.join(allowed)}{did_you_mean(found, allowed)}")
        return None if found is None else str(found)

    def flag(self, name: str, default: bool) -> bool:
        return bool(self._take(name, default, "true or false", bool))

    def count(self, name: str, default: int | None, least: int = 1) -> int | None:
        found = self._take(name, default, f"a whole number of at least {least}", int)
        if found is not None and (isinstance(found, bool) or found < least):
            raise self._wrong(name, found, f"a whole number of at least {least}")
        return None if found is None else int(found)

    def number(self, name: str, default: float) -> float:
        found = self._take(name, default, "a number", (int, float))
        if isinstance(found, bool):
            raise self._wrong(name, found, "a number")
        return float(found)

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """A number, or a list of them; None where absent."""
        found = self._take(name, None, "a number or a list of numbers", (int, float, list))
        items = found if isinstance(found, list) else [] if found is None else [found]
        if any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in items):
            raise self._wrong(name, found, "a number or a list of numbers")
        return None if found is None else tuple(float(item) for item in items)

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A text, or a list of them; None where absent."""
        found = self._take(name, None, "a text or a list of texts", (str, list))
        items = found if isinstance(found, list) else [] if found is None else [found]
        if any(not isinstance(item, str) for item in items):
            raise self._wrong(name, found, "a text or a list of texts")
        return None if found is None else tuple(items)

    def finish(self) -> None:
        """Nothing, or UsageError where an argument was said that nobody asked for."""
        for name in self._given:
            if name not in self._known:
                what = f"{self._prefix}.{shown(name)} ({self._source}) is unknown{did_you_mean(name, self._known)}"
                raise UsageError(what, f"known here: {', '.join(self._known)}")

    def _take(self, name: str, default: Any, wanted: str, kind: type | tuple[type, ...]) -> Any:
        self._known.append(name)
        found = self._given.get(name, default)
        if found is not None and not isinstance(found, kind):
            raise self._wrong(name, found, wanted)
        return found

    def _wrong(self, name: str, found: Any, wanted: str) -> UsageError:
        what = f"{self._prefix}.{name} = {quoted(found)} ({self._source}) must be {wanted}"
        return UsageError(what, "correct it there")
