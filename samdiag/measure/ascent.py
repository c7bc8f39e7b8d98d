"""SAM variants: the ascent displacement e(x), its metric, and its derivative. One function per variant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samdiag.curvature.objective import Objective
from samdiag.measure.settings import MeasureSettings
from samdiag.registry import VARIANTS, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """GSAM's descent direction F = g+ − alpha·g⊥, g⊥ the part of g orthogonal to g+; alpha = 0 is SAM's own g+.

    Source: Zhuang et al., Surrogate Gap Minimization Improves Sharpness-Aware Training, Sec. 4; theory, notation.
    """

    alpha: float

    def direction(self, g: Tensor, shifted: Tensor) -> Tensor:
        """F from g and g+ [num_params]; where g+ = 0 all of g counts as orthogonal to it."""
        norm = torch.linalg.vector_norm(shifted)
        if self.alpha == 0:
            return shifted
        if norm == 0:
            return g * -self.alpha
        w = shifted / norm
        orthogonal: Tensor = g - w * torch.dot(g, w)
        return shifted - self.alpha * orthogonal

    def derivative(self, g: Tensor, shifted: Tensor, dg: Tensor, dshifted: Tensor) -> Tensor:
        """The change of F when g and g+ change by `dg` and `dshifted`; g+ must not be 0."""
        if self.alpha == 0:
            return dshifted
        norm = torch.linalg.vector_norm(shifted)
        w = shifted / norm
        dw = (dshifted - w * torch.dot(w, dshifted)) / norm
        along = torch.dot(g, w)
        dalong = torch.dot(dg, w) + torch.dot(g, dw)
        orthogonal: Tensor = dg - w * dalong - dw * along
        return dshifted - self.alpha * orthogonal


SAM_MIX = Mix(alpha=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ascent:
    """The ascent step of a variant at one point, e = scale·D g.

    Attributes:
        displacement: [num_params] e(x) as an optimiser computes it: 0 where g = 0.
        metric: [num_params] diagonal of D, or None for the identity.
        normaliser: the norm that divides rho: |g| (SAM), |Tg| (ASAM); None where nothing divides (USAM).
        bracket: (v, Hv) → A v, the derivative of x + e(x) applied to v, so that J = H+·A; None where g = 0.
        mix: what the optimiser makes of g and g+.
    """

    displacement: Tensor
    metric: Tensor | None
    normaliser: float | None
    bracket: Callable[[Tensor, Tensor], Tensor] | None
    mix: Mix = SAM_MIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A variant with its constants, on one model.

    Attributes:
        variant: registered name.
        rho: radius.
        scaled: [num_params] bool, the entries of parameters named "weight": those that asam-samsung scales.
        eta_a: asam-samsung's constant added to |w|.
        alpha: gsam's.
    """

    variant: str
    rho: float
    scaled: Tensor | None = None
    eta_a: float = 0.01
    alpha: float = 0.0

    def at(self, x: Tensor, g: Tensor) -> Ascent:
        """The ascent step at `x` with gradient `g` [num_params]."""
        variant: Variant = load(VARIANTS[self.variant])
        return variant(x, g, self)

    def displacement(self, x: Tensor, g: Tensor) -> Tensor:
        """e(x) [num_params]."""
        return self.at(x, g).displacement

    def with_rho(self, rho: float) -> Rule:
        """The same rule at another radius."""
        return replace(self, rho=rho)


Variant = Callable[[Tensor, Tensor, Rule], Ascent]


def rule_of(settings: MeasureSettings, objective: Objective) -> Rule:
    """The rule that the settings name, for the borrowed model of `objective`."""
    return Rule(
        variant=settings.variant,
        rho=settings.rho,
        scaled=_named_weight(objective),
        eta_a=settings.eta_a,
        alpha=settings.alpha,
    )


def _named_weight(objective: Objective) -> Tensor:
    """[num_params] True where the parameter's name contains "weight"."""
    trainable = [(name, p) for name, p in objective.model.named_parameters() if p.requires_grad]
    parts = [torch.full((p.numel(),), "weight" in name, dtype=torch.bool) for name, p in trainable]
    return torch.cat(parts).to(objective.device)


def sam(x: Tensor, g: Tensor, rule: Rule) -> Ascent:
    """e = rho·g/|g|. J = H+[I + (rho/|g|)(I − uuᵀ)H].

    Source: Foret et al., Sharpness-Aware Minimization, eq. 2; Jacobian: theory B2 (checked to 3e-11).
    """
    norm = float(torch.linalg.vector_norm(g))
    if norm == 0:
        return Ascent(displacement=torch.zeros_like(g), metric=None, normaliser=0.0, bracket=None)
    u, rho = g / norm, rule.rho

    def bracket(v: Tensor, hv: Tensor) -> Tensor:
        return v + (rho / norm) * (hv - u * torch.dot(u, hv))

    return Ascent(displacement=rho * u, metric=None, normaliser=norm, bracket=bracket)


def usam(x: Tensor, g: Tensor, rule: Rule) -> Ascent:
    """e = rho·g, without normalisation. J = H+[I + rho H].

    Source: Andriushchenko & Flammarion, Towards Understanding Sharpness-Aware Minimization; theory B2.
    """
    rho = rule.rho
    return Ascent(displacement=rho * g, metric=None, normaliser=None, bracket=lambda v, hv: v + rho * hv)


def asam(x: Tensor, g: Tensor, rule: Rule) -> Ascent:
    """e = rho·w²g/| |w| g |, the `adaptive=True` of the davda54 implementation: all parameters, no eta_a.

    Source: Kwon et al., ASAM, eq. 8; theory, notation and B2.
    """
    return _scaled_ascent(x.abs(), torch.sign(x), g, rule.rho)


def asam_samsung(x: Tensor, g: Tensor, rule: Rule) -> Ascent:
    """e = rho·T²g/|Tg|, T = |w| + eta_a on parameters named "weight" and 1 elsewhere: the SamsungLabs implementation.

    Source: Kwon et al., ASAM, eq. 8 and Sec. 4; theory, notation and B2.
    """
    scaled = rule.scaled if rule.scaled is not None else torch.ones_like(x, dtype=torch.bool)
    t = torch.where(scaled, x.abs() + rule.eta_a, torch.ones_like(x))
    return _scaled_ascent(t, torch.where(scaled, torch.sign(x), torch.zeros_like(x)), g, rule.rho)


def gsam(x: Tensor, g: Tensor, rule: Rule) -> Ascent:
    """SAM's ascent, and a descent along g+ − alpha·(part of g orthogonal to g+).

    Exactly at g+ = 0 what is left is −alpha·g, but nearby GSAM turns until g+ is parallel to g and hovers there at a
    few times eta·alpha·|g| (in one dimension it is SAM): a hallucination of SAM is one of GSAM.

    Source: Zhuang et al., Surrogate Gap Minimization Improves Sharpness-Aware Training, algorithm 1.
    """
    return replace(sam(x, g, rule), mix=Mix(alpha=rule.alpha))


def _scaled_ascent(t: Tensor, slope: Tensor, g: Tensor, rho: float) -> Ascent:
    """e = rho·T²g/|Tg| with T = diag(t) and dt/dw = diag(slope).

    With p = Tg, p̂ = p/|p|, P = I − p̂p̂ᵀ, s = slope: J = H+[I + rho(diag(s∘p̂) + (1/|p|) T P (diag(s∘g) + T H))]. Freezing
    T would cost 3 to 24 %.

    Source: theory B2 (checked against finite differences).
    """
    p = t * g
    norm = float(torch.linalg.vector_norm(p))
    if norm == 0:
        return Ascent(displacement=torch.zeros_like(g), metric=t * t, normaliser=0.0, bracket=None)
    p_hat = p / norm

    def bracket(v: Tensor, hv: Tensor) -> Tensor:
        inner = slope * g * v + t * hv
        inner = inner - p_hat * torch.dot(p_hat, inner)
        return v + rho * (slope * p_hat * v + t * inner / norm)

    return Ascent(displacement=(rho / norm) * t * p, metric=t * t, normaliser=norm, bracket=bracket)
