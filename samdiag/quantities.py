"""The numbers of a diagnosis by name, for requirements, trends and comparisons."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping

from samdiag.types import Diagnosis, Estimate, Measurements

_HINTS = typing.get_type_hints(Measurements, include_extras=True)


def _is_number(hint: object) -> bool:
    kinds = {hint} if typing.get_origin(hint) is None else set(typing.get_args(hint))
    return typing.get_origin(hint) is not tuple and bool({float, int, Estimate} & kinds)


# every measurement that is one number, in the order in which they are declared
NAMES: tuple[str, ...] = tuple(
    field.name for field in dataclasses.fields(Measurements) if _is_number(_HINTS[field.name])
)


def quantity(diagnosis: Diagnosis, name: str) -> Estimate | None:
    """The measurement called `name` with its errors; None where it was not measured. A bare number is exact.

    Raises:
        KeyError: no measurement has that name; NAMES lists them.
    """
    if name not in NAMES:
        raise KeyError(name)
    if diagnosis.measurements is None:
        return None
    value = getattr(diagnosis.measurements, name)
    if value is None:
        return None
    found = value if isinstance(value, Estimate) else Estimate(value=float(value), sampling_error=0.0)
    return None if found.value is None or math.isnan(found.value) else found


def quantities(diagnosis: Diagnosis) -> Mapping[str, Estimate]:
    """Every measured number by name."""
    found = {name: quantity(diagnosis, name) for name in NAMES}
    return {name: value for name, value in found.items() if value is not None}
