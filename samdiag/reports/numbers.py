"""Numbers as a report writes them: three or four significant digits, matching error digits, ∞ and "not measured"."""

from __future__ import annotations

import math
from decimal import Decimal

from samdiag.types import Estimate

NOT_MEASURED = "not measured"
ANY_VALUE = "any"
MINUS = "−"  # as wide as a digit, unlike the hyphen
MAX_BITS = 4096  # Python refuses to write integers of more than 4300 digits, and nobody reads them
_FIXED = (1e-3, 1e6)  # magnitudes written without an exponent


def number(value: float | None, *, digits: int = 4) -> str:
    """`value` to `digits` significant digits without trailing zeros: `0.05`, `−27.75`, `1.2e-5`, `∞`."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, int):  # exact
        return _signed(str(value)) if value.bit_length() < MAX_BITS else f"an integer of {value.bit_length()} bits"
    if not math.isfinite(value) or value == 0:
        return _special(value)
    exponent = _exponent(value, digits)
    if _FIXED[0] <= abs(value) < _FIXED[1]:
        return _signed(_trimmed(f"{value:.{max(0, digits - 1 - exponent)}f}"))
    return _signed(f"{_trimmed(f'{_mantissa(value, exponent):.{digits - 1}f}')}e{exponent}")


def with_error(value: float, error: float) -> tuple[str, str]:
    """`value` and `error` as texts that end at the same decimal: `("0.0360", "± 0.0012")`; no error text for error 0.

    The error keeps two digits. One that lies beyond the fourth digit of the value is written on its own (`± 3e-14`).
    """
    if not math.isfinite(value) or error == 0 or math.isnan(error):
        return number(value), ""
    if math.isinf(error):
        return number(value), "± ∞"
    last = _exponent(error, 2) - 1  # the decimal place of the second digit of the error
    if value != 0 and last < _exponent(value, 4) - 3:
        return number(value), f"± {number(error, digits=2)}"
    scale = _exponent(max(abs(value), error), 4)
    if _FIXED[0] <= max(abs(value), error) < _FIXED[1]:
        places = max(0, -last)
        return _signed(f"{value:.{places}f}"), f"± {error:.{places}f}"
    places = max(0, scale - last)
    mantissa, spread = _mantissa(value, scale), _mantissa(error, scale)
    return _signed(f"{mantissa:.{places}f}e{scale}"), f"± {spread:.{places}f}e{scale}"


def estimate(measured: Estimate) -> tuple[str, str]:
    """Texts of the value and of its 95 % error: numerical bound plus twice the sampling error."""
    if measured.value is None or math.isnan(measured.value):
        return NOT_MEASURED, ""
    return with_error(measured.value, measured.spread())


def estimate_line(measured: Estimate) -> str:
    """Value and error in one text: `−2.31 ± 0.04`."""
    return " ".join(part for part in estimate(measured) if part)


def count(value: int | None) -> str:
    """A number of things: exact up to 99999, then `11.2 M`."""
    if value is None:
        return NOT_MEASURED
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e5, " k")):
        if value >= size:
            return number(value / (1e3 if unit == " k" else size), digits=3) + unit
    return str(value)


def seconds(value: float) -> str:
    """A duration: `0.42 s`, `12 s`, `3 min 20 s`."""
    if not math.isfinite(value):
        return f"{number(value)} s"
    if value < 60:
        return f"{number(float(value), digits=2)} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def interval(bounds: tuple[float, float] | None) -> str:
    """An allowed range: `≤ 0.036`, `≥ 8`, `0.1 … 0.3`, `any`; empty when there is none."""
    if bounds is None:
        return ""
    low, high = (float(bound) for bound in bounds)
    if low > high:
        return "no value"
    if math.isinf(high):
        return ANY_VALUE if low <= 0 else f"≥ {number(low)}"
    if low <= 0:
        return f"≤ {number(high)}"
    return number(low) if low == high else f"{number(low)} … {number(high)}"


def _exponent(value: float, digits: int) -> int:
    """Decimal exponent of `value` once it is rounded to `digits` significant digits (9.9996 counts as 10)."""
    return int(f"{abs(value):.{digits - 1}e}".partition("e")[2])


def _mantissa(value: float, exponent: int) -> Decimal:
    """`value`/10^`exponent`, exact where a power of ten would underflow."""
    return Decimal(value).scaleb(-exponent)


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _signed(text: str) -> str:
    """Minus sign instead of hyphen in front, and no negative zero."""
    if not text.startswith("-"):
        return text
    mantissa = text[1:].partition("e")[0]
    return text[1:] if float(mantissa) == 0 else MINUS + text[1:]


def _special(value: float) -> str:
    if math.isnan(value):
        return "not a number"
    if value == 0:
        return "0"
    return "∞" if value > 0 else MINUS + "∞"
