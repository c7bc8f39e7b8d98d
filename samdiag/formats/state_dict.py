"""The weights inside whatever a training script saved: which dictionary they are, and under which names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.quoting import listed

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_KEYS = ("state_dict", "model_state_dict", "model", "module", "net")
EMA_KEYS = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema", "ema_model_state_dict")
EMA_INNER_KEYS = (*WEIGHT_KEYS, "shadow", "shadow_params")
OUTER_WRAPPER = "module"  # DataParallel, DistributedDataParallel, AveragedModel: only at the front, and then everywhere
INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # torch's own: at any depth
MAX_NESTING = 3  # e.g. {"ema": {"model": {"state_dict": …}}}
SAVE_WEIGHTS = "save the weights alone: `torch.save(model.state_dict(), 'weights.pt')`"

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
    found = _nested(name, saved, WEIGHT_KEYS)
    if found is None:
        found = _only_other(name, saved)
    return strip_prefixes(_tensors(name, found))


def has_ema(saved: object) -> bool:
    """Whether `saved` holds averaged weights next to the raw ones."""
    return isinstance(saved, Mapping) and any(isinstance(saved.get(key), Mapping) for key in EMA_KEYS)


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


def _looks_like_weights(value: object) -> bool:
    """Whether it maps names to tensors, apart from modules' `_extra_state`."""
    import torch

    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    tensors = [item for key, item in value.items() if not key.endswith("_extra_state")]
    return bool(tensors) and all(isinstance(item, torch.Tensor) for item in tensors)


def _nested(name: str, saved: object, keys: Iterable[str], depth: int = MAX_NESTING) -> Mapping[str, Any] | None:
    """The state dict that `saved` is or holds under one of `keys`; None where there is none."""
    if isinstance(saved, Mapping) and _looks_like_weights(saved):
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
    found = {str(key): item for key, item in items if key not in EMA_KEYS and _looks_like_weights(item)}
    if len(found) > 1:
        raise _ambiguous(name, found)
    if not found:
        raise CannotDecide(f"{name} holds nothing that looks like weights: it is {_described(saved)}", SAVE_WEIGHTS)
    return next(iter(found.values()))


def _find_ema(name: str, saved: object) -> dict[str, Tensor]:
    outer = saved if isinstance(saved, Mapping) else {}
    candidates = {key: _nested(name, outer.get(key), EMA_INNER_KEYS) for key in EMA_KEYS}
    found = {key: item for key, item in candidates.items() if item is not None}
    if len(found) > 1:
        raise _ambiguous(name, found)
    if not found:
        raise UsageError(f"{name} holds no EMA weights: it is {_described(saved)}", "ask for weights = raw")
    return strip_prefixes(_tensors(name, next(iter(found.values()))))


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
    return f"a {type(saved).__name__}"
