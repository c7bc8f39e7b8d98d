"""Real stuck runs: tanh networks that SAM hallucinates on, or holds at a saddle, after the prescribed schedule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from samdiag.gallery.tanh_network_runs import examine, fresh_weights, train
from samdiag.gallery.tanh_network_study import LR, SHOWN, STEPS, diagnosed, regression
from samdiag.remedies import Schedule

from .situations import phase_at

LONG = 2000  # steps under the schedule; the runs that are rescued are below half of their loss long before


def radius(schedule: Schedule) -> Callable[[int], float]:
    def at(step: int) -> float:
        phase, k = phase_at(schedule.phases, step)
        return phase.rho_at(k)

    return at


@pytest.mark.slow
def test_stuck_networks_are_rescued_by_their_schedule() -> None:
    """Twelve runs at rho 2.5, all stuck on the plateau: every one has a schedule, and after it half of its loss."""
    problem = regression()
    ends = train(problem, fresh_weights(12, 0), rho=SHOWN, lr=LR, num_steps=STEPS).ends
    before = examine(problem, ends, SHOWN)
    assert (before.hallucinated | before.trapped).all()
    assert before.hallucinated.any()
    assert before.trapped.any()
    as_it_was = train(problem, ends, rho=SHOWN, lr=LR, num_steps=LONG).ends
    assert (problem.loss_and_gradient(as_it_was)[0] > 0.9 * before.loss).all()
    pace = []
    for start, loss, flag in zip(ends, before.loss, before.hallucinated, strict=True):
        diagnosis = diagnosed(start, SHOWN)
        assert diagnosis.prescription is not None
        schedule = diagnosis.prescription.schedule
        assert schedule is not None
        after = train(problem, start[None], rho=radius(schedule), lr=LR, num_steps=LONG).ends
        assert problem.loss_and_gradient(after)[0][0] < 0.5 * loss
        if flag:
            assert diagnosis.measurements is not None
            ridge = diagnosis.measurements.ridge_distance.value
            assert ridge is not None
            assert schedule.steps is not None
            x, steps = start[None], 0
            while np.linalg.norm(x - start) < 0.5 * ridge:
                x, steps = train(problem, x, rho=schedule.phases[0].rho, lr=LR, num_steps=1).ends, steps + 1
            pace.append(steps / schedule.steps)
    assert 0.7 < np.median(pace) < 1.6
