"""Cross-entropy over a large vocabulary whose first and second derivatives never hold all the logits.

A gradient's graph of `F.cross_entropy(F.linear(x, w, b), y)` keeps about three tensors of the logits' size. Here the
logits are made again in chunks of rows for every derivative, so that it keeps none: x, w and b are kept anyway.

For row i with logits z_i = W x_i + b, p_i = softmax(z_i) and target weights q_i with sum s_i the loss is
l_i = s_i logsumexp(z_i) − q_i·z_i, its gradient s_i p_i − q_i and its Hessian s_i (diag p_i − p_i p_iᵀ).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from samdiag.errors import CannotDecide

CHUNK_BYTES = 2**25  # of one chunk of logits: small beside any model that needs this, large enough for a fast product


@dataclass(frozen=True, slots=True)
class Targets:
    """Target weights q_i = (1 − smoothing)·w_y·onehot(y) + smoothing/V·w; rows to be ignored weigh nothing.

    Attributes:
        labels: [n] class indices, 0 where ignored.
        at_label: [n] (1 − smoothing)·w_y; 0 where ignored.
        everywhere: [n] smoothing/V; 0 where ignored or not smoothed.
        weight: [V] class weights, or None for 1.
        total: [n] s_i, the sum of q_i.
    """

    labels: Tensor
    at_label: Tensor
    everywhere: Tensor
    weight: Tensor | None
    total: Tensor
    smoothed: bool

    def rows(self, part: slice) -> Targets:
        return Targets(
            self.labels[part], self.at_label[part], self.everywhere[part], self.weight, self.total[part], self.smoothed
        )

    def residual(self, probabilities: Tensor) -> Tensor:
        """s p − q [n, V]; `probabilities` is used up."""
        d = probabilities.mul_(self.total[:, None])
        if self.smoothed:
            d.sub_(self.everywhere[:, None] if self.weight is None else self.everywhere[:, None] * self.weight)
        return d.scatter_add_(1, self.labels[:, None], -self.at_label[:, None])

    def loss(self, logits: Tensor) -> Tensor:
        """l [n] of logits [n, V]."""
        value = self.total * torch.logsumexp(logits, dim=1)
        value = value - self.at_label * logits.gather(1, self.labels[:, None])[:, 0]
        if self.smoothed:
            value = value - self.everywhere * (logits.sum(1) if self.weight is None else logits @ self.weight)
        return value


def make_targets(
    labels: Tensor, num_classes: int, dtype: torch.dtype, weight: Tensor | None, ignore_index: int, smoothing: float
) -> tuple[Targets, Tensor]:
    """The target weights of `F.cross_entropy`'s arguments, and what its mean divides by: the sum of w_y.

    Source: torch.nn.CrossEntropyLoss, class indices.
    """
    kept = labels != ignore_index
    safe = torch.where(kept, labels, 0)
    at = kept.to(dtype) if weight is None else weight[safe] * kept.to(dtype)
    whole = float(num_classes) if weight is None else weight.sum()
    everywhere = kept.to(dtype) * (smoothing / num_classes)
    at_label = (1.0 - smoothing) * at
    total = at_label + everywhere * whole
    return Targets(safe, at_label, everywhere, weight, total, smoothing > 0.0), at.sum()


def _chunks(x: Tensor, w: Tensor) -> Iterator[slice]:
    rows = max(1, CHUNK_BYTES // (w.shape[0] * x.element_size()))
    return (slice(i, i + rows) for i in range(0, x.shape[0], rows))


def _logits(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return torch.mm(x, w.t()) if b is None else torch.addmm(b, x, w.t())


def _slopes(x: Tensor, w: Tensor, b: Tensor | None, g: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of Σ g_i l_i by x [n, d], w [V, d] and b [V], a chunk of rows at a time."""
    dw, db, dx_parts = torch.zeros_like(w), w.new_zeros(w.shape[0]), []
    for part in _chunks(x, w):
        rows = x[part]
        d = targets.rows(part).residual(torch.softmax(_logits(rows, w, b), dim=1)) * g[part][:, None]
        dx_parts.append(torch.mm(d, w))
        dw = torch.addmm(dw, d.t(), rows)  # never in place: g may be batched by vmap
        if b is not None:
            db = db + d.sum(0)
    return torch.cat(dx_parts), dw, db


def _second(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    g: Tensor,
    tx: Tensor | None,
    tw: Tensor | None,
    tb: Tensor | None,
    tg: Tensor | None,
    targets: Targets,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How the gradient changes along (tx, tw, tb, tg): by x, w and b; and (s p − q)·t [n], its product with g's.

    The gradient of a scalar is self-adjoint, so that this serves forward and backward differentiation alike.
    """
    ow, ob = torch.zeros_like(w), w.new_zeros(w.shape[0])
    ox_parts, og_parts = [], []
    for part in _chunks(x, w):
        rows, own = x[part], targets.rows(part)
        p = torch.softmax(_logits(rows, w, b), dim=1)
        t = _logits_change(rows, w, None if tx is None else tx[part], tw, tb)
        pt = p * t
        r = (pt - p * pt.sum(1, keepdim=True)) * (g[part] * own.total)[:, None]
        d = own.residual(p)
        og_parts.append((d * t).sum(1))
        if tg is not None:
            r = r + d * tg[part][:, None]
        d.mul_(g[part][:, None])
        own_x = torch.mm(r, w)
        ow = torch.addmm(ow, r.t(), rows)  # never in place: the directions may be batched by vmap
        if tw is not None:
            own_x = torch.addmm(own_x, d, tw)
        if tx is not None:
            ow = torch.addmm(ow, d.t(), tx[part])
        if b is not None:
            ob = ob + r.sum(0)
        ox_parts.append(own_x)
    return torch.cat(ox_parts), ow, ob, torch.cat(og_parts)


def _logits_change(x: Tensor, w: Tensor, tx: Tensor | None, tw: Tensor | None, tb: Tensor | None) -> Tensor:
    """t [n, V]: how the logits change along (tx, tw, tb)."""
    t = w.new_zeros(x.shape[0], w.shape[0]) if tb is None else tb.expand(x.shape[0], -1)
    if tx is not None:
        t = torch.addmm(t, tx, w.t())
    return t if tw is None else torch.addmm(t, x, tw.t())


def _value(x: Tensor, w: Tensor, b: Tensor | None, logits: Tensor, targets: Targets) -> Tensor:
    parts = [targets.rows(part).loss(logits[part]) for part in _chunks(x, w)]
    return torch.cat(parts) if parts else x.new_zeros(0)


def _looped(function: Any, info: Any, in_dims: Any, args: Any) -> tuple[Any, Any]:
    """A batch of products one after the other: the vectors share nothing but memory."""
    results = []
    for i in range(info.batch_size):
        own = [a if dim is None else a.select(dim, i) for a, dim in zip(args, in_dims, strict=True)]
        out = function.apply(*own)
        results.append(out if isinstance(out, tuple) else (out,))
    stacked = tuple(torch.stack(column) for column in zip(*results, strict=True))
    single = len(stacked) == 1
    return (stacked[0], 0) if single else (stacked, (0,) * len(stacked))


class _Operation(torch.autograd.Function):
    """What the three share: the targets among the arguments, as six values that autograd can keep."""

    @staticmethod
    def pack(targets: Targets) -> tuple[Any, ...]:
        t = targets
        return t.labels, t.at_label, t.everywhere, t.weight, t.total, t.smoothed


class LeanRows(_Operation):
    """Row losses [n] from x [n, d], w [V, d], b [V] or None, and the logits already made from them."""

    @staticmethod
    def forward(x: Any, w: Any, b: Any, logits: Any, *packed: Any) -> Any:
        return _value(x, w, b, logits, Targets(*packed))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, w, b, _, *packed = inputs
        ctx.smoothed = packed[-1]
        ctx.save_for_backward(x, w, b, *packed[:-1])
        ctx.save_for_forward(x, w, b, *packed[:-1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, w, b, *packed = ctx.saved_tensors
        dx, dw, db = LeanSlopes.apply(x, w, b, grads[0], *packed, ctx.smoothed)  # type: ignore[no-untyped-call]
        return dx, dw, db if b is not None else None, None, *(None for _ in packed), None

    @staticmethod
    def jvp(ctx: Any, tx: Any, tw: Any, tb: Any, *_: Any) -> Any:
        x, w, b, *packed = ctx.saved_tensors
        ones = torch.ones_like(packed[4])  # the row losses themselves, unweighted
        return LeanChange.apply(  # type: ignore[no-untyped-call]
            x, w, b, ones, tx, tw, tb, None, *packed, ctx.smoothed
        )[3]

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _looped(LeanRows, info, in_dims, args)


class LeanSlopes(_Operation):
    """The gradient of Σ g_i l_i by x, w and b."""

    @staticmethod
    def forward(x: Any, w: Any, b: Any, g: Any, *packed: Any) -> Any:
        return _slopes(x, w, b, g, Targets(*packed))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, w, b, g, *packed = inputs
        ctx.smoothed = packed[-1]
        ctx.save_for_backward(x, w, b, g, *packed[:-1])
        ctx.save_for_forward(x, w, b, g, *packed[:-1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, w, b, g, *packed = ctx.saved_tensors
        tx, tw, tb = grads
        ox, ow, ob, og = LeanChange.apply(  # type: ignore[no-untyped-call]
            x, w, b, g, tx, tw, tb if b is not None else None, None, *packed, ctx.smoothed
        )
        return ox, ow, ob if b is not None else None, og, *(None for _ in packed), None

    @staticmethod
    def jvp(ctx: Any, tx: Any, tw: Any, tb: Any, tg: Any, *_: Any) -> Any:
        x, w, b, g, *packed = ctx.saved_tensors
        out = LeanChange.apply(x, w, b, g, tx, tw, tb, tg, *packed, ctx.smoothed)  # type: ignore[no-untyped-call]
        return out[:3]

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _looped(LeanSlopes, info, in_dims, args)


class LeanChange(_Operation):
    """The change of the gradient along a direction; it cannot be differentiated again, and says so."""

    @staticmethod
    def forward(x: Any, w: Any, b: Any, g: Any, tx: Any, tw: Any, tb: Any, tg: Any, *packed: Any) -> Any:
        return _second(x, w, b, g, tx, tw, tb, tg, Targets(*packed))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise CannotDecide(
            "a third derivative of a large-vocabulary cross-entropy was asked for",
            "only values, gradients and Hessian products are to be had of it",
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return LeanChange.backward(ctx)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _looped(LeanChange, info, in_dims, args)


def lean_cross_entropy(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`F.cross_entropy(logits, labels, …)` for logits = x wᵀ + b, twice differentiable by x, w and b.

    Args:
        x: [n, d] inputs of the output layer.
        w: [V, d] its weight.
        b: [V] its bias, or None.
        logits: [n, V], already made; only their values are used.
        labels: [n] class indices.
        weight: as in `F.cross_entropy`, like the rest.
        ignore_index: labels that do not count.
        reduction: "mean", "sum" or "none".
        label_smoothing: in [0, 1].
    """
    targets, count = make_targets(labels, w.shape[0], logits.dtype, weight, ignore_index, label_smoothing)
    rows: Tensor = LeanRows.apply(x, w, b, logits.detach(), *_Operation.pack(targets))  # type: ignore[no-untyped-call]
    if reduction == "none":
        return rows
    return rows.sum() if reduction == "sum" else rows.sum() / count
