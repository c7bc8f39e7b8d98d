"""Rows of an experiment from numbers: what was expected, what was measured, and whether the two agree."""

from __future__ import annotations

import math

from samdiag.gallery.experiment import Row
from samdiag.reports.numbers import number

ROUNDING = 1e-6  # tolerances up to this only make room for rounding errors


def compared(
    quantity: str,
    measured: float,
    expected: float,
    *,
    relative: float = 0.0,
    absolute: float = 0.0,
    published: str = "",
    digits: int = 4,
    unit: str = "",
) -> Row:
    """A row that agrees if |measured − expected| ≤ relative·|expected| + absolute; NaN never agrees.

    Args:
        quantity: what it is.
        measured, expected: in the same unit.
        relative: tolerance as a fraction of what is expected.
        absolute: tolerance in the unit of the numbers.
        published: what the paper says.
        digits: significant digits of both.
        unit: written behind both, with its blank.
    """
    parts = [f"{100 * relative:g} %"] if relative > ROUNDING else []
    parts += [number(absolute, digits=2)] if absolute > ROUNDING else []
    return Row(
        quantity=quantity,
        published=published,
        expected=number(expected, digits=digits) + unit,
        measured=("none" if math.isnan(measured) else number(measured, digits=digits)) + unit,
        agrees=bool(abs(measured - expected) <= relative * abs(expected) + absolute),  # NumPy's bool is no JSON
        tolerance=f"± {' + '.join(parts)}" if parts else "rounding" if relative or absolute else "exact",
    )


def within(quantity: str, measured: float, low: float, high: float, *, published: str = "", digits: int = 4) -> Row:
    """A row that agrees if low ≤ measured ≤ high."""
    return Row(
        quantity=quantity,
        published=published,
        expected=f"{number(low, digits=digits)} to {number(high, digits=digits)}",
        measured="none" if math.isnan(measured) else number(measured, digits=digits),
        agrees=bool(low <= measured <= high),
        tolerance="within",
    )


def happened(quantity: str, measured: str, expected: str, *, published: str = "") -> Row:
    """A row about what a run did: the same words on both sides agree."""
    return Row(
        quantity=quantity, published=published, expected=expected, measured=measured, agrees=measured == expected
    )
