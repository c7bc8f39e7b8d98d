"""Measurements built directly: a stuck saddle by default, every field changeable, and random ones for hypothesis."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from hypothesis import strategies as st

from samdiag.instruments import SelfCheck
from samdiag.types import UNKNOWN, Direction, Estimate, Measurements

PASSED = SelfCheck(passed=True, symmetry_error=1e-12, repeat_error=0.0, finite_difference_error=1e-9)
FAILED = SelfCheck(
    passed=False, symmetry_error=0.3, repeat_error=0.0, finite_difference_error=0.3, reason="not symmetric"
)


def est(value: float | None, error: float = 0.0, sampling: float | None = 0.0, converged: bool = True) -> Estimate:
    return Estimate(value=value, error=error, sampling_error=sampling, converged=converged)


def measurements(**changes: Any) -> Measurements:
    """A stuck saddle: loss 2.3, lambda_min −0.5, rho_eff|lambda_min| 30, complete spectrum, full batch."""
    base = Measurements(
        rho=0.5,
        variant="sam",
        lr=0.01,
        momentum=0.5,
        weight_decay=0.0,
        batch_size=None,
        num_params=2,
        num_samples=64,
        num_batches=1,
        population=64,
        num_products=10,
        num_gradients=30,
        loss_lower_bound=0.0,
        loss=est(2.3),
        grad_norm=est(0.5 / 60),
        perturbed_loss=est(2.5),
        loss_change=est(0.2, 1e-15),
        perturbed_grad_norm=est(0.01),
        gradient_ratio=est(1.2),
        gradient_cosine=est(0.1),
        update_ratio=est(1.2),
        perturbation_norm=0.5,
        directional_curvature=est(0.1),
        quadratic_error=0.01,
        lookahead_loss=2.3,
        lookahead_loss_sgd=2.2999,
        lookahead_cosine=0.9,
        ridge_distance=UNKNOWN,
        ridge_searched=2.0,
        lambda_max=est(1.0),
        lambda_min=est(-0.5),
        lambda_min_bound=-0.5,
        lambda_min_bound_probability=1.0,
        top_eigenvalues=(est(1.0),),
        bottom_eigenvalues=(est(-0.5),),
        top_directions=(Direction(eigenvalue=est(1.0), effective_radius=60.0, offset=0.005),),
        bottom_directions=(Direction(eigenvalue=est(-0.5), effective_radius=60.0, offset=0.001),),
        spectrum_complete=True,
        effective_radius=60.0,
        noise_trace=UNKNOWN,
        jacobian_eigenvalues=None,
        jacobian_zero=None,
        self_check=PASSED,
    )
    return dataclasses.replace(base, **changes)


def saddle(
    *bottom: Estimate, radius: float = 60.0, top: Estimate | None = None, rho: float = 0.5, **changes: Any
) -> Measurements:
    """The same with these bottom eigenvalues (lowest first), all at one effective radius (USAM: rho itself)."""
    top = top or est(1.0)
    usam = changes.get("variant") == "usam"
    norm = changes["grad_norm"].value if "grad_norm" in changes else math.inf
    own = 0.001 if usam or not 0 < radius < math.inf else min(rho / radius, norm)  # all of |g| lies along each of them
    values = {
        "rho": radius if usam else rho,
        "effective_radius": radius,
        "grad_norm": est(0.0 if usam else (rho / radius if radius > 0 else math.inf)),
        "lambda_min": bottom[0],
        "lambda_min_bound": bottom[0].low,
        "bottom_eigenvalues": bottom,
        "bottom_directions": tuple(Direction(eigenvalue=e, effective_radius=radius, offset=own) for e in bottom),
        "lambda_max": top,
        "top_eigenvalues": (top,),
        "top_directions": (Direction(eigenvalue=top, effective_radius=radius, offset=0.005),),
    }
    return measurements(**(values | changes))


def minimum(**changes: Any) -> Measurements:
    """At rest: gradient within rounding, both ends positive."""
    low = est(0.5)
    return saddle(low, grad_norm=est(1e-17, 1e-15), effective_radius=math.inf, loss=est(0.2), **changes)


def hallucinated(**changes: Any) -> Measurements:
    """The double well at x_h = rho − 1, rho 1.5: |g| 0.375, g+ = 0, J = 2."""
    values = {
        "grad_norm": est(0.375),
        "perturbed_grad_norm": est(0.0),
        "gradient_ratio": est(0.0),
        "update_ratio": est(0.0),
        "loss_change": est(-0.14),
        "jacobian_eigenvalues": ((2.0, 0.0),),
        "jacobian_zero": 1e-5,
        "rho": 1.5,
        "perturbation_norm": 1.5,
        "radius": 4.0,
        "ridge_distance": est(0.5, 1e-3),
    }
    return saddle(est(-0.25), **(values | changes))


def bouncing(**changes: Any) -> Measurements:
    """The bounce of lam 10, rho 0.1, eta 0.05: ratio 4, the gradient flips."""
    values = {
        "grad_norm": est(1 / 3),
        "perturbed_grad_norm": est(4 / 3),
        "gradient_ratio": est(4.0),
        "update_ratio": est(4.0),
        "loss_change": est(0.083, 1e-15),
        "lookahead_cosine": -1.0,
        "rho": 0.1,
        "lr": 0.05,
        "momentum": 0.0,
        "radius": 0.3,
        "top": est(10.0),
        "loss": est(1 / 180),
        "lookahead_loss": 1 / 180,
        "lookahead_loss_sgd": 1 / 180 / 4,
    }
    return saddle(est(10.0), **(values | changes))


def finite(low: float = -1e6, high: float = 1e6) -> st.SearchStrategy[float]:
    """Numbers of a size that a measurement can have: 0, or 1e-60 to 1e6 in modulus (their squares do not underflow)."""
    return st.one_of(
        st.floats(min_value=low, max_value=high, allow_nan=False).map(lambda v: v if abs(v) > 1e-60 else 0.0),
        st.sampled_from([v for v in (0.0, 1.0, -1.0, 1e-30, -1e-30, 0.1, 2.0, 1e6) if low <= v <= high]),
    )


def known(values: st.SearchStrategy[float]) -> st.SearchStrategy[Estimate]:
    """A measured number, its numerical error possibly infinite."""
    return st.builds(
        Estimate,
        value=values,
        error=st.one_of(finite(0.0), st.just(math.inf)),
        sampling_error=st.one_of(st.none(), finite(0.0)),
        converged=st.booleans(),
    )


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


@st.composite
def directions(draw: Any, radius: float | None = None) -> Direction:
    return Direction(
        eigenvalue=draw(known(finite())),
        effective_radius=draw(finite(0.0)) if radius is None else radius,
        noise=draw(maybe(finite(0.0))),
        offset=draw(finite()),
    )


@st.composite
def reachable(draw: Any, weight_decay: tuple[float, ...] = (0.0, 1e-4)) -> Measurements:
    """What `measure` can return: losses, norms and both ends of the spectrum have values, the rest may be missing.

    Infinities: the effective radius at a critical point, errors that are not known.
    """
    radius = draw(st.one_of(finite(0.0), st.just(math.inf)))
    one = directions(radius) if math.isinf(radius) else directions()
    top = draw(st.lists(one, min_size=1, max_size=2))
    bottom = draw(st.lists(one, min_size=1, max_size=3).map(lambda d: sorted(d, key=lambda v: v.eigenvalue.value)))
    norm, missing = known(finite(0.0)), st.just(UNKNOWN)
    changes: dict[str, Any] = {
        name: draw(norm) for name in ("loss", "grad_norm", "perturbed_loss", "perturbed_grad_norm")
    }
    changes |= {name: draw(st.one_of(missing, norm)) for name in ("gradient_ratio", "update_ratio", "noise_trace")}
    changes |= {
        name: draw(st.one_of(missing, known(finite()))) for name in ("gradient_cosine", "directional_curvature")
    }
    changes |= {name: draw(maybe(finite())) for name in ("lookahead_loss", "lookahead_loss_sgd", "loss_lower_bound")}
    changes |= {name: draw(maybe(st.floats(-1, 1))) for name in ("lookahead_cosine", "quadratic_error")}
    return measurements(
        **changes,
        loss_change=draw(known(finite())),
        ridge_distance=draw(st.one_of(missing, known(finite(1e-6, 1e6)))),
        rho=draw(st.floats(min_value=1e-6, max_value=1e3)),
        variant=draw(st.sampled_from(["sam", "usam", "asam"])),
        lr=draw(maybe(st.floats(min_value=1e-6, max_value=10.0))),
        momentum=draw(st.sampled_from([0.0, 0.5, 0.9, 0.999])),
        weight_decay=draw(st.sampled_from(weight_decay)),
        batch_size=draw(maybe(st.integers(1, 4096))),
        perturbation_norm=draw(finite(0.0)),
        lambda_max=top[0].eigenvalue,
        lambda_min=bottom[0].eigenvalue,
        top_directions=tuple(top),
        bottom_directions=tuple(bottom),
        top_eigenvalues=tuple(d.eigenvalue for d in top),
        bottom_eigenvalues=tuple(d.eigenvalue for d in bottom),
        spectrum_complete=draw(st.booleans()),
        effective_radius=radius,
        jacobian_eigenvalues=draw(maybe(st.lists(st.tuples(finite(), finite()), max_size=3).map(tuple))),
        jacobian_zero=draw(maybe(finite(0.0))),
        self_check=draw(st.sampled_from([PASSED, FAILED])),
    )
