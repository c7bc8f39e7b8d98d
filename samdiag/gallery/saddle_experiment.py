"""f = x² − y²: from which rho the saddle captures, where SAM then stays, and which batch size frees it.

What to expect is docs/theory.md A1, A2, A5, A7, A9 and E. The Monte-Carlo of the batch size is the only random part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from samdiag.gallery.comparing import compared, happened
from samdiag.gallery.dynamics import Array, Variant, narrowed, quadratic, run, steps, zero_crossing
from samdiag.gallery.experiment import Experiment, Outcome, Row, Tell
from samdiag.gallery.separatrix import capture_radius
from samdiag.pictures import FAINT, GD, SAM, THEORY, THIRD, Sheet, sheet
from samdiag.theory.edge import bounce_amplitude
from samdiag.theory.saddle import critical_batch_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVATURES = (2.0, -2.0)
START = (-3.0, -0.01)  # KIM's
LR = 0.01
STEPS = 2000
KIM_STEPS = 500
RHO = 0.5  # KIM's
FREE_RHO = 0.05  # half the threshold
SMALL_LR = 2.5e-4  # near the limit of small steps: the threshold changes by 2 % from there to 0.01
AWAY = 1.0  # |y| at which a run has left: a hundred times where it began

NOISE_LR = 1e-3  # so small that the spread of the runs stays below a tenth of the gradient noise
NOISE_STEPS = 400
NOISE_RHO = 0.5
NOISE_SHARES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0)  # batch sizes, in units of the expected one
OFFSET = 1e-4  # of the runs along y, far below the noise: the linear regime of A7

gradient = quadratic(CURVATURES)


def end(rho: float, *, lr: float = LR, num_steps: int = STEPS, variant: Variant = "sam") -> Array:
    """[2] where the run from (−3, −0.01) ends."""
    return run(gradient, START, rho=rho, lr=lr, num_steps=num_steps, variant=variant)


def usam_threshold(*, lr: float = LR, num_steps: int = STEPS) -> float:
    """The rho at which USAM keeps y as it is, from 9 radii between 0.4 and 0.6."""
    rhos = np.linspace(0.4, 0.6, 9) + 0.003  # the threshold is none of them
    ends = run(gradient, _starts(len(rhos)), rho=rhos, lr=lr, num_steps=num_steps, variant="usam")
    factor = np.abs(ends[1] / START[1]) ** (1.0 / num_steps)  # per step, 1 − eta·mu: a straight line in rho
    return zero_crossing(rhos, factor - 1.0)


def capture_threshold(*, lr: float = LR, rounds: int = 3) -> float:
    """The rho from which normalised SAM, started at (−3, −0.01), stays: the middle of a bracket 1e-5 wide."""
    num_steps = round(20.0 / lr)  # y grows or shrinks by e^±40

    def holds(rhos: Array) -> NDArray[np.bool_]:
        ends = run(gradient, _starts(len(rhos)), rho=rhos, lr=lr, num_steps=num_steps)
        return np.asarray(np.abs(ends[1]) < abs(START[1]))

    return sum(narrowed(holds, 0.05, 0.2, rounds=rounds, points=24)) / 2


def escape_steps(rhos: Array, *, variant: Variant, lr: float = LR, num_steps: int = STEPS) -> Array:
    """[runs] steps until |y| > 1; NaN where it did not happen."""
    first = np.full(len(rhos), np.nan)
    taken = steps(gradient, _starts(len(rhos)), rho=rhos, lr=lr, num_steps=num_steps, variant=variant)
    for count, step in enumerate(taken, start=1):
        first[np.isnan(first) & (np.abs(step.after[1]) > AWAY)] = count
    return first


def usam_escape_steps(rho: float, *, lr: float = LR) -> int:
    """Steps until |y| > 1 in closed form: y grows by 1 + 2 eta(1 − 2 rho) a step.

    Source: docs/theory.md A1, A3.
    """
    return math.ceil(math.log(AWAY / abs(START[1])) / math.log(1.0 + 2.0 * lr * (1.0 - 2.0 * rho)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSizes:
    """Growth along y by batch size: rates −mu with standard errors, and the batch size at which they are 0."""

    sizes: Array
    rates: Array
    errors: Array
    threshold: float
    threshold_error: float


def batch_sizes(dimensions: int, expected: float, rng: np.random.Generator, *, runs: int) -> BatchSizes:
    """Mini-batch SAM near the saddle with per-sample noise N(0, 1) in each of `dimensions`, by Monte-Carlo.

    Beside x and y there are flat directions, which carry noise only. Pairs of runs with the same noise, started at ±y,
    give the growth of the mean; mu is a straight line in √B (docs/theory.md A7), whose zero is the critical batch size.

    Args:
        dimensions: 2 or more.
        expected: the batch size around which seven are tried.
        rng: of the noise.
        runs: pairs per batch size.
    """
    lam = np.array([*CURVATURES, *([0.0] * (dimensions - 2))])[:, None]
    sizes = expected * np.array(NOISE_SHARES)
    rates, errors = np.array([_rate(lam, size, rng, runs) for size in sizes]).T
    weights = 1.0 / errors
    (slope, intercept), covariance = np.polyfit(np.sqrt(sizes), rates, 1, w=weights, cov="unscaled")
    root = -intercept / slope
    variance = (covariance[1, 1] + 2 * root * covariance[0, 1] + root**2 * covariance[0, 0]) / slope**2
    return BatchSizes(
        sizes=sizes,
        rates=rates,
        errors=errors,
        threshold=root**2,
        threshold_error=2 * root * math.sqrt(variance),
    )


def _rate(lam: Array, size: float, rng: np.random.Generator, runs: int) -> tuple[float, float]:
    """Growth rate of the mean offset along y per unit of eta, and its standard error."""
    a, b = np.zeros((len(lam), runs)), np.zeros((len(lam), runs))
    a[1], b[1] = OFFSET, -OFFSET
    for _ in range(NOISE_STEPS):
        noise = rng.standard_normal(a.shape) / math.sqrt(size)
        a, b = (x - NOISE_LR * _noisy_update(lam, x, noise) for x in (a, b))
    growth = (a[1] - b[1]) / (2 * OFFSET)
    mean = float(growth.mean())
    time = NOISE_LR * NOISE_STEPS
    return math.log(mean) / time, float(growth.std(ddof=1)) / math.sqrt(runs) / mean / time


def _noisy_update(lam: Array, x: Array, noise: Array) -> Array:
    """g+ of mini-batch SAM: the same noise in the ascent and the descent gradient, as with one batch for both."""
    g = lam * x + noise
    return np.asarray(lam * (x + NOISE_RHO * g / np.sqrt((g * g).sum(axis=0))) + noise)


def exact_critical_batch_size(dimensions: int, rho: float = NOISE_RHO, lam: float = CURVATURES[1]) -> float:
    """B_crit at the saddle itself for isotropic Gaussian noise of variance 1 per sample: (rho|lam|K)⁻² with
    K = E[(1 − (u·q)²)/|n|] = (d − 1)/d · Γ((d − 1)/2)/(√2 Γ(d/2)), n ~ N(0, 1) in d dimensions.

    Source: docs/theory.md A, head (the mean over batches that its square root stands for).
    """
    d = dimensions
    k = (d - 1) / d * math.exp(math.lgamma((d - 1) / 2) - math.lgamma(d / 2)) / math.sqrt(2.0)
    return 1.0 / (rho * abs(lam) * k) ** 2


def perform(folder: Path, seed: int, tell: Tell) -> Outcome:
    """All rows, the picture and two checkpoints."""
    from samdiag.gallery.endpoints import save_point, verdict_row

    tell("thresholds of USAM and SAM")
    rows = [*_kim_rows(), *_usam_rows(), *_sam_rows()]
    tell("batch sizes, by Monte-Carlo")
    rows += _batch_rows(np.random.default_rng(seed))
    stuck = save_point(
        folder / "stuck.safetensors", end(RHO, num_steps=KIM_STEPS), "saddle", rho=RHO, variant="sam", lr=LR
    )
    on_its_way = end(FREE_RHO, num_steps=_steps_until(FREE_RHO, 0.1))
    leaving = save_point(folder / "leaving.safetensors", on_its_way, "saddle", rho=FREE_RHO, variant="sam", lr=LR)
    rows += [verdict_row(stuck, "saddle-attraction"), verdict_row(leaving, "saddle-escaping")]
    picture = folder / "saddle.png"
    tell("picture")
    with sheet(picture, title="x² − y²: from which ρ the saddle captures") as drawn:
        _draw(drawn)
    return Outcome(rows=tuple(rows), pictures=(picture,), checkpoints=(stuck, leaving), remarks=REMARKS)


REMARKS = (
    "A captured run bounces across the saddle along x for ever; y goes to 0.",
    "The law tr C/(ρ|λ|)² of theory A7 needs several noise directions: with two it is 2.0, 21 % too low.",
)


def _kim_rows() -> list[Row]:
    ends = {
        rho: "captured" if abs(end(rho, num_steps=KIM_STEPS)[1]) < abs(START[1]) else "leaves" for rho in (0.0, RHO)
    }
    return [
        happened(f"GD, {KIM_STEPS} steps", ends[0.0], "leaves", published="leaves"),
        happened(f"SAM, ρ {RHO:g}, {KIM_STEPS} steps", ends[RHO], "captured", published="captured"),
    ]


def _usam_rows() -> list[Row]:
    threshold, rho = 1.0 / abs(CURVATURES[1]), 0.4
    marginal = float(end(threshold, variant="usam")[1])
    taken = float(escape_steps(np.array([rho]), variant="usam")[0])
    return [
        compared("USAM: captured from ρ", usam_threshold(), threshold, relative=1e-6, published="1/|λ₁| (Thm 1)"),
        compared(f"USAM, ρ {threshold:g}: y after {STEPS} steps", marginal, START[1], absolute=1e-12),
        compared(f"USAM, ρ {rho:g}: steps until |y| > 1", taken, usam_escape_steps(rho)),
    ]


def _sam_rows() -> list[Row]:
    limit = capture_radius(*START)
    residual = bounce_amplitude(CURVATURES[0], RHO, LR, 0.0)
    return [
        compared(f"SAM, η {LR:g}: captured from ρ", capture_threshold(), 0.0948, absolute=1e-4),
        compared(f"SAM, η → 0 ({SMALL_LR:g}): captured from ρ", capture_threshold(lr=SMALL_LR), limit, relative=2e-3),
        compared(f"SAM, ρ {RHO:g}: |x| in the trap", abs(float(end(RHO)[0])), residual, relative=1e-9),
    ]


def _batch_rows(rng: np.random.Generator) -> list[Row]:
    few, many = 2, 32
    exact, law = exact_critical_batch_size(few), critical_batch_size(many, NOISE_RHO, CURVATURES[1], 0.0)
    rows = []
    for dimensions, runs, expected, slack in ((few, 2000, exact, 0.01), (many, 400, law, 0.03)):
        found = batch_sizes(dimensions, exact_critical_batch_size(dimensions), rng, runs=runs)
        quantity = f"SAM, ρ {NOISE_RHO:g}: B_crit, {dimensions} noise directions"
        bound = 3 * found.threshold_error
        rows.append(compared(quantity, found.threshold, expected, relative=slack, absolute=bound))
    return rows


def _steps_until(rho: float, distance: float) -> int:
    """The first step of normalised SAM at which |y| > distance."""
    for count, step in enumerate(steps(gradient, START, rho=rho, lr=LR, num_steps=STEPS), start=1):
        if abs(step.after[1]) > distance:
            return count
    return STEPS


def _starts(count: int) -> Array:
    return np.repeat(np.array(START)[:, None], count, axis=1)


def _draw(drawn: Sheet) -> None:
    left, right = drawn.panels
    x, y = np.meshgrid(np.linspace(-3.3, 0.6, 120), np.linspace(-1.6, 0.4, 80))
    left.contour(x, y, x * x - y * y, levels=np.linspace(-3, 10, 27), colors="0.8", linewidths=0.7)
    for rho, color, label in (
        (0.0, GD, "GD"),
        (FREE_RHO, THIRD, f"SAM, ρ = {FREE_RHO:g}"),
        (RHO, SAM, f"SAM, ρ = {RHO:g}"),
    ):
        points = np.array(
            [START, *(step.after for step in steps(gradient, START, rho=rho, lr=LR, num_steps=KIM_STEPS))]
        )
        points = points[: np.argmax(np.abs(points[:, 1]) > 1.6) or None]
        left.plot(points[:, 0], points[:, 1], color=color, label=label)
        left.plot(*points[-1], "o", color=color, markersize=6, markeredgecolor="white", zorder=6, clip_on=False)
    left.plot(0, 0, "X", color="k", markersize=9, label="saddle")
    left.set(xlabel="x", ylabel="y", xlim=(-3.3, 0.6), ylim=(-1.6, 0.4))
    left.set_title(f"One run each from {START}, η = {LR:g}".replace("-", "−"))
    left.legend(loc="lower left")
    _draw_escape(right)


def _draw_escape(axes: Axes) -> None:
    limit, threshold = 1.0 / abs(CURVATURES[1]), capture_threshold()
    for variant, color, last in (("sam", SAM, threshold), ("usam", GD, limit)):
        rhos = last * np.concatenate([np.linspace(0.0, 0.9, 10), [0.94, 0.97, 0.985, 0.995]])
        taken = escape_steps(rhos, variant=variant, num_steps=30_000)  # type: ignore[arg-type]
        axes.plot(rhos, taken, "o", color=color, markersize=5, label=f"{variant.upper()}, measured")
        axes.axvline(last, color=color, linewidth=1, linestyle=":")
        words = f"captured from {last:.3g}"
        axes.annotate(words, (last, 2000), (5, 0), textcoords="offset points", color=color, rotation=90, va="center")
    rhos = np.linspace(0.0, 0.995, 200) * limit
    axes.plot(
        rhos, [usam_escape_steps(rho) for rho in rhos.tolist()], color=THEORY, linewidth=1, label="USAM, theory A3"
    )
    axes.axhline(usam_escape_steps(0.0), color=FAINT, linewidth=1, zorder=0)
    axes.annotate("GD", (0.36, usam_escape_steps(0.0)), (0, 4), textcoords="offset points", color="0.4")
    axes.set(yscale="log", xlabel="ρ", ylabel="steps until |y| > 1", xlim=(-0.01, 0.56))
    axes.set_title(f"Time to leave, one run per point, η = {LR:g}")
    axes.legend(loc="upper left", bbox_to_anchor=(0.27, 1.0))


EXPERIMENT = Experiment(
    name="saddle",
    title="x² − y²: the radius that turns a saddle into a trap, and the batch size that frees it",
    source="KIM, Thm 1 and its saddle example; docs/theory.md A1, A2, A5, A7, A9, E",
    run=perform,
)
