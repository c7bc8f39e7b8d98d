"""Kernels and wrappers without a right second derivative, replaced while a model is measured by ones that have it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from samdiag.curvature.saying import say
from samdiag.quoting import listed

WITH_SECOND_DERIVATIVE = (None, "eager", "sdpa")  # HF attention: sdpa runs under its math kernel here


@contextmanager
def substitutes(model: nn.Module) -> Iterator[None]:
    """Everything below at once; each is undone exactly on leaving."""
    with ExitStack() as stack:
        for context in (
            math_attention,
            plain_recurrence,
            plain_weight_norm,
            eager_transformers,
            dense_embeddings,
            uncompiled,
            no_gradient_hooks,
        ):
            stack.enter_context(context(model))
        stack.enter_context(no_autocast())
        stack.enter_context(nonreentrant_checkpoints())
        yield


@contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute with another value inside."""
    kept = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, kept)


@contextmanager
def math_attention(model: nn.Module) -> Iterator[None]:
    """Attention by its math kernel (the fused ones have no double backward, also on CPU), encoder layers unfused."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def plain_recurrence(model: nn.Module) -> Iterator[None]:
    """LSTM and GRU without oneDNN and cuDNN, which have no double backward.

    Thrown for recurrent models only: convolutions are slower without them.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    backends: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn] if recurrent else []
    with ExitStack() as stack:
        for backend in backends:
            stack.enter_context(replaced(backend, "enabled", False))
        yield


def _normed(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v/‖v‖ of plain operations. Source: torch.nn.utils.weight_norm, its unfused branch."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


@contextmanager
def plain_weight_norm(model: nn.Module) -> Iterator[None]:
    """weight_norm, old and new, of plain operations: its fused kernel's second derivative is 10–50 % wrong."""
    old = sys.modules["torch.nn.utils.weight_norm"]
    with replaced(torch, "_weight_norm", _normed), replaced(old, "_weight_norm", _normed):
        yield


@contextmanager
def eager_transformers(model: nn.Module) -> Iterator[None]:
    """Hugging Face models set to flash or flex attention run eager attention; their configs are given back exactly."""
    configs: dict[int, Any] = {
        id(c): c for m in model.modules() if hasattr(c := getattr(m, "config", None), "_attn_implementation")
    }
    kept = [(c, dict(vars(c))) for c in configs.values()]
    try:
        for config, _ in kept:
            if config._attn_implementation not in WITH_SECOND_DERIVATIVE:
                say(f"attention ran eager: {config._attn_implementation} has no second derivative")
                config._attn_implementation = "eager"
        yield
    finally:
        for config, own in kept:
            for name in vars(config).keys() - own.keys():
                del vars(config)[name]
            vars(config).update(own)


@contextmanager
def dense_embeddings(model: nn.Module) -> Iterator[None]:
    """Embeddings made with sparse=True have dense gradients."""
    found = [m for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.sparse]
    for module in found:
        module.sparse = False
    try:
        yield
    finally:
        for module in found:
            module.sparse = True


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Whatever torch.compile has compiled runs as it was written: compiled graphs have no double backward.

    An engine that compiles the product itself sets the stance back to "default" around its own call.
    """
    if any(_is_compiled(module) for module in model.modules()):
        say("compiled modules ran uncompiled: compiled graphs have no second derivative")
    if "torch._dynamo" not in sys.modules:  # importing it costs a second, and nothing can be compiled without it
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


@contextmanager
def no_gradient_hooks(model: nn.Module) -> Iterator[None]:
    """Hooks that may change gradients, on parameters and modules, are off: the Hessian is that of the loss alone."""
    hooked = [(name, p) for name, p in model.named_parameters() if p._backward_hooks]
    modules = [m for m in model.modules() if m._backward_hooks or m._backward_pre_hooks]
    kept: list[tuple[Any, str, Any]] = [(p, "_backward_hooks", p._backward_hooks) for _, p in hooked]
    kept += [(m, name, getattr(m, name)) for m in modules for name in ("_backward_hooks", "_backward_pre_hooks")]
    if hooked:
        names = listed([name for name, _ in hooked], 3)
        say(f"gradient hooks on {names} were off: they change gradients, not the loss")
    if modules:
        say(f"backward hooks on {len(modules)} module(s) were off: they can change gradients, not the loss")
    try:
        for holder, name, value in kept:
            setattr(holder, name, None if isinstance(holder, Tensor) else type(value)())
        yield
    finally:
        for holder, name, value in kept:
            setattr(holder, name, value)


@contextmanager
def no_autocast() -> Iterator[None]:
    """Autocast is off, around the call and inside the model: products of half precision are 4e-3 wrong each."""
    from torch.amp.autocast_mode import autocast

    def enter(self: Any) -> Any:
        if self._enabled:
            say("autocast inside the model was off: the loss was measured in full precision")
        return self

    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                say("autocast around the call was off: the loss was measured in full precision")
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(replaced(autocast, "__enter__", enter))
        stack.enter_context(replaced(autocast, "__exit__", lambda self, *_: None))
        yield


class _NonReentrant:
    """Stands for `CheckpointFunction`: the same computation by the checkpoint that keeps a graph."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        from torch.utils.checkpoint import checkpoint

        say("reentrant checkpoints ran non-reentrant: the reentrant ones have no second derivative")
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve)


@contextmanager
def nonreentrant_checkpoints() -> Iterator[None]:
    """torch.utils.checkpoint with use_reentrant=True runs as with False."""
    import torch.utils.checkpoint

    with replaced(torch.utils.checkpoint, "CheckpointFunction", _NonReentrant):
        yield
