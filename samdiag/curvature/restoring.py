"""A model lent out and given back exactly: parameters, buffers, grads, modes, RNG and backend switches."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from samdiag.curvature.substitutes import substitutes
from samdiag.curvature.vocabulary import lean_vocabulary


@contextmanager
def borrowed(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[list[nn.Parameter], Tensor]]:
    """Yields the trainable parameters and the one flat vector that they are views of while the context lasts.

    The model's own storages are never written: parameters and buffers are pointed at copies and pointed back in the
    end, so every bit returns, whatever happened in between. The model is in eval mode inside, without `.grad`.

    Args:
        model: the network.
        device: where the copies live.
        dtype: of floating-point copies (bf16 and fp16 weights are analysed in float32).

    Yields:
        (parameters, flat): the distinct trainable parameters in `model.parameters()` order; flat [num_params].
    """
    parameters = list(model.parameters())
    kept = [(p, p.data, p.grad) for p in parameters]
    registered = [(module, dict(module._buffers)) for module in model.modules()]
    buffers = [(b, b.data) for _, own in registered for b in own.values() if b is not None]
    modes = [(module, module.training) for module in model.modules()]
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    trainable = [p for p in parameters if p.requires_grad]
    flat = torch.empty(sum(p.numel() for p in trainable), device=device, dtype=dtype)
    with rng_kept():
        try:
            offset = 0
            for p, data, _ in kept:
                p.grad = None
                if p.requires_grad:
                    view = flat[offset : offset + p.numel()].view(p.shape)
                    view.copy_(data)
                    p.data = view
                    offset += p.numel()
                else:
                    p.data = _copy(data, device, dtype)
            for buffer, data in buffers:
                buffer.data = _copy(data, device, dtype)
            model.eval()
            yield trainable, flat
        finally:
            for p, data, grad in kept:
                p.grad = None
                p.data = data
                p.grad = grad
            for buffer, data in buffers:
                buffer.data = data
            for module, own in registered:  # also what was None and has been filled as a cache
                module._buffers.clear()
                module._buffers.update(own)
            for module, own_attributes in attributes:  # also tensors that old weight_norm and caches leave behind
                for name in vars(module).keys() - own_attributes.keys():
                    del vars(module)[name]
                vars(module).update(own_attributes)
            for module, training in modes:  # a scripted module keeps its mode elsewhere
                if module.training != training:
                    module.training = training


def twin_of(model: nn.Module) -> nn.Module:
    """A deep copy; tensors with a graph that forward passes left in attributes (old weight_norm) are copied without."""
    left = [
        (module, name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and value.grad_fn is not None
    ]
    try:
        for module, name, value in left:
            vars(module)[name] = value.detach()
        return copy.deepcopy(model)
    finally:
        for module, name, value in left:
            vars(module)[name] = value


def _copy(data: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return data.to(device=device, dtype=dtype if data.is_floating_point() else data.dtype, copy=True)


@contextmanager
def rng_kept() -> Iterator[None]:
    """Restores the states of Python's, NumPy's and torch's random generators (all CUDA devices in use)."""
    import numpy as np

    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's generators; used inside `borrowed`, which restores them."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def double_backward_kernels(model: nn.Module) -> Iterator[None]:
    """Kernels and wrappers that have a second derivative (see `substitutes`), and vocabularies without their memory."""
    with substitutes(model), lean_vocabulary(model):
        yield


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm layers normalise with the batch's own statistics, as in training, and do not record them."""
    kept = [(norm, norm.training, norm.track_running_stats) for norm in batch_norms(model)]
    try:
        for norm, _, _ in kept:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, training, tracked in kept:
            norm.training, norm.track_running_stats = training, tracked


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The model's BatchNorm layers, whose statistics in training are the batch's own."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
