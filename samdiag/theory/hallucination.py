"""Hallucinated minimizers: the signature, and the Jacobian that tells an attractor from a mere point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from samdiag.theory.edge import is_stable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIGNATURE_RATIO = (
    0.1  # |g+| < 0.1|g| held in 207 of 216 spontaneous cases on tanh networks: a choice made on toys (theory B6)
)


def is_attracting(
    eigenvalues: list[complex], zero: float, lr: float | None, momentum: float, *, nesterov: bool = False
) -> tuple[bool, int]:
    """Whether x ↦ ∇f(x + e(x)) attracts, and the number of its zero modes.

    Zero modes (modulus ≤ `zero`) come from the manifold of minimisers through x+; they are counted, not called
    unstable.

    Source: PARK Sec. 3; theory B3.
    """
    live = [value for value in eigenvalues if abs(value) > zero]
    return bool(live) and all(is_stable(v, lr, momentum, nesterov=nesterov) for v in live), len(eigenvalues) - len(live)


def reduced_jacobian(
    values: NDArray[np.float64], projected_bracket: NDArray[np.float64], weight_decay: float = 0.0
) -> NDArray[np.float64]:
    """J = H+·A on the span where H+ ≈ V L Vᵀ: L VᵀAV + wd·I [k, k], A the bracket of theory B2.

    Args:
        values: [k] eigenvalues L of the Hessian at x+.
        projected_bracket: [k, k] VᵀAV, A at x.
        weight_decay: of the update, added to the diagonal.

    Source: theory B3 (checked: exact when H+ has rank k).
    """
    import numpy as np

    matrix: NDArray[np.float64] = values[:, None] * projected_bracket + weight_decay * np.eye(len(values))
    return matrix


def zero_modes(eigenvalues: list[complex], zero: float) -> int:
    """Number of eigenvalues of J with modulus ≤ `zero`: directions along the manifold of minimisers through x+.

    J = H+·A has a zero mode for each null direction of H+, i.e. each direction in which the minimum at x+ is flat. SAM
    neither returns nor leaves along them. `zero` comes from the error of the eigenvalues.

    Source: theory B3.
    """
    return sum(abs(value) <= zero for value in eigenvalues)


def is_certified(rho: float, ridge_distance: float) -> bool:
    """Whether x is certainly not hallucinated: rho < s*, s* = min{s > 0 : u·∇f(x + s·u) ≤ 0}.

    Exact: up to s* the slope along u is positive, so ∇f(x + rho·u) cannot vanish. False says nothing: beyond the ridge
    the gradient at x+ is usually not 0 either. Without weight decay (the residual there is g+ + wd·x).

    Source: theory B5.
    """
    return rho < ridge_distance


def sam_jacobian(
    at_perturbed: NDArray[np.float64],
    here: NDArray[np.float64],
    gradient: NDArray[np.float64],
    rho: float,
    weight_decay: float = 0.0,
) -> NDArray[np.float64]:
    """[d, d] J = H+[I + (rho/|g|)(I − uuᵀ)H] + wd·I of x ↦ ∇f(x + rho·u(x)) + wd·x, dense.

    Args:
        at_perturbed: [d, d] Hessian at x+.
        here: [d, d] Hessian at x.
        gradient: [d] gradient at x, not 0.
        rho: radius of normalised SAM.
        weight_decay: in the update.

    Source: theory B2 (checked against finite differences).
    """
    import numpy as np

    size = len(gradient)
    norm = float(np.linalg.norm(gradient))
    unit = gradient / norm
    bracket = np.eye(size) + (rho / norm) * (here - np.outer(unit, unit @ here))
    return np.asarray(at_perturbed @ bracket + weight_decay * np.eye(size))


@dataclass(frozen=True, slots=True, kw_only=True)
class SphereCheck:
    """A point x seen from a minimum x* of f: is x hallucinated at rho = |x − x*|?

    Attributes:
        radius: |x − x*|, the rho at which x+ can be x*.
        outward_slope: derivative of f along (x − x*)/|x − x*|; must be negative.
        tangential: norm of ∇f(x) along the sphere over |∇f(x)|; 0 at a critical point of f on the sphere.
    """

    radius: float
    outward_slope: float
    tangential: float

    def holds(self, tolerance: float) -> bool:
        """Whether x is a hallucinated point: critical on the sphere to `tolerance`, with f decreasing outward."""
        return self.outward_slope < 0 and self.tangential <= tolerance


def check_sphere(x: NDArray[np.float64], minimum: NDArray[np.float64], gradient: NDArray[np.float64]) -> SphereCheck:
    """The two conditions for x + rho·u(x) = x*, rho = |x − x*|: ∇f(x) is radial, and f decreases away from x*.

    With x* a minimum this is g+ = 0 at x. It says nothing about attraction: that is the spectrum of `sam_jacobian`.
    Any critical point of f on S_rho(x*) will do, a maximum on it (which PARK Thm 2.2 builds beyond a maximiser of f) as
    well as a minimum on it (beside a second minimum of f).

    Args:
        x: [d] the point.
        minimum: [d] x*, where ∇f = 0.
        gradient: [d] ∇f(x), not 0.

    Source: theory B4 (D).
    """
    import numpy as np

    offset = x - minimum
    radius = float(np.linalg.norm(offset))
    outward = offset / radius
    slope = float(gradient @ outward)
    along, norm = float(np.linalg.norm(gradient - slope * outward)), float(np.linalg.norm(gradient))
    return SphereCheck(radius=radius, outward_slope=slope, tangential=along / norm if norm > 0 else math.nan)


def eigenvalues_beside(
    at_minimum: NDArray[np.float64], at_other: NDArray[np.float64], direction: NDArray[np.float64]
) -> list[complex]:
    """The d − 1 eigenvalues of H*·(I − nnᵀ)·H' that govern the hallucinated point beside the critical point x'.

    x* is a minimum with Hessian H*, x' a critical point at distance D along n with Hessian H'. There is a hallucinated
    point near x' for rho near D (below D beside a second minimum, above D beyond a maximiser). As rho → D its J is
    H* + kappa·H*(I − nnᵀ)H', kappa = rho/|g| → ∞: these eigenvalues times kappa, and one finite one.

    Beside a second minimum it attracts (small steps) iff all have positive real part: usual, but not always.
    Of random pairs with eigenvalues in 0.5…3 all attract, in 0.1…10 some 95 % in two dimensions and all in 100.
    H* = [[10, 3], [3, 1]], H' = [[10, −3], [−3, 1]], n = (1, 0) give −8: a repeller between two strict minima.
    Beyond a maximiser the sign of det J is (−1)^{d−1}, so that it repels for every even d, and for every d ≥ 2 if H*
    and H' commute: PARK Thm 2.2 proves a point, not an attractor. Far from x' neither holds: −cos x − cos y attracts
    from 1.35 beyond its maximiser.

    Args:
        at_minimum: [d, d] H*.
        at_other: [d, d] H'.
        direction: [d] n, a unit vector.

    Source: theory B3, B4 (D; the counter-example to "two minima give attracting ones" checked by simulation).
    """
    import numpy as np

    size = len(direction)
    product = at_minimum @ (np.eye(size) - np.outer(direction, direction)) @ at_other
    values = [complex(v) for v in np.linalg.eigvals(product)]
    return sorted(values, key=abs)[1:]  # the first is the projection's zero
