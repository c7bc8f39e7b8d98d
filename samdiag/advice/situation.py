"""The measurements as the prescription's formulas want them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samdiag.theory.edge import stability_edge
from samdiag.theory.estimators import batch_gradient_norm
from samdiag.theory.prescription import KEPT_FRACTION, RIDGE_MARGIN, edge_rho, saddle_rho
from samdiag.types import Direction, Measurements
from samdiag.verdicts.capture import lasting_scale

MIN_BATCH = (
    8  # smaller batches than this are not prescribed: the noise estimate behind B_crit needs a few samples a batch
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One checkpoint's inputs to theory D.

    Attributes:
        m: the measurements.
        bottom: the most negative direction, None where lambda_min + wd is not negative beyond its error.
        scale: G, what divides rho along it for good (1 for USAM). Full-batch SAM near a saddle keeps only the
            direction's own gradient |q·g| and noise: bounds on today's |g| held in 283 of 283 simulated saddles whose
            own gradient was above them, and failed in 53 of 83 others.
        edge_scale: G of the edge of stability, the gradient of now.
    """

    m: Measurements
    bottom: Direction | None
    scale: float
    edge_scale: float

    @classmethod
    def of(cls, m: Measurements) -> Situation:
        first = m.bottom_directions[0] if m.bottom_directions else None
        bottom = first if first is not None and first.eigenvalue.high + m.weight_decay < 0 else None
        if m.variant == "usam":
            return cls(m=m, bottom=bottom, scale=1.0, edge_scale=1.0)
        now = m.rho / m.effective_radius if m.effective_radius > 0 else math.inf
        top = m.top_directions[0].effective_radius if m.top_directions else m.effective_radius
        edge = m.rho / top if top > 0 else math.inf
        if bottom is None:
            return cls(m=m, bottom=None, scale=now, edge_scale=edge)
        stretch = bottom.effective_radius / m.effective_radius if 0 < m.effective_radius < math.inf else 1.0
        lasting = lasting_scale(m, bottom, bounce=False)
        return cls(m=m, bottom=bottom, scale=min(lasting, now) / (stretch or 1.0), edge_scale=edge)

    @property
    def batch_size(self) -> float | None:
        """The present batch size; the whole training set for full batch, None where its size is not known."""
        return self.m.batch_size if self.m.batch_size is not None else self.m.population

    @property
    def ascent_batch(self) -> float | None:
        """The samples behind one ascent gradient, which is what frees or captures: the micro-batch in m-SAM."""
        if self.m.micro_batch is None:
            return self.batch_size
        return self.m.ascent_batch if self.m.ascent_batch is not None else self.m.micro_batch

    @property
    def beyond_edge(self) -> bool:
        """Whether the learning rate alone is past the edge, so that no rho helps."""
        m = self.m
        if m.step_size is None:
            return False
        edge = stability_edge(m.momentum, nesterov=m.nesterov)
        return m.step_size * ((m.lambda_max.value or 0.0) + m.weight_decay) >= edge

    def scale_at(self, batch_size: float) -> float:
        """G at another ascent batch: √((q·g)² + tr C/m), for normalised SAM."""
        return self._batch_gradient(self.bottom.offset if self.bottom is not None else 0.0, batch_size)

    def gradient_at(self, batch_size: float | None) -> float:
        """Mean norm of a batch gradient, √(|g|² + tr C/B): where the escape direction's share has become all of it."""
        return self._batch_gradient(self.m.grad_norm.value or 0.0, batch_size)

    def _batch_gradient(self, grad_norm: float, batch_size: float | None) -> float:
        return batch_gradient_norm(grad_norm, self.m.noise_trace.value or 0.0, batch_size, self.m.population)

    def rho_bounds(self, scale: float | None = None) -> list[tuple[float, str]]:
        """Upper bounds on rho with their names, the tightest first.

        Source: theory D1.
        """
        m, g = self.m, self.scale if scale is None else scale
        bounds: list[tuple[float, str]] = []
        if self.bottom is not None:
            lam = self.bottom.eigenvalue.value or 0.0
            bounds.append((saddle_rho(g, lam, KEPT_FRACTION, m.weight_decay), "saddle trap"))
        if m.step_size is not None and (m.lambda_max.value or 0.0) > 0:
            edge = edge_rho(
                max(g, self.edge_scale),
                m.lambda_max.value or 0.0,
                m.step_size,
                m.momentum,
                m.weight_decay,
                nesterov=m.nesterov,
            )
            bounds.append((edge, "edge of stability"))
        ridge = self.ridge_rho
        if ridge is not None:
            bounds.append((ridge, "ridge"))
        return sorted(bounds, key=lambda bound: bound[0])  # stable: on a tie the saddle is named

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
