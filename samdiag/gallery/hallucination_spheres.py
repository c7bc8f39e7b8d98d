"""Hallucinated points as critical points of f on a sphere about a minimiser, on many random landscapes at once.

Where f on the sphere S_rho(x*) has a critical point x at which f falls outward, u(x) points at x* and x + rho u = x*:
x is hallucinated. J's part across u is the curvature of f *on the sphere*, so that a minimum on the sphere may
attract and a maximum repels.

Two strict minima. For rho just below their distance D, a minimum of f on the sphere lies beside the second one. As
rho → D it attracts iff every eigenvalue of (HH+) across the line of the wells has a positive real part (H, H+:
Hessians at the second and the first minimum). That holds whenever both condition numbers are below 3 + 2√2: the angle
between Hv and v has cosine ≥ 2√k/(1 + k), and two angles below 45° cannot make a right one. Without that condition
it can fail, so docs/theory.md B4 does not hold for every pair.

An isolated maximiser. The point beyond it, as seen from x*, is a *maximum* of f on the sphere. In the plane
det J = det H+ · (rho/|g|)·(curvature on the sphere) < 0: always a repeller.

Source: PARK (arXiv 2509.21818) Thm 2.2 (its construction recalled, not re-read); docs/theory.md B2 to B4; the limit
rho → D is derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from samdiag.gallery.dynamics import Array, run

Generator = np.random.Generator
Flags = NDArray[np.bool_]

SURE_CONDITION = 3 + 2 * math.sqrt(2)  # both condition numbers below it: two wells attract as rho → D
WELLS_DISTANCE = 2.0
HILL_HEIGHT = 8.0  # times the bowl underneath, so that the hill has a maximum of its own
HILL_CURVATURE = 15.0  # smallest of the hill's shape: at distance 2 it has fallen to e⁻³⁰ of its height
NEWTON_STEPS = 40
LONGEST_STEP = 0.3  # of the radius, so that Newton stays with the critical point it started at


class Landscape(Protocol):
    """Many functions f_i on R^d at once, one per row."""

    def gradient(self, x: Array) -> Array:
        """[n, d] → [n, d]."""
        ...

    def hessian(self, x: Array) -> Array:
        """[n, d] → [n, d, d]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wells:
    """f = q₁q₂/(q₁ + q₂): minima at `first` and `second` [n, d] with Hessians `curvature` and `other` [n, d, d]."""

    first: Array
    curvature: Array
    second: Array
    other: Array

    def gradient(self, x: Array) -> Array:
        near, far, slope1, slope2 = self._parts(x)
        total = near + far
        return ((far / total) ** 2)[:, None] * slope1 + ((near / total) ** 2)[:, None] * slope2

    def hessian(self, x: Array) -> Array:
        near, far, slope1, slope2 = self._parts(x)
        total = near + far
        mixed = far[:, None] * slope1 - near[:, None] * slope2
        linear = _times((far / total) ** 2, self.curvature) + _times((near / total) ** 2, self.other)
        return linear - _times(2 / total**3, mixed[:, :, None] * mixed[:, None, :])

    def _parts(self, x: Array) -> tuple[Array, Array, Array, Array]:
        slope1, slope2 = _apply(self.curvature, x - self.first), _apply(self.other, x - self.second)
        near = ((x - self.first) * slope1).sum(axis=1) / 2
        far = ((x - self.second) * slope2).sum(axis=1) / 2
        return near, far, slope1, slope2


@dataclass(frozen=True, slots=True, kw_only=True)
class Hills:
    """f = q(1 + 8 exp(−½(x−m)ᵀM(x−m))): a bowl q about the origin and a hill with a maximum near m = `place` [n, d]."""

    bowl: Array
    place: Array
    shape: Array

    def gradient(self, x: Array) -> Array:
        bowl, hill, slope, tilt = self._parts(x)
        return (1 + hill)[:, None] * slope - (bowl * hill)[:, None] * tilt

    def hessian(self, x: Array) -> Array:
        bowl, hill, slope, tilt = self._parts(x)
        cross = slope[:, :, None] * tilt[:, None, :]
        bent = tilt[:, :, None] * tilt[:, None, :] - self.shape
        return _times(1 + hill, self.bowl) - _times(hill, cross + np.swapaxes(cross, 1, 2)) + _times(bowl * hill, bent)

    def _parts(self, x: Array) -> tuple[Array, Array, Array, Array]:
        slope, tilt = _apply(self.bowl, x), _apply(self.shape, x - self.place)
        hill = HILL_HEIGHT * np.exp(-((x - self.place) * tilt).sum(axis=1) / 2)
        return (x * slope).sum(axis=1) / 2, hill, slope, tilt


@dataclass(frozen=True, slots=True, kw_only=True)
class Hallucinated:
    """Points of `landscape` with x + rho u = centre.

    Attributes:
        points: [n, d], x_h.
        rho: [n].
        found: [n], whether the point is critical on the sphere, with f falling outward and the wanted curvature on it.
        shifted_norm: [n], |g+|.
        jacobian: [n, d] complex, eigenvalues of J.
    """

    points: Array
    rho: Array
    found: Flags
    shifted_norm: Array
    jacobian: NDArray[np.complex128]

    @property
    def attracting(self) -> Flags:
        """[n], every eigenvalue of J has a positive real part: attracts for every small enough learning rate."""
        return np.asarray(self.jacobian.real.min(axis=1) > 0)


def random_wells(count: int, dimensions: int, condition: float, rng: Generator) -> Wells:
    """`count` pairs at distance 2 in random directions, with random Hessians of condition number up to `condition`."""
    first = np.zeros((count, dimensions))
    return Wells(
        first=first,
        curvature=random_curvatures(count, dimensions, condition, rng),
        second=first + WELLS_DISTANCE * _directions(count, dimensions, rng),
        other=random_curvatures(count, dimensions, condition, rng),
    )


def random_hills(count: int, dimensions: int, condition: float, rng: Generator) -> Hills:
    """`count` bowls about the origin, each with a hill around a point at distance 2."""
    return Hills(
        bowl=random_curvatures(count, dimensions, condition, rng),
        place=WELLS_DISTANCE * _directions(count, dimensions, rng),
        shape=HILL_CURVATURE * random_curvatures(count, dimensions, condition, rng),
    )


def random_curvatures(count: int, dimensions: int, condition: float, rng: Generator) -> Array:
    """[count, d, d] positive definite, eigenvalues log-uniform in [1, condition], axes uniformly random."""
    axes = np.linalg.qr(rng.standard_normal((count, dimensions, dimensions)))[0]
    values = np.exp(rng.uniform(0, math.log(condition), (count, dimensions)))
    return np.asarray((axes * values[:, None, :]) @ np.swapaxes(axes, 1, 2))


def beside_the_second_well(wells: Wells, share: float) -> Hallucinated:
    """The minimum of f on S_rho(first) beside the second well, rho = `share` of the distance."""
    rho = share * _norm(wells.second - wells.first)
    points = critical_on_sphere(wells, wells.second, wells.first, rho)
    return _examined(wells, points, wells.first, rho, maximum=False)


def beyond_the_hilltop(hills: Hills, beyond: float) -> Hallucinated:
    """The maximum of f on S_rho(0) beyond the hilltop, rho = (1 + `beyond`) times the distance of the hilltop."""
    top = hills.place.copy()
    for _ in range(NEWTON_STEPS):
        top = top - np.linalg.solve(hills.hessian(top), hills.gradient(top)[:, :, None])[:, :, 0]
    rho = (1 + beyond) * _norm(top)
    origin = np.zeros_like(top)
    points = critical_on_sphere(hills, top, origin, rho)
    is_top = (np.linalg.eigvalsh(hills.hessian(top))[:, -1] < 0) & (_norm(hills.gradient(top)) < 1e-9)
    near = _norm(points - (1 + beyond) * top) < 0.25 * rho  # the maximum of this hill, not of another slope
    examined = _examined(hills, points, origin, rho, maximum=True)
    return Hallucinated(
        points=points,
        rho=rho,
        found=examined.found & is_top & near,
        shifted_norm=examined.shifted_norm,
        jacobian=examined.jacobian,
    )


def critical_on_sphere(landscape: Landscape, start: Array, centre: Array, radius: Array) -> Array:
    """The critical points [n, d] of f on the spheres that Newton's method reaches from `start`, which it projects."""
    x = _projected(start, centre, radius)
    for _ in range(NEWTON_STEPS):
        normal = (x - centre) / radius[:, None]
        tangent, curvature = _on_sphere(landscape, x, normal, radius)
        solved = np.linalg.pinv(curvature + normal[:, :, None] * normal[:, None, :], hermitian=True)
        move = -_apply(np.asarray(solved, dtype=np.float64), tangent)
        longest = LONGEST_STEP * radius / np.maximum(_norm(move), 1e-300)  # 1e-300: no division by zero at the end
        x = _projected(x + np.minimum(longest, 1)[:, None] * move, centre, radius)
    return x


def attracts_in_the_limit(wells: Wells) -> Flags:
    """[n], whether x_h attracts as rho → D: the real parts of (HH+) across the line of the wells are positive."""
    line = wells.second - wells.first
    line = line / _norm(line)[:, None]
    along = line[:, :, None] * line[:, None, :]
    across = np.eye(line.shape[1]) - along
    product = across @ wells.other @ wells.curvature @ across
    return np.asarray(np.linalg.eigvals(product + 1e6 * along).real.min(axis=1) > 0)  # 1e6: out of the way


def settled(landscape: Wells, points: Hallucinated, rng: Generator, *, offset: float, num_steps: int) -> Flags:
    """[n], whether SAM from a random offset comes a thousand times nearer to x_h; its lr is 1/max|J|.

    Args:
        landscape: of the points.
        points: x_h and J.
        rng: of the offsets' directions.
        offset: distance of the start, as a share of the second well's distance from x_h.
        num_steps: SAM steps.
    """
    scale = offset * _norm(points.points - landscape.second)
    start = points.points + scale[:, None] * _directions(len(scale), points.points.shape[1], rng)
    lr = 1.0 / np.abs(points.jacobian).max(axis=1)
    end = run(lambda x: landscape.gradient(x.T).T, start.T, rho=points.rho, lr=lr, num_steps=num_steps)
    return np.asarray(_norm(end.T - points.points) < 1e-3 * scale)


def _examined(landscape: Landscape, x: Array, centre: Array, rho: Array, *, maximum: bool) -> Hallucinated:
    normal = (x - centre) / rho[:, None]
    tangent, curvature = _on_sphere(landscape, x, normal, rho)
    g = landscape.gradient(x)
    norm = _norm(g)
    u, eye = g / norm[:, None], np.eye(x.shape[1])
    there = x + rho[:, None] * u
    bracket = eye + _times(rho / norm, (eye - u[:, :, None] * u[:, None, :]) @ landscape.hessian(x))
    values = np.linalg.eigvalsh(curvature)  # one of them is the 0 of the normal
    wanted = values[:, -1] < 1e-9 if maximum else values[:, 0] > -1e-9
    falling = (g * normal).sum(axis=1) < 0
    return Hallucinated(
        points=x,
        rho=rho,
        found=np.asarray((_norm(tangent) < 1e-6 * norm) & falling & wanted),
        shifted_norm=_norm(landscape.gradient(there)),
        jacobian=np.linalg.eigvals(landscape.hessian(there) @ bracket).astype(np.complex128),
    )


def _on_sphere(landscape: Landscape, x: Array, normal: Array, radius: Array) -> tuple[Array, Array]:
    """Gradient [n, d] and Hessian [n, d, d] of f on the sphere: PHP − (∂f/∂n)/R · P."""
    g = landscape.gradient(x)
    outward = (g * normal).sum(axis=1)
    across = np.eye(x.shape[1]) - normal[:, :, None] * normal[:, None, :]
    return _apply(across, g), across @ landscape.hessian(x) @ across - _times(outward / radius, across)


def _projected(x: Array, centre: Array, radius: Array) -> Array:
    return centre + (radius / _norm(x - centre))[:, None] * (x - centre)


def _directions(count: int, dimensions: int, rng: Generator) -> Array:
    drawn = rng.standard_normal((count, dimensions))
    return np.asarray(drawn / _norm(drawn)[:, None])


def _norm(rows: Array) -> Array:
    return np.asarray(np.sqrt((rows * rows).sum(axis=1)))


def _apply(matrices: Array, rows: Array) -> Array:
    """[n, d, d], [n, d] → [n, d]."""
    return np.asarray((matrices @ rows[:, :, None])[:, :, 0])


def _times(numbers: Array, matrices: Array) -> Array:
    """[n] · [n, d, d]."""
    return np.asarray(numbers[:, None, None] * matrices)
