"""Whether Hessian products can be believed: symmetry, repeatability, float64 central differences, suspicious graph
nodes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from samdiag.curvature.batches import count_samples, halve, move
from samdiag.curvature.cross_entropy import LeanChange, LeanRows, LeanSlopes
from samdiag.curvature.finite import require_finite
from samdiag.curvature.objective import Objective
from samdiag.curvature.restoring import twin_of
from samdiag.curvature.wrappers import unwrapped
from samdiag.errors import SamdiagError
from samdiag.instruments import SelfCheck

CHECK_SAMPLES = 8  # enough to run every layer; the check costs about ten gradients of this many samples
STEPS = (1e-5, 1e-6, 1e-7, 1e-8)  # accepted if any agrees: a single step raises false alarms across ReLU kinks
TOLERANCE = {
    torch.float32: 1e-2,
    torch.float64: 1e-4,
}  # known silent defects are 10–80 % wrong, sound products 1e-4 or better
SUSPICIOUS = {
    "torch::autograd::Error": "the custom autograd function {} is marked once_differentiable",
    "WeightNormInterfaceBackward0": "torch.nn.utils.weight_norm's fused kernel has a wrong second derivative",
}
OWN = (LeanRows, LeanSlopes, LeanChange)  # custom functions of samdiag, held to a dense Hessian by its tests


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Whether the products can be believed, and the gradient's rounding error (None: float64 would not run)."""

    self_check: SelfCheck
    gradient_rounding: float | None


def check_products(
    model: nn.Module,
    loss: Callable[[Any, Any], Any],
    batch: Any,
    *,
    device: torch.device,
    dtype: torch.dtype,
    count: Callable[[Any], int] = count_samples,
    train_mode: bool = False,
) -> CheckResult:
    """Checks products on at most CHECK_SAMPLES samples of `batch` at the model's present point; the model is given
    back exactly.

    Source: numerics, self-check; Pearlmutter products against central differences of the float64 gradient.
    """
    model = unwrapped(model)
    small, size = _few_samples(batch, count(batch))
    single = Objective(model, loss, [(small, size)], device=device, dtype=dtype, graph_memory=0, train_mode=train_mode)
    generator = torch.Generator().manual_seed(0)
    with single.borrowed():
        u, v = (torch.randn(single.num_params, generator=generator).to(single.flat) for _ in range(2))
        node, custom = suspicious_nodes(single, small)
        hu, hv, again = single.product(u), single.product(v), single.product(v)
        gradient = single.gradient()[1]
        require_finite(single.model, single.parameters, hv)
    scale = float(torch.linalg.vector_norm(hu) * torch.linalg.vector_norm(v)) or 1.0
    symmetry = abs(float(torch.dot(u, hv) - torch.dot(v, hu))) / scale
    norm = float(torch.linalg.vector_norm(hv)) or 1.0
    repeat = float(torch.linalg.vector_norm(hv - again)) / norm
    try:
        difference, exact = _central_difference_error(model, loss, small, size, v, hv, device, train_mode)
    except (SamdiagError, RuntimeError, MemoryError, TypeError):
        difference, exact = None, None  # the code insists on float32, or a float64 copy does not fit, or cannot be made
    limit = TOLERANCE[dtype]
    reasons = [
        text
        for wrong, text in (
            (symmetry > limit, f"products are not symmetric (relative error {symmetry:.1e})"),
            (repeat > limit, f"two equal products differ by {repeat:.1e}"),
            (
                difference is not None and difference > limit,
                f"products differ from float64 central differences by {difference or 0:.1e}"
                + (f"; the custom autograd function {custom} may be the cause" if custom else ""),
            ),
            (node is not None, node or ""),
            (
                difference is None and custom is not None,
                f"the custom autograd function {custom} could not be compared with differences: float64 would not run",
            ),
        )
        if wrong
    ]
    rounding = None if exact is None else float(torch.linalg.vector_norm(gradient - exact))
    return CheckResult(
        self_check=SelfCheck(
            passed=not reasons,
            symmetry_error=symmetry,
            repeat_error=repeat,
            finite_difference_error=difference,
            reason="; ".join(reasons),
        ),
        gradient_rounding=rounding,
    )


def _few_samples(batch: Any, size: int) -> tuple[Any, int]:
    while size > CHECK_SAMPLES:
        halves = halve(batch, size)
        if halves is None:
            break
        batch, size = halves[0], size // 2
    return batch, size


def _central_difference_error(
    model: nn.Module,
    loss: Callable[[Any, Any], Any],
    batch: Any,
    size: int,
    v: Tensor,
    hv: Tensor,
    device: torch.device,
    train_mode: bool,
) -> tuple[float, Tensor]:
    """Smallest relative distance of Hv from (∇f(x+hv) − ∇f(x−hv))/2h in float64 over STEPS; and ∇f(x) in float64."""
    twin = twin_of(model)  # a change of dtype on the model itself would cut the gradient hooks of DDP for good
    wide = Objective(
        twin,
        loss,
        [(move(batch, device, torch.float64), size)],
        device=device,
        dtype=torch.float64,
        graph_memory=0,
        train_mode=train_mode,
    )
    with wide.borrowed(), warnings.catch_warnings():
        x, direction = wide.flat.clone(), v.double() / torch.linalg.vector_norm(v.double())
        target = hv.double() / torch.linalg.vector_norm(v.double())
        exact = wide.gradient()[1]
        scale = max(1.0, float(torch.linalg.vector_norm(x)))
        best = float("inf")
        for step in STEPS:
            h = step * scale
            wide.move_to(x + h * direction)
            ahead = wide.gradient()[1]
            wide.move_to(x - h * direction)
            slope = (ahead - wide.gradient()[1]) / (2 * h)
            # below this the difference quotient itself is rounding
            floor = 1e-14 * float(torch.linalg.vector_norm(exact)) / h + 1e-12
            error = float(torch.linalg.vector_norm(slope - target)) - floor
            best = min(best, max(error, 0.0) / max(float(torch.linalg.vector_norm(slope)), floor))
    return best, exact


def suspicious_nodes(objective: Objective, batch: Any) -> tuple[str | None, str | None]:
    """What is wrong with the first graph node known to spoil second derivatives, and the first custom function's name.

    A custom autograd function may be right; one whose derivative is computed in the forward pass is silently wrong, and
    only a difference quotient can tell. None where there is no such node.
    """
    with torch.enable_grad():
        value = objective.loss_function(objective.model, batch)
        grads = torch.autograd.grad(value, objective.parameters, create_graph=True, allow_unused=True)
    nodes = list(_graph_nodes([value, *(g for g in grads if g is not None)]))
    functions = [type(node) for node in nodes if isinstance(node, torch.autograd.function.BackwardCFunction)]
    custom = [f for f in functions if getattr(f, "_forward_cls", None) not in OWN]
    once = [f for f in custom if hasattr(_backward(f), "__wrapped__")]  # which the decorator leaves there
    name = _names((once or custom)[:1])
    wrong = next((SUSPICIOUS[n.name()].format(name or "?") for n in nodes if n.name() in SUSPICIOUS), None)
    return wrong, _names(custom[:1])


def _backward(function: Any) -> Any:
    return getattr(getattr(function, "_forward_cls", function), "backward", None)


def _names(functions: list[Any]) -> str | None:
    return functions[0].__name__.removesuffix("Backward") if functions else None


def _graph_nodes(values: list[Tensor]) -> Iterator[Any]:
    """Every node of the graphs behind `values`, once."""
    todo = [value.grad_fn for value in values]
    seen: set[Any] = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        todo.extend(parent for parent, _ in node.next_functions)
