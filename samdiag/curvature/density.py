"""A spectrum as a density with error bands, and its counts with intervals: stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samdiag.curvature.counts import count_interval
from samdiag.curvature.deflation import Deflation
from samdiag.curvature.quadrature import GaussRule, gauss_rule

CONFIDENCE = 0.95
RELATIVE_WIDTH = 0.15  # of the kernel, far from zero: eigenvalues 30 % apart are seen apart
FINEST = 1e-3  # of the largest |eigenvalue|: what is smaller counts as zero in most questions
MOST_ENTRIES = 10**7  # kernel values at once: 80 MB

Matvec = Callable[[Tensor], Tensor]
Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Banded:
    """Estimates with 95 % bands over the probes: [k] each."""

    value: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The coordinate s = asinh(λ/linear_within) in which the density is drawn, and its kernel.

    The kernel is Gaussian in s with standard deviation `width`; in λ that is width·√(λ² + linear_within²).
    """

    linear_within: float
    width: float = RELATIVE_WIDTH

    def place(self, values: Array) -> Array:
        placed: Array = np.arcsinh(values / self.linear_within)
        return placed

    def value(self, places: Array) -> Array:
        back: Array = self.linear_within * np.sinh(places)
        return back

    def kernel(self, places: Array, values: Array) -> Array:
        """Density at `places` [k] of unit masses at `values` [n], per unit of s: [k, n]."""
        z = (places[:, None] - self.place(values)[None, :]) / self.width
        heights: Array = np.exp(-0.5 * z**2) / (self.width * np.sqrt(2 * np.pi))
        return heights


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadrature:
    """All that the probes said: known eigenvalues, and a rule of every probe on their complement.

    Attributes:
        rest: n = dimensions of the complement.
        rules: one of each probe; none where the known eigenvalues are the whole spectrum.
        rounding: absolute error that floating point leaves in any eigenvalue.
    """

    known: Deflation
    rest: int
    rules: tuple[GaussRule, ...]
    rounding: float

    @property
    def exact(self) -> bool:
        return self.rest == 0

    @property
    def nodes(self) -> Array:
        return np.concatenate([rule.nodes for rule in self.rules]) if self.rules else np.zeros(0)

    @property
    def weights(self) -> Array:
        """Of `nodes`, summing to 1: every probe counts by its squared length."""
        if not self.rules:
            return np.zeros(0)
        total = sum(rule.mass for rule in self.rules)
        return np.concatenate([rule.weights * (rule.mass / total) for rule in self.rules])

    def sum_of(self, f: Callable[[Array], Array]) -> Banded:
        """Σᵢ f(λᵢ) over all eigenvalues for functions f ≥ 0: f maps values [n] to [k, n].

        The known eigenvalues are summed. For the rest the variance over Gaussian probes is (2/p)(Σf² − (Σf)²/n), and
        the band is that of the χ² distribution with the same mean and variance: exact for a projector.

        Source: Hutchinson's estimator, e.g. Ubaru, Chen & Saad, Fast estimation of tr(f(A)), SIAM J. Matrix Anal. Appl.
        38 (2017); Satterthwaite's approximation.
        """
        known = f(self.known.values).sum(axis=1)
        if self.exact:
            return Banded(value=known, low=known, high=known)
        heights, weights = f(self.nodes), self.weights
        total = self.rest * (heights @ weights)
        squares = self.rest * (heights**2 @ weights)
        variance = np.maximum(squares - total**2 / self.rest, 0.0) * 2.0 / len(self.rules)
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.where(variance > 0, 2.0 * total**2 / variance, np.inf)
        low, high = _chi_squared(freedom)
        return Banded(value=known + total, low=known + total / high, high=known + total / np.maximum(low, 1e-12))

    def mean_of(self, f: Callable[[Array], Array]) -> tuple[float, float]:
        """Σᵢ f(λᵢ) for any f, [n] → [n], and its standard error over the probes, from the variance of `sum_of`."""
        known = float(f(self.known.values).sum())
        if self.exact:
            return known, 0.0
        heights, weights = f(self.nodes), self.weights
        total = self.rest * float(heights @ weights)
        variance = 2.0 / len(self.rules) * (self.rest * float(heights**2 @ weights) - total**2 / self.rest)
        return known + total, math.sqrt(max(variance, 0.0))

    def density(self, axis: Axis, places: Array) -> Banded:
        """Eigenvalues per unit of s at `places` [k], smoothed by the axis's kernel."""
        size = max(1, MOST_ENTRIES // max(1, len(self.nodes) + len(self.known.values)))
        parts = [
            self.sum_of(lambda values, part=places[i : i + size]: axis.kernel(part, values))  # type: ignore[misc]
            for i in range(0, len(places), size)
        ]
        return Banded(
            value=np.concatenate([p.value for p in parts]),
            low=np.concatenate([p.low for p in parts]),
            high=np.concatenate([p.high for p in parts]),
        )

    def count_below(self, points: Array) -> Banded:
        """How many eigenvalues lie below each point [k]: estimate, and a certified interval of CONFIDENCE."""
        return self.count_between(np.full_like(points, -np.inf), points)

    def count_above(self, points: Array) -> Banded:
        """How many eigenvalues lie above each point [k], likewise."""
        return self.count_between(points, np.full_like(points, np.inf))

    def count_between(self, lower: Array, upper: Array) -> Banded:
        """How many eigenvalues lie in each interval [k].

        The interval holds with probability CONFIDENCE over the probes, whatever the spectrum: it takes in the weight
        that the Gauss rules leave open (Chebyshev, Markov, Stieltjes), the exact Beta law of what the probes see, and
        what the residuals of the known pairs and rounding may move.
        """
        inner_known, inner_weight = self._within(lower, upper, sign=-1.0)
        outer_known, outer_weight = self._within(lower, upper, sign=1.0)
        if self.exact:
            value = self._sharp(lower, upper)
            return Banded(value=value, low=np.minimum(inner_known, value), high=np.maximum(outer_known, value))
        low, high = count_interval(
            np.maximum(inner_weight, 0.0),
            outer_weight,
            dim=self.rest,
            num_probes=len(self.rules),
            confidence=CONFIDENCE,
        )
        return Banded(value=self._sharp(lower, upper), low=inner_known + low, high=outer_known + high)

    def _sharp(self, lower: Array, upper: Array) -> Array:
        """The middle of the open weight, in eigenvalues."""
        inside = (self.known.values[None, :] > lower[:, None]) & (self.known.values[None, :] < upper[:, None])
        count: Array = inside.sum(axis=1).astype(np.float64)
        if self.exact:
            return count
        below, up_to = self._pooled(upper)
        below_lower, up_to_lower = self._pooled(lower)
        middle = np.maximum((below + up_to - below_lower - up_to_lower) / 2.0, 0.0)
        estimate: Array = count + self.rest * middle
        return estimate

    def _within(self, lower: Array, upper: Array, *, sign: float) -> tuple[Array, Array]:
        """Known eigenvalues and pooled weight between the points: at least (sign −1) or at most (sign +1)."""
        known, weights = [], []
        for points, outward in ((lower, -sign), (upper, sign)):
            finite = np.isfinite(points)
            safe = np.where(finite, points, 0.0)
            full, down, up = self.known.shifts(safe)
            full = full + self.rounding
            moved = safe + outward * full
            known.append(np.where(finite, moved, points))
            moved = moved + np.where(outward > 0, up, -down)
            weights.append(self._pooled(np.where(finite, moved, points)))
        values = self.known.values[None, :]
        if sign > 0:
            inside = (values >= known[0][:, None]) & (values <= known[1][:, None])
            weight = weights[1][1] - weights[0][0]
        else:
            inside = (values > known[0][:, None]) & (values < known[1][:, None])
            weight = weights[1][0] - weights[0][1]
        return inside.sum(axis=1).astype(np.float64), weight

    def _pooled(self, points: Array) -> tuple[Array, Array]:
        """Bounds on the share of Σ‖z‖² below the points, and up to them."""
        below, up_to = np.zeros(len(points)), np.zeros(len(points))
        if not self.rules:
            return below, up_to
        finite = np.isfinite(points)
        total = sum(rule.mass for rule in self.rules)
        for rule in self.rules:
            least, most = rule.cumulative_bounds(points[finite])
            below[finite] += rule.mass / total * least
            up_to[finite] += rule.mass / total * most
        below[points == np.inf] = up_to[points == np.inf] = 1.0
        return below, up_to


def quadrature(
    product: Matvec,
    dim: int,
    *,
    known: Deflation,
    num_probes: int,
    num_steps: int,
    generator: torch.Generator,
    like: Tensor,
    rounding: float,
    progress: Callable[[int], None] | None = None,
) -> Quadrature:
    """The rules of `num_probes` Gaussian vectors on the complement of the known eigenpairs, `num_steps` products each.

    Args:
        product: [d] → [d], symmetric.
        dim: d.
        known: pairs that are taken out; their number lowers the variance, since they hold most of tr H².
        num_probes, num_steps: p and m.
        generator: on the CPU, so that devices agree.
        like: a vector [d] of the device and type to work in.
        rounding: absolute error of eigenvalues in that type.
        progress: called with the products so far.

    Source: Lin, Saad & Yang, Approximating spectral densities of large matrices, SIAM Review 58 (2016); Ghorbani,
    Krishnan & Xiao, An investigation into neural net optimization via Hessian eigenvalue density, ICML 2019; deflation:
    Gambhir, Stathopoulos & Orginos, SIAM J. Sci. Comput. 39 (2017).
    """
    rest = dim - len(known.values)
    operator, done = known.rest(product), 0

    def counted(v: Tensor) -> Tensor:
        nonlocal done
        done += 1
        if progress:
            progress(done)
        return operator(v)

    rules = []
    for _ in range(num_probes):
        z = torch.randn(dim, generator=generator, dtype=torch.float64).to(like)
        rules.append(gauss_rule(counted, known.project(z), min(num_steps, rest)))
    return Quadrature(known=known, rest=rest, rules=tuple(rules), rounding=rounding)


def whole_spectrum(values: list[float], like: Tensor, rounding: float) -> Quadrature:
    """The quadrature of a spectrum that is known completely: exact."""
    array = np.array(values)
    known = Deflation(values=array, residuals=np.zeros(len(array)), vectors=like[None][:0], images=like[None][:0])
    return Quadrature(known=known, rest=0, rules=(), rounding=rounding)


def axis_for(quadrature: Quadrature) -> Axis:
    """The axis whose kernel is, near zero, as wide as the rules' nodes are apart where the eigenvalues are.

    m steps resolve the spread over m at worst, and more where the weight is.

    Source: Lin, Saad & Yang (2016), Sec. 3.2, on the choice of the width.
    """
    known = quadrature.known.values
    largest = max(np.abs(known).max(initial=0.0), np.abs(quadrature.nodes).max(initial=0.0)) or 1.0
    wide = [rule for rule in quadrature.rules if len(rule.nodes) > 1]
    gaps = [float(np.gradient(rule.nodes) @ rule.weights) for rule in wide]
    apart = sum(gaps) / len(gaps) if gaps else 0.0
    return Axis(linear_within=max(apart / RELATIVE_WIDTH, FINEST * largest))


def bin_edges(low: float, high: float, *, decades: int, per_decade: int) -> Array:
    """Edges that take in [low, high]: evenly spaced in log |λ| on either side of zero, which one bin surrounds.

    The largest |λ| lies just inside the outermost edge, the bin around zero ends `decades` decades below it.
    """
    largest = max(abs(low), abs(high)) or 1.0
    powers = 10.0 ** (np.arange(decades * per_decade, -1, -1) / -per_decade)
    above = largest * (1.0 + FINEST) * powers
    positive = above[: int(np.searchsorted(above, high)) + 1]
    negative = above[: int(np.searchsorted(above, -low)) + 1]
    return np.concatenate([-negative[::-1], positive])


def grid(quadrature: Quadrature, axis: Axis, count: int) -> Array:
    """Places that take in the whole spectrum and four kernel widths beyond it: [count], even in s."""
    values = np.concatenate([quadrature.known.values, quadrature.nodes])
    low, high = axis.place(np.array([values.min(), values.max()]))
    return np.linspace(low - 4 * axis.width, high + 4 * axis.width, count)


def _chi_squared(freedom: Array) -> tuple[Array, Array]:
    """Quantiles of χ²_ν/ν at (1 ∓ CONFIDENCE)/2.

    Source: Wilson & Hilferty (1931); within 2 % for nu ≥ 2, and too wide rather than too narrow below.
    """
    z = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(np.isfinite(freedom), 2.0 / (9.0 * np.maximum(freedom, 1e-300)), 0.0)
    low = np.maximum(1.0 - share - z * np.sqrt(share), 0.0) ** 3
    high = (1.0 - share + z * np.sqrt(share)) ** 3
    return low, np.maximum(high, 1.0)
