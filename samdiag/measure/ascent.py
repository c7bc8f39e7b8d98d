"""SAM variants: the ascent displacement e(x), its metric, and its derivative. One function per variant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samdiag.registry import VARIANTS, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Ascent:
    """The ascent step of a variant at one point, e = scale·D g.

    Attributes:
        displacement: [num_params] e(x) as an optimiser computes it: 0 where g = 0.
        metric: [num_params] diagonal of D, or None for the identity.
        normaliser: the norm that divides rho: |g| (SAM), |Tg| (ASAM); None where nothing divides (USAM).
        bracket: (v, Hv) → A v, the derivative of x + e(x) applied to v, so that J = H+·A; None where g = 0.
    """

    displacement: Tensor
    metric: Tensor | None
    normaliser: float | None
    bracket: Callable[[Tensor, Tensor], Tensor] | None


Variant = Callable[[Tensor, Tensor, float], Ascent]


def variant_named(name: str) -> Variant:
    """The registered variant, e.g. `sam`."""
    variant: Variant = load(VARIANTS[name])
    return variant


def sam(x: Tensor, g: Tensor, rho: float) -> Ascent:
    """e = rho·g/|g|. J = H+[I + (rho/|g|)(I − uuᵀ)H].

    Source: Foret et al., Sharpness-Aware Minimization, eq. 2; Jacobian: theory B2 (checked to 3e-11).
    """
    norm = float(torch.linalg.vector_norm(g))
    if norm == 0:
        return Ascent(displacement=torch.zeros_like(g), metric=None, normaliser=0.0, bracket=None)
    u = g / norm

    def bracket(v: Tensor, hv: Tensor) -> Tensor:
        return v + (rho / norm) * (hv - u * torch.dot(u, hv))

    return Ascent(displacement=rho * u, metric=None, normaliser=norm, bracket=bracket)


def usam(x: Tensor, g: Tensor, rho: float) -> Ascent:
    """e = rho·g, without normalisation. J = H+[I + rho H].

    Source: Andriushchenko & Flammarion, Towards Understanding Sharpness-Aware Minimization; theory B2.
    """
    return Ascent(displacement=rho * g, metric=None, normaliser=None, bracket=lambda v, hv: v + rho * hv)


def asam(x: Tensor, g: Tensor, rho: float) -> Ascent:
    """e = rho·w²g/| |w| g |, the `adaptive=True` of the davda54 implementation: all parameters, no eta_a.

    With T = diag|w|, p = Tg, p̂ = p/|p|, P = I − p̂p̂ᵀ, s = sign(w): J = H+[I + rho(diag(s∘p̂) + (1/|p|) T P
    (diag(s∘g) + T H))]. Freezing T would cost 3 to 24 %.

    Source: Kwon et al., ASAM, eq. 8; theory, notation and B2.
    """
    t = x.abs()
    p = t * g
    norm = float(torch.linalg.vector_norm(p))
    if norm == 0:
        return Ascent(displacement=torch.zeros_like(g), metric=t * t, normaliser=0.0, bracket=None)
    p_hat, s = p / norm, torch.sign(x)

    def bracket(v: Tensor, hv: Tensor) -> Tensor:
        inner = s * g * v + t * hv
        inner = inner - p_hat * torch.dot(p_hat, inner)
        return v + rho * (s * p_hat * v + t * inner / norm)

    return Ascent(displacement=(rho / norm) * t * p, metric=t * t, normaliser=norm, bracket=bracket)
