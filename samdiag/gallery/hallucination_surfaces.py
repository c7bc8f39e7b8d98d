"""Surfaces on which a hallucinated minimizer is known in closed form: where it is, what attracts, and from how far.

On each of them ∇f vanishes at x+ = x + rho u(x) although it does not at x. With one minimiser behind x+, the SAM
Jacobian J = H+[I + (rho/|g|)(I − uuᵀ)H] can be written down.

Source: PARK (arXiv 2509.21818) Def. 2.1; SI (arXiv 2306.09850) for the sine; docs/theory.md B2 to B5 and E.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from samdiag.gallery.dynamics import Array, Gradient
from samdiag.gallery.functions import Formula

Generator = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A hallucinated point with what is known about it.

    Attributes:
        name: of the surface.
        formula: w [d] → f(w).
        slope: ∇f at many points, [d, runs] → [d, runs].
        rho: SAM's radius.
        lr: a learning rate below 2/max J.
        point: [d], x_h.
        perturbed: [d], x+ = x_h + rho u.
        grad_norm: |g| at x_h.
        jacobian: eigenvalues of J, largest first; zeros belong to a manifold of minimisers.
        ridge: s*, the distance to the ridge along u.
        basin: in words, where the starts lie.
        starts: (count, random numbers) → [d, count] starts from which SAM ends at x_h.
        gap: points [d, runs] → [runs] distances from the hallucinated set.
    """

    name: str
    formula: Formula
    slope: Gradient
    rho: float
    lr: float
    point: tuple[float, ...]
    perturbed: tuple[float, ...]
    grad_norm: float
    jacobian: tuple[float, ...]
    ridge: float
    basin: str
    starts: Callable[[int, Generator], Array]
    gap: Callable[[Array], Array]


def cosine_formula(w: Tensor) -> Tensor:
    """1 − cos x."""
    return (1 - torch.cos(w)).sum()


def double_well_formula(w: Tensor) -> Tensor:
    """(x² − 1)²/4, minima at ±1 with curvature 2."""
    return ((w**2 - 1) ** 2).sum() / 4


def ring_formula(w: Tensor) -> Tensor:
    """(|x|² − 1)²/4 in the plane: a circle of minimisers around a maximiser."""
    return (w @ w - 1) ** 2 / 4


def sine_formula(beta: float = 2.0, rho: float = 0.6) -> Formula:
    """(9 beta rho²/25π²) sin(5πx/3rho), which is beta-smooth.

    Source: SI, the example of non-convex divergence; docs/theory.md E.
    """
    wave = 5 * math.pi / (3 * rho)
    return lambda w: (beta / wave**2 * torch.sin(wave * w)).sum()


def wells_formula(first: Tensor, curvature: Tensor, second: Tensor, other: Tensor) -> Formula:
    """q₁q₂/(q₁ + q₂), q_i = ½(x − a_i)ᵀH_i(x − a_i): zero at a₁ and a₂ with Hessians exactly H₁ and H₂, else positive.

    Args:
        first, second: [d] the minima.
        curvature, other: [d, d] their Hessians, positive definite.
    """
    return lambda w: between_wells(w, first, curvature, second, other)


def between_wells(w: Tensor, first: Tensor, curvature: Tensor, second: Tensor, other: Tensor) -> Tensor:
    """f of `wells_formula`, with its parameters as arguments for vmap."""
    near, far = (w - first) @ curvature @ (w - first) / 2, (w - second) @ other @ (w - second) / 2
    return near * far / (near + far)


def cosine_case(beyond: float = 1.2) -> Case:
    """x_h = π + d with rho = π + d: the step down the far side of the maximum at π lands in the minimum at 0.

    Args:
        beyond: d in (0, π).
    """
    rho = math.pi + beyond
    return Case(
        name="cosine",
        formula=cosine_formula,
        slope=np.sin,
        rho=rho,
        lr=0.05,
        point=(rho,),
        perturbed=(0.0,),
        grad_norm=math.sin(beyond),
        jacobian=(1.0,),
        ridge=beyond,
        basin="in (π, 2π)",
        starts=_inside(math.pi, 2 * math.pi),
        gap=_distance(rho),
    )


def double_well_case(rho: float = 1.5) -> Case:
    """x_h = rho − 1 with x+ = −1, the far well.

    Args:
        rho: in (1, 2).
    """
    x = rho - 1
    return Case(
        name="double_well",
        formula=double_well_formula,
        slope=lambda x: (x * x - 1) * x,
        rho=rho,
        lr=0.05,
        point=(x,),
        perturbed=(-1.0,),
        grad_norm=x * (1 - x * x),
        jacobian=(2.0,),
        ridge=x,
        basin="in (0, 1)",
        starts=_inside(0.0, 1.0),
        gap=_distance(x),
    )


def ring_case(rho: float = 1.4, angle: float = 0.0) -> Case:
    """|x_h| = rho − 1, x+ opposite on the ring: the ring's own zero mode is handed on, J = {2, 0}.

    Args:
        rho: in (1, 2).
        angle: of x_h, in radians.
    """
    x = rho - 1
    heading = (math.cos(angle), math.sin(angle))
    return Case(
        name="ring",
        formula=ring_formula,
        slope=lambda x: ((x * x).sum(axis=0) - 1) * x,
        rho=rho,
        lr=0.05,
        point=(x * heading[0], x * heading[1]),
        perturbed=(-heading[0], -heading[1]),
        grad_norm=x * (1 - x * x),
        jacobian=(2.0, 0.0),
        ridge=x,
        basin="in the disc",
        starts=_disc(1.0, (0.0, 0.0)),
        gap=lambda points: np.abs(np.hypot(points[0], points[1]) - x),
    )


def sine_case(beta: float = 2.0, rho: float = 0.6) -> Case:
    """x_h = −rho/10, where f is convex (H = beta/2 > 0): |g| = (3√3/10π) beta rho = 0.1654 beta rho and J = beta.

    Source: SI; docs/theory.md E.
    """
    wave = 5 * math.pi / (3 * rho)
    return Case(
        name="sine",
        formula=sine_formula(beta, rho),
        slope=lambda x: beta / wave * np.cos(wave * x),
        rho=rho,
        lr=0.1 / beta,
        point=(-rho / 10,),
        perturbed=(0.9 * rho,),
        grad_norm=beta / wave * math.sqrt(3) / 2,
        jacobian=(beta,),
        ridge=2 * math.pi / (3 * wave),
        basin="in (−π/2k, π/2k)",
        starts=_inside(-math.pi / (2 * wave), math.pi / (2 * wave)),
        gap=_distance(-rho / 10),
    )


WELLS_DISTANCE = 2.0
WELLS_CURVATURES = ((1.0, 2.0), (2.0, 1.0))  # along the line of the wells and across, of the first and the second


def two_wells_formula() -> Formula:
    """Two strict minima at (0, 0) and (2, 0) of curvatures (1, 2) and (2, 1); there is no maximiser."""
    first, second = (torch.diag(torch.tensor(c, dtype=torch.float64)) for c in WELLS_CURVATURES)
    centres = torch.tensor([[0.0, 0.0], [WELLS_DISTANCE, 0.0]], dtype=torch.float64)
    return wells_formula(centres[0], first, centres[1], second)


def two_wells_case(share: float = 0.9) -> Case:
    """x_h = (rho, 0) beside the second well, x+ = (0, 0) in the first.

    With p_i = (q_j/(q₁+q₂))², f_x = p₁α₁x + p₂α₂(x − D) and f_yy = p₁β₁ + p₂β₂ on the line of the wells, so that
    J = {α₁, β₁(1 + rho f_yy/|g|)}. The ridge is where α₁x³ = α₂(D − x)³.

    Args:
        share: rho/D, between that of the ridge and 1.
    """
    (along1, across1), (along2, across2) = WELLS_CURVATURES
    rho = share * WELLS_DISTANCE
    first, second = along1 * rho**2 / 2, along2 * (rho - WELLS_DISTANCE) ** 2 / 2
    weight1, weight2 = (second / (first + second)) ** 2, (first / (first + second)) ** 2
    slope = weight1 * along1 * rho + weight2 * along2 * (rho - WELLS_DISTANCE)
    across = weight1 * across1 + weight2 * across2
    return Case(
        name="two_wells",
        formula=two_wells_formula(),
        slope=_two_wells_slope,
        rho=rho,
        lr=0.05,
        point=(rho, 0.0),
        perturbed=(0.0, 0.0),
        grad_norm=-slope,
        jacobian=tuple(sorted((along1, across1 * (1 - rho * across / slope)), reverse=True)),
        ridge=rho - WELLS_DISTANCE / (1 + (along1 / along2) ** (1 / 3)),
        basin="within 0.1",
        starts=_disc(0.1, (rho, 0.0)),
        gap=lambda points: np.hypot(points[0] - rho, points[1]),
    )


CASES: tuple[Callable[[], Case], ...] = (cosine_case, double_well_case, ring_case, sine_case, two_wells_case)


def random_case(rng: Generator) -> Case:
    """One of the surfaces with a random radius (and angle), at its hallucinated point."""
    kind = int(rng.integers(4))
    if kind == 0:
        return cosine_case(rng.uniform(0.2, 2.9))
    if kind == 1:
        return double_well_case(rng.uniform(1.05, 1.95))
    if kind == 2:
        return ring_case(rng.uniform(1.05, 1.95), rng.uniform(0, 2 * math.pi))
    return two_wells_case(rng.uniform(0.65, 0.95))


def hessian(formula: Formula) -> Callable[[Tensor], Tensor]:
    """x ↦ ∇²f(x), [d] → [d, d], reverse over reverse (torch.func's own takes a deprecated path)."""
    second: Callable[[Tensor], Tensor] = jacrev(grad(formula))
    return second


def sam_gradient(formula: Formula, rho: float) -> Callable[[Tensor], Tensor]:
    """x ↦ ∇f(x + rho u(x)), [d] → [d]."""
    slope = grad(formula)

    def shifted(x: Tensor) -> Tensor:
        g = slope(x)
        moved: Tensor = slope(x + rho * g / torch.linalg.vector_norm(g))
        return moved

    return shifted


def sam_jacobian(formula: Formula, x: Tensor, rho: float) -> Tensor:
    """J = H+[I + (rho/|g|)(I − uuᵀ)H], dense [d, d], from automatic derivatives.

    Source: docs/theory.md B2.
    """
    g = grad(formula)(x)
    norm = torch.linalg.vector_norm(g)
    u, eye = g / norm, torch.eye(len(x), dtype=x.dtype)
    curvature = hessian(formula)
    bracket = eye + (rho / norm) * (eye - torch.outer(u, u)) @ curvature(x)
    product: Tensor = curvature(x + rho * u) @ bracket
    return product


def differenced_jacobian(formula: Formula, x: Tensor, rho: float, step: float = 1e-5) -> Tensor:
    """The Jacobian of x ↦ ∇f(x + rho u(x)) by central differences, [d, d]; good to about 1e-8 in float64."""
    shifted = sam_gradient(formula, rho)
    moves = step * torch.eye(len(x), dtype=x.dtype)
    return torch.stack([(shifted(x + move) - shifted(x - move)) / (2 * step) for move in moves], dim=1)


def scanned_ridge(formula: Formula, x: Tensor, reach: float, points: int = 4001) -> float:
    """s* = min{s > 0 : u·∇f(x + su) ≤ 0} by brute force on a grid up to `reach`, then bisection; ∞ if there is none."""
    slope = grad(formula)
    u = slope(x) / torch.linalg.vector_norm(slope(x))
    grid = torch.linspace(0, reach, points, dtype=x.dtype)
    falling = torch.nonzero(vmap(lambda s: u @ slope(x + s * u))(grid) <= 0)
    if len(falling) == 0:
        return math.inf
    high = float(grid[int(falling[0])])
    low = high - reach / (points - 1)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float(u @ slope(x + middle * u)) > 0 else (low, middle)
    return (low + high) / 2


def _two_wells_slope(x: Array) -> Array:
    """∇f of `two_wells_formula`, [2, runs] → [2, runs]."""
    first, second = (np.array(curvatures)[:, None] for curvatures in WELLS_CURVATURES)
    offset = x - np.array([[WELLS_DISTANCE], [0.0]])
    near, far = (first * x**2).sum(axis=0) / 2, (second * offset**2).sum(axis=0) / 2
    slope: Array = (far / (near + far)) ** 2 * first * x + (near / (near + far)) ** 2 * second * offset
    return slope


def _inside(low: float, high: float) -> Callable[[int, Generator], Array]:
    """Starts on a line, uniform between two ends, 1 % of it away from both: at the ends u has no sign."""
    margin = 0.01 * (high - low)
    return lambda count, rng: rng.uniform(low + margin, high - margin, (1, count))


def _disc(radius: float, centre: tuple[float, float]) -> Callable[[int, Generator], Array]:
    """Starts in a disc of the plane, uniform up to 99 % of its radius."""

    def starts(count: int, rng: Generator) -> Array:
        length = 0.99 * radius * np.sqrt(rng.uniform(0, 1, count))
        angle = rng.uniform(0, 2 * math.pi, count)
        return np.stack([centre[0] + length * np.cos(angle), centre[1] + length * np.sin(angle)])

    return starts


def _distance(x: float) -> Callable[[Array], Array]:
    return lambda points: np.abs(points[0] - x)
