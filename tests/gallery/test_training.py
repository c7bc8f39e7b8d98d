"""The reference training loop does what its formula says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from samdiag.gallery.digits import dataset
from samdiag.gallery.digits_runs import fresh_model
from samdiag.gallery.training import Recipe, evaluate, one_thread, train


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


class Point(nn.Module):
    """The parameter itself: with a criterion of its own, any function f(x)."""

    def __init__(self, *start: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, _: Tensor) -> Tensor:
        return self.x


CURVATURE = torch.tensor([2.0, -0.5], dtype=torch.float64)
NO_DATA = TensorDataset(torch.zeros(1, 1), torch.zeros(1))


def quadratic(x: Tensor, _: Tensor) -> Tensor:
    return (CURVATURE * x.square()).sum() / 2


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("variant", ["sam", "usam"])
def test_steps_equal_the_closed_form_on_a_quadratic(variant: str, momentum: float) -> None:
    rho, lr, steps = 0.3, 0.05, 25
    model = Point(1.0, -0.2)
    list(train(model, NO_DATA, Recipe(steps=steps, lr=lr, rho=rho, momentum=momentum, variant=variant), quadratic))  # type: ignore[arg-type]
    x = torch.tensor([1.0, -0.2], dtype=torch.float64)
    v = torch.zeros_like(x)
    for _ in range(steps):
        g = CURVATURE * x
        v = momentum * v + CURVATURE * (x + rho * (g if variant == "usam" else g / g.norm()))
        x = x - lr * v
    torch.testing.assert_close(model.x.detach(), x, rtol=1e-12, atol=1e-14)


def test_without_rho_it_is_torchs_own_sgd() -> None:
    data, model, other = dataset(), fresh_model(3), fresh_model(3)
    list(train(model, data, Recipe(steps=10, lr=0.1, momentum=0.9)))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    inputs, targets = data.tensors
    for _ in range(10):
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(other(inputs), targets))
        optimizer.step()
    torch.testing.assert_close(weights(model), weights(other), rtol=1e-5, atol=1e-6)


def test_a_critical_point_is_not_left() -> None:
    model = Point(0.0, 0.0)
    list(train(model, NO_DATA, Recipe(steps=3, lr=0.1, rho=0.5), quadratic))
    assert not model.x.detach().any()


def test_a_failing_second_gradient_leaves_the_point_in_place() -> None:
    model = Point(1.0, 1.0)
    calls = iter([None, ValueError("second call")])

    def fails_second_time(x: Tensor, y: Tensor) -> Tensor:
        error = next(calls)
        if error is not None:
            raise error
        return quadratic(x, y)

    with pytest.raises(ValueError, match="second call"):
        list(train(model, NO_DATA, Recipe(steps=1, lr=0.1, rho=0.5), fails_second_time))
    assert model.x.tolist() == [1.0, 1.0]


def test_records_are_one_per_step_and_the_loss_falls() -> None:
    data, model = dataset(), fresh_model()
    records = list(train(model, data, Recipe(steps=100, lr=0.2, rho=0.05)))
    assert [record.step for record in records] == list(range(1, 101))
    assert records[0].loss > 2.0
    assert evaluate(model, data)[0] < 0.6


@pytest.mark.parametrize("batch_size", [None, 128])
def test_the_same_seed_gives_the_same_weights(batch_size: int | None) -> None:
    runs = []
    for _ in range(2):
        model = fresh_model(1)
        list(train(model, dataset(), Recipe(steps=30, lr=0.1, rho=0.05, momentum=0.9, batch_size=batch_size)))
        runs.append(weights(model))
    assert torch.equal(runs[0], runs[1])


def test_seeds_and_batches_matter() -> None:
    assert not torch.equal(weights(fresh_model(0)), weights(fresh_model(1)))
    found = []
    for seed in (0, 1):
        model = fresh_model(0)
        list(train(model, dataset(), Recipe(steps=3, lr=0.1, batch_size=64, seed=seed)))
        found.append(weights(model))
    assert not torch.equal(found[0], found[1])


def test_an_epoch_sees_each_sample_once() -> None:
    seen: list[float] = []
    data = TensorDataset(torch.zeros(10, 1), torch.arange(10.0))

    def note(x: Tensor, y: Tensor) -> Tensor:
        seen.extend(y.tolist())
        return quadratic(x, y)

    list(train(Point(1.0, 1.0), data, Recipe(steps=3, lr=0.1, batch_size=3), note))
    assert len(set(seen)) == len(seen) == 9  # the ragged tenth is dropped


def test_a_fresh_model_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fresh_model(9)
    assert torch.equal(torch.rand(3), expected)


def test_running_statistics_see_one_pass_per_step() -> None:
    data, first = dataset(), nn.Linear(64, 8)
    norm, expected = nn.BatchNorm1d(8), nn.BatchNorm1d(8)
    expected(first(data.tensors[0]))
    list(train(nn.Sequential(first, norm, nn.Linear(8, 10)), data, Recipe(steps=1, lr=0.1, rho=0.5)))
    for name, value in expected.named_buffers():
        assert torch.equal(norm.get_buffer(name), value), name
