"""Standard errors from batches of unequal size, and the gradient noise behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(slots=True)
class BatchValues:
    """One number per batch with the batch's sample count; batch means of n_b samples have variance C/n_b."""

    counts: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, count: int, value: float) -> None:
        self.counts.append(count)
        self.values.append(value)

    def pairs(self) -> list[tuple[int, float]]:
        """(sample count, value) of every batch."""
        return list(zip(self.counts, self.values, strict=True))

    @property
    def mean(self) -> float:
        return math.fsum(n * v for n, v in zip(self.counts, self.values, strict=True)) / sum(self.counts)

    def per_sample_variance(self) -> float | None:
        """Σ n_b (v_b − v̄)²/(K − 1), unbiased for the per-sample variance; None for a single batch.

        Source: E Σ n_b (v_b − v̄)² = (K − 1) C for batch means of n_b samples; for equal sizes it is
            B·mean(…)·K/(K−1), theory C5.
        """
        if len(self.values) < 2:
            return None
        mean = self.mean
        total = math.fsum(n * (v - mean) ** 2 for n, v in zip(self.counts, self.values, strict=True))
        return total / (len(self.values) - 1)

    def variance_error(self) -> float | None:
        """Standard error of `per_sample_variance`, the contributions n_b (v_b − v̄)² taken as independent."""
        k = len(self.values)
        if k < 3:
            return None
        mean = self.mean
        parts = [n * (v - mean) ** 2 for n, v in zip(self.counts, self.values, strict=True)]
        centre = math.fsum(parts) / k
        return math.sqrt(math.fsum((p - centre) ** 2 for p in parts) / (k - 1) / k) * k / (k - 1)

    def standard_error(self, population: int | None) -> float | None:
        """Standard error of the weighted mean, with the finite-population correction; None for one batch of a larger
        set.
        """
        num_samples = sum(self.counts)
        if population is not None and num_samples >= population:
            return 0.0
        variance = self.per_sample_variance()
        if variance is None:
            return None
        correction = 1.0 - num_samples / population if population else 1.0
        return math.sqrt(variance / num_samples * correction)


def trace_of_noise(
    counts: list[int], squared_norms: list[float], mean_squared_norm: float
) -> tuple[float, float] | None:
    """tr C from the squared norms of batch gradients and of their mean, with its standard error; None for one batch.

    tr C = (Σ n_b|g_b|² − n|ḡ|²)/(K − 1). The error treats the K contributions as independent.

    Source: theory C5.
    """
    k, n = len(counts), sum(counts)
    if k < 2:
        return None
    parts = [c * s for c, s in zip(counts, squared_norms, strict=True)]
    total = max(math.fsum(parts) - n * mean_squared_norm, 0.0)
    mean = math.fsum(parts) / k
    spread = math.sqrt(math.fsum((p - mean) ** 2 for p in parts) / (k - 1) / k) * k / (k - 1)
    return total / (k - 1), spread
