"""What n samples say about the N they were drawn from: bias and interval of an eigenvalue, samples needed to decide.

Notation: H_n the Hessian on the n analysed samples, H that on all N, q and lam their eigenpair of either end, A and B
the two halves of the n samples, q_A the eigenvector on A.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

# of the bias taken off: how far it may be wrong. In − out shows all of a bias of order 1/n; where noise outgrows the
# gap the bias is of order 1/√n and 1/(√2 − 1) = 1 + √2 times what the halves' eigenvalues exceed the whole's by
BIAS_DOUBT = math.sqrt(2.0)
STANDARD_ERRORS = 2.0  # that reports and verdicts take for 95 %
POWER = 1.5  # three standard errors in place of two: then four of five repetitions exclude the threshold, not half
NORMAL_QUANTILE = 1.959963984540054  # of the normal distribution at 0.975
MANY_DEGREES = 100  # from here on the expansion of the quantile is good to 1e-5
FURTHEST = 1000  # times the analysed samples: beyond it a number of samples is no advice
FINENESS = 1.02  # to which a number of samples is found: it is rounded to two digits


@cache
def student_quantile(degrees: int) -> float:
    """t with P[|T| ≤ t] = 95 % for Student's T with that many degrees of freedom: 12.71, 4.30, 3.18, … → 1.96.

    Source: Abramowitz & Stegun 26.7 (26.7.5 from MANY_DEGREES on; below, the tail by Simpson's rule).
    """
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom: at least 1 is needed")
    if degrees >= MANY_DEGREES:
        z, v = NORMAL_QUANTILE, float(degrees)
        return z + (z**3 + z) / (4.0 * v) + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * v**2)
    low, high = NORMAL_QUANTILE, 13.0  # above the quantile of one degree
    for _ in range(50):  # down to 1e-14
        middle = (low + high) / 2.0
        low, high = (middle, high) if _upper_tail(middle, degrees) > 0.025 else (low, middle)  # half of 5 %
    return high


def _upper_tail(t: float, degrees: int) -> float:
    """P[T > t] for t > 0; over the angle arctan(t/√degrees) the density is a power of a cosine."""
    start, steps = math.atan2(t, math.sqrt(degrees)), 200  # Simpson's rule: errors below 1e-8 up to MANY_DEGREES
    width = (math.pi / 2.0 - start) / steps
    values = [math.cos(start + i * width) ** (degrees - 1) for i in range(steps)] + [float(degrees == 1)]
    total = values[0] + values[-1] + 4.0 * math.fsum(values[1::2]) + 2.0 * math.fsum(values[2:-1:2])
    constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(math.pi)
    return math.exp(constant) * total * width / 3.0


def unseen(num_samples: int, population: int | None) -> float:
    """1 − n/N, the finite-population correction of a variance; 1 where N is unknown or unbounded.

    Source: sampling without replacement (Cochran, Sampling Techniques, ch. 2).
    """
    return max(1.0 - num_samples / population, 0.0) if population else 1.0


def eigenvalue_bias(inside: float, outside: float, num_samples: int, population: int | None) -> float:
    """How far an eigenvalue of H_n lies outward of lam on average: (1 − n/N)(inside − outside)/4.

    Second-order perturbation by the noise Δ of a mean of n samples, s = Σ_j (q_jᵀΔq)²/(lam − lam_j) = C/n: on average
    lam(H_n) = lam + C(1/n − 1/N), inside = lam + C(2/n − 1/N), outside = lam − C(2/n + 1/N). Noise of first order is
    the same in all three and cancels. It holds while s is small against the gap. In any case lam lies between the mean
    of `outside` and the mean of lam(H_n), by the Rayleigh principle and convexity.

    Args:
        inside: mean over both halves of q_AᵀH_A q_A.
        outside: mean over both halves of q_AᵀH_B q_A.
        num_samples: n, both halves together.
        population: N; None: unbounded.

    Source: (D), second-order perturbation; half-sampling (Quenouille); theory H5. Checked by simulation.
    """
    return unseen(num_samples, population) * (inside - outside) / 4.0


def interval_error(standard_error: float, degrees: int, bias: float) -> float:
    """Half of the half-width of a 95 % interval: Student's t times the standard error, and the doubt in the bias.

    The two add in quadrature. It is half of it, because reports and verdicts take STANDARD_ERRORS times this.

    Source: theory H5 (BIAS_DOUBT is a choice; docs/benchmarks/coverage.md says what comes of it).
    """
    return math.hypot(student_quantile(degrees) * standard_error, BIAS_DOUBT * bias) / STANDARD_ERRORS


def error_at(sampling_error: float, bias: float, num_samples: int, population: int | None, *, more: int) -> float:
    """`sampling_error` as it would be with `more` samples in place of n.

    The standard error goes as √(1/n − 1/N), the doubt in the bias as its square; nothing is left at N.

    Args:
        sampling_error: at n samples, from `interval_error`; with `bias` 0 any standard error.
        bias: what was taken off the value at n samples.
        num_samples: n.
        population: N; None: unbounded.
        more: the other number of samples.

    Source: theory H5.
    """
    now = unseen(num_samples, population) / num_samples
    then = unseen(more, population) / more
    if now <= 0:
        return 0.0
    doubt = BIAS_DOUBT * abs(bias) / STANDARD_ERRORS
    noise = math.sqrt(max(sampling_error**2 - doubt**2, 0.0))
    return math.hypot(noise * math.sqrt(then / now), doubt * then / now)


def samples_needed(decides: Callable[[int], bool], num_samples: int, population: int | None) -> int | None:
    """The smallest number of samples, rounded up to two digits, for which `decides` holds; None: no number does.

    Between n and N, or FURTHEST times n where N is unknown. More samples are taken to decide whenever fewer do.

    Source: theory H5.
    """
    last = population or FURTHEST * num_samples
    if last <= num_samples or not decides(last):
        return None
    low, high = float(num_samples), float(last)
    while high > FINENESS * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if decides(math.ceil(middle)) else (middle, high)
    return min(_rounded_up(high), last)


def _rounded_up(value: float) -> int:
    """The next whole number with two significant digits."""
    unit = int(10 ** max(math.floor(math.log10(value)) - 1, 0))
    return math.ceil(value / unit) * unit
