"""The measurements as the prescription's formulas want them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samdiag.theory.edge import stability_edge
from samdiag.theory.prescription import KEPT_FRACTION, RIDGE_MARGIN, edge_rho, saddle_rho
from samdiag.types import Direction, Measurements

MIN_BATCH = (
    8  # smaller batches than this are not prescribed: the noise estimate behind B_crit needs a few samples a batch
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One checkpoint's inputs to theory D.

    Attributes:
        m: the measurements.
        bottom: the most negative direction, None where lambda_min is not negative beyond its error.
        scale: G = rho/rho_eff along it: what divides rho (1 for USAM; 0 at an exact critical point without noise).
    """

    m: Measurements
    bottom: Direction | None
    scale: float

    @classmethod
    def of(cls, m: Measurements) -> Situation:
        bottom = m.bottom_directions[0] if m.bottom_directions and m.bottom_directions[0].eigenvalue.high < 0 else None
        radius = bottom.effective_radius if bottom else m.effective_radius
        return cls(m=m, bottom=bottom, scale=m.rho / radius if radius > 0 else math.inf)

    @property
    def batch_size(self) -> float | None:
        """The present batch size; the whole training set for full batch, None where its size is not known."""
        return self.m.batch_size if self.m.batch_size is not None else self.m.population

    @property
    def beyond_edge(self) -> bool:
        """Whether the learning rate alone is past the edge, so that no rho helps."""
        m = self.m
        return m.lr is not None and m.lr * ((m.lambda_max.value or 0.0) + m.weight_decay) >= stability_edge(m.momentum)

    def scale_at(self, batch_size: float) -> float:
        """G at another batch size: √(|g|² + tr C/B), for normalised SAM."""
        noise = self.m.noise_trace.value or 0.0
        return math.sqrt((self.m.grad_norm.value or 0.0) ** 2 + noise / batch_size)

    def rho_bounds(self, scale: float | None = None) -> list[tuple[float, str]]:
        """Upper bounds on rho with their names, the tightest first.

        Source: theory D1.
        """
        m, g = self.m, self.scale if scale is None else scale
        bounds: list[tuple[float, str]] = []
        if self.bottom is not None:
            lam = self.bottom.eigenvalue.value or 0.0
            bounds.append((saddle_rho(g, lam, KEPT_FRACTION, m.weight_decay), "saddle trap"))
        if m.lr is not None and (m.lambda_max.value or 0.0) > 0:
            bounds.append((edge_rho(g, m.lambda_max.value or 0.0, m.lr, m.momentum), "edge of stability"))
        ridge = self.ridge_rho
        if ridge is not None:
            bounds.append((ridge, "ridge"))
        return sorted(bounds)

    @property
    def ridge_rho(self) -> float | None:
        """0.9 s* as a bound on rho; for variants that do not normalise, rho scales with |e|. None when no ridge was
        found.

        Source: theory D1.
        """
        m = self.m
        if m.ridge_distance.value is None or m.perturbation_norm == 0:
            return None
        return RIDGE_MARGIN * m.ridge_distance.value * m.rho / m.perturbation_norm
