"""A whole spectrum as a picture: the density with its band, and the counts with their intervals."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from samdiag.pictures import FAINT, GD, SAM, THEORY, THIRD, sheet
from samdiag.reports.density_text import NAMES, sentence
from samdiag.reports.escape import printable
from samdiag.reports.numbers import number
from samdiag.spectral import Density, MatrixSpectrum, SpectralReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"hessian": GD, "ggn": THIRD, "fisher": SAM}
LINES = {"hessian": "-", "ggn": "--", "fisher": "-."}
LEAST = 0.02  # eigenvalues in a kernel's width: a density below that is not drawn
PANEL = (6.4, 4.4)  # inches
TITLE_COLUMNS = 120
MOSTLY_LINEAR = 0.3  # of the largest |λ|: a scale that is linear so far out is linear


def draw(report: SpectralReport, path: Path) -> None:
    """Two panels, written to `path` (.png, .svg or .pdf).

    Raises:
        OSError: it cannot be written.
    """
    name = printable(Path(report.checkpoint.path).name, limit=60) if report.checkpoint else ""
    shown = [(one, one.density) for one in report.matrices if one.density is not None]
    title = "\n".join(textwrap.wrap(f"{name}: {sentence(report)}", TITLE_COLUMNS))
    with sheet(path, title=title, panel=PANEL) as page:
        first, second = page.panels
        for one, density in shown:
            _curve(first, one, density)
            _bins(second, one, density)
        if shown:
            first.set_yscale("log")
            second.set_yscale("symlog", linthresh=1.0)
            second.set_ylim(bottom=0)
            for axes, linear_within in (
                (first, shown[0][1].linear_within),
                (second, min(min(map(abs, density.edges)) for _, density in shown)),
            ):
                _scale(axes, [density for _, density in shown], linear_within)
            _marks(first, report, labelled=True)
            _marks(second, report, labelled=False)
            _ends(first, shown)
            first.legend(loc="upper right")
        first.set_ylabel("eigenvalues per unit of λ")
        first.set_title("Spectral density, smoothed, with 95 % bands")
        second.set_ylabel("eigenvalues in the interval")
        second.set_title("How many: estimate and 95 % interval")


def _curve(axes: Axes, one: MatrixSpectrum, density: Density) -> None:
    """The density between both ends; beyond them there is only what the kernel spills."""
    nan = float("nan")
    rows = []
    for value, *heights in zip(density.values, density.density, density.low, density.high, strict=True):
        least = LEAST / (density.width * math.hypot(value, density.linear_within))
        seen = one.lambda_min.low <= value <= one.lambda_max.high and heights[0] > least
        rows.append([max(height, least) if seen else nan for height in heights])
    middle, low, high = zip(*rows, strict=True)
    color = COLORS[one.matrix]
    axes.fill_between(density.values, low, high, color=color, alpha=0.25, lw=0)
    axes.plot(density.values, middle, color=color, ls=LINES[one.matrix], label=NAMES[one.matrix])


def _bins(axes: Axes, one: MatrixSpectrum, density: Density) -> None:
    """A line at the estimate from edge to edge, the interval shaded."""
    color = COLORS[one.matrix]
    spans = list(zip(density.edges, density.edges[1:], strict=False))
    for (left, right), value, low, high in zip(
        spans, density.counts, density.counts_low, density.counts_high, strict=True
    ):
        axes.fill_between([left, right], low, max(high, low + LEAST), color=color, alpha=0.2, lw=0)
        axes.plot([left, right], [value, value], color=color, ls=LINES[one.matrix], lw=1.6)


def _ends(axes: Axes, shown: list[tuple[MatrixSpectrum, Density]]) -> None:
    """Both ends with error bars at the foot."""
    bottom = axes.get_ylim()[0]
    for one, _ in shown:
        for end in (one.lambda_min, one.lambda_max):
            if end.value is not None:
                bar = {"color": COLORS[one.matrix], "marker": "D", "ms": 4.5, "capsize": 3}
                axes.errorbar([end.value], [bottom * 2.0], xerr=[end.spread()], **bar)  # type: ignore[arg-type]


def _marks(axes: Axes, report: SpectralReport, *, labelled: bool) -> None:
    """The thresholds where they lie in view."""
    low, high = axes.get_xlim()
    found = []
    if report.effective_radius:
        found.append((-1.0 / report.effective_radius, "−1/ρ_eff", SAM))
    if report.stability_edge is not None:
        found.append((report.stability_edge, "edge of stability", THEORY))
    for value, name, color in found:
        if low <= value <= high:
            label = f"{name} = {number(value, digits=3)}" if labelled else None
            axes.axvline(value, color=color, ls=":", lw=1.6, label=label)
    axes.axvline(0.0, color=FAINT, lw=0.8, zorder=0)


def _scale(axes: Axes, densities: list[Density], linear_within: float) -> None:
    """The axis of λ: linear where the kernel is, logarithmic far out; ticks at zero and at powers of ten."""
    low = min(density.edges[0] for density in densities)
    high = max(density.edges[-1] for density in densities)
    margin = 0.05
    if linear_within > MOSTLY_LINEAR * max(-low, high):
        axes.set_xlim(low - margin * (high - low), high + margin * (high - low))
        axes.set_xlabel("eigenvalue λ")
        return
    axes.set_xscale("asinh", linear_width=linear_within)
    ends = [math.asinh(value / linear_within) for value in (low, high)]
    room = margin * (ends[1] - ends[0])
    axes.set_xlim(linear_within * math.sinh(ends[0] - room), linear_within * math.sinh(ends[1] + room))
    powers = [10.0**k for k in range(math.ceil(math.log10(linear_within)), math.ceil(math.log10(max(-low, high))) + 1)]
    ticks = sorted([0.0, *(p for p in powers if p <= high), *(-p for p in powers if -p >= low)])
    axes.set_xticks(ticks, [number(t, digits=2) for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"eigenvalue λ (linear within ±{number(linear_within, digits=2)}, then logarithmic)")
