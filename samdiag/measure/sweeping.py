"""Measurements at many radii from one spectrum: what depends on rho alone is measured again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from samdiag.measure.base import Base, Progress, begin
from samdiag.measure.curved import Curved, look_at_curvature
from samdiag.measure.lookahead import Steps
from samdiag.measure.measuring import complete, look_near, plain_steps
from samdiag.measure.opening import opened
from samdiag.measure.ridge import Ridge, measure_ridge
from samdiag.measure.settings import MeasureSettings
from samdiag.patience import Patience
from samdiag.types import Measurements, Problem

# of the largest displacement; finer where small radii are decided
RIDGE_GRID = tuple((cell / 32) ** 2 for cell in range(1, 33))


@dataclass(slots=True)
class Scan:
    """An open scan: `at(rho)` measures one more radius at the cost of what depends on it."""

    base: Base
    curved: Curved
    plain: Steps | None
    ridge: Ridge | None
    trials: bool

    def at(self, rho: float) -> Measurements:
        """The measurements at one radius: one gradient where all samples are one batch, and
        the next steps where trials are on. The objective is left at the point.
        """
        near = look_near(self.base, rho, ridge=self.ridge, plain=self.plain, trials=self.trials)
        return complete(self.base, near, self.curved)


@contextmanager
def scanning(
    problem: Problem,
    settings: MeasureSettings,
    largest: float,
    progress: Progress | None = None,
    *,
    trials: bool = True,
) -> Iterator[Scan]:
    """A scan at the model's present weights: the gradient, the spectrum, the ridge up to `largest`, plain next steps.

    Args:
        problem: model, loss and data.
        settings: `rho` is not looked at.
        largest: the largest radius that will be asked for.
        progress: as in `measure`.
        trials: whether SAM's next steps are run at every radius, as `measure` does; else one gradient a point.

    Raises:
        UsageError, CannotDecide: see `measure.opening`.
    """
    tell = progress or (lambda _what, _count: None)
    tell("reading the data", 0)
    with opened(problem, settings) as ready:
        patience = Patience()
        patience.begin(settings.time_limit)
        base = begin(problem, settings, ready, tell, patience)
        displacement = base.rule.with_rho(largest).displacement(base.here.x, base.here.gradient)
        tell("ridge", 0)
        ridge = measure_ridge(ready.objective, base.here.x, displacement, RIDGE_GRID)
        plain = plain_steps(base) if trials else None
        curved = look_at_curvature(base, displacement, radius=None)
        yield Scan(base=base, curved=curved, plain=plain, ridge=ridge, trials=trials)
