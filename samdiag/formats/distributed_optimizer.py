"""The optimizer's state in a torch.distributed.checkpoint folder: hints from its parameter groups, momentum buffers.

Settings lie under `optim.param_groups.0.lr`, or, flattened (`flatten_optimizer_state_dict`), under
`optim.param_groups.layer.weight.lr` once for every parameter; states under `optim.state.layer.weight.momentum_buffer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from samdiag.errors import CannotDecide
from samdiag.formats.checkpoint import Hint
from samdiag.formats.distributed_metadata import Layout
from samdiag.formats.state_dict import strip_prefixes
from samdiag.quoting import listed, shown

if TYPE_CHECKING:
    from torch import Tensor

    from samdiag.formats.momentum import Buffers

GROUPS = "param_groups"
STATE = "state"
READ = ("rho", "adaptive", "lr", "initial_lr", "momentum", "dampening", "weight_decay", "nesterov", "betas")
MAX_GROUPS = 64  # read; of a flattened state, which has a group per parameter, the first ones
MAX_OPTIMIZERS = 16  # a model in parts has one for each
MOMENTUM = "momentum_buffer"
KEPT = ("old_p", "e_w", "old_g", "grad")  # what SAM and its kin keep of the weights before the ascent


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """What the folder says about its optimizer.

    Attributes:
        root: the keys before `param_groups`, dotted: "optim".
        names: flat names of everything that is the optimizer's, of all optimizers.
    """

    root: str | None = None
    names: frozenset[str] = frozenset()
    hints: Mapping[str, Hint] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    adam: bool = False


def read(layout: Layout) -> Optimizer:
    """The optimizer that knows a rho, else the first; all hold nothing that could be weights."""
    roots = sorted(_roots(layout))
    if not roots:
        return Optimizer()
    if len(roots) > MAX_OPTIMIZERS:
        raise CannotDecide(
            f"it holds the states of {len(roots)} optimizers, more than the {MAX_OPTIMIZERS} allowed",
            "save the weights of the model to inspect alone",
        )
    names = frozenset(name for name in (*layout.tensors, *layout.values) if any(_belongs(name, root) for root in roots))
    groups = {root: _groups(layout, root) for root in roots}
    chosen = next((root for root in roots if groups[root] and "rho" in groups[root][0]), roots[0])
    several = f"the folder holds several optimizers ({listed(roots)}): {shown(chosen)} is read"
    notes = (several,) if len(roots) > 1 else ()
    if not groups[chosen]:
        return Optimizer(root=chosen, names=names, notes=notes)
    from samdiag.formats.optimizer_state import is_adam, read_hints

    hints, hint_notes = read_hints({STATE: {}, GROUPS: groups[chosen]})
    adam = is_adam(groups[chosen][0])
    return Optimizer(root=chosen, names=names, hints=hints, notes=(*notes, *hint_notes), adam=adam)


def read_velocity(layout: Layout, optimizer: Optimizer) -> Buffers | None:
    """The momentum buffers, by the names of their parameters; None where there are none."""
    from samdiag.formats.momentum import Buffers

    found = read_state(layout, optimizer, (MOMENTUM,))
    if not found:
        return None
    ordered = _in_order(found)
    named = not all(own.isdecimal() for own in ordered)
    return Buffers(tensors=tuple(found[own][MOMENTUM] for own in ordered), names=tuple(ordered) if named else None)


def read_state(layout: Layout, optimizer: Optimizer, keys: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
    """Parameter → key → tensor of the optimizer's state; the parameters by name, or by number as text."""
    from samdiag.formats.distributed_data import read_tensors

    if optimizer.root is None:
        return {}
    before = _dotted(optimizer.root, STATE)
    places = [
        (name, *name.removeprefix(before).rpartition(".")[::2]) for name in layout.tensors if name.startswith(before)
    ]
    wanted = [(name, own, key) for name, own, key in places if key in keys]
    tensors = read_tensors(layout, [name for name, _, _ in wanted]) if wanted else {}
    found: dict[str, dict[str, Tensor]] = {}
    for name, own, key in wanted:
        found.setdefault(own, {})[key] = tensors[name]
    return found


def before_ascent(
    layout: Layout, optimizer: Optimizer, read_weights: Callable[[], dict[str, Tensor]]
) -> tuple[dict[str, Tensor] | None, tuple[str, ...]]:
    """The weights before SAM's ascent, and a note, where its state shows that the folder was saved after it.

    None where the optimizer keeps nothing of SAM's: the weights are then as stored, and not read.
    """
    from samdiag.formats.perturbed import restore_old_weights
    from samdiag.formats.state_dict import parameter_names

    kept = strip_prefixes(read_state(layout, optimizer, KEPT))
    if not kept:
        return None, ()
    weights = read_weights()
    if all(own.isdecimal() for own in kept):
        order = _in_order(kept)
    else:  # one of the names of each parameter, tied ones together, in the order of the weights
        groups = parameter_names(weights)
        order = [next((name for name in group if name in kept), group[0]) for group in groups]
    return restore_old_weights(weights, {STATE: kept, GROUPS: [{"params": order}]}, optimizer.hints)


def _in_order(found: Mapping[str, object]) -> list[str]:
    """The parameters in the order of the state; by number where they have numbers."""
    return sorted(found, key=int) if all(own.isdecimal() for own in found) else list(found)


def _dotted(root: str, key: str) -> str:
    return f"{root}.{key}." if root else f"{key}."


def _roots(layout: Layout) -> Iterator[str]:
    """What stands before `param_groups`, once for each optimizer."""
    found = set()
    for name in layout.tensors.keys() | layout.values.keys():
        parts = name.split(".")
        if GROUPS in parts:
            found.add(".".join(parts[: parts.index(GROUPS)]))
    yield from found


def _belongs(name: str, root: str) -> bool:
    if root:
        return name.startswith(f"{root}.")
    return name.startswith((f"{GROUPS}.", f"{STATE}.")) or name == GROUPS


def _groups(layout: Layout, root: str) -> list[dict[str, Any]]:
    """The parameter groups as far as they say settings that are read, in order."""
    before = _dotted(root, GROUPS)
    whole = layout.values.get(before[:-1])
    if whole is not None:
        return _listed(layout, before[:-1])
    found: dict[str, dict[str, str]] = {}
    for name in (*layout.tensors, *layout.values):
        group, _, key = name.removeprefix(before).rpartition(".")
        if name.startswith(before) and key in READ:
            found.setdefault(group, {})[key] = name
    order = sorted(found, key=lambda group: (0, int(group)) if group.isdecimal() else (1, 0))
    return [{key: _value(layout, name) for key, name in found[group].items()} for group in order[:MAX_GROUPS]]


def _listed(layout: Layout, name: str) -> list[dict[str, Any]]:
    """Parameter groups that were saved as one value."""
    from samdiag.formats.distributed_data import read_value

    groups = read_value(layout, name)
    if not isinstance(groups, list):
        return []
    return [dict(group) for group in groups[:MAX_GROUPS] if isinstance(group, Mapping)]


def _value(layout: Layout, name: str) -> Any:
    from samdiag.formats.distributed_data import read_tensors, read_value

    if name in layout.values:
        return read_value(layout, name)
    return read_tensors(layout, [name])[name]  # an lr that a capturable optimizer keeps in a tensor
