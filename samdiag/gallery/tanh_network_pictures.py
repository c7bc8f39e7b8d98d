"""Pictures of the tanh-network experiment: shares against rho, losses with and without a warm start, one run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from samdiag.gallery.dynamics import Array
from samdiag.gallery.tanh_network_runs import Run
from samdiag.gallery.tanh_network_study import LR, SHOWN, WARM, Study
from samdiag.pictures import FAINT, FOURTH, GD, SAM, THEORY, THIRD, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STARTS = ((0, SAM, "o", "no warm start"), (WARM[0], GD, "s", ""), (WARM[1], THIRD, "^", ""))
CONFIDENT = 1.96  # standard normal quantile of a 95 % interval


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score; it stays inside [0, 1] and has a width at 0 and 1 too."""
    z, share = CONFIDENT, count / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def draw_shares(path: Path, study: Study) -> None:
    """The shares of hallucinated and of trapped runs against rho, with 95 % intervals, written to `path`."""
    total = len(study.shown)
    title = f"Where SAM ends: {total} random initial weights each, η = {LR:g}"
    with sheet(path, title=title, panel=(5.2, 4.5)) as drawn:
        for axes, name, label in zip(
            drawn.panels,
            ("hallucinated", "trapped"),
            ("Hallucinated: |g⁺| < 0.1 |g|", "In the saddle of the constant network"),
            strict=True,
        ):
            for index, (warm, color, marker, words) in enumerate(STARTS):
                rhos = sorted(rho for start, rho in study.ends if start == warm)
                counts = [int(getattr(study.ends[warm, rho], name).sum()) for rho in rhos]
                _draw_shares(axes, np.array(rhos) + 0.03 * (index - 1), counts, total, color, marker, warm, words)
            axes.set(xlabel="ρ (parameter units)", ylabel="share of runs", ylim=(-0.03, 1.03))
            axes.set_title(label)
        handles, labels = drawn.panels[0].get_legend_handles_labels()
        drawn.figure.legend(handles, labels, loc="outside lower center", ncol=3)


def draw_losses(path: Path, study: Study, cured: Run | None) -> None:
    """Loss over updates at the radius that is looked at, without and with a warm start, written to `path`."""
    total = len(study.shown)
    title = f"Loss at ρ = {SHOWN:g}, {total} runs each: a warm start leaves the saddle, not the hallucination"
    with sheet(path, title=title, panel=(5.6, 4.8)) as drawn:
        for axes, warm in zip(drawn.panels, (0, WARM[0]), strict=True):
            run, ends, before = study.runs[warm, SHOWN], study.ends[warm, SHOWN], study.warm_ups[warm]
            _draw_many(axes, before.steps, before.loss, FAINT, "warm-up")
            shown = ends.hallucinated
            last = warm + int(run.steps[-1])
            _draw_many(axes, warm + run.steps, run.loss[:, shown], SAM, f"hallucinated: {shown.sum()}")
            _draw_many(axes, warm + run.steps, run.loss[:, ends.trapped], GD, f"in the saddle: {ends.trapped.sum()}")
            rest = ~shown & ~ends.trapped
            _draw_many(axes, warm + run.steps, run.loss[:, rest], FOURTH, f"neither: {rest.sum()}")
            if cured is not None and warm == 0:
                _draw_many(axes, last + cured.steps, cured.loss, THIRD, "hallucinated, then ρ as samdiag says")
                axes.axvline(last, color=FAINT, linewidth=0.8, linestyle=":")
            if study.plain is not None:
                middle = np.median(study.plain.loss, axis=1)
                axes.plot(study.plain.steps, middle, color=THEORY, linestyle="--", label="GD throughout, median")
            axes.set(xlabel="update", ylabel="loss", yscale="log", ylim=(1e-6, 3))
            axes.set_title(f"{warm} updates of GD first" if warm else "SAM from the start")
            legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=2)
            for handle in legend.legend_handles:
                if handle is not None:
                    handle.set_alpha(1)


def draw_run(path: Path, run: Run) -> None:
    """|g+|/|g| and the cosine of g and g+ over one run that hallucinates, written to `path`."""
    with sheet(path, title=f"One run on its way into a hallucinated minimizer, ρ = {SHOWN:g}") as drawn:
        left, right = drawn.panels
        left.plot(run.steps + 1, run.ratio[:, 0], color=SAM)
        left.axhline(0.1, color=THEORY, linestyle="--", linewidth=1.0, label="0.1, below: the signature (B6)")
        left.axhline(2.0, color=FAINT, linestyle=":", linewidth=1.4, label="2, above: a bounce")
        left.set(xscale="log", yscale="log", xlabel="update", ylabel="|g⁺| / |g|")
        left.set_title("The shifted gradient vanishes, the gradient does not")
        left.legend(loc="lower left")
        right.plot(run.steps + 1, run.cosine[:, 0], color=SAM)
        right.axhline(0, color=FAINT, linewidth=0.8)
        right.set(xscale="log", xlabel="update", ylabel="cosine of g and g⁺", ylim=(-1.05, 1.05))
        right.set_title("Their angle")


def _draw_shares(
    axes: Axes, rhos: Array, counts: list[int], total: int, color: str, marker: str, warm: int, words: str
) -> None:
    shares = np.array(counts) / total
    ends = np.array([wilson(count, total) for count in counts]).T
    axes.errorbar(
        rhos,
        shares,
        yerr=np.stack([np.maximum(shares - ends[0], 0), np.maximum(ends[1] - shares, 0)]),
        color=color,
        marker=marker,
        capsize=3,
        label=words or f"{warm} updates of GD first",
    )


def _draw_many(axes: Axes, steps: Array, losses: Array, color: str, label: str) -> None:
    """Thin lines, one per run, with one entry in the legend; nothing where there are none."""
    if losses.size == 0:
        return
    lines = axes.plot(steps, losses, color=color, linewidth=0.7, alpha=0.35)
    lines[0].set_label(label)
