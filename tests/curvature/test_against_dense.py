"""Both ends against the dense float64 Hessian, on networks that are awkward in one way each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from samdiag import diagnose
from samdiag.types import Problem
from tests.networks import NETWORKS, dense_hessian


def all_there_is(name: str) -> Problem:
    """The samples are the whole population: the eigenvalues asked for are theirs."""
    problem = NETWORKS[name]()
    return replace(problem, population=sum(len(batch[1]) for batch in problem.batches))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_eigenvalue_agrees_within_its_reported_error(name: str) -> None:
    problem = all_there_is(name)
    values = torch.linalg.eigvalsh(dense_hessian(problem))
    for dtype in ("float32", "float64"):
        m = diagnose(problem, rho=0.05, lr=0.1, dtype=dtype, tol=1e-3, num_eigenvalues=3).measurements
        assert m is not None
        assert m.num_params == len(values)
        assert m.self_check.passed, m.self_check.reason
        assert m.lambda_max.value == pytest.approx(float(values[-1]), abs=m.lambda_max.error)
        assert m.lambda_min.value == pytest.approx(float(values[0]), abs=m.lambda_min.error)
        assert m.lambda_max.error < 0.01 * float(values[-1])
        assert m.lambda_min.error < 0.05 * abs(float(values[0]))
        assert m.lambda_min_bound is not None
        assert m.lambda_min_bound <= float(values[0]) + m.lambda_min.error
        for estimate in (*m.top_eigenvalues, *m.bottom_eigenvalues):
            assert float((values - estimate.value).abs().min()) <= estimate.error


def test_ragged_batches_are_weighted_by_their_samples() -> None:
    problem = all_there_is("mlp")
    whole = [tuple(torch.cat(parts) for parts in zip(*problem.batches, strict=True))]
    ragged = diagnose(problem, rho=0.05, dtype="float64").measurements
    single = diagnose(replace(problem, batches=whole), rho=0.05, dtype="float64")
    assert ragged is not None
    assert single.measurements is not None
    for name in ("loss", "grad_norm", "perturbed_grad_norm", "gradient_ratio", "lambda_min", "lambda_max"):
        assert getattr(ragged, name).value == pytest.approx(getattr(single.measurements, name).value, rel=1e-9)
