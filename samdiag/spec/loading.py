"""A checkpoint's tensors put into a model: all of them, or an error that says which do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from samdiag.errors import UsageError
from samdiag.formats.state_dict import strip_prefixes
from samdiag.quoting import listed, shown

COUNTER = "num_batches_tracked"  # a batch-norm counter that older checkpoints lack and evaluation never reads
SAME_MODEL = "build the model as it was in training"


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], file: str, *, more_allowed: bool = False
) -> tuple[str, ...]:
    """Notes about the loading; `model` then holds `weights`, each converted to the model's own dtype.

    Names are compared without wrappers' prefixes on both sides. A name may be missing where its parameter is tied to
    one that is present, because safetensors stores tied weights once. A buffer that the model has and does not save
    (the position numbers in files of older transformers) is left to the model.

    Args:
        model: the network.
        weights: by name.
        file: where they come from, for messages.
        more_allowed: whether the file may hold more than the model has, which is then said: a class of a library,
            chosen for one head of a network that was trained with several.

    Raises:
        UsageError: a tensor is missing, not in the model, or of another shape; the model is then unchanged.
    """
    own = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    _check_materialised(own)
    own_names = strip_prefixes({name: name for name in own})
    targets = {name: own[own_name] for name, own_name in own_names.items()}
    given, notes = _without_common_prefix(weights, targets)
    given = {name: value for name, value in given.items() if name in targets or name not in _unsaved(model)}
    missing = [name for name in _untied(targets, given) if name.rpartition(".")[2] != COUNTER]
    unexpected = [name for name in given if name not in targets and name.rpartition(".")[2] != COUNTER]
    if unexpected and more_allowed and not missing:
        notes = (*notes, f"{len(unexpected)} tensor(s) of the file are not in the model: {listed(unexpected)}")
        unexpected = []
    _check_names(missing, unexpected, file, len(given))
    common = [name for name in targets if name in given]
    _check_shapes({name: (given[name], targets[name]) for name in common}, file)
    _check_tied_agree(targets, given, file)
    model.load_state_dict({own_names[name]: given[name] for name in common}, strict=False)
    return (*notes, *_conversions([(given[name].dtype, targets[name].dtype) for name in common]))


def _unsaved(model: nn.Module) -> set[str]:
    """The names of the buffers that the model has and does not save, without wrappers' prefixes."""
    saved = model.state_dict()
    return set(strip_prefixes({name: name for name, _ in model.named_buffers() if name not in saved}))


def _check_materialised(own: Mapping[str, Tensor]) -> None:
    """Nothing, or UsageError where a parameter has no memory to load into yet."""
    hollow = [name for name, value in own.items() if is_lazy(value) or value.is_meta]
    if hollow:
        what = f"the model's parameters have no values yet (lazy, or on the meta device): {listed(hollow)}"
        raise UsageError(what, "run one batch through the model, or move it with to_empty(), before returning it")


def _without_common_prefix(
    weights: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """The weights without a first component that all share, where exactly the model's names remain.

    A LightningModule saves the network as an attribute of itself, so that every name begins with, say, `model.`.
    """
    heads = {name.partition(".")[0] for name in weights}
    if len(heads) != 1 or set(weights) & set(targets):
        return weights, ()
    inner = {name.partition(".")[2]: value for name, value in weights.items()}
    if set(inner) - set(targets) or _untied(targets, inner):
        return weights, ()
    return inner, (f"every tensor's name begins with {shown(heads.pop())!r} in the file: loaded without it",)


def _untied(targets: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """The model's names that are neither given nor tied to one that is."""
    filled = {_storage(targets[name]) for name in given if name in targets}
    return [name for name, value in targets.items() if name not in given and _storage(value) not in filled]


def _check_tied_agree(targets: Mapping[str, Tensor], given: Mapping[str, Tensor], file: str) -> None:
    """Nothing, or UsageError where names that are one parameter in the model differ in the file."""
    first: dict[tuple[object, ...], str] = {}
    for name in targets:
        if name in given:
            other = first.setdefault(_storage(targets[name]), name)
            if other != name and not torch.allclose(given[name], given[other], rtol=0, atol=0, equal_nan=True):
                what = f"{shown(other)} and {shown(name)} are one parameter in the model and differ in {file}"
                raise UsageError(what, f"{SAME_MODEL}: there they were not tied")


def _storage(value: Tensor) -> tuple[object, ...]:
    """What two names of one parameter have in common, and two parameters never."""
    if value.numel() == 0 or value.is_meta:
        return (id(value),)
    return (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)


def _check_names(missing: list[str], unexpected: list[str], file: str, num_given: int) -> None:
    if not missing and not unexpected:
        return
    parts = [f"missing: {listed(missing)}"] * bool(missing) + [f"not in the model: {listed(unexpected)}"] * bool(
        unexpected
    )
    what = f"the {num_given} tensors of {file} do not fit the model: {'; '.join(parts)}"
    raise UsageError(what, f"{SAME_MODEL} (model or problem in your spec names another one)")


def _check_shapes(pairs: Mapping[str, tuple[Tensor, Tensor]], file: str) -> None:
    wrong = [
        f"{name} {tuple(given.shape)} against {tuple(target.shape)}"
        for name, (given, target) in pairs.items()
        if given.shape != target.shape
    ]
    if wrong:
        what = f"tensors of {file} have another shape than in the model: {listed(wrong)}"
        raise UsageError(what, f"{SAME_MODEL}: check the arguments of its factory")


def _conversions(dtypes: list[tuple[torch.dtype, torch.dtype]]) -> list[str]:
    """One line for each pair of dtypes that differ, e.g. bfloat16 weights in a float32 model."""
    changed = Counter(pair for pair in dtypes if pair[0] != pair[1])
    return [
        f"{count} tensors are stored as {_short(stored)} and measured as {_short(used)}"
        for (stored, used), count in changed.items()
    ]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
