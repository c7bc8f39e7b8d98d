"""A scan over rho as a picture: gradients, loss and escape rate against rho, dangerous intervals shaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from samdiag.pictures import FAINT, FOURTH, GD, SAM, THEORY, THIRD, sheet
from samdiag.reports.escape import printable
from samdiag.reports.numbers import number
from samdiag.reports.sweep_text import safe_sentence
from samdiag.sweep import Sweep
from samdiag.types import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# verdict → shade; told apart by hatching and by a label as well
SHADES = {
    "saddle-attraction": (SAM, "///"),
    "saddle-slowdown": (SAM, "/"),
    "hallucinated-minimizer": (FOURTH, "xxx"),
    "hallucinated-point": (FOURTH, "x"),
    "unstable": (THEORY, "---"),
    "bounce": (GD, "\\\\"),
    "convergence-floor": (THIRD, ".."),
    "undecided": (FAINT, ""),
}


def draw(sweep: Sweep, path: Path) -> None:
    """Three panels, written to `path` (.png, .svg or .pdf).

    Raises:
        OSError: it cannot be written.
    """
    radii = [p.rho for p in sweep.points]
    name = printable(Path(sweep.checkpoint.path).name, limit=60) if sweep.checkpoint else ""
    with sheet(path, panels=3, title=f"{name}: {safe_sentence(sweep)}", panel=(4.9, 4.2)) as page:
        first, second, third = page.panels
        _curve(first, radii, [p.gradient_ratio for p in sweep.points], SAM, "‖g+‖ / ‖g‖", "o")
        if any(p.batch_ratio for p in sweep.points):
            _curve(first, radii, [p.batch_ratio or Estimate(value=None) for p in sweep.points], THIRD, "m-SAM's", "s")
        first.set_yscale("log")
        first.set_ylabel("ratio of gradient norms")
        twin = first.twinx()
        twin.plot(radii, [_value(p.gradient_cosine) for p in sweep.points], color=GD, ls="--", label="cosine")
        twin.set_ylim(-1.05, 1.05)
        twin.set_ylabel("cosine of the two gradients")
        twin.spines["right"].set_visible(True)
        handles = [*first.get_legend_handles_labels()[0], *twin.get_legend_handles_labels()[0]]
        first.legend(handles=handles, loc="center left")
        first.set_title("SAM's gradient against the gradient")
        _curve(second, radii, [p.loss_change for p in sweep.points], SAM, "f(x+) − f(x)", "o")
        second.axhline(0.0, color=FAINT, lw=0.8)
        changes = [abs(_value(p.loss_change)) for p in sweep.points]
        if max(changes, default=0.0) > 100 * min(changes, default=1.0):
            second.set_yscale("symlog", linthresh=1e-3 * max(changes))
        if all(_value(p.loss_change) >= 0 for p in sweep.points):
            second.set_ylim(bottom=0)
        second.set_ylabel("f(x+) − f(x), in units of the loss")
        second.set_title("What the ascent step does to the loss")
        shares = [math.nan if p.retained_escape_rate is None else p.retained_escape_rate for p in sweep.points]
        third.plot(radii, shares, color=SAM, marker="o", ms=3)
        third.set_ylim(-0.03, 1.05)
        third.set_ylabel("share of SGD's escape rate that is kept")
        third.set_title("How fast negative curvature is left")
        if all(math.isnan(share) for share in shares):
            third.text(0.5, 0.5, "no negative eigenvalue\nbeyond its error", transform=third.transAxes, ha="center")
        for i, panel in enumerate(page.panels):
            _mark(panel, sweep, radii, labelled=i == 1)


def _value(estimate: Estimate) -> float:
    return math.nan if estimate.value is None else estimate.value


def _curve(axes: Axes, radii: list[float], values: list[Estimate], color: str, label: str, marker: str) -> None:
    heights = [_value(v) for v in values]
    spreads = [v.spread() if v.value is not None and math.isfinite(v.spread()) else 0.0 for v in values]
    axes.errorbar(radii, heights, yerr=spreads, color=color, marker=marker, ms=3, lw=1.6, capsize=2, label=label)


def _mark(axes: Axes, sweep: Sweep, radii: list[float], *, labelled: bool) -> None:
    """Dangerous intervals, the present rho and the largest safe one."""
    if radii[-1] > 5 * radii[0]:
        axes.set_xscale("log")
    axes.set_xlabel(f"rho ({len(radii)} radii, {sweep.num_samples} samples)")
    axes.set_xlim(radii[0], radii[-1])
    for danger in sweep.dangers:
        low, high = _edges(radii, danger.low, danger.high)
        color, hatch = SHADES.get(danger.verdict, (FAINT, ""))
        axes.axvspan(low, high, facecolor=color, alpha=0.12, hatch=hatch, edgecolor=color, lw=0)
        if labelled and _is_wide(radii, low, high):
            middle = math.sqrt(low * high) if axes.get_xscale() == "log" else (low + high) / 2
            axes.text(
                middle,
                0.97,
                danger.verdict,
                rotation=90,
                va="top",
                ha="center",
                fontsize=8.5,
                transform=axes.get_xaxis_transform(),
            )
    if sweep.present_rho is not None and radii[0] <= sweep.present_rho <= radii[-1]:
        axes.axvline(sweep.present_rho, color=THEORY, ls=":", lw=1.2)
        if labelled:
            axes.text(
                sweep.present_rho,
                0.02,
                f" present {number(sweep.present_rho)} ",
                ha="right" if sweep.present_rho**2 > radii[0] * radii[-1] else "left",
                fontsize=8.5,
                transform=axes.get_xaxis_transform(),
            )
    if sweep.safe and sweep.safe.value is not None and sweep.safe.verdict is not None:
        axes.axvline(sweep.safe.value, color=THIRD, lw=1.6)


def _edges(radii: list[float], low: float, high: float) -> tuple[float, float]:
    """The interval widened to half of the way to its neighbours, so that a single radius is seen as well."""
    first, last = radii.index(low), radii.index(high)
    before = math.sqrt(radii[first - 1] * low) if first > 0 else low
    after = math.sqrt(radii[last + 1] * high) if last + 1 < len(radii) else high
    return before, after


def _is_wide(radii: list[float], low: float, high: float) -> bool:
    whole = math.log(radii[-1] / radii[0]) if len(radii) > 1 else 1.0
    return math.log(high / low) > 0.03 * whole
