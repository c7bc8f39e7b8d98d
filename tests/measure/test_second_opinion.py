"""PyHessian agrees on sound problems, its known defects are worked around, and a wrong number of ours is called out."""

from __future__ import annotations

import pytest
import torch

import samdiag
from samdiag.curvature.batches import count_samples
from samdiag.curvature.objective import Objective
from samdiag.measure.second_opinion import ask_pyhessian
from samdiag.types import Estimate
from tests.networks import NETWORKS


@pytest.mark.parametrize("name", ["mlp", "unused", "batch_norm", "lstm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_agrees(name: str, dtype: str) -> None:
    m = samdiag.diagnose(NETWORKS[name](), rho=0.05, dtype=dtype, cross_check=True, num_eigenvalues=1).measurements
    assert m is not None
    assert m.second_opinion is not None
    assert m.second_opinion.lambda_max_agrees, m.second_opinion.message
    assert m.second_opinion.trace_agrees, m.second_opinion.message


def test_a_wrong_lambda_max_is_called_out() -> None:
    problem = NETWORKS["mlp"]()
    batches = [(b, count_samples(b)) for b in problem.batches]
    f = Objective(problem.model, problem.loss, batches, device=torch.device("cpu"), dtype=torch.float32)
    with f.borrowed():
        opinion = ask_pyhessian(f, Estimate(value=100.0), Estimate(value=-1.0), seed=0)
    assert opinion.lambda_max_agrees is False
    assert "DISAGREES" in opinion.message
