"""The values of a whole spectrum: ends, density, counts and trace, with their errors. Plain and frozen, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from samdiag.instruments import SelfCheck
from samdiag.types import FORMAT_VERSION, CheckpointInfo, Estimate, Failure, Setting

MATRICES = ("hessian", "ggn", "fisher")


@dataclass(frozen=True, slots=True, kw_only=True)
class EigenvalueCount:
    """How many eigenvalues lie below, within or above a threshold.

    Attributes:
        side: "below" t, "within" ±t, or "above" t.
        meaning: what the threshold stands for.
        count: best estimate; a whole number where the spectrum is complete.
        low, high: 95 % interval over the random probes that holds whatever the spectrum; equal where all is known.
    """

    side: str
    threshold: float
    meaning: str
    count: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """The spectral density, smoothed, with 95 % bands over the random probes.

    Smoothed in s = asinh(λ/linear_within), which is linear near zero and logarithmic far from it, on both sides.

    Attributes:
        linear_within: |λ| up to which s is about linear.
        width: standard deviation of the Gaussian kernel in s; in λ it is width·√(λ² + linear_within²).
        values: λ where the density is given; ascending, evenly spaced in s.
        density: eigenvalues per unit of λ; low and high its band.
        edges: λ between the bins of the histogram; one more than there are bins.
        counts: eigenvalues in each bin, not smoothed; counts_low and counts_high the 95 % interval that holds whatever
            the spectrum.
        below: eigenvalues below every edge; below_low and below_high likewise.
        num_probes, num_steps: random vectors, and Lanczos steps of each; 0 where the whole spectrum is known.
        num_known: eigenvalues that were taken out of the probes because they are known.
    """

    linear_within: float
    width: float
    values: tuple[float, ...]
    density: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    edges: tuple[float, ...]
    counts: tuple[float, ...]
    counts_low: tuple[float, ...]
    counts_high: tuple[float, ...]
    below: tuple[float, ...]
    below_low: tuple[float, ...]
    below_high: tuple[float, ...]
    num_probes: int
    num_steps: int
    num_known: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """Sums over the spectrum; `error` is the half-width of a 95 % interval over the random probes.

    Attributes:
        trace: Σ λ.
        squared_norm: Σ λ², the square of the Frobenius norm.
        absolute: Σ |λ|; None where no density was asked for.
        effective_rank: (Σ|λ|)²/Σλ²: how many equal eigenvalues would give both sums; None likewise.
        products: products that the trace took.
    """

    trace: Estimate
    squared_norm: Estimate
    absolute: Estimate | None
    effective_rank: Estimate | None
    products: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixSpectrum:
    """One matrix at the checkpoint.

    Attributes:
        matrix: "hessian", "ggn" (generalised Gauss-Newton) or "fisher" (empirical).
        lambda_min_bound: lambda_min is above it with probability 0.99; None where that was not measured.
        complete: every eigenvalue was found.
        self_check: of the Hessian's products; None for the other matrices, whose check is an error or nothing.
    """

    matrix: str
    num_params: int
    lambda_max: Estimate
    lambda_min: Estimate
    lambda_min_bound: float | None
    top_eigenvalues: tuple[Estimate, ...]
    bottom_eigenvalues: tuple[Estimate, ...]
    complete: bool
    traces: Traces
    density: Density | None
    counts: tuple[EigenvalueCount, ...]
    num_products: int
    self_check: SelfCheck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpectrum:
    """The diagonal block of one module's own parameters.

    Attributes:
        module: its name; empty for the model itself.
        parameters: their names.
    """

    module: str
    parameters: tuple[str, ...]
    num_params: int
    lambda_max: Estimate
    lambda_min: Estimate
    trace: Estimate
    num_products: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectralReport:
    """The spectrum at one checkpoint, or the failure that prevented it. One JSON object.

    Attributes:
        patterns: of `--params`; empty: all trainable parameters.
        parameters: names of those that were looked at, where patterns chose them.
        effective_radius: rho_eff, which makes −1/rho_eff the threshold below which SAM reverses a direction; None where
            rho is not known.
        stability_edge: 2(1+momentum)/lr; None where lr is not known.
    """

    checkpoint: CheckpointInfo | None
    settings: Mapping[str, Setting]
    patterns: tuple[str, ...]
    parameters: tuple[str, ...]
    loss: Estimate | None
    grad_norm: Estimate | None
    effective_radius: float | None
    stability_edge: float | None
    matrices: tuple[MatrixSpectrum, ...]
    layers: tuple[LayerSpectrum, ...]
    num_samples: int
    num_batches: int
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
