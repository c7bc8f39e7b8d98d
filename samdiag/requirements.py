"""What a user requires of a measurement: `"lambda_max < 200 and grad_norm <= 1e-3"` as plain values. Nothing is
evaluated as code: a name, an operator and a number are looked up and compared.

    requirement = condition { " and " condition }
    condition   = name operator number
    operator    = "<" | "<=" | ">" | ">=" | "==" | "!="
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from samdiag.errors import UsageError
from samdiag.quantities import NAMES
from samdiag.quoting import quoted
from samdiag.suggesting import nearest

OPERATORS = ("<", "<=", ">", ">=", "==", "!=")
LONGEST = 1000  # characters: a dozen conditions; what is longer was not written by hand
EXAMPLE = "write `name operator number`, e.g. 'lambda_max < 200', several joined by `and`"

_NUMBER = r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,4})?|[+-]?inf"
_CONDITION = re.compile(rf"([A-Za-z_]\w*)\s*([<>=!]+)\s*({_NUMBER})", re.ASCII)
_AND = re.compile(r"\s+and\s+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One comparison.

    Attributes:
        name: of `quantities.NAMES`.
        operator: of OPERATORS.
        threshold: in the unit of the quantity; may be infinite, never NaN.
    """

    name: str
    operator: str
    threshold: float

    def __str__(self) -> str:
        """The one spelling of equal conditions: `lambda_max < 200`."""
        six = f"{self.threshold:g}"
        exact = six if float(six) == self.threshold else repr(self.threshold)
        return f"{self.name} {self.operator} {exact}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """Conditions that must all hold.

    Attributes:
        text: as the user wrote it, without spaces around it.
        conditions: at least one.
    """

    text: str
    conditions: tuple[Condition, ...]


def parse_requirement(text: str) -> Requirement:
    """The requirement that `text` says.

    Raises:
        UsageError: it does not fit the grammar, or names no measurement.
    """
    trimmed = text.strip()
    if not trimmed:
        raise UsageError("--require is empty", EXAMPLE)
    if len(trimmed) > LONGEST:
        raise UsageError(f"--require is longer than {LONGEST} characters: {quoted(trimmed)}", EXAMPLE)
    return Requirement(text=trimmed, conditions=tuple(_condition(part, trimmed) for part in _AND.split(trimmed)))


def parse_requirements(texts: str | Iterable[str] | None) -> tuple[Requirement, ...]:
    """All of a list, each once; None: none."""
    found = [texts] if isinstance(texts, str) else list(texts or ())
    return tuple({requirement.conditions: requirement for requirement in map(parse_requirement, found)}.values())


def _condition(part: str, whole: str) -> Condition:
    found = _CONDITION.fullmatch(part.strip())
    if found is None:
        raise UsageError(f"--require {quoted(whole)}: {quoted(part.strip())} is not a condition", EXAMPLE)
    name, operator, number = found.groups()
    if operator not in OPERATORS:
        todo = "write == for equal" if operator == "=" else f"known: {' '.join(OPERATORS)}"
        raise UsageError(f"--require {quoted(whole)}: unknown operator {operator!r}", todo)
    if name not in NAMES:
        near = nearest(name, NAMES)
        todo = f"did you mean `{near}`?" if near else f"known: {', '.join(NAMES)}"
        raise UsageError(f"--require {quoted(whole)}: no measurement is called {quoted(name)}", todo)
    threshold = float(number)
    if math.isinf(threshold) and "inf" not in number:
        raise UsageError(
            f"--require {quoted(whole)}: {number} is too large for a number", "write inf, or a smaller one"
        )
    return Condition(name=name, operator=operator, threshold=threshold + 0.0)  # −0 is 0
