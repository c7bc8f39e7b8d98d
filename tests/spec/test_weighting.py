"""Named losses bound to their data: every target counted the same, label smoothing's bound, tables as batches."""

from __future__ import annotations

import math
from collections import UserDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from samdiag.curvature.batches import halve
from samdiag.errors import UsageError
from samdiag.measure.opening import opened
from samdiag.measure.settings import MeasureSettings
from samdiag.spec.losses import causal_lm, cross_entropy, mse, next_tokens
from samdiag.spec.weighting import RAGGED_MODEL, bind, smoothed_entropy
from samdiag.types import Problem
from tests.spec.catalog_truth import dense_hessian

VOCABULARY = 5


class Bigrams(nn.Module):
    """Logits of the next token from the present one, as an object with `.logits`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.dropout = nn.Embedding(VOCABULARY, VOCABULARY), nn.Dropout(0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return SimpleNamespace(logits=self.dropout(self.embedding(input_ids)))


def ragged(lengths: list[int], width: int = 7) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    ids = torch.randint(VOCABULARY, (len(lengths), width), generator=generator)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


BATCHES = [ragged([7, 6, 7]), ragged([2, 3]), ragged([5, 2, 4, 7])]


def mean_over_tokens(model: nn.Module) -> Tensor:
    """The truth: every predicted token of the data once."""
    values = []
    for batch in BATCHES:
        logits = model(batch["input_ids"]).logits
        for row, labels in zip(logits, batch["labels"], strict=True):
            for place in range(len(labels) - 1):
                if labels[place + 1] != -100:
                    values.append(-functional.log_softmax(row[place], -1)[labels[place + 1]])
    return torch.stack(values).mean()


def test_every_token_counts_the_same_whatever_the_batches() -> None:
    model = Bigrams().eval()
    loss = bind("causal_lm", {}, model, BATCHES, None).function
    counts = [3, 2, 4]
    weighted = sum(count * loss(model, batch) for count, batch in zip(counts, BATCHES, strict=True)) / 9
    truth = mean_over_tokens(model)
    assert float(weighted.detach()) == pytest.approx(float(truth.detach()), rel=1e-6)
    plain = sum(count * causal_lm(model, batch) for count, batch in zip(counts, BATCHES, strict=True)) / 9
    assert (
        abs(float(plain.detach()) - float(truth.detach())) > 0.01
    )  # what the mean of each batch's own mean would give
    halves = halve(BATCHES[2], 4)
    assert halves is not None
    parts = [float(loss(model, half).detach()) for half in halves]
    assert float(loss(model, BATCHES[2]).detach()) == pytest.approx(sum(parts) / 2, rel=1e-6)


def test_the_hessian_is_that_of_the_mean_over_tokens() -> None:
    model = Bigrams().eval()
    loss = bind("causal_lm", {}, model, BATCHES, None).function
    found = dense_hessian(Problem(model=model, loss=loss, batches=BATCHES))
    point = model.embedding.weight.detach().flatten()

    def of(flat: Tensor) -> Tensor:
        return mean_over_tokens(lambda ids: SimpleNamespace(logits=functional.embedding(ids, flat.view(5, 5))))

    assert torch.allclose(found, torch.autograd.functional.hessian(of, point), atol=1e-12)


def test_labels_are_the_tokens_that_the_mask_leaves_where_none_are_given() -> None:
    batch = {name: value for name, value in BATCHES[1].items() if name != "labels"}
    assert torch.equal(next_tokens(batch), next_tokens(BATCHES[1]))
    assert next_tokens(torch.tensor([[1, 2, 3]])).tolist() == [[2, 3, -100]]


def test_masked_tokens_are_weighted_too_and_full_batches_are_left_alone() -> None:
    model = Bigrams().eval()
    loss = bind("cross_entropy", {}, model, BATCHES, None).function
    total = sum(float((batch["labels"] != -100).sum()) for batch in BATCHES)
    sums = [
        functional.cross_entropy(model(b["input_ids"]).logits.flatten(0, 1), b["labels"].flatten(), reduction="sum")
        for b in BATCHES
    ]
    weighted = sum(count * loss(model, batch) for count, batch in zip([3, 2, 4], BATCHES, strict=True)) / 9
    assert float(weighted.detach()) == pytest.approx(float(sum(sums).detach()) / total, rel=1e-6)
    assert bind("cross_entropy", {}, model, [ragged([7, 7]), ragged([7])], None).function is cross_entropy
    pairs = [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))]
    assert bind("cross_entropy", {}, nn.Linear(3, 2), pairs, None).function is cross_entropy


def test_a_models_own_loss_over_labels_of_different_numbers_is_said() -> None:
    assert bind("model", {}, Bigrams(), BATCHES, None).notes == (RAGGED_MODEL,)
    assert bind("model", {}, Bigrams(), [ragged([7, 7])], None).notes == ()


def test_the_models_own_cross_entropy_is_seen_to_be_never_negative() -> None:
    class Own(nn.Linear):
        def forward(self, rows: Tensor, labels: Tensor) -> Any:
            return {"loss": functional.cross_entropy(super().forward(rows), labels)}

    batches = [{"rows": torch.randn(4, 3), "labels": torch.tensor([0, 1, 0, 1])}]
    problem = Problem(model=Own(3, 2), loss=bind("model", {}, Own(3, 2), batches, None).function, batches=batches)
    with opened(problem, MeasureSettings(rho=0.1)) as found:
        assert found.loss_lower_bound == 0.0


def test_classes_may_be_last_where_targets_say_so() -> None:
    logits, targets = torch.randn(2, 6, 5), torch.randint(5, (2, 6))
    wanted = functional.cross_entropy(logits.transpose(1, 2), targets)
    assert torch.allclose(cross_entropy(lambda _: logits, (torch.zeros(2), targets)), wanted)
    assert torch.allclose(cross_entropy(lambda _: logits.transpose(1, 2), (torch.zeros(2), targets)), wanted)
    square, targets = torch.randn(2, 5, 5), torch.randint(5, (2, 5))
    wanted = functional.cross_entropy(square, targets)  # torch's own order where both are possible
    assert torch.equal(cross_entropy(lambda _: square, (torch.zeros(2), targets)), wanted)


@settings(deadline=None)
@given(st.floats(0.001, 1), st.integers(2, 50), st.integers(0, 10**6))
def test_label_smoothing_never_goes_below_its_bound_and_reaches_it(smoothing: float, classes: int, seed: int) -> None:
    bound = smoothed_entropy(smoothing, classes)
    target = torch.tensor([0])
    own = torch.full((classes,), smoothing / classes, dtype=torch.float64)
    own[0] += 1 - smoothing
    at_best = functional.cross_entropy(own.log()[None], target, label_smoothing=smoothing)
    assert float(at_best) == pytest.approx(bound, rel=1e-9)
    assert bound <= math.log(classes) + 1e-12
    other = torch.randn(1, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert float(functional.cross_entropy(other, target, label_smoothing=smoothing)) >= bound - 1e-12
    mixed = torch.softmax(other, 1)
    assert float(functional.cross_entropy(other, mixed, label_smoothing=smoothing)) >= bound - 1e-12


def test_the_bound_is_found_from_the_models_own_classes() -> None:
    model = Bigrams().train()
    bound = bind("causal_lm", {"label_smoothing": 0.1}, model, BATCHES, None)
    assert bound.lower_bound == pytest.approx(smoothed_entropy(0.1, VOCABULARY))
    assert model.dropout.training
    batch = (torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    smoothed = bind("cross_entropy", {"label_smoothing": 0.2}, nn.Linear(3, 2), [batch], None)
    assert smoothed.lower_bound == pytest.approx(smoothed_entropy(0.2, 2))
    plain = nn.Linear(3, 2)
    wanted = functional.cross_entropy(plain(batch[0]), batch[1], label_smoothing=0.2)
    assert torch.equal(smoothed.function(plain, batch), wanted)


@pytest.mark.parametrize(
    ("name", "args", "what"),
    [
        ("mse", {"label_smoothing": 0.1}, "unknown to loss = mse"),
        ("cross_entropy", {"label_smooting": 0.1}, "did you mean 'label_smoothing'"),
        ("cross_entropy", {"label_smoothing": 1.5}, "must be between 0 and 1"),
        ("cross_entropy", {"label_smoothing": True}, "must be between 0 and 1"),
    ],
)
def test_arguments_that_a_loss_does_not_take(name: str, args: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        bind(name, args, nn.Linear(1, 1), [(torch.zeros(1, 1), torch.zeros(1, 1))], None)


@pytest.mark.parametrize("batch", [{"x": torch.zeros(2, 3)}, (torch.zeros(2, 3), torch.zeros(2, 3))])
def test_batches_that_are_no_tokens(batch: Any) -> None:
    with pytest.raises(UsageError, match="batches of tokens"):
        next_tokens(batch)


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_tables_are_measured_like_pairs(kind: Any) -> None:
    """A table of any kind moves to the dtype, is counted by its samples, and can be cut."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, rows: Tensor) -> Tensor:
            return self.layer(rows)

    rows, labels = torch.randn(12, 3), torch.randn(12, 1)
    batches = [kind({"rows": rows[i : i + 4], "labels": labels[i : i + 4]}) for i in (0, 4, 8)]
    problem = Problem(model=Named(), loss=mse, batches=batches)
    with opened(problem, MeasureSettings(rho=0.1, samples=8, dtype="float64")) as found:
        assert found.objective.counts == [4, 4]
        assert found.objective.batches[0]["rows"].dtype == torch.float64
        assert halve(found.objective.batches[0], 4)[0]["labels"].shape == (2, 1)
