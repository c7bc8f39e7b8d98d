"""Small batches joined to larger ones for products: the same mean loss in fewer and larger matrix products.

Measured on one core: an 85 k MLP's kept product costs 35 ms in batches of 64, 24 ms in batches of 256; a small
BatchNorm ResNet's 624 ms and 481 ms; from 256 samples on nothing is gained, and cutting large batches gains nothing
either.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samdiag.curvature.batches import join, tensors
from samdiag.curvature.products.batch_loss import BatchLoss, Piece, accumulate
from samdiag.curvature.products.engine import Engine
from samdiag.curvature.products.timing import now

FACTORS = (4, 16)  # how many batches are joined: the next larger one is tried only where the smaller one pays
TRIAL_SHARE = 3  # a trial takes at most this part (one in …) of the samples: it costs about six gradients of them
GAIN = 0.85  # a size is taken when it costs less than this share of the one before it: below, it may be noise
SAME = {torch.float32: 1e-4, torch.float64: 1e-8}  # relative difference of gradients: rounding is below, a loss that
# is no mean over its samples (contrastive losses, means over tokens) above


def join_batches(
    batches: list[Piece], function: BatchLoss, engine: Engine, *, vector: Tensor, fits: Callable[[int], bool]
) -> list[Piece] | None:
    """The batches joined as far as that makes products faster without changing them; None where it does not.

    Args:
        batches: with equal half or not: the joined ones are for products only.
        function, engine: what a product is, and how it is computed.
        vector: [num_params] any direction to try.
        fits: whether a piece of that many samples may be evaluated at once.
    """
    num_samples, best = sum(b.count for b in batches), None
    for factor in FACTORS:
        size = factor * batches[0].count
        if TRIAL_SHARE * size > num_samples or not fits(size) or (best is None and factor != FACTORS[0]):
            break
        groups = _groups(batches if best is None else best, size)
        first = joined_piece(groups[0]) if len(groups[0]) > 1 else None
        if first is None:
            break
        apart, slow = _timed(groups[0], function, engine, vector)
        together, fast = _timed([first], function, engine, vector)
        if fast > GAIN * slow or not _close(together, apart, SAME[vector.dtype] * 10):  # 10: products round more
            break
        best = [piece for group in groups for piece in ([joined_piece(group)] if len(group) > 1 else group) if piece]
        if sum(piece.count for piece in best) != num_samples:
            return None  # batches of different form among them
    return best if best is not None and is_same_function(batches, best, function) else None


def _groups(pieces: list[Piece], size: int) -> list[list[Piece]]:
    """Consecutive pieces of at least `size` samples together; what is left over stays with the last ones."""
    groups: list[list[Piece]] = [[]]
    for piece in pieces:
        if sum(p.count for p in groups[-1]) >= size:
            groups.append([])
        groups[-1].append(piece)
    if len(groups) > 1 and sum(p.count for p in groups[-1]) < size / 2:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def joined_piece(pieces: list[Piece]) -> Piece | None:
    whole = join([(p.data, p.count) for p in pieces])
    return None if whole is None else Piece(*whole)


def _timed(pieces: list[Piece], function: BatchLoss, engine: Engine, vector: Tensor) -> tuple[Tensor, float]:
    """The product over `pieces` and the seconds that it takes, the best of three: others may use the machine."""
    graphs = [Piece(p.data, p.count, p.half, function.graph(p.data) if engine.keeps else None) for p in pieces]
    num_samples = sum(p.count for p in pieces)
    result, seconds = torch.empty_like(vector), float("inf")
    for _ in range(3):
        start = now(vector.device)
        views = function.views(result.zero_())
        with engine.along(vector) as work:
            for piece in graphs:
                accumulate(views, work(piece), piece.count / num_samples)
        seconds = min(seconds, now(vector.device) - start)
    return result, seconds


def is_same_function(batches: list[Piece], joined: list[Piece], function: BatchLoss) -> bool:
    """Whether every joined piece has the gradient that its batches have together."""
    i = 0
    for piece in joined:
        parts: list[Piece] = []
        while sum(p.count for p in parts) < piece.count:
            parts.append(batches[i])
            i += 1
        own, scale = _gradient(parts, function)
        whole, _ = _gradient([piece], function)
        if float(torch.linalg.vector_norm(whole - own)) > SAME[whole.dtype] * float(scale):
            return False
    return True


def _gradient(pieces: list[Piece], function: BatchLoss) -> tuple[Tensor, Tensor]:
    """The pieces' common gradient [num_params], and the mean norm of their own."""
    total, norm = torch.zeros_like(function.flat), torch.zeros((), device=function.flat.device)
    views, num_samples = function.views(total), sum(p.count for p in pieces)
    for piece in pieces:
        _, grads = function.gradient(piece.data)
        accumulate(views, grads, piece.count / num_samples)
        squares = [torch.linalg.vector_norm(g) ** 2 for g in grads if g is not None]
        norm = norm + torch.stack(squares).sum().sqrt() * (piece.count / num_samples)
    return total, norm


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return float(torch.linalg.vector_norm(one - other)) <= tolerance * float(torch.linalg.vector_norm(other))


def data_bytes(pieces: list[Piece]) -> int:
    """Bytes of the pieces' tensors: joining copies them."""
    return sum(t.numel() * t.element_size() for p in pieces for t in tensors(p.data))
