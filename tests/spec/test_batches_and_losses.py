"""Data cut into batches, and the losses that have a name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from samdiag import registry
from samdiag.errors import UsageError
from samdiag.spec.batches import check_pairs, cut, first_batch
from samdiag.spec.losses import NamedLoss


def dataset(num_samples: int = 40) -> TensorDataset:
    return TensorDataset(torch.arange(float(num_samples))[:, None], torch.arange(num_samples))


class Squares(Dataset[Any]):
    def __init__(self, num_samples: int = 20) -> None:
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> tuple[float, int]:
        return float(index**2), index


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield torch.zeros(1)


@settings(deadline=None)
@given(st.integers(1, 3000), st.none() | st.integers(1, 4000), st.none() | st.integers(1, 600))
def test_a_dataset_is_shuffled_once_and_cut(population: int, num_samples: int | None, batch_size: int | None) -> None:
    batches = cut(dataset(population), num_samples=num_samples, batch_size=batch_size)
    taken = min(population, num_samples or population)
    items = list(batches.items)
    seen = torch.cat([targets for _, targets in items])
    assert len(seen) == taken
    assert len(set(seen.tolist())) == taken
    assert torch.equal(seen, torch.cat([targets for _, targets in batches.items]))
    assert len(items) == len(batches.items)
    assert len(items) >= min(8, taken)
    assert max(len(targets) for _, targets in items) <= (batch_size or 256)
    assert (batches.population, batches.as_in_training) == (population, False)


def test_batches_of_a_sorted_dataset_are_mixed() -> None:
    """A data set sorted by class must not give one-class batches: the noise between them would be the classes'."""
    data = TensorDataset(torch.zeros(800, 1), torch.arange(800) // 100)
    batches = cut(data, num_samples=None, batch_size=None)
    assert all(len(set(targets.tolist())) > 4 for _, targets in batches.items)
    other = cut(data, num_samples=None, batch_size=None, seed=1)
    assert not torch.equal(next(iter(other.items))[1], next(iter(batches.items))[1])


def test_other_datasets_go_through_a_loader_that_leaves_the_generator_alone() -> None:
    batches = cut(Squares(), num_samples=17, batch_size=None)
    state = torch.get_rng_state()
    passes = [torch.cat([targets for _, targets in batches.items]) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(passes[0], passes[1])
    assert len(set(passes[0].tolist())) == 17
    assert batches.population == 20


def test_batches_are_taken_as_they_are() -> None:
    own = [(torch.zeros(2), torch.zeros(2))]
    batches = cut(own, num_samples=None, batch_size=None)
    assert batches.items is own
    assert (batches.population, batches.as_in_training) == (None, True)
    loader = DataLoader(dataset(), batch_size=4, shuffle=True)
    assert "shuffles" in cut(loader, num_samples=None, batch_size=None).notes[0]


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        ((item for item in [1]), "only once"),
        (iter([1]), "only once"),
        ((torch.zeros(2), torch.zeros(2)), "two tensors"),
        (torch.zeros(2), "neither a Dataset nor batches"),
        ({"a": 1}, "neither"),
        ("text", "neither"),
        (None, "neither"),
        (Stream(), "neither"),
        (Squares(0), "empty Dataset"),
        (Dataset(), "without a length"),
    ],
)
def test_what_is_no_data(returned: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        cut(returned, num_samples=None, batch_size=None)


def test_batches_are_not_cut_again() -> None:
    with pytest.raises(UsageError, match="cut a Dataset"):
        cut([(1, 2)], num_samples=3, batch_size=None)


def test_the_first_batch_shows_what_a_named_loss_will_meet() -> None:
    with pytest.raises(UsageError, match="no batches"):
        first_batch([])
    check_pairs((1, 2), "mse")
    for batch in ({"x": 1, "y": 2}, torch.zeros(2), (1, 2, 3)):
        with pytest.raises(UsageError, match="takes batches"):
            check_pairs(batch, "mse")


def named(name: str) -> NamedLoss:
    found = registry.load(registry.LOSSES[name])
    assert isinstance(found, NamedLoss)
    return found


def test_named_losses_are_torchs_own() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Linear(3, 2), torch.randn(5, 3)
    classes, probabilities = torch.randint(2, (5,)), torch.rand(5, 2)
    expected = {
        "cross_entropy": (functional.cross_entropy(model(inputs), classes), classes),
        "mse": (functional.mse_loss(model(inputs), probabilities), probabilities),
        "bce_with_logits": (functional.binary_cross_entropy_with_logits(model(inputs), probabilities), probabilities),
    }
    for name, (value, targets) in expected.items():
        assert torch.equal(named(name).function(model, (inputs, targets)), value)
        assert named(name).lower_bound == 0.0


def test_every_loss_of_the_registry_exists() -> None:
    assert all(isinstance(named(name), NamedLoss) for name in registry.LOSSES)


@pytest.mark.parametrize("name", ["mse", "bce_with_logits"])
def test_shapes_that_would_broadcast_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"\(5, 1\) with targets of \(5,\)"):
        named(name).function(nn.Linear(3, 1), (torch.randn(5, 3), torch.zeros(5)))


def test_logits_are_found_and_other_outputs_refused() -> None:
    batch = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
    outputs = torch.zeros(2, 2)
    assert named("cross_entropy").function(lambda _: SimpleNamespace(logits=outputs), batch) > 0
    with pytest.raises(UsageError, match="returns a tuple"):
        named("cross_entropy").function(lambda _: (outputs,), batch)


@pytest.mark.parametrize("batch", [{"x": 2.0}, (2.0,), 2.0])
@pytest.mark.parametrize(
    "wrap", [lambda loss: loss, lambda loss: {"loss": loss}, lambda loss: SimpleNamespace(loss=loss)]
)
def test_the_models_own_loss(batch: Any, wrap: Any) -> None:
    assert named("model").function(lambda x: wrap(torch.tensor(x)), batch) == 2.0
    with pytest.raises(UsageError, match="returns no loss"):
        named("model").function(lambda x: wrap(torch.tensor([x, x])), batch)
