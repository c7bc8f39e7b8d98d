"""Which solver runs: led by few heavy samples, restarted within memory, or refused where there is no room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samdiag
from samdiag.curvature.heaviest import FEWEST, heaviest_samples
from samdiag.curvature.objective import Objective
from samdiag.errors import CannotDecide, UsageError
from samdiag.measure import solving
from samdiag.types import Measurements, Problem
from tests.networks import NETWORKS, dense_hessian


def nearly_trained(total: int = 1500) -> Problem:
    """A network trained until it is sure of most samples: those between the clusters carry the loss."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 8))
    labels = torch.randint(0, 8, (total,), generator=generator)
    x = 2.0 * torch.eye(8)[labels] + 0.5 * torch.randn(total, 8, generator=generator)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        adam.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        adam.step()
    batches = list(zip(x.split(128), labels.split(128), strict=True))
    return Problem(model=model, loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]), batches=batches, population=total)


def measure(problem: Problem, **changes: Any) -> Measurements:
    found = samdiag.diagnose(problem, rho=0.05, lr=0.01, dtype="float64", num_eigenvalues=1, **changes)
    assert found.measurements is not None
    return found.measurements


def whole_mlp() -> Problem:
    """All of its samples are analysed: no sampling error, and no bias to take off."""
    problem = NETWORKS["mlp_1870"]()
    return replace(problem, population=sum(len(b[1]) for b in problem.batches))


def test_few_heavy_samples_lead_to_both_ends() -> None:
    problem = nearly_trained()
    truth = torch.linalg.eigvalsh(dense_hessian(problem))
    led, plain = measure(problem, solver="two-level"), measure(problem, solver="lanczos")
    assert led.solver is not None
    assert plain.solver is not None
    assert 0 < led.solver.lead_samples < 0.3 * 1500
    assert plain.solver.lead_samples == 0
    assert led.solver.steps < plain.solver.steps
    for m in (led, plain):
        assert m.lambda_max.value == pytest.approx(float(truth[-1]), rel=1e-3)
        assert m.lambda_min.value == pytest.approx(float(truth[0]), rel=1e-2)
        assert m.lambda_min_bound is not None
        assert m.lambda_min_bound <= float(truth[0])
    assert any("carry most of the loss" in note for note in led.notes)


def test_heavy_samples_are_those_with_the_largest_losses() -> None:
    problem = nearly_trained()
    counts = [(b, len(b[1])) for b in problem.batches]
    with Objective(
        problem.model, problem.loss, counts, device=torch.device("cpu"), dtype=torch.float32
    ).borrowed() as objective:
        pieces = heaviest_samples(objective)
        assert pieces is not None
    with torch.no_grad():
        chosen = torch.cat([F.cross_entropy(problem.model(d[0]), d[1], reduction="none") for d, _ in pieces])
        every = torch.cat([F.cross_entropy(problem.model(d[0]), d[1], reduction="none") for d, _ in counts])
    assert len(chosen) == sum(count for _, count in pieces)
    assert torch.allclose(chosen.sort().values, every.sort().values[-len(chosen) :], rtol=1e-5, atol=1e-9)
    assert float(chosen.sum()) >= 0.95 * float(every.sum())


def spread(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1]) + 100.0


def in_place(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1]) * (1.0 if float(batch[0].sum()) > -1e9 else 2.0)


def weighted(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], weight=torch.arange(1.0, 11.0))


@pytest.mark.parametrize("loss", [spread, in_place, weighted])
def test_no_lead_where_samples_are_alike_or_cannot_be_told_apart(loss: Any) -> None:
    """A loss that all share, one that looks at its data, and one that is no mean over samples."""
    problem = replace(nearly_trained(), loss=loss)
    counts = [(b, len(b[1])) for b in problem.batches]
    with Objective(
        problem.model, problem.loss, counts, device=torch.device("cpu"), dtype=torch.float32
    ).borrowed() as objective:
        assert heaviest_samples(objective) is None


def test_a_small_basis_restarts_and_the_answer_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = whole_mlp()
    whole = samdiag.diagnose(problem, rho=0.1, tol=1e-4, num_eigenvalues=1).measurements
    monkeypatch.setattr(solving, "affordable_vectors", lambda *_args, **_more: 30)
    small = samdiag.diagnose(problem, rho=0.1, tol=1e-4, num_eigenvalues=1).measurements
    assert whole is not None
    assert small is not None
    assert small.solver is not None
    assert small.solver.restarts > 0
    assert small.solver.basis_vectors <= 30
    assert any("compressed" in note for note in small.notes)
    assert small.lambda_max.value == pytest.approx(whole.lambda_max.value, rel=1e-5)
    assert small.lambda_min.value == pytest.approx(whole.lambda_min.value, rel=1e-4)


def test_no_room_for_both_ends_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solving, "affordable_vectors", lambda *_args, **_more: 12)
    with pytest.raises(CannotDecide, match="memory for 12 vectors of 1870 parameters") as caught:
        samdiag.diagnose(whole_mlp(), rho=0.1)
    assert "--num-eigenvalues" in caught.value.todo


def test_a_time_limit_returns_what_is_known() -> None:
    found = samdiag.diagnose(whole_mlp(), rho=0.1, lr=0.1, time_limit=1e-6).measurements
    assert found is not None
    assert found.solver is not None
    assert found.solver.stopped == "time limit"
    assert not found.lambda_min.converged
    assert found.lambda_min_bound is not None
    assert found.lambda_min_bound < (found.lambda_min.value or 0.0)
    assert any("time ran out" in note for note in found.notes)
    assert found.jacobian_eigenvalues is None


def test_products_that_run_out_are_said() -> None:
    found = samdiag.diagnose(whole_mlp(), rho=0.1, lr=0.1, max_products=5).measurements
    assert found is not None
    assert found.solver is not None
    assert found.solver.stopped == "products"
    assert any("limit of 5 products" in note for note in found.notes)


def test_until_decided_takes_fewer_products_and_the_verdict_is_the_same() -> None:
    problem = whole_mlp()
    whole, rough = (samdiag.diagnose(problem, rho=0.1, lr=0.1, until=until) for until in ("converged", "decided"))
    assert whole.measurements is not None
    assert rough.measurements is not None
    assert whole.measurements.solver is not None
    assert rough.measurements.solver is not None
    assert rough.measurements.solver.steps < 0.6 * whole.measurements.solver.steps
    assert rough.verdict == whole.verdict
    truth = whole.measurements.lambda_min.value or 0.0
    assert (rough.measurements.lambda_min_bound or 0.0) <= truth <= (rough.measurements.lambda_min.value or 0.0) + 1e-7


def test_blocks_find_a_repeated_end_at_once() -> None:
    found = samdiag.diagnose(whole_mlp(), rho=0.1, lr=0.1, block=2, until="converged").measurements
    single = samdiag.diagnose(whole_mlp(), rho=0.1, lr=0.1, until="converged").measurements
    assert found is not None
    assert single is not None
    assert found.solver is not None
    assert found.solver.block == 2
    assert found.lambda_max.value == pytest.approx(single.lambda_max.value, rel=1e-3)
    assert found.lambda_min.value == pytest.approx(single.lambda_min.value, rel=1e-2)


def test_ties_do_not_make_every_sample_heavy() -> None:
    """In float32 the loss of a sample that the network is sure of is exactly 0: hundreds of equal losses."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(10, 10, bias=False)
    with torch.no_grad():
        model.weight.copy_(200.0 * torch.eye(10))
    labels = torch.randint(0, 10, (1000,), generator=generator)
    x = torch.eye(10)[labels]
    labels[:20] = (labels[:20] + 1) % 10
    counts = [((x[i], labels[i]), len(i)) for i in torch.randperm(1000, generator=generator).split(250)]
    with Objective(
        model, lambda m, b: F.cross_entropy(m(b[0]), b[1]), counts, device=torch.device("cpu"), dtype=torch.float32
    ).borrowed() as objective:
        pieces = heaviest_samples(objective)
    assert pieces is not None
    assert sum(count for _, count in pieces) == FEWEST


def test_a_time_limit_inside_the_lead_returns_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(range(12))
    monkeypatch.setattr(
        "samdiag.patience.Patience.run_out", lambda _self: (next(left, None) is None and "time limit") or None
    )
    found = measure(nearly_trained(), solver="two-level")
    assert found.solver is not None
    assert found.solver.stopped == "time limit"
    assert found.solver.lead_samples > 0
    assert found.lambda_max.value == pytest.approx(0.0875, rel=0.1)
    assert any("were left out" in note for note in found.notes)
    assert not any("too few" in note for note in found.notes)


@pytest.mark.parametrize("changes", [{"block": 2}, {"warm_start": "subsample"}])
def test_the_two_level_solver_refuses_what_it_would_ignore(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="two-level solver takes neither"):
        measure(whole_mlp(), solver="two-level", **changes)


def test_a_block_larger_than_the_products_is_refused() -> None:
    with pytest.raises(UsageError, match="more than the 3 products"):
        measure(whole_mlp(), block=5, max_products=3)


def test_no_lead_is_said_where_one_was_asked_for() -> None:
    found = measure(whole_mlp(), solver="two-level")
    assert any("two-level solver none" in note for note in found.notes)
