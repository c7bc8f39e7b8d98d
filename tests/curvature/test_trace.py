"""Hutch++ against Hutchinson and the truth: bias, spread, coverage, and the batches behind it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from samdiag.curvature.deflation import deflate, nothing_known
from samdiag.curvature.trace import BatchSums, PerBatch, Trace, added, best_sketch, hutch_plus_plus, hutchinson, student
from tests.curvature.spectra import DOUBLE, Known, network_like

PRODUCTS = 30


def estimate(case: Known, seed: int, how: str) -> Trace:
    def product(v: Tensor, each: PerBatch | None) -> Tensor:
        return case.product(v)

    generator = torch.Generator().manual_seed(seed)
    like = torch.zeros(case.dim, dtype=DOUBLE)
    if how == "hutchinson":
        return hutchinson(product, case.dim, num_products=PRODUCTS, generator=generator, like=like)
    return hutch_plus_plus(
        product,
        case.dim,
        num_products=PRODUCTS,
        generator=generator,
        like=like,
        known=case.known(4) if how == "deflated" else nothing_known(case.vectors),
    )


@pytest.mark.parametrize("how", ["hutchinson", "plain", "deflated"])
def test_unbiased_with_an_error_that_covers(how: str) -> None:
    case = network_like()
    found = [estimate(case, seed, how) for seed in range(80)]
    assert {one.products for one in found} == {PRODUCTS}
    for truth, values, widths in (
        (case.values.sum(), [f.value for f in found], [f.half_width for f in found]),
        ((case.values**2).sum(), [f.squared for f in found], [f.squared_half_width for f in found]),
    ):
        errors = np.array(values) - truth
        assert abs(errors.mean()) < 4 * errors.std() / math.sqrt(len(errors))
        assert (np.abs(errors) <= widths).mean() >= 0.85


def test_less_spread_at_equal_products() -> None:
    """The outliers hold nearly all of ‖H‖_F: Hutch++ takes them out, Hutchinson does not."""
    case = network_like()
    spread = {
        how: np.std([estimate(case, seed, how).value for seed in range(40)])
        for how in ("hutchinson", "plain", "deflated")
    }
    assert spread["plain"] < spread["hutchinson"] / 5
    assert spread["deflated"] < spread["plain"]


def test_a_sketch_that_spans_everything_is_exact() -> None:
    case = network_like(dim=12)

    def product(v: Tensor, each: PerBatch | None) -> Tensor:
        return case.product(v)

    found = hutch_plus_plus(
        product,
        12,
        num_products=36,
        generator=torch.Generator().manual_seed(0),
        like=torch.zeros(12, dtype=DOUBLE),
        known=nothing_known(case.vectors),
    )
    assert found.value == pytest.approx(float(case.values.sum()), abs=1e-9)
    assert found.error <= 1e-9


def test_batches_sum_to_the_trace() -> None:
    """Two batches of 3 and 5 samples with matrices A and B: tr H = (3 tr A + 5 tr B)/8 with the known part included."""
    generator = torch.Generator().manual_seed(3)
    parts = [torch.randn(40, 40, generator=generator, dtype=DOUBLE) for _ in range(2)]
    a, b = (p + p.T for p in parts)
    whole = (3 * a + 5 * b) / 8

    def product(v: Tensor, each: PerBatch | None) -> Tensor:
        if each:
            each(3, a @ v)
            each(5, b @ v)
        return whole @ v

    sums = BatchSums()
    vectors = torch.linalg.eigh(whole).eigenvectors.T[-3:]
    known = deflate(lambda v: product(v, sums.along(v, 1.0)), vectors, rounding=0.0)
    found = hutch_plus_plus(
        product,
        40,
        num_products=24,
        generator=generator,
        like=torch.zeros(40, dtype=DOUBLE),
        known=known,
        known_batches=sums.totals(),
    )
    assert [count for count, _ in found.per_batch] == [3, 5]
    assert sum(count * value for count, value in found.per_batch) / 8 == pytest.approx(found.value)


def test_batches_that_change_on_the_way_are_left_out() -> None:
    sums, v = BatchSums(), torch.ones(2)
    first = sums.along(v, 1.0)
    first(4, v)
    second = sums.along(v, 1.0)
    second(2, v)
    assert sums.totals() == ()
    assert added(((4, 1.0),), ()) == ()


def test_one_probe_has_no_error() -> None:
    assert student(0) == math.inf
    assert student(1) == pytest.approx(12.706, rel=1e-3)
    assert student(1000) == pytest.approx(1.96, rel=0.05)


def test_a_sketch_pays_only_where_few_eigenvalues_hold_it_all() -> None:
    """Ten of 100 and a thousand of 1: all ten are sketched. A thousand equal ones: a sketch would waste two thirds."""
    assert best_sketch(np.array([1.0, 100.0]), np.array([1000.0, 10.0]), 36) == 10
    assert best_sketch(np.array([1.0]), np.array([1000.0]), 36) == 0
    assert best_sketch(np.array([0.0]), np.array([10.0]), 36) == 0


def test_without_a_sketch_all_products_are_probes() -> None:
    case = network_like()
    found = hutch_plus_plus(
        lambda v, _each: case.product(v),
        case.dim,
        num_products=PRODUCTS,
        generator=torch.Generator().manual_seed(0),
        like=torch.zeros(case.dim, dtype=DOUBLE),
        known=case.known(4),
        num_sketch=0,
    )
    assert found.num_probes == found.products == PRODUCTS
    assert abs(found.value - case.values.sum()) <= found.half_width
