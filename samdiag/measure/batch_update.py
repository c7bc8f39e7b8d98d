"""The update that mini-batch SAM really makes: the expectation over batches of ∇f_b(x + e_b), with standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from samdiag.curvature.batches import cut_into, join, regroup
from samdiag.curvature.memory import affordable_vectors
from samdiag.curvature.objective import Objective
from samdiag.curvature.restoring import batch_norms
from samdiag.measure.ascent import Rule
from samdiag.measure.gap import Gap, scaled_error
from samdiag.measure.point import KEPT_SHARE
from samdiag.measure.scale import Scale, effective_radius
from samdiag.types import UNKNOWN, BatchUpdate, Estimate

SHIFTS = (1, 2, 3)  # of the second halves against the first: partitions that have no batch in common
MEAN_OVER_SAMPLE = (
    0.5  # variance of the mean of four such partitions over their sample variance: 0.40 to 0.47 simulated
)
FEW = 1.6  # Student's t at 3 degrees of freedom over 2: a standard error of four values
FEWEST = 4  # batches: below that neither an expectation nor its error can be told
Group = list[tuple[object, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredUpdate:
    """What a run on batches of that size does, and the effective radius along each direction asked about.

    Attributes:
        summary: for the report.
        radii: rho·E[(1 − (u_b·q)²)/|g_b|] per direction, with standard errors; empty for USAM.
    """

    summary: BatchUpdate
    radii: tuple[Estimate, ...]


@dataclass(slots=True)
class _Sums:
    """What is collected over the groups."""

    weights: list[int] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)  # |g_b|
    scales: list[float] = field(default_factory=list)  # what divides rho
    losses: list[float] = field(default_factory=list)  # f_b(x + e_b) − f_b(x)
    squares: list[float] = field(default_factory=list)  # |g_b+ − g_b|²
    shares: list[Tensor] = field(default_factory=list)  # (u_b·q)² per direction
    rows: list[Tensor] = field(default_factory=list)  # g_b+ − g_b, while they fit


def mean_radius(rho: float, scale: Scale | None, update: MeasuredUpdate | None) -> float:
    """rho_eff: from the batches where they were measured and all have a gradient, else in closed form."""
    value = update.summary.effective_radius.value if update else None
    return value if value is not None and math.isfinite(value) else effective_radius(rho, scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scatter:
    """The variance of the mean over partitions: its trace, and the standard error along the update.

    The latter is widened to what two standard errors of so few values ought to be.
    """

    trace: float
    along: float

    @classmethod
    def of(cls, means: Tensor, update: Tensor) -> _Scatter:
        """From the means [partitions, num_params]; `update` [num_params] gives the direction."""
        apart = means - means.mean(dim=0)
        share = MEAN_OVER_SAMPLE / (len(means) - 1)
        norm = float(torch.linalg.vector_norm(update)) or 1.0
        return cls(
            trace=share * float((apart**2).sum()),
            along=FEW * math.sqrt(share * float(((apart @ update / norm) ** 2).sum())),
        )


def training_groups(objective: Objective, size: int) -> list[Group]:
    """The analysed samples as training batches of about `size`, each one batch where BatchNorm's statistics count."""
    groups = regroup(list(zip(objective.batches, objective.counts, strict=True)), size)
    if not batch_norms(objective.model):
        return groups
    joined = [join(group) for group in groups]
    return [[whole] if whole is not None else group for whole, group in zip(joined, groups, strict=True)]


def other_partition(objective: Objective, groups: list[Group], shift: int) -> list[Group] | None:
    """Groups of the same samples, the first half of each with the second of another; None where they cannot be cut."""
    halves = []
    for group in groups:
        pieces = [part for data, count in group for part in cut_into(data, count, -(-count // 2))]
        if len(pieces) < 2:
            return None
        halves.append((pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]))
    mixed = [first + halves[i - shift][1] for i, (first, _) in enumerate(halves)]
    if not batch_norms(objective.model):
        return mixed
    joined = [join(group) for group in mixed]
    return None if None in joined else [[whole] for whole in joined if whole is not None]


def measure_batch_update(
    objective: Objective,
    gap: Gap,
    rule: Rule,
    *,
    size: int,
    weight_decay: float,
    vectors: Tensor,
) -> MeasuredUpdate | None:
    """The mean update over batches of `size` samples at the gap's point; eight passes. None where there are too few.

    The mean over one partition of the samples into batches scatters about the expectation. Most of what the batches'
    updates differ by is linear in their gradients and cancels in the mean, so that the scatter of the batches says
    little; other partitions show what is left. |E g_b+| is corrected for it, and the correction is part of its error.
    For gsam it is g+ that is measured. The objective is left at x.

    Args:
        objective: its batches are cut or put together to `size`.
        gap: at the same point, for n-SAM's numbers and their sampling errors.
        rule: the ascent.
        size: samples behind one ascent gradient.
        weight_decay: of the update.
        vectors: [k, num_params] directions whose effective radius is asked for.

    Source: theory A, head (rho_eff of mini-batch SAM), B6 (m-SAM).
    """
    groups = training_groups(objective, size)
    if len(groups) < FEWEST:
        return None
    sums, mean = _over(objective, gap, rule, groups, vectors)
    others = [other for shift in SHIFTS if (other := other_partition(objective, groups, shift)) is not None]
    partitions = None
    if others:
        means = torch.stack([mean, *(_over(objective, gap, rule, other, vectors[:0])[1] for other in others)])
        mean = means.mean(dim=0)
        partitions = _Scatter.of(means, gap.here.gradient + mean)
    objective.move_to(gap.here.x)
    summary = _summary(sums, gap, mean, partitions, rule, size, weight_decay)
    return MeasuredUpdate(summary=summary, radii=_radii(sums, rule, gap, size) if len(vectors) else ())


def _over(objective: Objective, gap: Gap, rule: Rule, groups: list[Group], vectors: Tensor) -> tuple[_Sums, Tensor]:
    """What the groups say one by one, and the mean of g_b+ − g_b [num_params]."""
    x = gap.here.x
    sums, mean = _Sums(), torch.zeros_like(gap.here.gradient)
    wide = vectors.double()
    keep = len(groups) <= affordable_vectors(objective.device, objective.num_params, torch.float64) // KEPT_SHARE
    total = sum(n for group in groups for _, n in group)
    for group in groups:
        count = sum(n for _, n in group)
        objective.move_to(x)
        loss, own = objective.gradient_of(group)
        ascent = rule.at(x, own)
        objective.move_to(x + ascent.displacement)
        perturbed, shifted = objective.gradient_of(group)
        difference = shifted - own
        norm = float(torch.linalg.vector_norm(own))
        sums.weights.append(count)
        sums.norms.append(norm)
        sums.scales.append(1.0 if ascent.normaliser is None else ascent.normaliser)
        sums.losses.append(perturbed - loss)
        sums.squares.append(float(torch.dot(difference, difference)))
        sums.shares.append((wide @ (own / norm)) ** 2 if norm > 0 else torch.zeros(len(wide), dtype=torch.float64))
        mean.add_(difference, alpha=count / total)
        if keep:
            sums.rows.append(difference)
    return sums, mean


def _summary(
    sums: _Sums, gap: Gap, mean: Tensor, partitions: _Scatter | None, rule: Rule, size: int, weight_decay: float
) -> BatchUpdate:
    k, a = len(sums.weights), gap.here.norm
    update = gap.here.gradient + mean
    own = max(_mean(sums.weights, sums.squares) - float(torch.dot(mean, mean)), 0.0) / (
        k - 1
    )  # of one partition's mean
    scatter = own if partitions is None else min(partitions.trace, own)
    raw = float(torch.linalg.vector_norm(update))
    value = math.sqrt(max(raw**2 - scatter, 0.0))
    along = math.sqrt(scatter)
    if sums.rows and raw > 0 and own > 0:  # the share of the scatter that lies along the update
        along *= min(1.0, _error([float(torch.dot(update, row)) / raw for row in sums.rows]) / math.sqrt(own))
    if partitions is not None:
        along = max(along, partitions.along)
    partition = math.hypot(along, raw - value)
    ratio = moved = update_ratio = UNKNOWN
    if a > 0:
        ratio = Estimate(value=value / a, sampling_error=math.hypot(partition / a, gap.ratio.sampling_error or 0.0))
        decayed = float(torch.linalg.vector_norm(gap.here.gradient + weight_decay * gap.here.x))
        full = float(torch.linalg.vector_norm(update + weight_decay * gap.here.x))
        debiased = math.sqrt(max(full**2 - scatter, 0.0)) / decayed if decayed > 0 else math.inf
        update_ratio = Estimate(value=debiased, sampling_error=scaled_error(ratio, debiased))
        cosine = float(torch.dot(update, gap.here.gradient)) / (raw * a) if raw > 0 else 0.0
        spread = math.hypot(min(partition / raw, 1.0) if raw > 0 else 1.0, gap.cosine.sampling_error or 0.0)
        moved = Estimate(value=cosine, sampling_error=spread)
    inverse = [1.0 / s if s > 0 else math.inf for s in sums.scales]
    correction = _size_correction(sums, rule, gap, size)
    change = _mean(sums.weights, sums.losses)
    return BatchUpdate(
        size=size,
        num_batches=k,
        grad_scale=Estimate(value=_mean(sums.weights, sums.norms), sampling_error=_error(sums.norms)),
        effective_radius=Estimate(
            value=rule.rho * _mean(sums.weights, inverse) * correction,
            sampling_error=0.0 if _linear(gap) else rule.rho * _error(inverse) * correction,
        ),
        loss_change=Estimate(
            value=change,
            error=gap.loss_change.error,
            sampling_error=math.hypot(_error(sums.losses), gap.loss_change.sampling_error or 0.0),
        ),
        update_norm=Estimate(
            value=value, sampling_error=math.hypot(partition, gap.perturbed_grad_norm.sampling_error or 0.0)
        ),
        gradient_ratio=ratio,
        gradient_cosine=moved,
        update_ratio=update_ratio,
    )


def _linear(gap: Gap) -> bool:
    """Whether nothing divides rho (USAM)."""
    return gap.ascent.normaliser is None


def _radii(sums: _Sums, rule: Rule, gap: Gap, size: int) -> tuple[Estimate, ...]:
    """rho·E[(1 − (u_b·q)²)/|g_b|] for every direction."""
    if _linear(gap):
        return ()
    correction = rule.rho * _size_correction(sums, rule, gap, size)
    found = []
    for column in torch.stack(sums.shares).T.tolist():
        parts = [(1.0 - share) / s if s > 0 else math.inf for share, s in zip(column, sums.scales, strict=True)]
        found.append(Estimate(value=correction * _mean(sums.weights, parts), sampling_error=correction * _error(parts)))
    return tuple(found)


def _size_correction(sums: _Sums, rule: Rule, gap: Gap, size: int) -> float:
    """What batches of exactly `size` would make of 1/|g_b|, by √(|g|² + tr C/m), where the groups are not of that size.

    1 where they are; the closed form enters as a ratio close to 1.
    """
    if _linear(gap) or gap.normalised_noise <= 0:
        return 1.0
    total = sum(sums.weights)
    actual = total / len(sums.weights)
    squared = (gap.ascent.normaliser or 0.0) ** 2

    def scale(m: float) -> float:
        return math.sqrt(max(squared + gap.normalised_noise * (1.0 / m - 1.0 / total), 1e-300))

    return scale(actual) / scale(size)


def _mean(weights: list[int], values: list[float]) -> float:
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def _error(values: list[float]) -> float:
    """Standard error of the mean of independent values."""
    mean = math.fsum(values) / len(values)
    if not math.isfinite(mean):
        return 0.0
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
