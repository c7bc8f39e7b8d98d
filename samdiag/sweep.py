"""The values of a scan over rho: what SAM would do from one checkpoint at many radii. Plain and frozen, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from samdiag.types import FORMAT_VERSION, CheckpointInfo, Confidence, Estimate, Failure, Setting, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One rho: what was measured there, and the verdict on training on from here with it.

    Attributes:
        retained_escape_rate: the best rate −mu over the negative eigenvalues found, over SGD's |lambda_min|; 0 where
            all are captured; None without a negative eigenvalue.
        batch_ratio: ‖E g_b+‖/‖g‖ of mini-batch SAM; None for full batches.
        findings: every verdict that holds, the most harmful first.
        message: of the first finding.
    """

    rho: float
    gradient_ratio: Estimate
    gradient_cosine: Estimate
    loss_change: Estimate
    perturbed_grad_norm: Estimate
    update_ratio: Estimate
    batch_ratio: Estimate | None
    effective_radius: float
    retained_escape_rate: float | None
    verdict: str
    severity: Severity
    confidence: Confidence
    findings: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Danger:
    """Neighbouring scanned radii with the same harmful verdict; the true interval ends within the next grid cell.

    Attributes:
        message: what was found at the last of them.
    """

    low: float
    high: float
    verdict: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SafeRho:
    """The largest rho below which nothing harmful was found.

    Attributes:
        value: None where even the smallest scanned rho is harmful.
        binding: the constraint that ends it ("saddle trap", "ridge", "edge of stability", …); None where nothing does
            up to the largest scanned rho.
        verdict: found just above it; None likewise.
        above: the smallest rho at which that was found.
        bounds: what theory says at this checkpoint, (constraint, largest rho), tightest first: the trap at the gradient
            that lasts, whether or not leaving is worth it.
    """

    value: float | None
    binding: str | None
    verdict: str | None
    above: float | None
    bounds: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A scan over rho, or the failure that prevented it. One JSON object.

    Attributes:
        present_rho: the radius that the checkpoint was trained with, where it is known.
        ridge_distance: s*, in parameter units.
    """

    checkpoint: CheckpointInfo | None
    settings: Mapping[str, Setting]
    present_rho: float | None
    points: tuple[SweepPoint, ...]
    dangers: tuple[Danger, ...]
    safe: SafeRho | None
    loss: Estimate | None
    grad_norm: Estimate | None
    lambda_max: Estimate | None
    lambda_min: Estimate | None
    ridge_distance: Estimate | None
    num_gradients: int
    num_products: int
    num_samples: int
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failure: Failure | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    samdiag_version: str = ""
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """The JSON object; infinities and NaN become the strings "Infinity", "-Infinity", "NaN"."""
        from samdiag.encoding import as_object

        return as_object(self)
