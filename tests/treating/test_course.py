"""`treat_problem`: captured runs are rescued, and what is not rescued says why; the model holds what was kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from samdiag import Problem, advice, diagnose
from samdiag.errors import CannotDecide, UsageError
from samdiag.measure import measuring
from samdiag.measure.settings import MeasureSettings
from samdiag.remedies import Advice, Phase, Prescription, Schedule
from samdiag.treating import treat_problem
from samdiag.treating.course import Course
from samdiag.treating.examined import Examined, examine
from samdiag.treating.reasons import why_used_up
from samdiag.treating.ways import Way, timed
from samdiag.treatment import Outcome, Recipe, Round
from samdiag.verdicts.thresholds import LONG_TRIAL

from ..advice.situations import said
from ..verdicts.samples import est, measurements

F64 = torch.float64


class Point(nn.Module):
    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(start.clone())


def problem_of(start: Tensor, loss: Callable[[Tensor], Tensor], bound: float | None = None) -> Problem:
    return Problem(
        model=Point(start),
        loss=lambda m, _: loss(m.w),
        batches=[0],
        num_samples=lambda _: 1,
        population=1,
        loss_lower_bound=bound,
    )


def two_wells() -> Problem:
    """x²/2 − y²/2 + y⁴/4 close to its saddle at 0: lambda = (1, −1), minima of −1/4 at (0, ±1)."""
    return problem_of(
        torch.tensor([0.02, 0.01], dtype=F64),
        lambda w: 0.5 * w[0] ** 2 - 0.5 * w[1] ** 2 + 0.25 * w[1] ** 4,
        bound=-0.25,
    )


def weights(problem: Problem) -> Tensor:
    return problem.model.w.detach().clone()


SETTINGS = MeasureSettings(rho=0.5, lr=0.1)


def test_a_captured_run_reaches_a_minimum() -> None:
    problem = two_wells()
    lines: list[str] = []
    found = treat_problem(problem, SETTINGS, tell=lines.append)
    assert found.outcome is Outcome.RESCUED
    assert found.before is not None
    assert found.before.verdict == "saddle-attraction"
    assert found.after is not None
    assert found.after.verdict in ("descending", "saddle-escaping", "minimum")
    assert abs(weights(problem)[1]) == pytest.approx(1.0, abs=0.05)
    assert found.after.loss == pytest.approx(-0.25, abs=0.01)
    assert found.improved
    assert len(lines) == 2 * len(found.rounds)
    assert "saddle-attraction" in lines[0]
    assert f"{found.rounds[0].phases[0].steps} steps" in lines[0]


def test_a_quadratic_saddle_without_floor_is_left() -> None:
    """200 dimensions, one negative eigenvalue: SAM goes to 0 along it, and after the treatment far down."""
    generator = torch.Generator().manual_seed(0)
    lam = torch.linspace(0.2, 2.0, 200, dtype=F64)
    lam[0] = -0.5
    start = 0.01 * torch.randn(200, generator=generator, dtype=F64)
    problem = problem_of(start, lambda w: 0.5 * (lam * w * w).sum())
    found = treat_problem(problem, MeasureSettings(rho=1.0, lr=0.1, num_eigenvalues=2), steps=400)
    assert found.before is not None
    assert found.before.verdict == "saddle-attraction"
    assert found.rescued
    end = weights(problem)
    assert bool(torch.isfinite(end).all())
    assert abs(end[0]) > 10 * abs(start[0])  # it left along the negative direction
    assert found.steps <= 2 * 400


def test_nothing_to_treat_leaves_the_model_alone() -> None:
    problem = problem_of(torch.tensor([1.0, 2.0], dtype=F64), lambda w: (w * w).sum(), bound=0.0)
    before = weights(problem)
    found = treat_problem(problem, replace(SETTINGS, rho=0.05))
    assert found.outcome is Outcome.NOTHING
    assert found.rounds == ()
    assert not found.improved
    assert torch.equal(weights(problem), before)


def test_a_critical_point_has_no_prescription() -> None:
    """Exactly at the saddle neither SAM nor SGD moves: the treatment says what is missing and changes nothing."""
    problem = problem_of(
        torch.zeros(2, dtype=F64), lambda w: 0.5 * w[0] ** 2 - 0.5 * w[1] ** 2 + 0.25 * w[1] ** 4, -0.25
    )
    found = treat_problem(problem, SETTINGS)
    assert found.outcome is Outcome.NOT_RESCUED
    assert found.reason.startswith("the prescription names no setting: ")
    assert torch.equal(weights(problem), torch.zeros(2, dtype=F64))


def test_without_a_learning_rate_there_is_nothing_to_step_with() -> None:
    with pytest.raises(UsageError, match="learning rate"):
        treat_problem(two_wells(), MeasureSettings(rho=0.5))


@pytest.fixture
def prescribed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts schedules in the place of what would be prescribed."""
    real = advice.prescribe

    def set_to(*schedules: tuple[Phase, ...]) -> None:
        made = [Schedule(kind="constant", phases=p, effect="", risk="", source="") for p in schedules]

        def prescribe(m: object, findings: object) -> Prescription:
            chosen = made[0] if made else None
            found: Prescription = real(m, findings)  # type: ignore[arg-type]
            return replace(found, schedule=chosen, alternatives=tuple(made[1:]))

        monkeypatch.setattr(advice, "prescribe", prescribe)

    return set_to


DIVERGING = (Phase(steps=100, rho=0.0, lr=50.0),)  # 25 times the edge of stability along x


def test_a_run_that_diverges_goes_back(prescribed: Callable[..., None]) -> None:
    prescribed(DIVERGING)
    problem = two_wells()
    before = weights(problem)
    found = treat_problem(problem, SETTINGS)
    assert found.outcome is Outcome.NOT_RESCUED
    assert "diverged" in found.reason
    assert [entry.diverged for entry in found.rounds] == [True]
    assert found.rounds[0].note == "the loss diverged: back to the round's start"
    assert not found.improved
    assert torch.equal(weights(problem), before)


def test_after_a_divergence_the_next_way_is_tried(prescribed: Callable[..., None]) -> None:
    prescribed(DIVERGING, (Phase(steps=60, rho=0.005),))
    problem = two_wells()
    found = treat_problem(problem, SETTINGS)
    assert [entry.diverged for entry in found.rounds] == [True, False]
    assert found.outcome is Outcome.RESCUED
    assert abs(weights(problem)[1]) == pytest.approx(1.0, abs=0.2)


def test_a_loss_that_does_not_move_is_named(prescribed: Callable[..., None]) -> None:
    prescribed((Phase(steps=20, rho=0.5),))  # as before: captured
    found = treat_problem(two_wells(), SETTINGS, rounds=2)
    assert found.outcome is Outcome.NOT_RESCUED
    assert found.reason.startswith("the loss did not move")
    assert "all 2 rounds are used up" in found.reason
    assert len(found.rounds) == 2


@pytest.mark.parametrize(("loss", "well", "rose"), [(0.6, True, False), (0.9675, False, False), (1.383, False, True)])
def test_a_harmless_place_without_a_lower_loss_is_no_rescue(loss: float, well: bool, rose: bool) -> None:
    """From 0.9675 a decay of rho 5 led a network with BatchNorm to a point at chance that is at rest, loss 1.383."""
    nothing = Advice(current=None, recommended=None, interval=None, binding=None, reason="", source="")
    prescription = Prescription(rho=nothing, momentum=nothing, batch_size=nothing)
    first, after = (
        Examined(
            measurements=replace(measurements(), loss=est(value, 1e-6), loss_lower_bound=0.0),
            findings=said(verdict),
            prescription=prescription,
        )
        for value, verdict in ((0.9675, "convergence-floor"), (loss, "minimum"))
    )
    assert after.has_gone_well(first) is well
    recipe = Recipe(rho=5.0, lr=0.05, momentum=0.0, batch_size=None, micro_batch=None)
    entry = Round(
        number=1,
        before=first.state,
        kind="rho-decay",
        start=recipe,
        phases=(),
        steps=9,
        loss_after=loss,
        verdict_after="minimum",
        seconds=0.1,
    )
    assert ("the loss rose" in why_used_up(first, after, [entry])) is rose


@pytest.mark.parametrize(("loss", "well"), [(0.6, False), (0.009, True)])
def test_what_cannot_be_told_when_next_to_nothing_is_left_is_a_rescue(loss: float, well: bool) -> None:
    """A decay of rho took a network from 0.8446 to 0.0025, where the samples decide nothing any more."""
    nothing = Advice(current=None, recommended=None, interval=None, binding=None, reason="", source="")
    prescription = Prescription(rho=nothing, momentum=nothing, batch_size=nothing)
    first, after = (
        Examined(
            measurements=replace(measurements(), loss=est(value, 1e-6), loss_lower_bound=0.0),
            findings=said(verdict),
            prescription=prescription,
        )
        for value, verdict in ((0.9675, "convergence-floor"), (loss, "undecided"))
    )
    assert after.has_gone_well(first) is well


def test_a_diagnosis_on_the_way_looks_as_long_as_inspect_does() -> None:
    """A bounce across x²/2 rests on the pace of the next steps, which `inspect` follows for longer."""
    start = 0.1 * 5.0 / (2.0 - 0.1)  # theory A9: eta·lam·rho/(2 − eta·lam)
    problem = problem_of(torch.tensor([start], dtype=F64), lambda w: 0.5 * w[0] ** 2, bound=0.0)
    found = examine(problem, MeasureSettings(rho=5.0, lr=0.1), None)
    said = diagnose(problem, rho=5.0, lr=0.1)
    assert found.measurements.lookahead_steps == LONG_TRIAL
    assert found.verdict == said.verdict
    assert found.findings == said.findings


def test_the_settings_of_the_last_phase_go_on(prescribed: Callable[..., None]) -> None:
    prescribed((Phase(steps=100, rho=0.0), Phase(steps=60, rho=0.02, rho_end=0.01, momentum=0.5)))
    found = treat_problem(two_wells(), SETTINGS, rounds=1)
    assert found.recipe is not None
    assert (found.recipe.rho, found.recipe.momentum, found.recipe.lr) == (pytest.approx(0.01), 0.5, 0.1)
    assert found.velocity is not None
    assert found.velocity.shape == (2,)
    assert found.steps == 160


def test_open_phases_last_as_long_as_is_said(prescribed: Callable[..., None]) -> None:
    prescribed((Phase(steps=7, rho=0.0), Phase(steps=None, rho=0.01)))
    found = treat_problem(two_wells(), SETTINGS, rounds=1, steps=30)
    assert [phase.steps for phase in found.rounds[0].phases] == [7, 30]
    found = treat_problem(two_wells(), SETTINGS, rounds=1)
    assert [phase.steps for phase in found.rounds[0].phases] == [7, 500]


@pytest.mark.parametrize(("steps", "run"), [(None, 10_000), (30, 10_000), (20_000, 20_000)])
def test_no_phase_is_longer_than_was_asked_for_or_usual(steps: int | None, run: int) -> None:
    """A decay of rho whose direction is flat is prescribed over 100 000 steps: an hour that nobody asked for."""
    decay = Phase(steps=100_000, rho=2.0, rho_end=0.2)
    found = timed(Way(kind="rho-decay", phases=(decay, Phase(steps=None, rho=0.2)), predicted=100_000.0), steps)
    assert found.phases[0].steps == run
    assert found.phases[0].rho_at(run - 1) == pytest.approx(0.2)
    assert found.phases[1].steps == (10_000 if steps is None else steps)


def test_an_error_in_a_later_round_keeps_the_earlier_ones(
    prescribed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    prescribed((Phase(steps=100, rho=0.0),))
    real, calls = measuring.measuring, []

    def measure(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise CannotDecide("the disk with the data went away", "mount it")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(measuring, "measuring", measure)
    problem = two_wells()
    course = Course(problem, SETTINGS)
    with pytest.raises(CannotDecide, match="went away"):
        course.run(5)
    course.leave()
    found = course.ended(Outcome.FAILED, "why")
    assert found.improved
    assert found.after is None
    assert found.rounds[0].note == "ended early in the diagnosis after them: CannotDecide"
    assert abs(weights(problem)[1]) > 0.5
    assert found.rounds[0].loss_after is not None
    assert math.isclose(found.rounds[0].loss_after, -0.25, abs_tol=0.05)


def test_an_interruption_in_the_steps_keeps_them(prescribed: Callable[..., None]) -> None:
    prescribed((Phase(steps=100_000, rho=0.0),))
    problem = two_wells()

    def progress(what: str, _count: int) -> None:
        if what.startswith("step "):
            raise KeyboardInterrupt

    course = Course(problem, SETTINGS, progress=progress)
    with pytest.raises(KeyboardInterrupt):
        course.run(5)
    course.leave()
    assert course.improved
    assert course.rounds[0].note == "ended early in the steps: interrupted"
    assert course.rounds[0].steps == 1
    assert weights(problem).tolist() == pytest.approx([0.02 * 0.9, 0.01 * 1.1], rel=1e-4)
