"""Weights saved between the two steps of SAM, taken back to where the first step started.

SAM's first step moves the weights x to x + e(x) and keeps x as `old_p` in its state; the second step moves them back. A
file written in between holds the perturbed weights. In davda54's class `old_p` stays in the state after a whole step as
well, so that a difference alone says nothing: the move must have the length that SAM gives it.

GSAM and WSAM of pytorch_optimizer keep the move itself, `e_w`, and beside it a gradient that lies there only then.
Source: Foret et al. 2021 (SAM), eq. 2: ‖e‖ = rho. Kwon et al. 2021 (ASAM), eq. 9: ‖e/|x|‖ = rho.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from samdiag.formats.checkpoint import Hint
from samdiag.formats.state_dict import parameter_names

if TYPE_CHECKING:
    from torch import Tensor

LENGTH_TOLERANCE = 0.05  # relative; the ascent length is exact up to rounding, a whole step has a length of its own
PIECE = 1 << 20  # values at a time: float64 copies of a whole model would double its memory
MOVE = "e_w"
BETWEEN = (
    "old_g",
    "grad",
)  # beside the move: GSAM's and WSAM's, which take the move out of the state when they go back
UNMATCHED = "its kept weights (old_p) do not match the weights in number and shape"


def restore_old_weights(
    weights: Mapping[str, Tensor], state: Mapping[str, Any], hints: Mapping[str, Hint]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights before the ascent, and a note where the file was saved between the two SAM steps or may have been.

    Args:
        weights: as stored.
        state: the optimizer's state dict, with `old_p` per parameter where SAM kept it.
        hints: `sam.rho` and `sam.variant` of that optimizer.
    """
    if any(MOVE in entry for entry in _entries(state)):
        return _without_move(weights, state)
    kept = _kept(state, "old_p")
    if not any(old is not None for old in kept):
        return dict(weights), ()
    names = parameter_names(weights)
    if len(names) != len(kept) or not all(
        _fits(weights[group[0]], old) for group, old in zip(names, kept, strict=True)
    ):
        return dict(weights), (
            f"the optimizer is SAM, but {UNMATCHED}: whether the file was saved mid-step is unknown",
        )
    pairs = [(group, weights[group[0]], old) for group, old in zip(names, kept, strict=True) if old is not None]
    if all(bool((now == old).all()) for _, now, old in pairs):
        return dict(weights), ()
    if not _is_ascent([(now, old) for _, now, old in pairs], hints):
        return dict(weights), ()  # a finished step that left old_p behind
    restored = {name: old.to(now.dtype) for group, now, old in pairs for name in group}
    note = "the file was saved between the two SAM steps: the weights from before the ascent (old_p) are used"
    return {**weights, **restored}, (note,)


def _entries(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the state holds for every parameter, in the optimizer's order."""
    indices = [index for group in state["param_groups"] for index in group.get("params", ())]
    found = [state["state"].get(index) for index in indices if isinstance(index, (int, str))]
    return [entry if isinstance(entry, Mapping) else {} for entry in found]


def _kept(state: Mapping[str, Any], key: str) -> list[Tensor | None]:
    """The tensor `key` of every parameter in the optimizer's order; None where there is none."""
    import torch

    found = [entry.get(key) for entry in _entries(state)]
    return [old if isinstance(old, torch.Tensor) else None for old in found]


def _without_move(weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights less the move that the state keeps, where it tells that the file was written in between."""
    moves, names = _kept(state, MOVE), parameter_names(weights)
    between = any(key in entry for entry in _entries(state) for key in BETWEEN)
    fits = len(names) == len(moves) and all(
        _fits(weights[group[0]], move) for group, move in zip(names, moves, strict=True)
    )
    if not between or not fits:
        reason = "does not say whether the weights hold it" if fits else "which does not fit the weights"
        return dict(weights), (
            f"the optimizer state keeps an ascent (e_w) and {reason}: whether the file was saved mid-step is unknown",
        )
    found = {
        name: weights[name] - move.to(weights[name].dtype)  # as the optimizer itself would have gone back
        for group, move in zip(names, moves, strict=True)
        if move is not None
        for name in group
    }
    note = "the file was saved between the two SAM steps: the ascent (e_w) that its optimizer keeps is taken off again"
    return {**weights, **found}, (note,)


def _fits(now: Tensor, old: Tensor | None) -> bool:
    return old is None or (now.shape == old.shape and old.is_floating_point())


def _is_ascent(pairs: Sequence[tuple[Tensor, Tensor]], hints: Mapping[str, Hint]) -> bool:
    """Whether the weights lie at SAM's distance from the kept ones."""
    import torch

    rho = hints.get("sam.rho")
    if rho is None or not isinstance(rho.value, float) or rho.value <= 0:
        return False
    adaptive = "sam.variant" in hints and hints["sam.variant"].value == "asam"
    squares, rounding = 0.0, 0.0
    for now, old in pairs:
        moved, rounded = _squared_move(now, old, adaptive=adaptive)
        squares += moved
        rounding += torch.finfo(now.dtype).eps ** 2 * rounded
    tolerance = LENGTH_TOLERANCE * rho.value + math.sqrt(rounding)
    distance = math.sqrt(squares)
    return abs(distance - rho.value) <= min(tolerance, 0.5 * rho.value)  # rounding as large as rho decides nothing


def _squared_move(now: Tensor, old: Tensor, *, adaptive: bool) -> tuple[float, float]:
    """‖now − old‖² and ‖old‖², of an adaptive ascent each divided by |old|, in float64 and in pieces."""
    squares, whole = 0.0, 0.0
    after, before = now.reshape(-1), old.reshape(-1)
    for begin in range(0, after.numel(), PIECE):
        start = before[begin : begin + PIECE].double()
        move = after[begin : begin + PIECE].double() - start
        if adaptive:
            held = start != 0  # an adaptive ascent leaves zero weights where they are
            squares += float((move[held] / start[held]).square().sum())
            whole += int(held.sum())
        else:
            squares += float(move.square().sum())
            whole += float(start.square().sum())
    return squares, whole
