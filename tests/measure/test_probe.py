"""The dynamics probe against exact quadratics, where the closed form says when each run leaves; cost and clean-up."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samdiag
from samdiag.advice import prescribe
from samdiag.errors import UsageError
from samdiag.measure.continuations import batch_gradient, continuations, default_steps, in_words
from samdiag.measure.measuring import measuring
from samdiag.measure.probe import affordable_replicates, run_probe
from samdiag.measure.settings import MeasureSettings
from samdiag.patience import Patience
from samdiag.probes import AS_CONFIGURED, PRESCRIBED, SGD, Probe, ProbedRun, Verify
from samdiag.remedies import Phase, Prescription, Schedule
from samdiag.theory.diffusion import escape_profile, escape_steps
from samdiag.types import Measurements, Problem
from samdiag.verdicts import judge_all

from ..advice.situations import said

LAM = (-1.0, -0.4, 0.5, 2.0)


class Bare(nn.Module):
    def __init__(self, lam: Tensor, start: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(start.clone())
        self.register_buffer("lam", lam)


def quadratic(model: Any, batch: Tensor) -> Tensor:
    """½ Σ lam w² + w·z, z the mean of the batch: Hessian diag(lam), per-sample gradients lam·w + z."""
    return 0.5 * (model.lam * model.w**2).sum() + (batch @ model.w).mean()


def saddle(
    start: tuple[float, ...], *, noise: float = 0.0, samples: int = 512, population: int | None = 512
) -> Problem:
    """A saddle at 0, whose samples' gradients scatter with this standard deviation and average to 0 exactly."""
    generator = torch.Generator().manual_seed(4)
    z = noise * torch.randn(samples, len(start), generator=generator, dtype=torch.float64)
    z = z - z.mean(0)
    model = Bare(torch.tensor(LAM[: len(start)], dtype=torch.float64), torch.tensor(start, dtype=torch.float64))
    return Problem(
        model=model,
        loss=quadratic,
        batches=list(z.split(samples // 4)),
        population=population,
        batch_size_is_training=False,
    )


NEAR = (0.001, 0.0002, 0.02, 0.01)  # the escape direction carries 1/30 of the gradient


def probed(problem: Problem, verify: Verify, *, prescription: Prescription | None = None, **settings: Any) -> Probe:
    with measuring(problem, MeasureSettings(**({"samples": None} | settings))) as found:
        return run_probe(found, prescription, verify)


def of(probe: Probe, name: str) -> ProbedRun:
    run = probe.run(name)
    assert run is not None
    return run


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_leaves_at_the_step_that_the_closed_form_says(momentum: float) -> None:
    """Along q the distance from the ridge is x_0·growth(N); torch's first step fills the buffer as theory's does."""
    probe = probed(saddle(NEAR), Verify(steps=120), rho=1.0, lr=0.1, momentum=momentum)
    run = of(probe, SGD)
    exit_distance = math.sqrt(sum((lam * x) ** 2 for lam, x in zip(LAM, NEAR, strict=True)))
    assert run.exit_distance == pytest.approx(exit_distance, rel=1e-9)
    truth = next(n for n in range(200) if 0.001 * escape_profile(n, -1.0, 0.1, momentum)[0] >= exit_distance)
    assert run.escapes == (truth,)
    assert run.expected_steps == truth
    assert of(probe, AS_CONFIGURED).escapes == (None,)


def test_records_are_the_run() -> None:
    """Loss, |g|, ratio, cosine and displacement, from the closed form x_j(n) = x_j(0)(1 − eta·lam)^n."""
    probe = probed(saddle(NEAR), Verify(steps=50), rho=1.0, lr=0.1)
    for point in of(probe, SGD).points:
        x = [x0 * (1 - 0.1 * lam) ** point.step for x0, lam in zip(NEAR, LAM, strict=True)]
        assert point.loss == pytest.approx(0.5 * sum(lam * v**2 for lam, v in zip(LAM, x, strict=True)), rel=1e-9)
        assert point.grad_norm == pytest.approx(math.hypot(*(lam * v for lam, v in zip(LAM, x, strict=True))), rel=1e-9)
        assert point.displacement == pytest.approx(abs(x[0]), rel=1e-9)
        assert point.gradient_ratio is None
    first = of(probe, AS_CONFIGURED).points[0]
    g = torch.tensor([lam * x for lam, x in zip(LAM, NEAR, strict=True)])
    shifted = g + torch.tensor(LAM) * g / g.norm()
    assert first.gradient_ratio == pytest.approx(float(shifted.norm() / g.norm()), rel=1e-6)
    assert first.gradient_cosine == pytest.approx(float(F.cosine_similarity(shifted, g, dim=0)), rel=1e-6)


def test_the_records_end_with_two_neighbours() -> None:
    """A bounce shows in their difference alone, and the loss at the end is their mean."""
    probe = probed(saddle(NEAR), Verify(steps=50), rho=1.0, lr=0.1)
    for run in probe.runs:
        steps = [point.step for point in run.points]
        assert steps[0] == 0
        assert steps[-2:] == [49, 50]
        assert steps == sorted(set(steps))
        assert run.gain == pytest.approx(run.points[0].loss - (run.points[-1].loss + run.points[-2].loss) / 2)


def test_every_replicate_has_its_own_order_and_every_setting_the_same() -> None:
    probe = probed(saddle(NEAR, noise=0.3), Verify(steps=40), rho=1e-9, lr=0.1, batch_size=16)
    sam, sgd = of(probe, AS_CONFIGURED), of(probe, SGD)
    assert probe.replicates == sam.replicates == 3
    assert len(set(sgd.escapes)) > 1
    assert sam.escapes == sgd.escapes  # at rho ≈ 0 SAM is SGD, on the same batches
    assert sam.gain == pytest.approx(sgd.gain, rel=1e-4)


@pytest.mark.parametrize("batch_size", [None, 512])
def test_where_nothing_is_random_one_run_is_enough(batch_size: int | None) -> None:
    probe = probed(saddle(NEAR), Verify(steps=5), rho=1.0, lr=0.1, batch_size=batch_size)
    assert [run.replicates for run in probe.runs] == [1, 1]
    assert [len(run.escapes) for run in probe.runs] == [1, 1]


@pytest.mark.parametrize("population", [512, None, 10_000])
def test_a_part_of_the_training_set_is_drawn_from_with_replacement(population: int | None) -> None:
    """All of it is passed over as in training; a batch of 512 then is all there is, and nothing is random."""
    probe = probed(saddle(NEAR, noise=0.1, population=population), Verify(steps=3), rho=1.0, lr=0.1, batch_size=512)
    part = population != 512
    assert of(probe, SGD).replicates == (3 if part else 1)
    assert any("with replacement" in note for note in probe.notes) is part


def test_gain_and_its_error_are_over_the_replicates() -> None:
    """Five replicates: their mean within its own error bars of that of other seeds."""
    kwargs: dict[str, Any] = {"rho": 0.01, "lr": 0.05, "batch_size": 16}
    problem = saddle((0.0, 0.0, 1.0, 1.0), noise=0.3)
    first = of(probed(problem, Verify(steps=30, replicates=5), **kwargs), SGD)
    other = of(probed(problem, Verify(steps=30, replicates=5), seed=100, **kwargs), SGD)
    assert first.gain_error > 0
    assert abs(first.gain - other.gain) < 4 * math.hypot(first.gain_error, other.gain_error)
    assert first.gain - 10 * first.gain_error > 0  # from (1, 1) it falls by about 0.9 of 1.25, far beyond the error


def test_median_escape_is_that_of_the_process() -> None:
    """Independent batches: x ← x + eta(x − noise) along q, whose first passages 4000 simulated runs give."""
    problem = saddle((0.0, 0.0, 0.0, 0.0), noise=0.5, population=None)
    probe = probed(problem, Verify(steps=90, replicates=15), rho=1e-6, lr=0.1, batch_size=16)
    run = of(probe, SGD)
    assert run.exit_distance is not None
    generator = torch.Generator().manual_seed(0)
    deviation = float(torch.cat(list(problem.batches))[:, 0].std(correction=0)) / 4.0
    x, first = torch.zeros(4000, dtype=torch.float64), torch.full((4000,), math.inf)
    for step in range(1, 200):
        x = x + 0.1 * (x - deviation * torch.randn(4000, generator=generator, dtype=torch.float64))
        first = torch.where(torch.isinf(first) & (x.abs() >= run.exit_distance), float(step), first)
    assert run.left == 15
    error = 1.25 * float(first.std()) / math.sqrt(15)  # of a median of 15
    assert run.median_escape == pytest.approx(float(first.median()), abs=2.5 * error)
    assert run.expected_steps == pytest.approx(float(first.median()), rel=0.25)


def found_prescription(problem: Problem, **settings: Any) -> tuple[Measurements, Prescription, Probe]:
    with measuring(problem, MeasureSettings(samples=None, **settings)) as found:
        m = found.measurements
        prescription = prescribe(m, judge_all(m))
        return m, prescription, run_probe(found, prescription, Verify())


def test_a_captured_saddle_stays_and_leaves_as_prescribed() -> None:
    m, prescription, probe = found_prescription(saddle(NEAR), rho=1.0, lr=0.1)
    assert judge_all(m)[0].verdict == "saddle-attraction"
    assert of(probe, AS_CONFIGURED).escapes == (None,)
    assert of(probe, SGD).median_escape is not None
    assert of(probe, PRESCRIBED).median_escape is not None
    assert prescription.rho.recommended is not None


def test_plain_steps_before_sam_are_predicted_as_sgd_is() -> None:
    """Of a schedule that begins without SAM the exit is SGD's, if that first phase lasts so long."""
    with measuring(saddle(NEAR), MeasureSettings(rho=1.0, lr=0.1, samples=None)) as found:
        keep = prescribe(found.measurements, said("descending"))
        for steps, lasts in ((40, True), (5, False)):
            schedule = Schedule(
                kind="sgd-then-sam",
                phases=(Phase(steps=steps, rho=0.0), Phase(steps=None, rho=0.01)),
                effect="e",
                risk="r",
                source="s",
                steps=1234.0,  # until something else
            )
            runs = {run.name: run for run in continuations(found, replace(keep, schedule=schedule))}
            assert runs[SGD].expected_steps is not None
            assert runs[PRESCRIBED].expected_steps == (runs[SGD].expected_steps if lasts else None)


def test_the_momentum_buffer_of_the_checkpoint_is_used() -> None:
    """A velocity that points out along q brings the exit forward by exactly what the recurrence says."""
    problem = saddle(NEAR)
    velocity = torch.tensor([-0.02, 0.0, 0.0, 0.0], dtype=torch.float64)
    with measuring(problem, MeasureSettings(rho=1.0, lr=0.1, momentum=0.9, samples=None)) as found:
        kicked = run_probe(found, None, Verify(steps=60), velocity=velocity)
        plain = run_probe(found, None, Verify(steps=60))
    x, v, steps, edge = 0.001, -0.02, 0, of(kicked, SGD).exit_distance
    assert edge is not None
    while abs(x) < edge:
        v = 0.9 * v - x
        x, steps = x - 0.1 * v, steps + 1
    assert of(kicked, SGD).escapes == (steps,)
    assert kicked.momentum_from_file
    assert not plain.momentum_from_file
    assert (of(plain, SGD).escapes[0] or 0) > steps


def test_divergence_is_a_value() -> None:
    """eta·lam = 20: the iterates grow by 19 a step and overflow."""
    probe = probed(saddle(NEAR), Verify(steps=400), rho=0.1, lr=10.0)
    run = of(probe, SGD)
    assert run.diverged == 1
    assert run.gain == -math.inf
    assert run.points[-1].loss == math.inf
    assert len({point.step for point in run.points}) == len(run.points)


def test_growth_as_a_power_is_a_rise_and_no_swing() -> None:
    """eta·lam = 2.4: the loss grows by 1.96 a step; a straight line through its last records misses them by as much."""
    probe = probed(saddle((0.0, 0.0, 0.0, 0.01)), Verify(steps=100), rho=1e-9, lr=1.2)
    run = of(probe, SGD)
    assert run.points[-1].loss == pytest.approx(1e-4 * 1.4**200, rel=1e-2)
    assert run.gain_interval[1] < 0


@pytest.mark.parametrize("batch_size", [None, 16])
def test_losses_too_large_to_be_squared(batch_size: int | None) -> None:
    """A saddle without a floor: after some 240 steps of factor 2 the loss is beyond −1e150, and still a number."""
    probe = probed(saddle(NEAR, noise=0.1), Verify(steps=260), rho=1e-6, lr=0.9, batch_size=batch_size)
    run = of(probe, SGD)
    assert run.diverged == 0
    assert 1e130 < run.gain < math.inf
    assert math.isfinite(run.gain_error)


def test_without_a_negative_direction_nothing_leaves() -> None:
    model = Bare(torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([0.1, 0.1], dtype=torch.float64))
    problem = Problem(model=model, loss=quadratic, batches=[torch.zeros(4, 2, dtype=torch.float64)], population=4)
    probe = probed(problem, Verify(steps=10), rho=0.01, lr=0.1)
    assert [run.escapes for run in probe.runs] == [(), ()]
    assert all(point.displacement is None for run in probe.runs for point in run.points)
    assert of(probe, SGD).gain > 0


def test_an_unknown_learning_rate_is_a_usage_error() -> None:
    with pytest.raises(UsageError) as caught:
        samdiag.diagnose(saddle(NEAR), rho=1.0, verify=Verify(steps=3))
    assert "--lr" in caught.value.todo


# ---------------------------------------------------------------- steps, cost and budget


def test_default_steps_show_what_is_predicted() -> None:
    """Three times the later of the two predicted exits, between 100 and 1000."""
    with measuring(saddle(NEAR), MeasureSettings(rho=1.0, lr=0.02, samples=None)) as found:
        runs = continuations(found, None)
        steps = default_steps(found.measurements, runs)
    edge = math.hypot(0.001, 8e-5, 0.01, 0.02)
    truth = escape_steps(offset=0.001, noise=0.0, exit_distance=edge, mu=-1.0, lr=0.02, momentum=0.0)
    assert truth is not None
    assert steps == 3 * truth


@pytest.mark.parametrize(("steps", "budget", "limit"), [(None, None, 60.0), (10, None, None), (10, 5.0, 5.0)])
def test_a_budget_applies_where_it_or_nothing_is_said(
    steps: int | None, budget: float | None, limit: float | None
) -> None:
    assert Verify(steps=steps, budget=budget).seconds == limit


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"budget": 0.0}, {"budget": math.nan}, {"replicates": 0}])
def test_what_cannot_be_run_is_a_usage_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Verify(**wrong)


def test_exactly_the_steps_that_were_asked_for() -> None:
    for steps in (1, 2, 3, 7):
        probe = probed(saddle(NEAR), Verify(steps=steps), rho=1.0, lr=0.1)
        assert probe.steps == probe.asked_steps == steps
        assert all(run.points[-1].step == steps for run in probe.runs)


class Slow(nn.Module):
    """Half a millisecond is spent on every evaluation, whatever the machine."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.01, 0.02], dtype=torch.float64))

    def forward(self) -> Tensor:
        time.sleep(5e-4)
        return self.w[0] ** 2 - self.w[1] ** 2


def slow() -> Problem:
    return Problem(model=Slow(), loss=lambda m, _b: m(), batches=[torch.zeros(1)], population=1)


def test_a_small_budget_is_kept_and_said() -> None:
    """All runs have made the same steps, fewer than were wanted; the cost was stated before."""
    lines: list[str] = []
    with measuring(slow(), MeasureSettings(rho=0.01, lr=0.01)) as found:
        probe = run_probe(found, None, Verify(steps=100_000, budget=0.3), announce=lines.append)
    assert 2 < probe.steps < probe.asked_steps == 100_000
    assert {run.points[-1].step for run in probe.runs} == {probe.steps}
    assert len(lines) == 1
    assert "of 100000 steps" in lines[0]
    assert "0.3 s" in lines[0]
    assert probe.budget == 0.3


def test_the_cost_is_stated() -> None:
    lines: list[str] = []
    with measuring(saddle(NEAR, noise=0.1), MeasureSettings(rho=1.0, lr=0.1, batch_size=32, samples=None)) as found:
        run_probe(found, None, Verify(steps=20, budget=50.0), announce=lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("verify: 2 settings × 3 replicates × 20 steps, about ")
    assert lines[0].endswith("of the 50 s allowed")


def test_an_interruption_ends_it_with_what_there_is() -> None:
    patience = Patience()

    def interrupt(_line: str) -> None:
        assert patience.interrupt()

    with measuring(saddle(NEAR), MeasureSettings(rho=1.0, lr=0.1, samples=None)) as found:
        probe = run_probe(found, None, Verify(steps=500), announce=interrupt, patience=patience)
    assert probe.steps < 10
    assert all(run.points[-1].step == probe.steps for run in probe.runs)


def test_phases_are_said_in_words() -> None:
    assert in_words((Phase(steps=137, rho=0.0), Phase(steps=None, rho=0.1))) == "rho 0 for 137 steps, then rho 0.1"
    assert in_words((Phase(steps=5, rho=0.2), Phase(steps=None, rho=0.2))) == "rho 0.2"
    decay = in_words((Phase(steps=100, rho=0.2, rho_end=0.02, batch_size=64),))
    assert decay == "rho 0.2 to 0.02, batch 64 for 100 steps"


def test_replicates_fit_into_memory() -> None:
    """Three settings of a million parameters: 48 MB a replicate, in half of what is free."""
    sizes = {"settings": 3, "num_params": 10**6}
    assert affordable_replicates(3, free=10**9, **sizes) == 3
    assert affordable_replicates(3, free=2 * 100 * 10**6, **sizes) == 2
    assert affordable_replicates(3, free=1, **sizes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_captured_saddles_in_200_dimensions(seed: int) -> None:
    """Five negative directions, all captured: as configured no replicate leaves, as prescribed every one does, at about
    the step that is predicted.
    """
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, count: int) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)

    lam, noise = torch.cat([-between(0.7, 2.0, 5), between(0.05, 2.5, 195)]), between(0.5, 2.0, 200)
    z = torch.randn(2048, 200, generator=generator, dtype=torch.float64) * noise.sqrt()
    batch_size = (64, 256)[seed % 2]
    rho = 3.0 / float(lam[:5].abs().min()) * math.sqrt(float(noise.sum()) / batch_size)
    problem = Problem(
        model=Bare(lam, torch.zeros(200, dtype=torch.float64)),
        loss=quadratic,
        batches=list((z - z.mean(0)).split(256)),
        batch_size_is_training=False,
    )
    _, _, probe = found_prescription(problem, rho=rho, lr=0.05, momentum=0.5, batch_size=batch_size)
    assert of(probe, AS_CONFIGURED).left == 0
    prescribed = of(probe, PRESCRIBED)
    assert prescribed.left == prescribed.replicates == 3
    assert prescribed.median_escape is not None
    assert prescribed.expected_steps is not None
    assert 0.6 < prescribed.median_escape / prescribed.expected_steps < 1.6  # a median of three, each ± 25 %


# ---------------------------------------------------------------- the model


def batch_norm_network() -> Problem:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
        x, y = torch.randn(40, 4), torch.randint(0, 3, (40,))
    model.train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    return Problem(
        model=model,
        loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]),
        batches=[(x[:20], y[:20]), (x[20:], y[20:])],
        population=40,
    )


def state(model: nn.Module) -> dict[str, Any]:
    values = {name: value.clone() for name, value in model.state_dict().items()}
    grads = {f"{n}.grad": None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    modes = {f"{n}.mode": m.training for n, m in model.named_modules()}
    return {**values, **grads, **modes, "rng": torch.get_rng_state()}


def test_the_model_comes_back_bit_for_bit() -> None:
    problem = batch_norm_network()
    before = state(problem.model)
    found = samdiag.diagnose(problem, rho=0.1, lr=0.1, momentum=0.9, batch_size=8, verify=Verify(steps=6))
    after = state(problem.model)
    assert found.probe is not None
    assert found.probe.steps == 6
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]
        assert same, name


def test_the_objective_is_left_at_the_checkpoint() -> None:
    with measuring(saddle(NEAR), MeasureSettings(rho=1.0, lr=0.1, samples=None)) as found:
        run_probe(found, None, Verify(steps=5))
        assert torch.equal(found.base.ready.objective.flat, found.base.here.x)


def test_batch_norm_losses_are_those_of_training() -> None:
    """The losses use each batch's own statistics, as training does; the checkpoint's running ones are others."""
    problem = batch_norm_network()
    probe = probed(problem, Verify(steps=2), rho=0.1, lr=0.1, batch_size=8)
    model = problem.model.train()
    model[3].p = 0.0
    with torch.no_grad():
        truth = statistics.fmean(float(problem.loss(model, batch)) for batch in problem.batches)
    assert of(probe, SGD).points[0].loss == pytest.approx(truth, rel=1e-5)


def test_the_exit_distance_is_the_prescriptions() -> None:
    """G as `advice.situation` has it, for the batch that each run uses."""
    from samdiag.advice.situation import Situation

    with measuring(saddle(NEAR, noise=0.4), MeasureSettings(rho=1.0, lr=0.1, batch_size=16, samples=None)) as found:
        m = found.measurements
        runs = continuations(found, prescribe(m, said("saddle-attraction")))
    situation = Situation.of(m)
    for batch in (None, 16, 64):
        assert batch_gradient(m, batch) == pytest.approx(situation.gradient_at(batch), rel=1e-12)
    sgd = next(run for run in runs if run.name == SGD)
    assert sgd.exit_distance == pytest.approx(situation.gradient_at(16) / 1.0, rel=1e-6)
