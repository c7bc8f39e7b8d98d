"""Every variant: its Jacobian against finite differences, weight decay in the loss, batch statistics, m-SAM."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samdiag
from samdiag.curvature.arnoldi import arnoldi
from samdiag.curvature.batches import join, regroup
from samdiag.curvature.objective import Objective
from samdiag.errors import UsageError
from samdiag.measure.ascent import rule_of
from samdiag.measure.batch_update import Group, measure_batch_update, training_groups
from samdiag.measure.gap import measure_gap
from samdiag.measure.opening import opened
from samdiag.measure.point import evaluate, gradient_of_half, project
from samdiag.measure.sam_jacobian import jacobian_product, measure_jacobian
from samdiag.measure.settings import MeasureSettings
from samdiag.registry import VARIANTS
from samdiag.types import Problem

CPU = torch.device("cpu")


def data(count: int = 48, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return x, torch.sin(x @ torch.randn(3, 1, generator=generator, dtype=torch.float64))


def network(*, norm: bool = False, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle: list[nn.Module] = [nn.BatchNorm1d(4)] if norm else []
        return nn.Sequential(nn.Linear(3, 4), *middle, nn.Tanh(), nn.Linear(4, 1)).double()


def squared(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def objective(batches: int = 4, *, norm: bool = False) -> Objective:
    x, y = data()
    parts = list(zip(x.chunk(batches), y.chunk(batches), strict=True))
    return Objective(network(norm=norm), squared, [(p, len(p[0])) for p in parts], device=CPU, dtype=torch.float64)


def field(f: Objective, at: Tensor, settings: MeasureSettings, groups: list[Group] | None) -> Tensor:
    """The update's direction at `at`, from its definition."""
    rule = rule_of(settings, f)
    everything = [list(zip(f.batches, f.counts, strict=True))]
    total = torch.zeros_like(at)
    for group in groups or everything:
        f.move_to(at)
        g = f.gradient_of(group)[1]
        f.move_to(at + rule.displacement(at, g))
        shifted = f.gradient_of(group)[1]
        if settings.variant == "gsam":
            along = shifted * torch.dot(g, shifted) / torch.dot(shifted, shifted)
            shifted = shifted - settings.alpha * (g - along)
        total += shifted * sum(n for _, n in group) / f.num_samples
    return total + settings.update_decay * at


@pytest.mark.parametrize("size", [None, 12])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_jacobian_is_the_derivative_of_the_update(name: str, size: int | None) -> None:
    settings = MeasureSettings(rho=0.3, variant=name, alpha=0.7, weight_decay=0.05)
    with objective().borrowed() as f:
        x = f.flat.clone()
        groups = training_groups(f, size) if size else None
        product = jacobian_product(f, x, rule_of(settings, f), weight_decay=0.05, groups=groups)
        v = torch.randn(len(x), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        exact, h = product(v), 1e-6
        ahead, behind = (field(f, x + sign * h * v, settings, groups) for sign in (1, -1))
        difference = (ahead - behind) / (2 * h)
    assert torch.linalg.vector_norm(exact - difference) < 1e-6 * torch.linalg.vector_norm(difference)


@pytest.mark.parametrize("name", VARIANTS)
def test_arnoldi_finds_what_every_column_shows(name: str) -> None:
    """The outer eigenvalues and the multiplier agree with those of the dense Jacobian."""
    settings = MeasureSettings(rho=0.3, variant=name, lr=0.1, momentum=0.5, tol=1e-6)
    with objective().borrowed() as f:
        here = evaluate(f, f.flat.clone())
        rule = rule_of(settings, f)
        gap = measure_gap(f, here, rule, weight_decay=0.0, population=None)
        dense = measure_jacobian(f, gap, rule, settings)
        product = jacobian_product(f, here.x, rule, weight_decay=0.0, groups=None)
        ritz = arnoldi(product, f.num_params, max_products=60, tol=1e-6, generator=torch.Generator().manual_seed(0))
    assert dense is not None
    assert dense.route == "dense"
    assert dense.multiplier is not None
    values = [complex(*v) for v in dense.eigenvalues]
    assert max(map(abs, ritz.values)) == pytest.approx(max(map(abs, values)), rel=1e-5)
    assert min(v.real for v in ritz.values) == pytest.approx(min(v.real for v in values), abs=1e-5)
    roots = [max(abs(np.roots([1, -(1.5 - 0.1 * mu), 0.5]))) for mu in values if abs(mu) > dense.zero]
    assert dense.multiplier.value == pytest.approx(max(roots), rel=1e-9)


def test_arnoldi_of_a_known_matrix() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(80, 80)) / 9 + np.diag(np.linspace(-3, 8, 80))
    dense = torch.tensor(matrix)
    found = arnoldi(lambda v: dense @ v, 80, max_products=80, tol=1e-10, generator=torch.Generator().manual_seed(1))
    truth = np.linalg.eigvals(matrix)
    assert found.values[0].real == pytest.approx(truth.real.min(), abs=1e-7)
    assert max(map(abs, found.values)) == pytest.approx(np.abs(truth).max(), rel=1e-8)


def test_arnoldi_stops_at_an_invariant_subspace() -> None:
    found = arnoldi(lambda v: 3.0 * v, 10, max_products=10, tol=1e-8, generator=torch.Generator().manual_seed(0))
    assert found.steps == 1
    assert found.values == [pytest.approx(3.0)]


def test_samsungs_scaling_touches_weights_only() -> None:
    """e = rho T²g/|Tg|, T = |w| + 0.01 on weights and 1 on biases, against a loop over the named parameters."""
    settings = MeasureSettings(rho=0.2, variant="asam-samsung")
    f = objective(1)
    with f.borrowed():
        x, g = f.flat.clone(), f.gradient()[1]
        ours = rule_of(settings, f).displacement(x, g)
        offset, scales = 0, []
        for name, p in f.model.named_parameters():
            scales.append(p.detach().abs().flatten() + 0.01 if name.endswith("weight") else torch.ones(p.numel()))
            offset += p.numel()
        t = torch.cat(scales)
    assert torch.allclose(ours, 0.2 * t**2 * g / (t * g).norm())


def test_gsam_takes_off_the_orthogonal_part() -> None:
    settings = MeasureSettings(rho=0.4, variant="gsam", alpha=0.3)
    with objective(1).borrowed() as f:
        gap = measure_gap(f, evaluate(f, f.flat.clone()), rule_of(settings, f), weight_decay=0.0, population=None)
        direction = gap.ascent.mix.direction(gap.here.gradient, gap.there.gradient)
    g, shifted = gap.here.gradient, gap.there.gradient
    assert float(torch.dot(direction - shifted, shifted)) == pytest.approx(0.0, abs=1e-12)
    sine = math.sqrt(1 - float(torch.dot(g, shifted) / g.norm() / shifted.norm()) ** 2)
    assert float((direction - shifted).norm()) == pytest.approx(0.3 * float(g.norm()) * sine)


def test_gsam_is_hallucinated_where_sam_is() -> None:
    """1 − cos x at pi + 1.2, rho = pi + 1.2: in one dimension GSAM is SAM, beside g+ = 0 it hovers."""

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([math.pi + 1.2], dtype=torch.float64))

    for settings in ({}, {"variant": "gsam", "alpha": 0.8}):
        problem = Problem(
            model=Point(), loss=lambda m, _: (1 - torch.cos(m.w)).sum(), batches=[0], num_samples=lambda _: 1
        )
        assert samdiag.diagnose(problem, rho=math.pi + 1.2, lr=0.05, **settings).verdict == "hallucinated-minimizer"


@pytest.mark.parametrize("curvatures", [(3.0, 3.0, 3.0), (3.0, 1.0, 0.3)])
def test_noise_that_cancels_over_the_batches_is_no_noise_of_their_mean(curvatures: tuple[float, ...]) -> None:
    """A bowl with 32 noisy batches near its floor: the mean of rho·H·u_b is small, and known to a share of |g_b|."""
    lam = torch.tensor(curvatures, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(512, 3, generator=generator, dtype=torch.float64)
    centres -= centres.mean(dim=0)

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.03, 0.02, 0.02], dtype=torch.float64))

    def loss(model: Point, batch: Tensor) -> Tensor:
        return 0.5 * (lam * (model.w - batch) ** 2).sum(dim=1).mean()

    def update(order: Tensor) -> Tensor:
        x = torch.tensor([0.03, 0.02, 0.02], dtype=torch.float64)
        g = torch.stack([lam * (x - centres[part].mean(dim=0)) for part in order.split(16)])
        return (g + lam * 0.5 * g / g.norm(dim=1, keepdim=True)).mean(dim=0)

    shuffled = [torch.randperm(512, generator=generator) for _ in range(2000)]
    truth = float(torch.stack([update(order) for order in shuffled]).mean(dim=0).norm())
    problem = Problem(model=Point(), loss=loss, batches=list(centres.split(16)), population=512)
    m = samdiag.diagnose(problem, rho=0.5, lr=0.01).measurements
    assert m is not None
    assert m.batch_update is not None
    found = m.batch_update.update_norm
    assert found.value is not None
    assert abs(found.value - truth) <= found.spread()
    assert found.spread() < 0.5 * (m.batch_update.grad_scale.value or 0.0)  # independent batches would say 0.9


@pytest.mark.parametrize("where", ["update", "objective"])
def test_weight_decay_in_the_objective_shifts_the_spectrum(where: str) -> None:
    x, y = data()

    def examine(decay: float) -> samdiag.Diagnosis:
        problem = Problem(model=network(), loss=squared, batches=[(x, y)], population=len(x))
        return samdiag.diagnose(problem, rho=0.1, lr=0.1, weight_decay=decay, weight_decay_in=where)

    plain, decayed = (examine(d).measurements for d in (0.0, 0.3))
    assert plain is not None
    assert decayed is not None
    shift = 0.3 if where == "objective" else 0.0
    for a, b in zip(plain.bottom_eigenvalues, decayed.bottom_eigenvalues, strict=True):
        assert (b.value or 0.0) - (a.value or 0.0) == pytest.approx(shift, abs=1e-9)
    weights = torch.cat([p.detach().flatten() for p in network().parameters()])
    added = 0.15 * float(weights @ weights) if where == "objective" else 0.0
    assert (decayed.loss.value or 0.0) - (plain.loss.value or 0.0) == pytest.approx(added)
    assert (decayed.weight_decay, decayed.objective_decay) == ((0.0, 0.3) if where == "objective" else (0.3, 0.0))
    assert decayed.loss_lower_bound == 0.0
    assert decayed.self_check.passed


def train_mode_hessian(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Dense Hessian of the mean loss with BatchNorm in train mode, by autograd over the parameters."""
    model.train()
    names = [n for n, _ in model.named_parameters()]
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    total = sum(len(b[0]) for b in batches)
    sizes = [p.numel() for p in model.parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat: Tensor) -> Tensor:
        parts = {n: v.view(s) for n, v, s in zip(names, flat.split(sizes), shapes, strict=True)}
        values = [
            F.mse_loss(torch.func.functional_call(model, {**parts, **buffers}, (x,)), y) * len(x) / total
            for x, y in batches
        ]
        return torch.stack(values).sum()

    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    return torch.autograd.functional.hessian(loss, flat)


@pytest.mark.parametrize("size", [None, 12])
def test_train_mode_is_the_hessian_of_batch_statistics(size: int | None) -> None:
    """Against the dense Hessian with BatchNorm's own batches; running statistics come back untouched."""
    x, y = data()
    model = network(norm=True)
    before = {n: b.clone() for n, b in model.named_buffers()}
    batches = list(zip(x.split(12), y.split(12), strict=True))
    problem = Problem(model=model, loss=squared, batches=batches, population=len(x))
    diagnosis = samdiag.diagnose(problem, rho=0.1, lr=0.05, mode="train", batch_size=size or len(x), tol=1e-8)
    m = diagnosis.measurements
    assert m is not None
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())
    assert all(
        norm.training and norm.track_running_stats for norm in model.modules() if isinstance(norm, nn.BatchNorm1d)
    )
    dense = train_mode_hessian(network(norm=True), batches if size else [(x, y)])
    values = torch.linalg.eigvalsh(dense)
    assert m.lambda_min.value == pytest.approx(float(values[0]), abs=1e-8)
    assert m.lambda_max.value == pytest.approx(float(values[-1]), rel=1e-8)
    assert m.mode == "train"
    assert not m.batch_norm
    assert m.self_check.passed
    running = samdiag.diagnose(problem, rho=0.1, lr=0.05, tol=1e-8).measurements
    assert running is not None
    assert abs((running.lambda_max.value or 0.0) - float(values[-1])) > 1e-3  # the two modes differ


def test_the_mean_update_over_batches_is_what_a_loop_says() -> None:
    """E ∇f_b(x + e_b), E|g_b|, rho E[1/|g_b|] and rho E[(1 − (u_b·q)²)/|g_b|] for batches of 12."""
    settings = MeasureSettings(rho=0.3)
    with objective(4).borrowed() as f:
        here = evaluate(f, f.flat.clone())
        rule = rule_of(settings, f)
        gap = measure_gap(f, here, rule, weight_decay=0.0, population=None)
        q = torch.nn.functional.normalize(torch.ones(1, f.num_params, dtype=torch.float64))
        found = measure_batch_update(f, gap, rule, size=12, weight_decay=0.0, vectors=q)
        gradients, shifted = [], []
        for batch, count in zip(f.batches, f.counts, strict=True):
            f.move_to(here.x)
            g = f.gradient_of([(batch, count)])[1]
            f.move_to(here.x + 0.3 * g / g.norm())
            gradients.append(g)
            shifted.append(f.gradient_of([(batch, count)])[1])
    assert found is not None
    norms = torch.stack([g.norm() for g in gradients])
    mean = torch.stack(shifted).mean(dim=0)
    b = found.summary
    assert b.grad_scale.value == pytest.approx(float(norms.mean()))
    assert b.effective_radius.value == pytest.approx(float((0.3 / norms).mean()))
    along = torch.stack([torch.dot(g / g.norm(), q[0]) ** 2 for g in gradients])
    assert found.radii[0].value == pytest.approx(float((0.3 * (1 - along) / norms).mean()))
    assert b.update_norm.value is not None
    assert abs(b.update_norm.value - float(mean.norm())) <= b.update_norm.spread()


@pytest.mark.slow
def test_m_sam_covers_the_mean_over_many_partitions() -> None:
    """Ratio and loss change of 8 batches lie within their error bars of the average over 300 random partitions."""
    x, y = data(64, seed=4)
    model = network(seed=2)
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    settings = MeasureSettings(rho=0.5)

    def measured(order: Tensor) -> tuple[Any, Tensor]:
        parts = [((x[i], y[i]), len(i)) for i in order.split(8)]
        f = Objective(model, squared, parts, device=CPU, dtype=torch.float64)
        with f.borrowed():
            here = evaluate(f, flat)
            gap = measure_gap(f, here, rule_of(settings, f), weight_decay=0.0, population=64)
            none = torch.zeros(0, len(flat), dtype=torch.float64)
            found = measure_batch_update(f, gap, gap_rule(f), size=8, weight_decay=0.0, vectors=none)
            return found, field(f, flat, settings, training_groups(f, 8))

    def gap_rule(f: Objective) -> Any:
        return rule_of(settings, f)

    updates = [measured(torch.randperm(64, generator=torch.Generator().manual_seed(s))) for s in range(300)]
    truth = float(torch.stack([u for _, u in updates]).mean(dim=0).norm())
    inside = sum(abs(b.summary.update_norm.value - truth) <= b.summary.update_norm.spread() for b, _ in updates)
    assert inside >= 0.9 * 300  # nominal 95 %
    change = np.mean([b.summary.loss_change.value for b, _ in updates])
    inside = sum(abs(b.summary.loss_change.value - change) <= b.summary.loss_change.spread() for b, _ in updates)
    assert inside >= 0.9 * 300


def test_micro_batches_set_the_effective_radius() -> None:
    """B = 48 with an ascent on 6 samples each has the radius of B = 6, not of 48."""
    x, y = data(192, seed=1)

    def radius(**settings: Any) -> float:
        batches = list(zip(x.split(48), y.split(48), strict=True))
        problem = Problem(model=network(), loss=squared, batches=batches, population=len(x))
        m = samdiag.diagnose(problem, rho=0.1, lr=0.05, **settings).measurements
        assert m is not None
        return m.effective_radius

    large, small = radius(batch_size=48), radius(batch_size=6)
    assert radius(batch_size=48, micro_batch=6) == pytest.approx(small, rel=0.02)
    assert small < 0.9 * large


def test_impossible_settings_are_refused() -> None:
    for settings in ({"nesterov": True}, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}):
        with pytest.raises(UsageError, match="nesterov"):
            MeasureSettings(rho=0.1, **settings)
    with pytest.raises(UsageError, match="micro-batch of 64 is larger"):
        MeasureSettings(rho=0.1, batch_size=32, micro_batch=64)


def test_kept_gradients_say_what_another_pass_says() -> None:
    """Projections and halves from kept batch gradients equal those of fresh passes."""
    with objective(5).borrowed() as f:
        here = evaluate(f, f.flat.clone())
        assert here.own is not None
        directions = torch.randn(3, f.num_params, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        kept = project(f, here, directions)
        half = gradient_of_half(f, here, 1)
        here.own = None
        again = project(f, here, directions)
        fresh = gradient_of_half(f, here, 1)
    for a, b in zip(kept, again, strict=True):
        assert a.values == pytest.approx(b.values)
        assert a.counts == b.counts
    assert half[0] == pytest.approx(fresh[0])
    assert torch.allclose(half[1], fresh[1])


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([100, 100], 50, [50, 50, 50, 50]),
        ([100, 100], 64, [50, 50, 50, 50]),
        ([10, 10, 10, 10], 20, [20, 20]),
        ([64, 64, 5], 64, [64, 69]),
        ([7], 64, [7]),
    ],
)
def test_regrouping(counts: list[int], size: int, expected: list[int]) -> None:
    groups = regroup([(torch.zeros(n, 2), n) for n in counts], size)
    assert [sum(n for _, n in group) for group in groups] == expected
    for group in groups:
        whole = join(group)
        assert whole is not None
        assert whole[0].shape[0] == whole[1] == sum(n for _, n in group)


def test_joining_what_does_not_fit_is_refused() -> None:
    assert join([(torch.zeros(2, 3), 2), (torch.zeros(2, 4), 2)]) is None
    assert join([({"a": torch.zeros(2)}, 2), ([torch.zeros(2)], 2)]) is None
    shared = torch.ones(7)
    joined = join([((torch.zeros(2, 3), shared), 2), ((torch.ones(4, 3), shared), 4)])
    assert joined is not None
    assert joined[1] == 6
    assert joined[0][0].shape == (6, 3)
    assert torch.equal(joined[0][1], shared)


def test_the_lookahead_steps_with_nesterov_and_dampening_as_torch_does() -> None:
    """24 full-batch steps of the trial against torch.optim.SGD from the same weights."""
    from samdiag.measure.trial import SHORT, run_trial

    x, y = data()
    for options in ({"nesterov": True}, {"dampening": 0.4}):
        settings = MeasureSettings(rho=0.1, lr=0.05, momentum=0.8, weight_decay=0.01, **options)
        problem = Problem(model=network(), loss=squared, batches=[(x, y)], population=len(x))
        with opened(problem, settings) as ready:
            trial = run_trial(ready.objective, ready.objective.flat.double().clone(), None, settings, batch_size=None)
        model = network()
        torch_options = {**options, "lr": 0.05, "momentum": 0.8, "weight_decay": 0.01}
        optimizer = torch.optim.SGD(model.parameters(), **torch_options)
        losses = []
        for _ in range(SHORT):
            value = squared(model, (x, y))
            losses.append(float(value.detach()))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        middle, last = losses[SHORT // 3 : 2 * SHORT // 3], losses[2 * SHORT // 3 :]
        expected = 3 * (sum(last) / len(last) - sum(middle) / len(middle))
        # torch's very first step is undamped, which a run that goes on has long behind it
        assert trial.change == pytest.approx(expected, rel=1e-9 if "nesterov" in options else 0.25)


def test_gsam_is_held_where_sam_is_and_open_where_sam_leaves() -> None:
    """x² − y²: capture carries over, freedom does not (theory A10)."""
    from tests.verdicts.quadratics import Point

    lam = torch.tensor([2.0, -2.0], dtype=torch.float64)

    def verdict(x: tuple[float, float], variant: str) -> str:
        problem = Problem(
            model=Point(x), loss=lambda m, _: 0.5 * (lam * m.w * m.w).sum(), batches=[0], num_samples=lambda _: 1
        )
        return samdiag.diagnose(problem, rho=0.1, lr=0.01, variant=variant).verdict

    assert (verdict((1e-4, 1e-3), "sam"), verdict((1e-4, 1e-3), "gsam")) == ("saddle-attraction", "saddle-attraction")
    assert verdict((0.001, 0.2), "sam") in ("saddle-escaping", "saddle-slowdown")
    assert verdict((0.001, 0.2), "gsam") == "undecided"
