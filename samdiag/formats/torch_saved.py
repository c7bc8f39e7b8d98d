"""What `torch.load` made of a file, whatever its container: weights, optimizer state and the run's own settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from samdiag.errors import CannotDecide
from samdiag.formats import lightning, timm_file
from samdiag.formats.checkpoint import EMA_BESIDE, Checkpoint, Embedded, Hint
from samdiag.formats.content import Content
from samdiag.formats.momentum import find_buffers
from samdiag.formats.optimizer_state import find_optimizer, first_group, is_adam, read_hints
from samdiag.formats.perturbed import restore_old_weights
from samdiag.formats.pickle_bounds import check_tensors
from samdiag.formats.refused import SAVE_WEIGHTS
from samdiag.formats.run_settings import reconcile
from samdiag.formats.state_dict import find_tensors, find_weights, has_ema, has_raw, is_state_dict
from samdiag.formats.steps import step_in
from samdiag.quoting import shown

if TYPE_CHECKING:
    from torch import Tensor

REFUSED_GLOBAL = re.compile(r"[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) (\S+)")
DEEPSPEED_KEYS = {"ds_version", "ds_config", "zero_stage"}
DEEPSPEED_TODO = "merge the run's checkpoint with the zero_to_fp32.py that DeepSpeed wrote beside it, then inspect that"


def load_safely(content: Content, read: Callable[[Path], Any]) -> Any:
    """What `read` makes of the file; CannotDecide where it is damaged or wants something to be run."""
    try:
        saved = read(content.path)
        check_tensors(saved, content.size)
    except MemoryError:
        raise
    except Exception as error:  # the unpickler raises whatever a malformed stream makes it raise
        _explain(content, error)
    return saved


def read_tensors(content: Content) -> dict[str, Tensor]:
    """The tensors of a file of torch.save that is nothing but a state dict, under the names in the file.

    Raises:
        CannotDecide: it is of another format or holds something else.
    """
    from samdiag.formats import torch_legacy, torch_zip

    for container in (torch_zip, torch_legacy):
        if container.recognises(content):
            return find_tensors(content.name, container.load(content))
    raise CannotDecide(f"{content.name} is not a file of torch.save", "save the checkpoint again")


def open_saved(content: Content, saved: object, container: str) -> Checkpoint:
    """The Checkpoint of a saved object.

    Args:
        content: the file.
        saved: what it holds, read with weights_only=True.
        container: the format to report where the object says nothing nearer.
    """
    if isinstance(saved, Mapping) and DEEPSPEED_KEYS & set(saved):
        raise deepspeed(content)
    if lightning.recognises(saved):
        saved, container = lightning.arranged(saved), "lightning"
    elif timm_file.recognises(saved):
        container = "timm"
    averaged = has_ema(saved)
    raw = {} if averaged and not has_raw(content.name, saved) else find_weights(content.name, saved, "raw")
    found = _read_optimizer(saved, raw)
    said, said_notes = _read_settings(saved, found)
    notes = (*found.notes, *said_notes)
    if averaged:
        notes = (*notes, EMA_BESIDE)

    def load(which: str) -> dict[str, Tensor]:
        content.check_unchanged()  # the values are read from the file only now
        return dict(found.weights) if which == "raw" and raw else find_weights(content.name, saved, which)

    return Checkpoint(
        path=content.path,
        format=container,
        fingerprint=content.fingerprint(),
        embedded=said,
        hints=found.hints,
        hyper_parameters=read_hyper_parameters(saved),
        notes=notes,
        adam=found.adam,
        step=None if is_state_dict(saved) else step_in(saved, content.path),
        load=load,
        load_velocity=lambda: find_buffers(saved),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The weights as they are to be measured, and what the optimizer state says."""

    weights: Mapping[str, Tensor]
    hints: Mapping[str, Hint]
    notes: tuple[str, ...]
    group: Mapping[str, Any] | None = None

    @property
    def adam(self) -> bool:
        return self.group is not None and is_adam(self.group)


def _read_optimizer(saved: object, raw: dict[str, Tensor]) -> _Found:
    """The weights, taken back to before the SAM ascent where needed, with the hints of the optimizer state."""
    state, notes = find_optimizer(saved)
    if state is None:
        return _Found(weights=raw, hints={}, notes=notes)
    hints, hint_notes = read_hints(state)
    weights, perturbed_notes = restore_old_weights(raw, state, hints)
    notes = (*notes, *hint_notes, *perturbed_notes)
    return _Found(weights=weights, hints=hints, notes=notes, group=first_group(state))


def _read_settings(saved: object, found: _Found) -> tuple[tuple[Embedded, ...], tuple[str, ...]]:
    """What the run's own arguments say, beside the weights."""
    if lightning.recognises(saved):
        embedded = lightning.embed(saved)
    else:
        shapes = {name: tuple(value.shape) for name, value in found.weights.items()}
        embedded = timm_file.embed(saved, timm_file.find_num_classes(shapes))
    if embedded is None:
        return (), ()
    heard, notes = reconcile(embedded, found.hints, found.group)
    return ((heard,) if heard.document else ()), notes


def read_hyper_parameters(saved: object) -> dict[str, Any]:
    """The arguments that the training script saved of itself, as plain data."""
    return lightning.hyper_parameters(saved) if lightning.recognises(saved) else timm_file.hyper_parameters(saved)


def deepspeed(content: Content) -> CannotDecide:
    """The refusal of one of DeepSpeed's files."""
    return CannotDecide(f"{content.name} is one part of a DeepSpeed checkpoint", DEEPSPEED_TODO)


def _explain(content: Content, error: Exception) -> NoReturn:
    """Raises CannotDecide: which import the pickle asked for, or that the file is damaged."""
    refused = REFUSED_GLOBAL.search(str(error))
    if refused is not None:
        wanted = refused[1].rstrip(".,:")
        what = f"{content.name} is a pickle that wants to run {shown(wanted)}; only tensors and plain values are read"
        raise CannotDecide(what, _todo_refused(wanted)) from None
    if "Weights only load failed" in str(error) or type(error).__name__ == "UnpicklingError":
        what = f"{content.name} is a pickle that does more than hold tensors and plain values"
        raise CannotDecide(what, _todo_refused("")) from None
    reason = shown(str(error).split(".")[0].splitlines()[0] if str(error) else type(error).__name__)
    raise CannotDecide(f"{content.name} is damaged: {reason}", "copy or save the file again") from None


def _todo_refused(wanted: str) -> str:
    if wanted.startswith("torch.distributed"):
        return (
            "gather the full weights before saving (`get_model_state_dict` with full_state_dict=True), then save those"
        )
    return f"in your own training environment, where you trust the file, save the weights alone: {SAVE_WEIGHTS}"
