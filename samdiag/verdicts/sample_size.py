"""How many samples would decide what the analysed ones leave open."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from samdiag.theory.sampling import POWER, error_at, samples_needed
from samdiag.types import BatchUpdate, Direction, Estimate, Measurements


def samples_that_decide(m: Measurements, is_open: Callable[[Measurements], bool]) -> int | None:
    """Samples with which the same values would leave nothing open; None where no number of them does.

    A value moves as its error shrinks: with three standard errors in place of two, four of five repetitions decide.

    Args:
        m: measurements that leave it open.
        is_open: what "open" means, as the verdict asks it.

    Source: theory H5 (standard errors of order 1/√n, bias of order 1/n, both 0 for the whole training set).
    """
    return samples_needed(lambda more: not is_open(with_samples(m, more)), m.num_samples, m.population)


def with_samples(m: Measurements, samples: int) -> Measurements:
    """The same values with the sampling errors of that many samples, times POWER but never more than now."""

    def smaller(estimate: Estimate) -> Estimate:
        error = estimate.sampling_error
        if not error:
            return estimate
        then = error_at(error, estimate.bias or 0.0, m.num_samples, m.population, more=samples)
        return dataclasses.replace(estimate, sampling_error=min(POWER * then, error))

    return dataclasses.replace(
        m, **{field.name: _each(getattr(m, field.name), smaller) for field in dataclasses.fields(m)}
    )


def _each(value: Any, change: Callable[[Estimate], Estimate]) -> Any:
    """`value` with every Estimate in it changed."""
    if isinstance(value, Estimate):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_each(item, change) for item in value)
    if isinstance(value, (Direction, BatchUpdate)):
        fields = {field.name: _each(getattr(value, field.name), change) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value
