"""samdiag's own way to both ends, through the functions that `samdiag inspect` calls, with everything they check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from answers import Answer, End
from cases import Case
from meters import Meter, timed

from samdiag.curvature.objective import Objective
from samdiag.curvature.products.choice import choose_engine
from samdiag.measure.opening import opened
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.spectrum import measure_spectrum
from samdiag.measure.stopping import stopping_rule
from samdiag.measure.warm_start import SUBSAMPLE, from_subsample
from samdiag.types import Problem

T = TypeVar("T")
RHO = 0.05  # the radius that the networks here were trained with; only `--until decided` looks at it
PRODUCTS = ("product", "product_of", "block")  # the methods of an objective that take products


def settings_for(tol: float, *, seed: int = 0, num_eigenvalues: int = 1, **more: Any) -> MeasureSettings:
    """All samples, both ends to `tol`; `more` as in MeasureSettings."""
    said = MeasureSettings(rho=RHO, lr=0.1, momentum=0.9, samples=None, tol=tol, seed=seed, until="converged")
    return replace(said, num_eigenvalues=num_eigenvalues, **more)


def spectrum(case: Case, settings: MeasureSettings, meter: Meter, *, top_only: bool = False) -> Answer:
    """Opening with its checks, the choice of an engine, the warm start if asked for, the solver, true residuals.

    With `top_only` the run ends when the largest eigenvalue is known to the tolerance, whatever the other end.
    """
    problem = Problem(model=case.model, loss=case.loss, batches=case.batches, population=case.num_samples)
    stages: dict[str, float] = {}

    def stage(name: str, work: Callable[[], T]) -> T:
        result, seconds = timed(work, meter.device)
        stages[name] = seconds.wall
        return result

    settings = replace(settings, device=str(meter.device))
    with metered(meter):
        context = opened(problem, settings)
        ready = stage("opening", context.__enter__)
        try:
            objective = ready.objective
            engine = stage("engine", lambda: choose_engine(objective, settings.products))
            start = None
            if settings.warm_start == SUBSAMPLE:
                start = stage(
                    "subsample",
                    lambda: from_subsample(objective, seed=settings.seed, max_products=settings.max_products),
                )
            found = stage(
                "spectrum",
                lambda: measure_spectrum(
                    objective,
                    num_eigenvalues=settings.num_eigenvalues,
                    tol=settings.tol,
                    max_products=settings.max_products,
                    seed=settings.seed,
                    population=ready.population,
                    decided=(
                        (lambda ends: ends.top_residuals[0] <= settings.tol * abs(ends.top[0]))
                        if top_only
                        else stopping_rule(settings, RHO)
                    ),
                    rough=top_only or settings.until == "decided",
                    start=start,
                    block=settings.block,
                ),
            )
            products = objective.num_products
            split = objective.split
        finally:
            context.__exit__(None, None, None)
    top, bottom = found.top[0].value, found.bottom[0].value
    assert top is not None
    assert bottom is not None
    return Answer(
        top=End(value=top, vector=torch.clone(found.top_vectors[0])),
        bottom=None if top_only else End(value=bottom, vector=torch.clone(found.bottom_vectors[0])),
        products=products,
        stages=stages,
        remark=f"{engine.name}, {100 * engine.kept_share:.0f} % kept, {split} splits; {found.run.stopped}",
    )


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Every product of every samdiag objective goes through `meter` inside."""
    originals: dict[str, Any] = {name: getattr(Objective, name) for name in PRODUCTS}
    for name in PRODUCTS:
        setattr(Objective, name, meter.wrap(originals[name]))
    try:
        yield
    finally:
        for name in PRODUCTS:
            setattr(Objective, name, originals[name])
