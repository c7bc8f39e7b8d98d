"""The momentum buffers in an optimizer's state, put in the order of a model's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samdiag.formats.optimizer_state import all_optimizers
from samdiag.formats.state_dict import strip_prefixes

if TYPE_CHECKING:
    from torch import Tensor, nn

KEY = "momentum_buffer"  # torch.optim.SGD's
RESTART = "the momentum starts anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """One optimizer's momentum buffers, untrusted.

    Attributes:
        tensors: in the optimizer's order of parameters, group after group; None where a parameter has none (it never
            got a gradient).
        names: of the parameters, where the optimizer was given them.
    """

    tensors: tuple[Tensor | None, ...]
    names: tuple[str, ...] | None = None

    def flat(self, model: nn.Module) -> tuple[Tensor | None, tuple[str, ...]]:
        """One vector [num_params] in the order of the model's trainable parameters, float64; None, and a note, where
        they do not fit.

        By name where the optimizer knows names; else the optimizer must hold the trainable parameters, or all, in the
        model's own order, and every shape must agree. A parameter without a buffer has 0.
        """
        import torch

        trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        found = self._by_name([name for name, _ in trainable]) or self._by_order(model)
        if found is None:
            return None, (f"the optimizer's momentum buffers are not one for each parameter of the model: {RESTART}",)
        parts = []
        for buffer, (_, p) in zip(found, trainable, strict=True):
            if buffer is not None and buffer.shape != p.shape:
                return None, (f"the optimizer's momentum buffers have other shapes than the model: {RESTART}",)
            if buffer is not None and not _is_plain(buffer):
                return None, (f"the optimizer's momentum buffers are not finite numbers: {RESTART}",)
            parts.append(torch.zeros(p.numel(), dtype=torch.float64) if buffer is None else buffer.double().reshape(-1))
        return torch.cat(parts), ()

    def _by_name(self, wanted: list[str]) -> list[Tensor | None] | None:
        if self.names is None:
            return None
        own = strip_prefixes(dict(zip(self.names, self.tensors, strict=True)))
        clean = list(strip_prefixes({name: name for name in wanted}))
        return [own[name] for name in clean] if all(name in own for name in clean) else None

    def _by_order(self, model: nn.Module) -> list[Tensor | None] | None:
        parameters = list(model.parameters())
        trainable = [p.requires_grad for p in parameters]
        if len(self.tensors) == len(parameters):  # also where frozen ones were handed to the optimizer
            return [buffer for buffer, wanted in zip(self.tensors, trainable, strict=True) if wanted]
        return list(self.tensors) if len(self.tensors) == sum(trainable) else None


def find_buffers(saved: object) -> Buffers | None:
    """The buffers of the first optimizer state in `saved` that has any; None where none has.

    davda54-style SAM keeps them in its base optimizer, so that it may not be the optimizer that knows rho.
    """
    return next((found for _, state in all_optimizers(saved) if (found := _buffers(state)) is not None), None)


def _buffers(state: Mapping[str, Any]) -> Buffers | None:
    import torch

    groups = state["param_groups"]
    indices = [index for group in groups for index in _listed(group.get("params"))]
    entries = [state["state"].get(index) if isinstance(index, (int, str)) else None for index in indices]
    raw = [entry.get(KEY) if isinstance(entry, Mapping) else None for entry in entries]
    found = tuple(buffer if isinstance(buffer, torch.Tensor) else None for buffer in raw)
    if not any(buffer is not None for buffer in found):
        return None
    names = [name for group in groups for name in _listed(group.get("param_names"))]
    known = len(names) == len(found) and all(isinstance(name, str) for name in names)
    return Buffers(tensors=found, names=tuple(names) if known else None)


def _is_plain(buffer: Tensor) -> bool:
    """Whether it holds finite real numbers (and is not meta, sparse or quantised)."""
    import torch

    hollow = buffer.is_meta or buffer.is_quantized or buffer.layout != torch.strided
    return not hollow and buffer.is_floating_point() and bool(torch.isfinite(buffer).all())


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
