"""The demo's two runs are what they are called, by brute force: train on and see."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from samdiag.gallery.digits import dataset
from samdiag.gallery.digits_runs import RUNS, fresh_model
from samdiag.gallery.training import Recipe, evaluate, one_thread, train

CHANCE = 2.302585  # ln 10: the loss of a network that cannot tell ten classes apart


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def first_run(name: str) -> nn.Sequential:
    model = fresh_model()
    with one_thread():
        list(train(model, dataset(), RUNS[name]))
    return model


@pytest.fixture(scope="module")
def healthy() -> nn.Sequential:
    return first_run("healthy")


@pytest.fixture(scope="module")
def stuck() -> nn.Sequential:
    return first_run("stuck")


def trained_on(model: nn.Sequential, recipe: Recipe) -> tuple[float, float]:
    """(loss, accuracy) of a copy of `model` after `recipe`."""
    other = copy.deepcopy(model)
    list(train(other, dataset(), recipe))
    return evaluate(other, dataset())


def grad_norm_and_lambda_min(model: nn.Sequential) -> tuple[float, float]:
    """|g| and the Rayleigh quotient that power iteration on 1 − H ends at: at most a little above lambda_min.

    Right where the spectrum lies within (−1, 1), as it does near the zero network.
    """
    parameters = list(model.parameters())
    inputs, targets = dataset().tensors
    gradient = torch.autograd.grad(functional.cross_entropy(model(inputs), targets), parameters, create_graph=True)
    flat = torch.cat([part.flatten() for part in gradient])
    vector = torch.randn(flat.numel(), generator=torch.Generator().manual_seed(0))
    value = 0.0
    for _ in range(100):
        vector = vector / vector.norm()
        parts = torch.autograd.grad(flat, parameters, grad_outputs=vector, retain_graph=True)
        product = torch.cat([part.flatten() for part in parts])
        value = float(vector @ product)
        vector = vector - product
    return float(flat.detach().norm()), value


def test_healthy_has_learnt_and_goes_on(healthy: nn.Sequential) -> None:
    loss, accuracy = evaluate(healthy, dataset())
    assert loss < 0.2
    assert accuracy > 0.95
    assert trained_on(healthy, replace(RUNS["healthy"], steps=500))[0] < 0.7 * loss


def test_stuck_sits_at_chance(stuck: nn.Sequential) -> None:
    loss, accuracy = evaluate(stuck, dataset())
    assert loss == pytest.approx(CHANCE, abs=0.02)
    assert accuracy < 0.2


def test_stuck_stays_when_sam_goes_on(stuck: nn.Sequential) -> None:
    loss, accuracy = trained_on(stuck, replace(RUNS["stuck"], steps=2000))
    assert loss == pytest.approx(CHANCE, abs=0.02)
    assert accuracy < 0.2


def test_plain_gradient_descent_leaves(stuck: nn.Sequential) -> None:
    loss, accuracy = trained_on(stuck, replace(RUNS["stuck"], steps=500, rho=0.0))
    assert loss < 0.5
    assert accuracy > 0.9


def test_stuck_is_captured_by_the_theory_and_freed_by_its_remedy(stuck: nn.Sequential) -> None:
    """rho·|lambda_min| > |g| as in theory A5; half the radius at which they would be equal sets it free."""
    norm, lambda_min = grad_norm_and_lambda_min(stuck)
    rho = RUNS["stuck"].rho
    assert lambda_min < -0.1
    assert rho * -lambda_min > 5 * norm
    loss, accuracy = trained_on(stuck, replace(RUNS["stuck"], steps=500, rho=0.5 * norm / -lambda_min))
    assert loss < 0.6
    assert accuracy > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 8))
def test_the_outcome_is_not_an_accident_of_the_seed(seed: int) -> None:
    ends = {}
    for name, recipe in RUNS.items():
        model = fresh_model(seed)
        list(train(model, dataset(), recipe))
        ends[name] = trained_on(model, replace(recipe, steps=1000))[0]
    assert ends["healthy"] < 0.1
    assert ends["stuck"] == pytest.approx(CHANCE, abs=0.02)
