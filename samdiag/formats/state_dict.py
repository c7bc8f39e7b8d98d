"""The weights inside whatever a training script saved: which dictionary they are, and under which names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.formats.inert import Record
from samdiag.quoting import listed

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_KEYS = ("state_dict", "model_state_dict", "model", "module", "net")
EMA_KEYS = (
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema", "ema_model_state_dict"),
    *("model_ema_state_dict", "swa_model", "swa_state_dict", "swa_model_state_dict", "averaged_model"),
)
SHADOWS = ("shadow_params", "shadow")  # torch_ema: a list in the order of the parameters, without names
EMA_INNER_KEYS = (*WEIGHT_KEYS, *SHADOWS)
EMA_HALVES = ("ema_model.", "online_model.")  # ema_pytorch: the average and the raw weights in one state dict
OUTER_WRAPPER = "module"  # DataParallel, DistributedDataParallel, AveragedModel: only at the front, and then everywhere
INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # torch's own: at any depth
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # in a state dict, but no optimizer sees them
MAX_NESTING = 3  # e.g. {"ema": {"model": {"state_dict": …}}}
SAVE_WEIGHTS = "save the weights alone: `torch.save(model.state_dict(), 'weights.pt')`"
BESIDE = "name the checkpoint that it lies beside"

T = TypeVar("T")


def find_weights(name: str, saved: object, which: str) -> dict[str, Tensor]:
    """The tensors of the state dict inside `saved`, by cleaned-up name.

    Args:
        name: the file, for messages.
        saved: what `torch.load` returned.
        which: "raw" or "ema".

    Raises:
        CannotDecide: nothing looks like weights, or several things do.
        UsageError: "ema" was asked for and there is none.
    """
    if which == "ema":
        return _find_ema(name, saved)
    if is_averager(saved):
        return _half(saved, EMA_HALVES[1])  # type: ignore[arg-type]
    found = _nested(name, saved, WEIGHT_KEYS)
    if found is None:
        found = _only_other(name, saved)
    return strip_prefixes(_tensors(name, found))


def find_tensors(name: str, saved: object) -> dict[str, Tensor]:
    """The tensors of a saved state dict and nothing else, under the names in the file.

    Raises:
        CannotDecide: it holds something else beside, or tensors without plain values.
    """
    if not isinstance(saved, Mapping) or not is_state_dict(saved):
        raise CannotDecide(f"{name} is not a state dict alone: it is {_described(saved)}", SAVE_WEIGHTS)
    return _tensors(name, saved)


def has_ema(saved: object) -> bool:
    """Whether `saved` holds averaged weights next to the raw ones."""
    return isinstance(saved, Mapping) and (
        is_averager(saved) or any(isinstance(saved.get(key), Mapping) for key in EMA_KEYS)
    )


def is_averager(saved: object) -> bool:
    """Whether it is the state dict of ema_pytorch's EMA: the averaged and the raw weights side by side."""
    if not isinstance(saved, Mapping) or not all(isinstance(key, str) for key in saved):
        return False
    return all(any(key.startswith(half) for key in saved) for half in EMA_HALVES)


def _half(saved: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    import torch

    found = {key.removeprefix(prefix): item for key, item in saved.items() if key.startswith(prefix)}
    return strip_prefixes({key: item for key, item in found.items() if isinstance(item, torch.Tensor)})


def has_raw(name: str, saved: object) -> bool:
    """Whether `saved` holds weights under one of the usual names."""
    return _nested(name, saved, WEIGHT_KEYS) is not None


def strip_prefixes(tensors: Mapping[str, T]) -> dict[str, T]:
    """`tensors` under the names they had before wrapping; unchanged where two names would become one.

    `_orig_mod`, `_fsdp_wrapped_module` and `_checkpoint_wrapped_module` go at any depth; `module` goes from the front,
    repeatedly, as long as every name begins with it (next to AveragedModel's own counter `n_averaged`).
    """
    names = {name: _without_inner(name) for name in tensors}
    while names and _all_wrapped(names.values()):
        counter = {name for name, clean in names.items() if clean == "n_averaged"}
        names = {name: clean.removeprefix(f"{OUTER_WRAPPER}.") for name, clean in names.items() if name not in counter}
        names = {name: _without_inner(clean) for name, clean in names.items()}
    if len(set(names.values())) != len(names):
        return dict(tensors)
    return {clean: tensors[name] for name, clean in names.items()}


def _without_inner(name: str) -> str:
    """`name` without torch's own wrappers; a name that is nothing but wrappers stays."""
    return ".".join(part for part in name.split(".") if part not in INNER_WRAPPERS) or name


def _all_wrapped(names: Iterable[str]) -> bool:
    found = [name for name in names if name != "n_averaged"]
    return bool(found) and all(name.startswith(f"{OUTER_WRAPPER}.") and name != f"{OUTER_WRAPPER}." for name in found)


def is_state_dict(value: object) -> bool:
    """Whether it maps names to tensors, apart from modules' `_extra_state`."""
    import torch

    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    tensors = [item for key, item in value.items() if not key.endswith("_extra_state")]
    return bool(tensors) and all(isinstance(item, torch.Tensor) for item in tensors)


def _nested(name: str, saved: object, keys: Iterable[str], depth: int = MAX_NESTING) -> Mapping[str, Any] | None:
    """The state dict that `saved` is or holds under one of `keys`; None where there is none."""
    if isinstance(saved, Mapping) and is_state_dict(saved):
        return saved
    if not isinstance(saved, Mapping) or depth == 0:
        return None
    found: dict[str, Mapping[str, Any]] = {}
    for key in keys:
        inner = _nested(name, saved.get(key), keys, depth - 1)
        if inner is not None and not any(inner is other for other in found.values()):
            found[key] = inner
    if len(found) > 1:
        raise _ambiguous(name, found)
    return next(iter(found.values()), None)


def _only_other(name: str, saved: object) -> Mapping[str, Any]:
    """The one state dict under a name that is not known, if there is exactly one."""
    items = saved.items() if isinstance(saved, Mapping) else ()
    found = {str(key): item for key, item in items if key not in EMA_KEYS and is_state_dict(item)}
    if len(found) > 1:
        raise _ambiguous(name, found)
    if not found and isinstance(saved, Mapping) and {"state", "param_groups"} <= set(saved):
        raise CannotDecide(f"{name} holds an optimizer state and no weights", BESIDE)
    if not found:
        todo = SAVE_WEIGHTS if not isinstance(saved, Record) else BESIDE
        raise CannotDecide(f"{name} holds nothing that looks like weights: it is {_described(saved)}", todo)
    return next(iter(found.values()))


def _find_ema(name: str, saved: object) -> dict[str, Tensor]:
    outer = saved if isinstance(saved, Mapping) else {}
    if is_averager(outer):
        return _half(outer, EMA_HALVES[0])
    found: dict[str, dict[str, Tensor]] = {}
    for key in EMA_KEYS:
        tensors = _averaged(name, saved, outer.get(key))
        if tensors is not None:
            found[key] = tensors
    if len(found) > 1:
        raise _ambiguous(name, found)
    if not found:
        raise UsageError(f"{name} holds no EMA weights: it is {_described(saved)}", "ask for weights = raw")
    return next(iter(found.values()))


def _averaged(name: str, saved: object, value: object) -> dict[str, Tensor] | None:
    """The averaged weights that `value`, found under one of EMA_KEYS, holds; None where it holds none."""
    if is_averager(value):
        return _half(value, EMA_HALVES[0])  # type: ignore[arg-type]
    shadow = (
        next((value[key] for key in SHADOWS if isinstance(value.get(key), list)), None)
        if isinstance(value, Mapping)
        else None
    )
    if shadow is not None:
        return _named(name, find_weights(name, saved, "raw"), shadow)
    found = _nested(name, value, EMA_INNER_KEYS)
    return None if found is None else strip_prefixes(_tensors(name, found))


def _named(name: str, raw: Mapping[str, Tensor], shadow: list[Any]) -> dict[str, Tensor]:
    """The raw weights with their parameters replaced by a list of averages, in the order of the parameters.

    Raises:
        CannotDecide: they are not one of the same shape for each parameter.
    """
    import torch

    groups = parameter_names(raw)
    fits = len(groups) == len(shadow) and all(
        isinstance(average, torch.Tensor) and average.shape == raw[group[0]].shape
        for group, average in zip(groups, shadow, strict=False)
    )
    if not fits:
        what = f"{name} keeps its EMA weights as {len(shadow)} tensors without names"
        raise CannotDecide(
            f"{what}, which are not one for each of the {len(groups)} parameters in number and shape",
            "copy them into the model (`ema.copy_to(model.parameters())`) and " + SAVE_WEIGHTS,
        )
    return {**raw, **{key: average for group, average in zip(groups, shadow, strict=True) for key in group}}


def parameter_names(weights: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of the parameters in the order of the state dict, tied ones together, without the known buffers."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, value in weights.items():
        if name.rpartition(".")[2] in BUFFERS or not value.is_floating_point():
            continue
        key = (value.data_ptr() or name, value.shape, value.stride(), value.dtype)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _tensors(name: str, found: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors alone, or CannotDecide where one has no dense values to measure."""
    import torch

    tensors = {key: item for key, item in found.items() if isinstance(item, torch.Tensor)}
    hollow = [key for key, item in tensors.items() if item.is_meta or item.is_quantized or item.layout != torch.strided]
    if hollow:
        reason = f"tensors without plain values (meta, quantised or sparse): {listed(hollow)}"
        raise CannotDecide(f"{name} holds {reason}", "save the dense, unquantised weights")
    return tensors


def _ambiguous(name: str, found: Mapping[str, object]) -> SamdiagError:
    return CannotDecide(f"{name} holds several models: {listed(found)}", f"{SAVE_WEIGHTS} for the one to inspect")


def _described(saved: object) -> str:
    if isinstance(saved, Mapping):
        return f"a dictionary with the keys {listed(saved)}" if saved else "an empty dictionary"
    return "the arguments of a script" if isinstance(saved, Record) else f"a {type(saved).__name__}"
