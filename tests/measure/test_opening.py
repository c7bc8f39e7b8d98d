"""What is refused before anything is measured, and what is settled: data, device, dtype, batch size, loss."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samdiag
from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.measure.opening import opened
from samdiag.measure.settings import MeasureSettings
from samdiag.types import Problem
from tests.networks import NETWORKS, classification, cross_entropy

SETTINGS = MeasureSettings(rho=0.1)


def open_only(problem: Problem, settings: MeasureSettings = SETTINGS) -> Any:
    with opened(problem, settings) as ready:
        return ready


def with_batches(batches: Any, **more: Any) -> Problem:
    mlp = NETWORKS["mlp"]()
    return Problem(model=mlp.model, loss=more.pop("loss", mlp.loss), batches=batches, **more)


class Drifting:
    """Batches that differ at every pass, whatever the seed."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        yield torch.full((4, 6), float(self.passes)), torch.zeros(4, dtype=torch.long)


def test_a_loader_that_is_not_repeatable_is_refused() -> None:
    with pytest.raises(CannotDecide, match="not deterministic: its first batch differs"):
        open_only(with_batches(Drifting()))


def test_a_shuffling_loader_is_repeatable_under_the_seed() -> None:
    x, y = (torch.cat(parts) for parts in zip(*classification((6,), 5), strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=6, shuffle=True)
    assert open_only(with_batches(loader)).objective.num_samples == len(y)


def test_a_generator_is_read_only_once() -> None:
    with pytest.raises(UsageError, match="only once"):
        open_only(with_batches(b for b in classification((6,), 5)))


def test_empty_data() -> None:
    with pytest.raises(UsageError, match="the data is empty"):
        open_only(with_batches([]))


def test_a_random_loss_is_refused() -> None:
    def noisy(model: nn.Module, batch: Any) -> Tensor:
        return cross_entropy(model, batch) * (1 + random.random())

    with pytest.raises(CannotDecide, match="the loss is not deterministic"):
        open_only(with_batches(classification((6,), 5), loss=noisy))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(value: float) -> None:
    with pytest.raises(CannotDecide, match=r"the loss is (nan|inf)"):
        open_only(with_batches(classification((6,), 5), loss=lambda m, b: cross_entropy(m, b) * value))


def test_weights_that_are_not_finite_are_named() -> None:
    problem = NETWORKS["mlp"]()
    with torch.no_grad():
        next(problem.model.parameters())[0, 0] = float("nan")
    with pytest.raises(CannotDecide, match=r"0\.weight has 1 NaN or infinite value"):
        samdiag.diagnose(problem, rho=0.1)


def test_nothing_trainable() -> None:
    problem = NETWORKS["mlp"]()
    problem.model.requires_grad_(False)
    with pytest.raises(UsageError, match="no trainable parameters"):
        samdiag.diagnose(problem, rho=0.1)


@pytest.mark.parametrize("rho", [0, -1.0, float("nan"), float("inf"), "big", True, None])
def test_rho_must_be_a_positive_number(rho: Any) -> None:
    with pytest.raises(UsageError, match="rho"):
        samdiag.diagnose(NETWORKS["mlp"](), rho=rho)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda:99"} if torch.cuda.is_available() else {"device": "cuda"}, "device|GPU"),
        ({"device": "quantum"}, "measure.device = 'quantum'"),
        ({"device": "meta"}, "measure.device = 'meta'"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_devices_and_dtypes_that_cannot_be(settings: dict[str, str], message: str) -> None:
    with pytest.raises(SamdiagError, match=message):
        samdiag.diagnose(NETWORKS["mlp"](), rho=0.1, **settings)


def test_whole_batches_until_the_samples_are_reached() -> None:
    problem = with_batches(classification((6,), 5))
    assert open_only(problem, MeasureSettings(rho=0.1, samples=8)).objective.counts == [7, 7]
    assert open_only(problem, MeasureSettings(rho=0.1, samples=None)).objective.num_samples == 24


def test_the_problem_says_how_many_samples_a_batch_has() -> None:
    problem = with_batches(classification((6,), 5), num_samples=lambda batch: 10 * len(batch[1]))
    assert open_only(problem).objective.counts == [70, 70, 70, 30]


@pytest.mark.parametrize(
    ("loss", "bound"),
    [
        (cross_entropy, 0.0),
        (lambda m, b: F.mse_loss(m(b[0]), F.one_hot(b[1], 5).float()), 0.0),
        (lambda m, b: F.nll_loss(m(b[0]), b[1]), None),  # no log-softmax before it: may be negative
        (lambda m, b: cross_entropy(m, b) - 1.0, None),
    ],
)
def test_a_lower_bound_is_known_only_where_it_is_certain(loss: Any, bound: float | None) -> None:
    assert open_only(with_batches(classification((6,), 5), loss=loss)).loss_lower_bound == bound


def test_the_training_batch_is_the_problems_own_unless_said() -> None:
    batches = classification((6,), 5)
    assert open_only(with_batches(batches)).batch_size == 7
    assert open_only(with_batches(batches[:1])).batch_size is None
    assert open_only(with_batches(batches, batch_size_is_training=False)).batch_size is None
    assert open_only(with_batches(batches), MeasureSettings(rho=0.1, batch_size=3)).batch_size == 3
    assert open_only(with_batches(batches, population=24), MeasureSettings(rho=0.1, batch_size=24)).batch_size is None


def test_a_loader_with_a_generator_of_its_own_is_repeatable_and_given_back() -> None:
    x, y = (torch.cat(parts) for parts in zip(*classification((6,), 5), strict=True))
    own = torch.Generator().manual_seed(9)
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=6, shuffle=True, generator=own)
    state = own.get_state()
    assert open_only(with_batches(loader)).objective.num_samples == len(y)
    assert torch.equal(own.get_state(), state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.0},
        {"lr": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"batch_size": 0},
        {"num_eigenvalues": 0},
        {"samples": 0},
        {"tol": float("nan")},
        {"max_products": 0},
        {"seed": "one"},
    ],
)
def test_values_of_the_python_api_are_checked_as_those_of_the_command_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        samdiag.diagnose(NETWORKS["mlp"](), rho=0.1, **wrong)


def test_frozen_unused_and_half_precision_parameters_are_named() -> None:
    notes = open_only(NETWORKS["unused"]()).notes
    assert any("frozen" in note and "frozen.weight" in note for note in notes)
    assert any("does not use" in note and "never.weight" in note for note in notes)
    problem = NETWORKS["mlp"]()
    problem.model.bfloat16()
    assert any("bfloat16 weights were measured in float32" in note for note in open_only(problem).notes)


def test_memory_that_runs_out_does_not_change_the_training_batch() -> None:
    def hungry(model: nn.Module, batch: Any) -> Tensor:
        if len(batch[1]) > 4:
            raise torch.OutOfMemoryError("pretended")
        return cross_entropy(model, batch)

    ready = open_only(with_batches(classification((6,), 5), loss=hungry))
    assert ready.objective.split > 0
    assert ready.batch_size == 7


def test_a_loss_that_sums_over_samples_is_refused() -> None:
    def total(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    with pytest.raises(UsageError, match="a sum over samples, not their mean"):
        open_only(with_batches(classification((6,), 5), loss=total))


def test_an_assumed_full_batch_is_said_aloud() -> None:
    notes = open_only(with_batches(classification((6,), 5), batch_size_is_training=False)).notes
    assert any("full batches are assumed" in note for note in notes)
