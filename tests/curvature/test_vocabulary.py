"""The lean cross-entropy is `F.cross_entropy` to second order, is found wherever it is called, and keeps no logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samdiag
from samdiag.curvature import cross_entropy, vocabulary
from samdiag.curvature.saying import remarks
from samdiag.curvature.vocabulary import LeanVocabulary
from samdiag.errors import CannotDecide
from tests.curvature.attention_cases import SmallLanguageModel, next_token
from tests.curvature.model_cases import CASES

CLASSES = 13


@pytest.fixture(autouse=True)
def _many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 3 * 8 * CLASSES)  # three rows of float64


def arguments(bias: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 5, 4), (CLASSES, 4)] + [(CLASSES,)] * bias
    return [torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


LABELS = torch.randint(0, CLASSES, (2, 5), generator=torch.Generator().manual_seed(1))
LABELS[0, 2] = LABELS[1, 4] = -100
WEIGHT = torch.rand(CLASSES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

Loss = Callable[[list[Tensor]], Tensor]


def products(loss: Loss, parameters: list[Tensor], vectors: list[Tensor]) -> Tensor:
    """Loss, gradient and Hessian product in one vector."""
    value = loss(parameters)
    gradient = torch.autograd.grad(value, parameters, create_graph=True)
    change = torch.autograd.grad(gradient, parameters, vectors)
    return torch.cat([t.detach().reshape(-1) for t in (value, *gradient, *change)])


def lean(loss: Loss) -> Loss:
    def call(parameters: list[Tensor]) -> Tensor:
        with LeanVocabulary(CLASSES):
            return loss(parameters)

    return call


def make_loss(**options: Any) -> Loss:
    def loss(parameters: list[Tensor]) -> Tensor:
        x, w, *b = parameters
        labels = LABELS if "ignore_index" not in options else LABELS.clamp(min=0)
        value = F.cross_entropy(F.linear(x.sin(), w, *b).view(-1, CLASSES), labels.view(-1), **options)
        return value.pow(2).sum()  # a factor that depends on the loss: the derivative by g is used too

    return loss


OPTIONS = [
    {"reduction": reduction, "label_smoothing": smoothing, "weight": weight}
    for reduction in ("mean", "sum", "none")
    for smoothing in (0.0, 0.1)
    for weight in (None, WEIGHT)
] + [{"ignore_index": int(LABELS[0, 0])}]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(k) for k, v in o.items() if v is not None))
@pytest.mark.parametrize("bias", [True, False])
def test_value_gradient_and_products_are_those_of_torch(options: dict[str, Any], bias: bool) -> None:
    parameters = arguments(bias)
    vectors = [torch.randn_like(p) for p in parameters]
    loss = make_loss(**options)
    with remarks() as said:
        found = products(lean(loss), parameters, vectors)
    assert any("large vocabulary" in text for text in said)
    assert torch.allclose(found, products(loss, parameters, vectors), rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated.*")
def test_forward_over_reverse_and_batched_products_are_the_same() -> None:
    parameters = arguments(True)
    vectors = [torch.randn_like(p) for p in parameters]
    loss = make_loss(label_smoothing=0.1, weight=WEIGHT)
    truth = products(loss, parameters, vectors)[-sum(p.numel() for p in parameters) :]
    start = tuple(p.detach() for p in parameters)
    forward = torch.func.jvp(torch.func.grad(lambda p: lean(loss)(list(p))), (start,), (tuple(vectors),))[1]
    assert torch.allclose(torch.cat([t.reshape(-1) for t in forward]), truth, rtol=1e-10, atol=1e-12)
    gradient = torch.autograd.grad(lean(loss)(parameters), parameters, create_graph=True)
    block = [torch.stack([v, -2 * v]) for v in vectors]
    for batched in (
        torch.vmap(lambda *v: torch.autograd.grad(gradient, parameters, v, retain_graph=True))(*block),
        torch.autograd.grad(gradient, parameters, block, is_grads_batched=True, retain_graph=True),
    ):
        assert torch.allclose(torch.cat([t[0].reshape(-1) for t in batched]), truth, rtol=1e-10, atol=1e-12)
        assert torch.allclose(torch.cat([t[1].reshape(-1) for t in batched]), -2 * truth, rtol=1e-10, atol=1e-12)


def test_a_third_derivative_is_refused_and_not_wrong() -> None:
    parameters = arguments(False)
    gradient = torch.autograd.grad(lean(make_loss())(parameters), parameters, create_graph=True)
    change = torch.autograd.grad(gradient, parameters, gradient, create_graph=True)
    with pytest.raises(CannotDecide, match="third derivative"):
        torch.autograd.grad(change[0].sum(), parameters)


# how losses reach the logits, and whether the trail is followed
CALLS: dict[str, tuple[bool, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "rows": (True, lambda x, w, y: F.cross_entropy(F.linear(x, w).flatten(0, 1), y.flatten())),
    "sequences": (True, lambda x, w, y: F.cross_entropy(F.linear(x, w).transpose(1, 2), y)),
    "permuted": (True, lambda x, w, y: F.cross_entropy(F.linear(x, w).permute(0, 2, 1), y, reduction="none").mean()),
    "shifted": (
        True,
        lambda x, w, y: F.cross_entropy(
            F.linear(x, w)[..., :-1, :].contiguous().float().view(-1, CLASSES), y[..., 1:].reshape(-1)
        ),
    ),
    "shifted, short index": (
        True,
        lambda x, w, y: F.cross_entropy(F.linear(x, w)[:, :-1].reshape(-1, CLASSES), y[:, 1:].flatten()),
    ),
    "matmul": (True, lambda x, w, y: F.cross_entropy((x @ w.t()).view(-1, CLASSES), y.view(-1))),
    "module": (True, lambda x, w, y: nn.CrossEntropyLoss()(F.linear(x, w).view(-1, CLASSES), y.view(-1))),
    "temperature": (False, lambda x, w, y: F.cross_entropy((F.linear(x, w) / 2).view(-1, CLASSES), y.view(-1))),
    "soft cap": (False, lambda x, w, y: F.cross_entropy(F.linear(x, w).tanh().view(-1, CLASSES), y.view(-1))),
    "fewer classes": (
        False,
        lambda x, w, y: F.cross_entropy(F.linear(x, w)[..., :-1].reshape(-1, CLASSES - 1), y.view(-1) % (CLASSES - 1)),
    ),
    "written into": (
        False,
        lambda x, w, y: F.cross_entropy(F.linear(x, w).mul_(2.0).view(-1, CLASSES), y.view(-1)),
    ),
    "probabilities": (
        False,
        lambda x, w, y: F.cross_entropy(F.linear(x, w).view(-1, CLASSES), F.one_hot(y.view(-1), CLASSES).to(x.dtype)),
    ),
    "flattened otherwise": (
        False,
        lambda x, w, y: F.cross_entropy(F.linear(x, w).transpose(1, 2).reshape(-1, CLASSES), y.view(-1)),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_trail_of_the_logits_is_followed_or_left_and_the_product_is_right_both_ways(name: str) -> None:
    followed, call = CALLS[name]
    parameters = [p.detach().float().requires_grad_() for p in arguments(False)]
    vectors = [torch.randn_like(p) for p in parameters]
    labels = LABELS.clamp(min=0)

    def loss(p: list[Tensor]) -> Tensor:
        return call(p[0].sin(), p[1], labels)

    with remarks() as said:
        found = products(lean(loss), parameters, vectors)
    assert bool(said) == followed
    assert torch.allclose(found, products(loss, parameters, vectors), rtol=1e-4, atol=1e-5)


def saved_bytes(active: bool, classes: int) -> int:
    """What autograd keeps for a small language model's gradient graph, beside its parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallLanguageModel(classes)
    tokens = torch.randint(0, classes, (2, 32), generator=torch.Generator().manual_seed(1))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    from samdiag.curvature.substitutes import math_attention

    with (
        math_attention(model),
        LeanVocabulary(vocabulary.MIN_CLASSES if active else classes + 1),
        torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
    ):
        gradient = torch.autograd.grad(next_token(model, tokens), list(model.parameters()), create_graph=True)
        total = sum(size for key, size in kept.items() if key not in own)
    assert gradient
    return total


def test_no_tensor_of_the_size_of_the_logits_is_kept() -> None:
    classes = 50257  # of GPT-2
    logits = 2 * 31 * classes * 4
    assert saved_bytes(False, classes) > 2 * logits
    assert saved_bytes(True, classes) < 0.1 * logits


def test_small_vocabularies_are_left_to_torch() -> None:
    with remarks() as said, vocabulary.lean_vocabulary(nn.Linear(8, 100)):
        F.cross_entropy(F.linear(torch.ones(2, 8), torch.ones(100, 8)), torch.tensor([1, 2]))
    assert not said


def test_the_report_says_so_and_the_lower_bound_of_the_loss_is_still_known() -> None:
    m = samdiag.diagnose(CASES["large_vocabulary"](), rho=0.05, max_products=6).measurements
    assert m is not None
    assert m.loss_lower_bound == 0.0
    assert any("large vocabulary was computed in chunks" in note for note in m.notes)
