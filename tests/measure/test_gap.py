"""The two gradients: exact values on a quadratic, variants by finite differences, and errors that cover the truth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdiag.curvature.objective import Objective
from samdiag.gallery.digits import dataset, mlp
from samdiag.measure.ascent import Rule, rule_of
from samdiag.measure.gap import Gap, measure_gap
from samdiag.measure.point import evaluate
from samdiag.measure.ridge import measure_ridge
from samdiag.measure.settings import MeasureSettings
from samdiag.registry import VARIANTS
from tests.networks import NETWORKS

CPU = torch.device("cpu")


class Weights(nn.Module):
    def __init__(self, w: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))


def quadratic(diagonal: list[float], point: list[float]) -> Objective:
    d = torch.tensor(diagonal, dtype=torch.float64)
    return Objective(
        Weights(point), lambda m, _: 0.5 * (d * m.w * m.w).sum(), [(0, 1)], device=CPU, dtype=torch.float64
    )


def gap_at(f: Objective, rho: float, *, weight_decay: float, population: int | None) -> Gap:
    here = evaluate(f, f.flat.double().clone())
    return measure_gap(f, here, Rule(variant="sam", rho=rho), weight_decay=weight_decay, population=population)


def test_a_quadratic_in_closed_form() -> None:
    with quadratic([3.0, -1.0], [0.4, 0.3]).borrowed() as f:
        gap = gap_at(f, 0.5, weight_decay=0.1, population=None)
    g = torch.tensor([1.2, -0.3], dtype=torch.float64)
    u = g / g.norm()
    shifted = torch.tensor([3.0, -1.0], dtype=torch.float64) * (torch.tensor([0.4, 0.3], dtype=torch.float64) + 0.5 * u)
    decay = 0.1 * torch.tensor([0.4, 0.3], dtype=torch.float64)
    assert gap.grad_norm.value == pytest.approx(float(g.norm()))
    assert gap.perturbed_grad_norm.value == pytest.approx(float(shifted.norm()))
    assert gap.ratio.value == pytest.approx(float(shifted.norm() / g.norm()))
    assert gap.cosine.value == pytest.approx(float(shifted @ g / shifted.norm() / g.norm()))
    assert gap.update_ratio.value == pytest.approx(float((shifted + decay).norm() / (g + decay).norm()))
    assert gap.ratio.sampling_error is None  # a single batch


@pytest.mark.parametrize("name", VARIANTS)
def test_the_bracket_is_the_derivative_of_the_perturbed_point(name: str) -> None:
    """A v = d/dt [x + tv + e(x + tv)] by central differences, on a network."""
    problem = NETWORKS["mlp"]()
    problem.model.double()
    batches = [((x.double(), y), len(y)) for x, y in problem.batches]
    f = Objective(problem.model, problem.loss, batches, device=CPU, dtype=torch.float64)
    with f.borrowed():
        x = f.flat.clone()
        rule = rule_of(MeasureSettings(rho=0.3, variant=name), f)

        def perturbed(at: Tensor) -> Tensor:
            f.move_to(at)
            return at + rule.displacement(at, f.gradient()[1])

        f.move_to(x)
        ascent = rule.at(x, f.gradient()[1])
        v = torch.randn(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        f.move_to(x)
        assert ascent.bracket is not None
        exact = ascent.bracket(v, f.product(v))
        h = 1e-6
        difference = (perturbed(x + h * v) - perturbed(x - h * v)) / (2 * h)
    assert torch.linalg.vector_norm(exact - difference) < 1e-6 * torch.linalg.vector_norm(exact)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_zero_gradient_has_no_direction(name: str) -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    ascent = Rule(variant=name, rho=0.3).at(x, torch.zeros_like(x))
    assert float(ascent.displacement.abs().max()) == 0.0


def test_ridge_on_a_cosine() -> None:
    """1 − cos x at 0.5: the gradient points up, and the crest is at pi."""
    f = Objective(Weights([0.5]), lambda m, _: (1 - torch.cos(m.w)).sum(), [(0, 1)], device=CPU, dtype=torch.float64)
    with f.borrowed():
        x = f.flat.clone()
        near = measure_ridge(f, x, torch.tensor([3.0], dtype=torch.float64))
        far = measure_ridge(f, x, torch.tensor([0.1], dtype=torch.float64))
        assert torch.equal(f.flat, x)
    assert near.distance.value == pytest.approx(torch.pi - 0.5, abs=near.distance.error)
    assert near.distance.error < 0.01
    assert far.distance.value is None
    assert far.searched == pytest.approx(0.4)


def digits_gap(model: nn.Module, rows: Tensor, num_batches: int) -> Gap:
    x, y = dataset().tensors
    batches = [((x[part], y[part]), len(part)) for part in rows.chunk(num_batches)]

    def loss(m: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(m(batch[0]), batch[1])

    f = Objective(model, loss, batches, device=CPU, dtype=torch.float32)
    with f.borrowed():
        return gap_at(f, 0.2, weight_decay=0.0, population=len(x))


def test_sampling_errors_cover_the_answer_of_the_whole_set() -> None:
    """60 random subsets of 300 digits, nominal 95 %: norms of small subsets are biased, and the errors must say so."""
    torch.manual_seed(0)
    model = mlp(hidden=16)
    whole = digits_gap(model, torch.arange(len(dataset())), 1)
    names = ("loss", "perturbed_loss", "loss_change", "grad_norm", "perturbed_grad_norm", "ratio", "cosine")
    covered = dict.fromkeys(names, 0)
    for seed in range(60):
        rows = torch.randperm(len(dataset()), generator=torch.Generator().manual_seed(seed))[:300]
        gap = digits_gap(model, rows, 10)
        for name in names:
            estimate, truth = getattr(gap, name), getattr(whole, name).value
            covered[name] += abs(estimate.value - truth) <= estimate.spread()
    assert all(count >= 50 for count in covered.values()), covered  # 83 %: three standard deviations below 95 %


def test_a_perturbed_point_past_a_pole_is_refused() -> None:
    from samdiag.errors import CannotDecide

    f = Objective(Weights([0.5]), lambda m, _: -torch.log(1 - m.w).sum(), [(0, 1)], device=CPU, dtype=torch.float64)
    with f.borrowed(), pytest.raises(CannotDecide, match="not finite at SAM's perturbed point"):
        gap_at(f, 1.0, weight_decay=0.0, population=None)


def test_a_gradient_below_its_sampling_noise_captures_nothing_for_certain() -> None:
    """A free saddle seen through few samples: |g|² minus its noise is negative, and that is no proof of |g| = 0."""
    import samdiag
    from samdiag.types import Problem

    verdicts = []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(64, 4, generator=generator, dtype=torch.float64)
        model = Weights([0.05, 0.05, 0.05, 0.05])
        curvature = torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64)

        def loss(m: Any, b: Tensor, d: Tensor = curvature) -> Tensor:
            return 0.5 * (d * m.w * m.w).sum() + (b @ m.w).mean()

        problem = Problem(
            model=model, loss=loss, batches=list(noise.split(8)), population=50_000, batch_size_is_training=False
        )
        verdicts.append(samdiag.diagnose(problem, rho=0.05, lr=0.1).verdict)
    assert verdicts.count("saddle-attraction") == 0, verdicts


def test_an_exact_float64_minimum_is_a_minimum() -> None:
    import samdiag
    from samdiag.types import Problem

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(40, generator=generator, dtype=torch.float64)
    solution = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    problem = Problem(
        model=Weights(solution.tolist()), loss=lambda m, b: ((b[0] @ m.w - b[1]) ** 2).mean(), batches=[(x, y)]
    )
    assert samdiag.diagnose(problem, rho=0.05, lr=0.1).verdict == "minimum"
    assert samdiag.diagnose(problem, rho=0.05).verdict == "minimum"
