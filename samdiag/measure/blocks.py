"""Diagonal blocks of the Hessian: some parameters only, the others held fixed while it is measured."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import nn

from samdiag.curvature.objective import Objective
from samdiag.errors import UsageError
from samdiag.measure.opening import Opened
from samdiag.quoting import listed, quoted


def matching(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the trainable parameters that any of the patterns means, in the model's order.

    A pattern is a name with `*`, `?` and `[…]`; the name of a module stands for everything below it.

    Raises:
        UsageError: a pattern matches no parameter, or only frozen ones.
    """
    aliases = dict(model.named_parameters(remove_duplicate=False))
    wanted: set[int] = set()
    for pattern in patterns:
        found = [p for name, p in aliases.items() if _means(pattern, name)]
        if not found:
            raise UsageError(f"--params {quoted(pattern)} matches no parameter", _suggestion(model, pattern))
        if not any(p.requires_grad for p in found):
            raise UsageError(
                f"--params {quoted(pattern)} matches frozen parameters only",
                "name parameters that the training changed (requires_grad=True)",
            )
        wanted |= {id(p) for p in found}
    return tuple(name for name, p in model.named_parameters() if id(p) in wanted and p.requires_grad)


def _means(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def _suggestion(model: nn.Module, pattern: str) -> str:
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    groups = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    bare = pattern.strip("*?.")
    near = difflib.get_close_matches(bare, [*groups, *names], n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}there are: {listed(groups, 12)}; quote a pattern with *, e.g. --params '{groups[0]}*'"


def modules_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Module name → names of its own trainable parameters, in the model's order; tied ones where they come first."""
    groups: dict[str, list[str]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad and p.numel():
            groups.setdefault(name.rpartition(".")[0], []).append(name)
    return {module: tuple(names) for module, names in groups.items()}


@contextmanager
def block_of(ready: Opened, names: Sequence[str]) -> Iterator[Objective]:
    """The same loss on the same batches as a function of the named parameters alone; the rest is held fixed.

    `requires_grad` is back as it was on leaving, whatever happened. The outer objective may not be moved inside.
    """
    outer = ready.objective
    outer.drop_graphs()  # their memory is needed, and they would outlive a change of requires_grad
    chosen = set(names)
    kept = [(name, p, p.requires_grad) for name, p in outer.model.named_parameters()]
    try:
        for name, p, trainable in kept:
            p.requires_grad_(trainable and name in chosen)
        inner = Objective(
            outer.model,
            ready.loss,
            list(zip(outer.batches, outer.counts, strict=True)),
            device=outer.device,
            dtype=outer.dtype,
            train_mode=outer.train_mode,
        )
        with inner.borrowed():
            yield inner
    finally:
        for _, p, trainable in kept:
            p.requires_grad_(trainable)
