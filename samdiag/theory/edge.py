"""Stability of the iteration: the edge, bounces along a ravine, and what their size says about the curvature."""

from __future__ import annotations

import math


def stability_edge(momentum: float, *, nesterov: bool = False) -> float:
    """Upper limit of eta·mu for which the step is stable: 2(1+gamma), Nesterov 2(1+gamma)/(1+2gamma).

    Source: classical heavy-ball analysis; theory A1 (checked against simulation).
    """
    edge = 2.0 * (1.0 + momentum)
    return edge / (1.0 + 2.0 * momentum) if nesterov else edge


def is_stable(mu: complex, lr: float | None, momentum: float) -> bool:
    """Whether the mode x ← x − eta·mu·x with heavy-ball momentum contracts; `mu` may be complex.

    The roots of r² − a r + gamma with a = 1 + gamma − eta·mu lie inside the unit circle iff |a − gamma·conj(a)| < 1 −
    gamma² (Schur–Cohn). With `lr` None the limit of small steps is taken: stable iff Re mu > 0.

    Source: theory A1.
    """
    if lr is None:
        return complex(mu).real > 0
    a = 1.0 + momentum - lr * complex(mu)
    return abs(a - momentum * a.conjugate()) < 1.0 - momentum**2


def largest_multiplier(mu: complex, lr: float, momentum: float) -> float:
    """Modulus of the larger root r of r² − (1 + gamma − eta·mu) r + gamma: the factor per step of this mode.

    Source: theory A1, A3.
    """
    a = 1.0 + momentum - lr * complex(mu)
    root = (a * a - 4.0 * momentum) ** 0.5
    return max(abs((a + root) / 2.0), abs((a - root) / 2.0))


def bounce_amplitude(lam: float, rho: float, lr: float, momentum: float) -> float:
    """Distance c from the valley floor of the period-2 bounce of normalised SAM: c = eta·lam·rho/(2(1+gamma) −
    eta·lam).

    Infinite where eta·lam reaches the edge: plain gradient descent is unstable there and no finite cycle exists. With
    gamma > 0 longer and larger cycles coexist (25 times as large at gamma 0.9), so this is the smallest.

    Source: Bartlett, Long & Bousquet (bouncing across ravines); theory A9 (simulated).
    """
    room = stability_edge(momentum) - lr * lam
    return lr * lam * rho / room if room > 0 else math.inf


def bounce_gradient(lam: float, rho: float, lr: float, momentum: float) -> float:
    """Gradient norm lam·c that the bounce along curvature `lam` keeps up, 0 for lam ≤ 0.

    Source: theory A9.
    """
    return lam * bounce_amplitude(lam, rho, lr, momentum) if lam > 0 else 0.0


def bounced_curvature(ratio: float, lr: float, momentum: float) -> float:
    """Curvature read off a bounce: lam = 2(1+gamma)/(eta·‖g+‖/‖g‖).

    Source: theory A9.
    """
    return stability_edge(momentum) / (lr * ratio)


def sam_edge(grad_norm: float, rho: float, lr: float, momentum: float) -> float:
    """Curvature at which normalised SAM is at its edge of stability for a given gradient norm.

    lam_edge = (|g|/2rho)(√(1 + 8 rho(1+gamma)/(eta|g|)) − 1), the positive root of eta·lam(1 + rho·lam/|g|) =
    2(1+gamma).

    Source: Long & Bartlett (SAM and the edge of stability), eq. for gamma = 0; theory A9 with momentum.
    """
    if grad_norm <= 0:
        return 0.0
    return grad_norm / (2 * rho) * (math.sqrt(1 + 4 * rho * stability_edge(momentum) / (lr * grad_norm)) - 1)
