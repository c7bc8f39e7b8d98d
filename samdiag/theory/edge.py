"""Stability of the iteration: the edge, bounces along a ravine, and what their size says about the curvature."""

from __future__ import annotations

import cmath
import math


def stability_edge(momentum: float, *, nesterov: bool = False) -> float:
    """Upper limit of eta·mu for which the step is stable: 2(1+gamma), Nesterov 2(1+gamma)/(1+2gamma).

    For real mu: for complex mu use `is_stable`. On a quadratic; on a loss with higher derivatives a step just beyond
    it may settle into an oscillation.

    Source: classical heavy-ball analysis; theory A1 (checked against simulation).
    """
    edge = 2.0 * (1.0 + momentum)
    return edge / (1.0 + 2.0 * momentum) if nesterov else edge


def heavy_ball_step_size(lr: float, dampening: float) -> float:
    """Step size eta of the heavy-ball run that PyTorch's damped momentum is: lr·(1 − dampening).

    v ← gamma v + (1 − d) g, x ← x − lr v is v ← gamma v + g, x ← x − lr(1 − d) v in the velocity v/(1 − d). An
    exponential average (EMA) of gradients is d = gamma. Holds from the second step on: PyTorch's first step takes the
    whole gradient, v = g, so that the run starts with a velocity 1/(1 − d) times too large, which gamma^k forgets.
    PyTorch allows no dampening together with Nesterov.

    Source: PyTorch SGD's update rule; theory, notation (simulated and compared with torch.optim.SGD).
    """
    return lr * (1.0 - dampening)


def root_sum_and_product(mu: complex, lr: float, momentum: float, *, nesterov: bool = False) -> tuple[complex, complex]:
    """Sum a and product c of the two multipliers of the mode of curvature `mu`: roots of r² − a r + c.

    Heavy ball a = 1 + gamma − eta·mu, c = gamma. Nesterov as in PyTorch (v ← gamma v + g, x ← x − eta(g + gamma v)):
    a = (1 + gamma)(1 − eta·mu), c = gamma(1 − eta·mu).

    Source: theory A1, C2; (D) for Nesterov, from x_{k+1} = x_k + gamma(x_k − x_{k−1}) − eta(1 + gamma) g_k +
    eta·gamma g_{k−1}.
    """
    if nesterov:
        return (1.0 + momentum) * (1.0 - lr * mu), momentum * (1.0 - lr * mu)
    return 1.0 + momentum - lr * mu, momentum


def is_stable(mu: complex, lr: float | None, momentum: float, *, nesterov: bool = False) -> bool:
    """Whether the mode x ← x − eta·mu·x with momentum contracts; `mu` may be complex.

    The roots of r² − a r + c lie inside the unit circle iff |c| < 1 and |a − c·conj(a)| < 1 − |c|² (Schur–Cohn, for
    complex coefficients); a and c as in `root_sum_and_product`, c = gamma for the heavy ball. With `lr` None the limit
    of small steps is taken: stable iff Re mu > 0.

    Source: theory A1.
    """
    if lr is None:
        return complex(mu).real > 0
    a, c = (complex(v) for v in root_sum_and_product(complex(mu), lr, momentum, nesterov=nesterov))
    return abs(c) < 1.0 and abs(a - c * a.conjugate()) < 1.0 - abs(c) ** 2


def largest_multiplier(mu: complex, lr: float, momentum: float, *, nesterov: bool = False) -> float:
    """Modulus of the larger root r of r² − a r + c (see `root_sum_and_product`): the factor per step of this mode.

    For complex eigenvalues of J too. The linearised step at a point that x does not leave; 1 or more: it does.

    Source: theory A1, A3.
    """
    a, c = root_sum_and_product(complex(mu), lr, momentum, nesterov=nesterov)
    root = cmath.sqrt(a * a - 4.0 * c)
    return max(abs((a + root) / 2.0), abs((a - root) / 2.0))


def bounce_amplitude(lam: float, rho: float, lr: float, momentum: float, *, nesterov: bool = False) -> float:
    """Distance c from the valley floor of the period-2 bounce of normalised SAM: c = eta·lam·rho/(2(1+gamma) −
    eta·lam).

    Nesterov: 2(1+gamma)/(1+2gamma) in place of 2(1+gamma). Infinite where eta·lam reaches the edge: plain gradient
    descent is unstable there and no finite cycle exists. With gamma > 0 longer and larger cycles coexist (27 times as
    large at gamma 0.9, eta·lam 0.02; see `cycles.bounce_cycles`), so this is the smallest.

    Source: Bartlett, Long & Bousquet (bouncing across ravines); theory A9 (simulated); (D) for Nesterov.
    """
    room = stability_edge(momentum, nesterov=nesterov) - lr * lam
    return lr * lam * rho / room if room > 0 else math.inf


def bounce_gradient(lam: float, rho: float, lr: float, momentum: float, *, nesterov: bool = False) -> float:
    """Gradient norm lam·c that the bounce along curvature `lam` keeps up, 0 for lam ≤ 0.

    A lower bound on what normalised full-batch SAM can reach along lam with this step size (`bounce_amplitude`).

    Source: theory A9.
    """
    return lam * bounce_amplitude(lam, rho, lr, momentum, nesterov=nesterov) if lam > 0 else 0.0


def bounce_ratio(lam: float, lr: float, momentum: float, *, nesterov: bool = False) -> float:
    """‖g+‖/‖g‖ on the period-2 bounce along curvature `lam` > 0: 2(1+gamma)/(eta·lam); above 1, as the bounce exists.

    Nesterov: 2(1+gamma)/((1+2gamma) eta·lam). Holds for the smallest cycle only: along a longer one the ratio changes
    from step to step.

    Source: theory A9 (simulated).
    """
    return stability_edge(momentum, nesterov=nesterov) / (lr * lam)


def bounced_curvature(ratio: float, lr: float, momentum: float, *, nesterov: bool = False) -> float:
    """Curvature read off a bounce: lam = 2(1+gamma)/(eta·‖g+‖/‖g‖), the inverse of `bounce_ratio`.

    Only on a period-2 bounce: check that the ratio is above 1 and that successive updates oppose each other.

    Source: theory A9.
    """
    return stability_edge(momentum, nesterov=nesterov) / (lr * ratio)


def sam_edge(grad_norm: float, rho: float, lr: float, momentum: float, *, nesterov: bool = False) -> float:
    """Curvature at which normalised SAM is at its edge of stability for a given gradient norm.

    lam_edge = (|g|/2rho)(√(1 + 8 rho(1+gamma)/(eta|g|)) − 1), the positive root of eta·lam(1 + rho·lam/|g|) =
    2(1+gamma); with Nesterov of the same = 2(1+gamma)/(1+2gamma).

    For |g| held at its value by other directions or by noise; 0 at |g| = 0, where every curvature is beyond it.

    Source: Long & Bartlett (SAM and the edge of stability), eq. for gamma = 0; theory A9 with momentum.
    """
    if grad_norm <= 0:
        return 0.0
    edge = stability_edge(momentum, nesterov=nesterov)
    return grad_norm / (2 * rho) * (math.sqrt(1 + 4 * rho * edge / (lr * grad_norm)) - 1)
