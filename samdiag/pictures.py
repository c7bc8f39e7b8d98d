"""One look for every picture: colour-blind safe, readable in print, and the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, told apart with every kind of colour vision
GD = "#0072B2"  # blue
SAM = "#D55E00"  # vermilion
THIRD = "#009E73"  # bluish green
FOURTH = "#CC79A7"  # reddish purple
THEORY = "#000000"
FAINT = "#999999"

TIMELESS = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # same bytes next year
DPI = 150
PANEL = (5.2, 4.3)  # inches
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "samdiag",
}


@dataclass(slots=True)
class Sheet:
    """A figure and its panels, from left to right."""

    figure: Figure
    panels: list[Axes]


@contextmanager
def sheet(path: Path, *, panels: int = 2, title: str = "", panel: tuple[float, float] = PANEL) -> Iterator[Sheet]:
    """Panels side by side, written to `path` (.png, .svg or .pdf) on leaving; no window, no global state of matplotlib.

    Args:
        path: in a folder that exists.
        panels: how many.
        title: above all of them.
        panel: width and height of one, in inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(panel[0] * panels, panel[1]), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        yield Sheet(figure=figure, panels=list(axes))
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
        figure.savefig(path, metadata=TIMELESS.get(path.suffix.lower()))
