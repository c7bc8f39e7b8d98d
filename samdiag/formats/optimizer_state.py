"""What an optimizer's state says about the run: rho, SAM variant, learning rate, momentum, weight decay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from samdiag.formats.checkpoint import Hint
from samdiag.quoting import listed, quoted, shown

SOURCE = "optimizer state"
NUMBERS = {
    "rho": "sam.rho",
    "lr": "sam.lr",
    "momentum": "sam.momentum",
    "weight_decay": "sam.weight_decay",
    "dampening": "sam.dampening",
}
BASE_KEYS = ("optimizer", "optimizer_state_dict", "optimizer_states", "optim", "opt", "sam")  # tried before any other
INNER = ".base_optimizer"  # where SAM's state dict carries that of the optimizer it wraps
GSAM_MARK = "old_g"  # in the state of pytorch_optimizer's GSAM, which keeps no rho
RELATIVES = {"sharpness": "WSAM", "gv": "LookSAM", "noisy_gradient": "BSAM"}  # by what pytorch_optimizer's keep
DECAYED = 0.5  # of the initial learning rate: from here on it is remarked


def find_optimizer(saved: object) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """The optimizer state dict at the top level of `saved` that knows a rho, else the first; and a note if several."""
    found = {name: state for name, state in all_optimizers(saved) if not name.endswith(INNER)}
    if not found:
        return None, ()
    chosen = next((key for key, state in found.items() if "rho" in first_group(state)), next(iter(found)))
    notes = (f"the file holds several optimizers ({listed(found)}): {shown(chosen)} is read",) if len(found) > 1 else ()
    return found[chosen], notes


def read_hints(state: Mapping[str, Any]) -> tuple[dict[str, Hint], tuple[str, ...]]:
    """The settings in the first parameter group, and notes about what samdiag does not model."""
    group = first_group(state)
    notes: list[str] = []
    hints: dict[str, Hint] = {}
    for key, setting in NUMBERS.items():
        if group.get(key) is None:
            continue
        value = as_number(group[key])
        if value is None:
            notes.append(f"optimizer state: {key} = {quoted(group[key])} is not a number and is ignored")
        else:
            hints[setting] = Hint(value=value, source=SOURCE)
    if isinstance(group.get("adaptive"), bool):
        hints["sam.variant"] = Hint(value="asam" if group["adaptive"] else "sam", source=SOURCE)
    elif any(GSAM_MARK in entry for entry in _entries(state)):
        hints["sam.variant"] = Hint(value="gsam", source=SOURCE)
        notes.append("the optimizer is GSAM, whose state does not hold rho: give it with --rho")
    if isinstance(group.get("nesterov"), bool):
        hints["sam.nesterov"] = Hint(value=group["nesterov"], source=SOURCE)
    return hints, (*notes, *_decayed(group), *_differing(state), *_relatives(state), *_unmodelled(group))


def _entries(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [entry for entry in state["state"].values() if isinstance(entry, Mapping)]


def _relatives(state: Mapping[str, Any]) -> Iterator[str]:
    """A remark where the optimizer is a relative of SAM that samdiag has no variant for."""
    for key, name in RELATIVES.items():
        if any(key in entry for entry in _entries(state)):
            yield f"the optimizer is {name}, a variant that samdiag does not model: it is judged as SAM"


def _decayed(group: Mapping[str, Any]) -> Iterator[str]:
    """A remark where a schedule has brought the learning rate down: what is read is that of the last step."""
    lr, initial = as_number(group.get("lr")), as_number(group.get("initial_lr"))
    if lr is not None and initial is not None and lr < DECAYED * initial:
        judged = f"the last one is judged, --lr {initial:g} judges the first"
        yield f"optimizer state: lr has decayed from {initial:g} to {lr:g}; {judged}"


def first_group(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first parameter group."""
    group: Mapping[str, Any] = state["param_groups"][0]
    return group


def is_adam(group: Mapping[str, Any]) -> bool:
    """Whether the parameter group is that of an optimizer of the Adam family."""
    return "betas" in group


def as_number(value: object) -> float | None:
    """`value` as a finite float: a number, or a tensor of one (capturable optimizers keep lr in a tensor)."""
    import torch

    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def all_optimizers(saved: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every optimizer state dict that is `saved`, or directly in it, or in a list in it; the usual names first.

    One that SAM wraps comes after its wrapper's.
    """
    if _is_optimizer(saved):
        yield "optimizer", saved  # type: ignore[misc]
        return
    if not isinstance(saved, Mapping):
        return
    keys = [*(key for key in BASE_KEYS if key in saved), *(key for key in saved if key not in BASE_KEYS)]
    for key in keys:
        value = saved[key]
        if _is_optimizer(value):
            yield str(key), value
            if _is_optimizer(value.get("base_optimizer")):
                yield f"{key}{INNER}", value["base_optimizer"]
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if _is_optimizer(item):
                    yield f"{key}[{index}]", item


def _is_optimizer(value: object) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("state"), Mapping):
        return False
    groups = value.get("param_groups")
    return isinstance(groups, list) and bool(groups) and all(isinstance(group, Mapping) for group in groups)


def _differing(state: Mapping[str, Any]) -> Iterator[str]:
    first, *others = state["param_groups"]
    for key in (*NUMBERS, "adaptive", "nesterov"):
        values = [first.get(key), *(group.get(key) for group in others)]
        if len({quoted(value) for value in values}) > 1:
            shown_values = listed(quoted(value) for value in values)
            yield f"optimizer state: parameter groups differ in {key} ({shown_values}): the first is used"


def _unmodelled(group: Mapping[str, Any]) -> Iterator[str]:
    if is_adam(group):
        yield (
            "the base optimizer is of the Adam family: covered is what the loss alone decides (gradients, ratio, "
            "cosine, ridge, spectrum, capture by rho_eff·|lambda|, hallucination); what its preconditioner changes "
            "(stability edge, bounce, next steps, advice on momentum and batch) is that of SGD here and may mislead"
        )
