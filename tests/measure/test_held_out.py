"""Two halves of the samples against dense matrices; the interval against the whole set's eigenvalue."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdiag.curvature.objective import Objective
from samdiag.gallery.digits import dataset, mlp
from samdiag.measure.held_out import (
    FEWEST_PRODUCTS,
    SHARE,
    bias_could_matter,
    corrected_ends,
    halves_of,
    hold_out,
)
from samdiag.measure.measuring import measure
from samdiag.measure.settings import MeasureSettings
from samdiag.types import Estimate, Problem

CPU = torch.device("cpu")
DIM = 12
POPULATION = 400
CENTRE = torch.tensor([4.0, 1.0, 0.8, 0.5, 0.3, 0.1, 0.0, -0.1, -0.2, -0.3, -0.5, -2.0], dtype=torch.float64)


def all_matrices(noise: float = 3.0) -> Tensor:
    """[POPULATION, DIM, DIM] the samples' Hessians: symmetric noise about diag(CENTRE)."""
    raw = torch.randn(POPULATION, DIM, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * noise
    return torch.diag(CENTRE) + (raw + raw.mT) / 2


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(DIM, dtype=torch.float64))


def quadratic(matrices: Tensor, batch: int, *, train_mode: bool = False) -> Objective:
    """½ wᵀH_i w as the loss of sample i: its Hessian over any batch is the mean matrix."""

    def loss(model: Any, rows: Tensor) -> Tensor:
        return 0.5 * torch.einsum("i,bij,j->b", model.w, rows, model.w).mean()

    pieces = [(part, len(part)) for part in matrices.split(batch)]
    return Objective(Point(), loss, pieces, device=CPU, dtype=torch.float64, train_mode=train_mode)


def ends_of(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [2] and rows [2, DIM] of the largest and the smallest eigenvalue."""
    values, vectors = torch.linalg.eigh(matrix)
    return values[[-1, 0]], vectors.T[[-1, 0]].contiguous()


def test_inside_and_outside_are_those_of_the_dense_halves() -> None:
    chosen = all_matrices()[:80]
    with quadratic(chosen, 8).borrowed() as f:
        found = hold_out(f, ends_of(chosen.mean(dim=0))[1], population=POPULATION, max_products=40)
    assert found is not None
    batches = chosen.split(8)
    halves = [torch.cat(batches[0::2]), torch.cat(batches[1::2])]
    for place, end in enumerate(found):
        inside, outside, parts = [], [], []
        for own, other in (halves, halves[::-1]):
            values, vectors = ends_of(own.mean(dim=0))
            q = vectors[place]
            inside.append(float(values[place]))
            outside.append(float(q @ other.mean(dim=0) @ q))
            parts += [8 * (float(q @ b.mean(dim=0) @ q) - outside[-1]) ** 2 for b in other.split(8)]
        assert end.inside == pytest.approx(sum(inside) / 2, rel=2e-3)  # fitted to a residual of 5 %
        assert end.outside == pytest.approx(sum(outside) / 2, rel=1e-2)
        error = math.sqrt(sum(parts) / 8 / 80 * (1 - 80 / POPULATION))
        assert end.standard_error == pytest.approx(error, rel=0.02)
        assert end.degrees == 8


def test_an_unfinished_fit_says_how_much_it_may_lack() -> None:
    """One step beyond the start is not enough for both ends of the halves; `missing` is of the size of the rest."""
    chosen = all_matrices()[:80]
    start = ends_of(chosen.mean(dim=0))[1]
    with quadratic(chosen, 8).borrowed() as f:
        short = hold_out(f, start, population=None, max_products=5)
        long = hold_out(f, start, population=None, max_products=40)
    assert short is not None
    assert long is not None
    lacks = [abs(many.inside) - abs(few.inside) for few, many in zip(short, long, strict=True)]
    assert max(lacks) > 0.05
    for few, many, lack in zip(short, long, lacks, strict=True):
        assert few.missing > 0.8 * lack
        assert many.missing < 0.02


def corrected(chosen: Tensor, population: int | None) -> tuple[Estimate, Estimate, Estimate, Estimate]:
    """Both first estimates, corrected and as the sample has them."""
    values, vectors = ends_of(chosen.mean(dim=0))
    raw = [Estimate(value=float(v), sampling_error=0.3) for v in values]
    with quadratic(chosen, 8).borrowed() as f:
        top, bottom = corrected_ends(
            f, (raw[0],), vectors[:1], (raw[1],), vectors[1:], population=population, products=40
        )
    return top[0], bottom[0], raw[0], raw[1]


def test_the_interval_covers_the_whole_sets_eigenvalues() -> None:
    """40 random fifths of the set, nominal 95 %: the corrected ends are unbiased, the sample's own are not."""
    everything = all_matrices()
    truth = ends_of(everything.mean(dim=0))[0].tolist()
    covered, offsets, own = [0, 0], [0.0, 0.0], [0.0, 0.0]
    for seed in range(40):
        rows = torch.randperm(POPULATION, generator=torch.Generator().manual_seed(seed))[:80]
        *ends, top, bottom = corrected(everything[rows], POPULATION)
        for i, (end, raw) in enumerate(zip(ends, (top, bottom), strict=True)):
            assert end.value is not None
            assert raw.value is not None
            covered[i] += end.low <= truth[i] <= end.high
            offsets[i] += (end.value - truth[i]) / 40
            own[i] += (raw.value - truth[i]) / 40
    assert own[0] > 0.1  # outward at both ends
    assert own[1] < -0.1
    assert abs(offsets[0]) < 0.5 * own[0]
    assert abs(offsets[1]) < 0.5 * -own[1]
    assert all(32 <= count <= 40 for count in covered), covered  # 32: four standard deviations below 95


def test_the_bias_is_kept_beside_the_value() -> None:
    top, bottom, raw_top, raw_bottom = corrected(all_matrices()[:80], None)
    assert top.bias is not None
    assert bottom.bias is not None
    assert top.bias > 0 > bottom.bias
    assert top.in_sample.value == pytest.approx(raw_top.value)
    assert bottom.in_sample.value == pytest.approx(raw_bottom.value)
    assert top.in_sample.sampling_error == 0.0


def test_those_behind_the_first_move_with_it() -> None:
    chosen = all_matrices()[:80]
    values, vectors = torch.linalg.eigh(chosen.mean(dim=0))
    rows = vectors.T.contiguous()
    raw = [Estimate(value=float(v), sampling_error=0.1) for v in values]
    with quadratic(chosen, 8).borrowed() as f:
        top, bottom = corrected_ends(
            f, tuple(raw[::-1][:3]), rows.flip(0)[:3], tuple(raw[:3]), rows[:3], population=None, products=40
        )
    assert [e.value for e in top] == sorted((e.value or 0.0 for e in top), reverse=True)
    assert [e.value for e in bottom] == sorted(e.value or 0.0 for e in bottom)
    assert len({e.bias for e in bottom}) == 1
    assert all((e.sampling_error or 0.0) > 0.1 for e in bottom)


@pytest.mark.parametrize(("count", "population"), [(POPULATION, POPULATION), (1, None), (3, None)])
def test_nothing_is_done_where_there_is_nothing_to_learn(count: int, population: int | None) -> None:
    """Everything was seen, or fewer than two pieces come to a half."""
    chosen = all_matrices()[:count]
    values, vectors = ends_of(chosen.mean(dim=0))
    top, bottom = (Estimate(value=float(values[0])),), (Estimate(value=float(values[1])),)
    with quadratic(chosen, 100).borrowed() as f:
        found = corrected_ends(f, top, vectors[:1], bottom, vectors[1:], population=population, products=40)
        assert f.num_products == 0
    assert found == (top, bottom)


def test_batches_that_cannot_be_halved_get_students_interval() -> None:
    """Three batches with their own statistics: two degrees of freedom, t = 4.30 in place of 2."""
    chosen = all_matrices()[:60]
    values, vectors = ends_of(chosen.mean(dim=0))
    raw = [Estimate(value=float(v), sampling_error=0.1) for v in values]
    with quadratic(chosen, 20, train_mode=True).borrowed() as f:
        top, bottom = corrected_ends(f, (raw[0],), vectors[:1], (raw[1],), vectors[1:], population=None, products=40)
    for found, own in ((top[0], raw[0]), (bottom[0], raw[1])):
        assert found.value == own.value
        assert found.bias is None
        assert found.spread() == pytest.approx(0.1 * 4.303, rel=1e-3)


def test_one_large_batch_is_cut_and_tells_its_error() -> None:
    chosen = all_matrices()[:80]
    values, vectors = ends_of(chosen.mean(dim=0))
    raw = [Estimate(value=float(v)) for v in values]
    with quadratic(chosen, 80).borrowed() as f:
        top, _ = corrected_ends(f, (raw[0],), vectors[:1], (raw[1],), vectors[1:], population=None, products=40)
    assert raw[0].sampling_error is None
    assert (top[0].sampling_error or 0.0) > 0


def test_batches_with_their_own_statistics_stay_whole() -> None:
    chosen = all_matrices()[:80]
    assert halves_of(quadratic(chosen, 40, train_mode=True)) is None
    whole = halves_of(quadratic(chosen, 20, train_mode=True))
    cut = halves_of(quadratic(chosen, 40))
    assert whole is not None
    assert cut is not None
    assert [count for half in whole for _, count in half] == [20] * 4
    assert [count for half in cut for _, count in half] == [10] * 8


def digits_objective() -> Objective:
    torch.manual_seed(0)
    inputs, targets = dataset().tensors
    pieces = [((inputs[i : i + 32], targets[i : i + 32]), 32) for i in range(0, 256, 32)]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    return Objective(mlp(hidden=16), loss, pieces, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize("products", [10, 40])
def test_a_network_costs_no_more_than_its_share(products: int) -> None:
    with digits_objective().borrowed() as f:
        generator = torch.Generator().manual_seed(1)
        vectors = torch.linalg.qr(torch.randn(f.num_params, 2, generator=generator))[0].T.contiguous()
        raw = (Estimate(value=1.0, sampling_error=0.1),)
        before = f.flat.clone()
        corrected_ends(f, raw, vectors[:1], raw, vectors[1:], population=1797, products=products)
        assert f.num_products <= max(FEWEST_PRODUCTS, SHARE * products) + 1e-9
        assert torch.equal(f.flat, before)


def test_halves_that_agree_leave_the_value_alone() -> None:
    """Every sample has the same Hessian: inside is outside, and no error is left but rounding."""
    chosen = all_matrices()[:1].expand(80, -1, -1)
    top, bottom, raw_top, raw_bottom = corrected(chosen, None)
    assert top.value == pytest.approx(raw_top.value, rel=1e-9)
    assert bottom.value == pytest.approx(raw_bottom.value, rel=1e-9)
    assert (top.sampling_error or 0.0) < 1e-9


def test_which_thresholds_a_bias_could_move_an_end_across() -> None:
    """Taking a bias off moves lambda_max down and lambda_min up, so that only thresholds inward of them count."""
    high, low = Estimate(value=10.0, sampling_error=1.0), Estimate(value=-1.0, sampling_error=0.1)
    assert not bias_could_matter(high, Estimate(value=0.5), edge=20.0, radius=0.1)
    assert bias_could_matter(high, Estimate(value=0.5), edge=11.0, radius=0.1)
    assert bias_could_matter(high, low, edge=20.0, radius=2.0)
    assert bias_could_matter(high, low, edge=None, radius=0.0)
    assert not bias_could_matter(high, low, edge=None, radius=0.01)  # far above −1/rho_eff = −100


def digits_problem(count: int, population: int = 1797) -> Problem:
    """A fresh network on the first `count` digits of so many."""
    torch.manual_seed(0)
    inputs, targets = dataset().tensors

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    batches = [(inputs[i : i + 32], targets[i : i + 32]) for i in range(0, count, 32)]
    return Problem(model=mlp(hidden=8), loss=loss, batches=batches, population=population, loss_lower_bound=0.0)


def test_a_report_on_some_samples_speaks_of_all() -> None:
    """Both ends are moved inward, and PyHessian, which sees the samples alone, is compared with theirs."""
    m = measure(digits_problem(224), MeasureSettings(rho=0.05, lr=0.1, cross_check=True))
    for end in (m.lambda_max, m.lambda_min, *m.top_eigenvalues, *m.bottom_eigenvalues):
        assert end.bias is not None
    assert (m.lambda_max.bias or 0.0) > 0 > (m.lambda_min.bias or 0.0)
    assert m.top_directions[0].eigenvalue == m.lambda_max
    assert m.second_opinion is not None
    assert m.second_opinion.lambda_max_agrees is True


def test_a_decided_run_holds_nothing_out_and_says_so() -> None:
    """rho_eff|lambda_min| is far below 0.1 and lr far below the edge: no verdict hangs on the bias."""
    m = measure(digits_problem(224), MeasureSettings(rho=1e-4, lr=1e-3, until="decided"))
    assert m.lambda_max.bias is None
    assert any("no half was held out" in note for note in m.notes)


def test_all_the_data_need_no_halves() -> None:
    m = measure(digits_problem(96, population=96), MeasureSettings(rho=0.05, lr=0.1))
    assert m.lambda_max.bias is None
    assert m.lambda_max.sampling_error == 0.0
    assert not any("exaggerate" in note for note in m.notes)
