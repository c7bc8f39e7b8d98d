"""What one batch out of a larger set says is a guess."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from samdiag import Problem, diagnose
from samdiag.gallery.digits import dataset, mlp
from samdiag.types import Confidence


@pytest.mark.parametrize(("population", "guess"), [(1797, True), (64, False), (None, False)])
def test_a_part_in_one_batch_is_a_guess(population: int | None, guess: bool) -> None:
    torch.manual_seed(0)
    x, y = dataset().tensors
    problem = Problem(
        model=mlp(hidden=4),
        loss=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        batches=[(x[:64], y[:64])],
        population=population,
    )
    found = diagnose(problem, rho=0.05, lr=0.1)
    assert found.verdict == "descending"
    assert (found.findings[0].confidence is Confidence.LOW) == guess
