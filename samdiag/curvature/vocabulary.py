"""Large vocabularies: `F.cross_entropy` of an output layer's logits, caught wherever called, without its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from samdiag.curvature.cross_entropy import lean_cross_entropy
from samdiag.curvature.saying import say

MIN_CLASSES = 4096  # below it the logits are small beside the rest, and plain kernels are as fast (docs/models.md)
ORIGIN = "_samdiag_output_layer"
NONNEGATIVE = "_samdiag_nonnegative"  # on a loss that no model can bring below 0
TURNS = frozenset({Tensor.transpose, torch.transpose, Tensor.permute, torch.permute})
SHAPE_CALLS = frozenset({Tensor.view, Tensor.reshape, torch.reshape, Tensor.flatten, torch.flatten})
PLAIN_CALLS = frozenset({Tensor.contiguous, Tensor.float, Tensor.double, Tensor.to})
PRODUCTS = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm})


@dataclass(frozen=True, slots=True)
class _Origin:
    """Logits [..., V] are x wᵀ + b with x [..., d].

    Attributes:
        version: of the logits: whether somebody has written into them since.
        turned: the logits are [B, V, T] for x [B, T, d], as `F.cross_entropy` wants them of sequences.
    """

    x: Tensor
    w: Tensor
    b: Tensor | None
    version: int
    turned: bool = False


class LeanVocabulary(TorchFunctionMode):
    """While active, cross-entropy of logits that come straight from a linear layer of many classes is made lean.

    Logits are followed through view, reshape, flatten, contiguous, float and slices of their leading dimensions.
    Whatever else is done to them (a temperature, a soft cap, a mask) ends the trail, and the plain kernel runs.
    """

    def __init__(self, min_classes: int = MIN_CLASSES) -> None:
        super().__init__()
        self.min_classes = min_classes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.cross_entropy:
            lean = _replaced(*args, **kwargs)
            return func(*args, **kwargs) if lean is None else lean
        out = func(*args, **kwargs)
        if func is F.linear or func in PRODUCTS:
            self._begin(func, out, args, kwargs)
        elif args and isinstance(args[0], Tensor) and hasattr(args[0], ORIGIN):
            _follow(func, out, args, kwargs)
        return out

    def _begin(self, func: Any, logits: Any, args: Any, kwargs: Any) -> None:
        if not isinstance(logits, Tensor) or logits.dim() < 2 or logits.shape[-1] < self.min_classes:
            return
        given = (*args, *kwargs.values())
        x, w = given[0], given[1]
        if w.dim() != 2 or not logits.is_floating_point():
            return
        if func is not F.linear:
            w = w.t()
        b = given[2] if func is F.linear and len(given) > 2 else None
        setattr(logits, ORIGIN, _Origin(x, w, b, logits._version))


def _follow(func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Carries the origin over to `out` where it holds the same logits, or some whole rows of them."""
    logits = args[0]
    origin: _Origin = getattr(logits, ORIGIN)
    if not isinstance(out, Tensor) or out is logits or out.dtype != logits.dtype or out.dim() < 1:
        return
    if out.device != logits.device or logits._version != origin.version or origin.turned:
        return
    if func in TURNS:
        if _turns((*args[1:], *kwargs.values())) and logits.dim() == 3:
            setattr(out, ORIGIN, _Origin(origin.x, origin.w, origin.b, out._version, turned=True))
        return
    if out.shape[-1] != logits.shape[-1]:
        return
    if func in SHAPE_CALLS:
        x = origin.x.reshape(*out.shape[:-1], origin.x.shape[-1])
    elif func in PLAIN_CALLS and out.shape == logits.shape:
        x = origin.x
    elif func is Tensor.__getitem__ and _only_leading(args[1], logits.dim()):
        x = origin.x[args[1]]
    else:
        return
    setattr(out, ORIGIN, _Origin(x, origin.w, origin.b, out._version))


def _turns(order: tuple[Any, ...]) -> bool:
    """Whether transpose's or permute's arguments exchange the last two of three dimensions, and nothing else."""
    flat = tuple(order[0]) if len(order) == 1 and isinstance(order[0], (tuple, list)) else order
    if not all(isinstance(i, int) for i in flat):
        return False
    places = tuple(i % 3 for i in flat)
    return places in ((1, 2), (2, 1), (0, 2, 1))


def _only_leading(index: Any, dims: int) -> bool:
    """Whether the index takes slices of the leading dimensions and leaves the last one whole."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(part is Ellipsis or isinstance(part, (int, slice)) for part in parts):
        return False
    return parts[-1] == slice(None) if Ellipsis in parts or len(parts) == dims else parts[-1] is not Ellipsis


def _replaced(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor | None:
    """The lean loss, or None where it does not apply; the arguments are `F.cross_entropy`'s."""
    origin: _Origin | None = getattr(input, ORIGIN, None)
    if origin is None or input._version != origin.version or target.is_floating_point() or target.numel() == 0:
        return None
    if input.dim() != (3 if origin.turned else 2) or target.dim() != input.dim() - 1:
        return None
    if size_average is not None or reduce is not None or (weight is not None and weight.requires_grad):
        return None
    logits = input.transpose(1, 2).flatten(0, 1) if origin.turned else input
    say("the cross-entropy of a large vocabulary was computed in chunks of rows, to save memory")
    loss = lean_cross_entropy(
        origin.x.flatten(0, -2),
        origin.w,
        origin.b,
        logits,
        target.flatten(),
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
    if reduction == "none":
        return loss.reshape(target.shape)
    setattr(loss, NONNEGATIVE, weight is None or bool((weight >= 0).all()))
    return loss


@contextmanager
def lean_vocabulary(model: nn.Module) -> Iterator[None]:
    """`LeanVocabulary` for a model that has a matrix of MIN_CLASSES rows or columns; nothing for others."""
    if any(p.dim() == 2 and max(p.shape) >= MIN_CLASSES for p in model.parameters()):
        with LeanVocabulary():
            yield
    else:
        yield
