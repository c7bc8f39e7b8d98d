"""PyHessian's view of the same batches: an independent second opinion, never the engine."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from samdiag.curvature.objective import Objective
from samdiag.instruments import SecondOpinion
from samdiag.types import Estimate

MAX_ITERATIONS = 100  # PyHessian's own default
TOLERANCE = 1e-3  # PyHessian's own default; its power iteration stops on this relative change
AGREEMENT = 0.05  # lambda_max within 5 %: what power iteration with that stopping rule is good for
TRACE_PROBES = 30  # Hutchinson probes on our side, with their standard error


class _LossModel(nn.Module):
    """A module whose output is the loss of batch number `index[0]`: PyHessian wants model(inputs) and
    criterion(outputs, targets).
    """

    def __init__(self, parameters: list[nn.Parameter], loss: Callable[[int], Tensor]) -> None:
        super().__init__()
        self._analysed = nn.ParameterList(parameters)
        self._loss = loss

    def forward(self, index: Tensor) -> Tensor:
        return self._loss(int(index[0]))


def ask_pyhessian(objective: Objective, lambda_max: Estimate, lambda_min: Estimate, seed: int) -> SecondOpinion:
    """PyHessian's power iteration and Hutchinson trace on the objective's batches, compared with samdiag's numbers.

    Worked around: it leaves `.grad` with a graph behind (cleared), switches the model to eval (already so, and
    restored by the caller), assumes CUDA (told otherwise), draws float32 vectors (the default dtype is set for the
    call), crashes on parameters that the loss does not use (left out), and stops its trace at the first probe when
    that is negative (asked again with a tolerance it cannot meet).

    Power iteration finds the eigenvalue of largest *modulus*, so it is compared with whichever end that is.
    """
    from pyhessian import hessian

    start = time.perf_counter()
    used = _used_parameters(objective)
    if not used:
        return _nothing_to_ask(time.perf_counter() - start)
    batches = objective.batches
    model = _LossModel(used, lambda i: objective.loss_function(objective.model, batches[i]))
    loader = [(torch.full((count,), i), torch.zeros(1)) for i, count in enumerate(objective.counts)]
    default, rng = torch.get_default_dtype(), torch.get_rng_state()
    try:
        torch.set_default_dtype(objective.dtype)
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # backward(create_graph=True) warns of the cycle that is cleared below
            cuda = objective.device.type == "cuda"
            theirs = hessian(model, lambda output, _: output, dataloader=loader, cuda=cuda)
            largest = float(theirs.eigenvalues(maxIter=MAX_ITERATIONS, tol=TOLERANCE)[0][0])
            samples = theirs.trace(maxIter=TRACE_PROBES, tol=-1.0)
    finally:
        torch.set_default_dtype(default)
        torch.set_rng_state(rng)
        for p in objective.parameters:
            p.grad = None
    ours_trace, ours_error = _hutchinson(objective, seed)
    return _compare(largest, samples, lambda_max, lambda_min, ours_trace, ours_error, time.perf_counter() - start)


def _nothing_to_ask(seconds: float) -> SecondOpinion:
    return SecondOpinion(
        lambda_max=None,
        lambda_max_agrees=None,
        trace=None,
        trace_error=None,
        trace_samdiag=None,
        trace_agrees=None,
        message="PyHessian was not asked: the loss is linear in the parameters, there is no Hessian",
        seconds=seconds,
    )


def _used_parameters(objective: Objective) -> list[nn.Parameter]:
    """Parameters on which the gradient itself depends: PyHessian differentiates all of its parameters twice."""
    used: set[int] = set()
    for batch in objective.batches:
        with torch.enable_grad():
            value = objective.loss_function(objective.model, batch)
            grads = torch.autograd.grad(value, objective.parameters, create_graph=True, allow_unused=True)
            live = [g for g in grads if g is not None and g.requires_grad]
            if live:
                second = torch.autograd.grad(sum(g.sum() for g in live), objective.parameters, allow_unused=True)  # type: ignore[arg-type]
                used |= {
                    i for i, (g, s) in enumerate(zip(grads, second, strict=True)) if g is not None and s is not None
                }
    return [p for i, p in enumerate(objective.parameters) if i in used]


def _hutchinson(objective: Objective, seed: int) -> tuple[float, float]:
    """Our own trace with its standard error, from TRACE_PROBES Rademacher probes."""
    generator = torch.Generator().manual_seed(seed + 7)
    values = []
    for _ in range(TRACE_PROBES):
        probe = torch.randint(0, 2, (objective.num_params,), generator=generator).to(objective.flat) * 2 - 1
        values.append(float(torch.dot(probe.double(), objective.product(probe).double())))
    sample = torch.tensor(values, dtype=torch.float64)
    return float(sample.mean()), float(sample.std()) / TRACE_PROBES**0.5


def _compare(
    largest: float,
    samples: list[Any],
    lambda_max: Estimate,
    lambda_min: Estimate,
    trace: float,
    trace_error: float,
    seconds: float,
) -> SecondOpinion:
    ends = [e for e in (lambda_max, lambda_min) if e.value is not None]
    ours = max(ends, key=lambda e: abs(e.value or 0.0), default=lambda_max)
    value = ours.value or 0.0
    agrees = abs(largest - value) <= AGREEMENT * abs(value) + ours.error
    their = torch.tensor([float(s) for s in samples], dtype=torch.float64)
    their_mean, their_error = float(their.mean()), float(their.std()) / len(their) ** 0.5
    spread = 3.0 * (their_error**2 + trace_error**2) ** 0.5  # three standard errors of the difference
    trace_agrees = abs(their_mean - trace) <= spread + 1e-6 * abs(trace)
    which = "lambda_max" if ours is lambda_max else "lambda_min (the larger in modulus)"
    return SecondOpinion(
        lambda_max=largest,
        lambda_max_agrees=agrees,
        trace=their_mean,
        trace_error=their_error,
        trace_samdiag=trace,
        trace_agrees=trace_agrees,
        message=(
            f"PyHessian {'agrees' if agrees and trace_agrees else 'DISAGREES'}: power iteration {largest:.6g} "
            f"against {which} "
            f"{value:.6g}; trace {their_mean:.4g} ± {their_error:.2g} against {trace:.4g} ± {trace_error:.2g}"
        ),
        seconds=seconds,
    )
