"""Pictures of hallucinated minimizers: f beside what SAM sees of it, and trajectories over contours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.func import vmap

from samdiag.gallery.dynamics import Array, steps
from samdiag.gallery.hallucination_surfaces import (
    Case,
    cosine_case,
    double_well_case,
    ring_case,
    sine_case,
    two_wells_case,
)
from samdiag.pictures import FAINT, GD, SAM, THEORY, THIRD, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Range = tuple[float, float]
CURVES: tuple[tuple[Callable[[], Case], str, Range, Range], ...] = (
    (cosine_case, "1 − cos x", (-1.0, 7.0), (-0.1, 2.1)),
    (double_well_case, "(x² − 1)²/4", (-1.5, 1.5), (-0.03, 0.53)),
    (sine_case, "SI's sine", (-0.3, 0.7), (-0.029, 0.029)),
)
BESIDE = ((1.3, 0.25), (1.6, -0.45), (1.75, 0.12), (1.9, 0.5), (2.15, -0.3), (2.25, 0.2))  # around the second well


def draw_curves(path: Path) -> None:
    """f, f(x + ρu) and a hallucinated point on three lines, written to `path`."""
    with sheet(path, panels=3, title="f(x + ρu) has a minimum where f still falls", panel=(4.4, 4.2)) as drawn:
        for axes, (make, label, ends, heights) in zip(drawn.panels, CURVES, strict=True):
            _draw_curve(axes, make(), label, ends)
            axes.set_ylim(heights)
        handles, labels = drawn.panels[0].get_legend_handles_labels()
        drawn.figure.legend(handles, labels, loc="outside lower center", ncol=4)


def draw_planes(path: Path, rng: np.random.Generator) -> None:
    """SAM and gradient descent from the same starts over two landscapes, written to `path`."""
    ring, wells = ring_case(), two_wells_case()
    angles = np.linspace(0, 2 * np.pi, 7)[:-1] + rng.uniform(-0.3, 0.3, 6)
    around = np.stack([np.cos(angles), np.sin(angles)]) * np.array([0.15, 0.75, 0.25, 0.6, 0.2, 0.85])
    circle = np.linspace(0, 2 * np.pi, 721)
    round_ = np.stack([np.cos(circle), np.sin(circle)])
    with sheet(path, title="SAM stops where gradient descent walks on", panel=(5.4, 5.6)) as drawn:
        left, right = drawn.panels
        _draw_plane(left, ring, around, ((-1.3, 1.3), (-1.3, 1.3)))
        left.plot(*round_, color=THEORY, linewidth=1.2, label="minimisers, |x| = 1")
        inner = ring.rho - 1
        left.plot(*(inner * round_), color=SAM, linestyle="--", linewidth=1.2, label=f"hallucinated, |x| = {inner:.2g}")
        left.set_title(f"Ring, ρ = {ring.rho:g}, 6 starts")
        _draw_plane(right, wells, np.array(BESIDE).T, ((1.2, 2.4), (-0.6, 0.6)))
        right.plot(2, 0, "*", color=THEORY, markersize=12, label="minimum; the other is at (0, 0)", linestyle="none")
        right.plot(*wells.point, "D", color=SAM, markersize=8, label="hallucinated", linestyle="none", zorder=4)
        right.plot(*(wells.rho * round_), color=THIRD, linestyle="--", linewidth=1.2, label="distance ρ from (0, 0)")
        right.set_title(f"Two wells, ρ = {wells.rho:g}, {len(BESIDE)} starts")
        for axes in drawn.panels:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=2)


def _draw_curve(axes: Axes, case: Case, label: str, ends: Range) -> None:
    x = np.linspace(*ends, 4001)
    heading = np.sign(case.slope(x[None])[0])
    shifted = _values(case, (x + case.rho * heading)[None])
    shifted[1:][heading[1:] != heading[:-1]] = np.nan  # the step changes sides where the slope changes sign
    axes.plot(x, _values(case, x[None]), color=GD, label="f(x)")
    axes.plot(x, shifted, color=SAM, label="f(x + ρu), what SAM descends")
    here, there = case.point[0], case.perturbed[0]
    height, depth = (float(_values(case, np.array([[at]]))[0]) for at in (here, there))
    axes.axvline(here, color=FAINT, linewidth=0.8, linestyle=":")
    axes.plot(here, height, "o", color=GD, markersize=7)
    axes.plot(here, depth, "D", color=SAM, markersize=8, label="hallucinated minimizer", linestyle="none")
    axes.plot(there, depth, "*", color=THEORY, markersize=12, label="where its ascent step lands", linestyle="none")
    arrow = {"arrowstyle": "->", "color": THEORY, "linewidth": 1.2, "shrinkA": 5, "shrinkB": 6}
    axes.annotate("", xy=(there, depth), xytext=(here, height), arrowprops=arrow)
    axes.set(xlabel="x", ylabel="loss", xlim=ends)
    axes.set_title(f"{label}, ρ = {case.rho:.3g}")


def _draw_plane(axes: Axes, case: Case, starts: Array, ends: tuple[Range, Range]) -> None:
    x, y = np.meshgrid(np.linspace(*ends[0], 161), np.linspace(*ends[1], 161))
    loss = _values(case, np.stack([x.ravel(), y.ravel()])).reshape(x.shape)
    axes.contour(x, y, np.sqrt(loss), levels=12, colors="0.82", linewidths=0.7)
    for rho, color, name in ((0.0, GD, "GD"), (case.rho, SAM, "SAM")):
        paths = _paths(case, starts, rho)
        for index in range(starts.shape[1]):
            axes.plot(paths[:, 0, index], paths[:, 1, index], color=color, label=name if index == 0 else None)
        axes.plot(paths[-1, 0], paths[-1, 1], "o", color=color, markersize=5)
    axes.plot(starts[0], starts[1], "s", color=FAINT, markersize=5, label="start", linestyle="none")
    axes.set(xlabel="x₁", ylabel="x₂", xlim=ends[0], ylim=ends[1], aspect="equal")


def _paths(case: Case, starts: Array, rho: float, count: int = 400) -> Array:
    """[count + 1, d, runs]."""
    seen = [step.before for step in steps(case.slope, starts, rho=rho, lr=case.lr, num_steps=count + 1)]
    return np.stack(seen)


def _values(case: Case, points: Array) -> Array:
    """f at points [d, runs] → [runs]."""
    found: Array = vmap(case.formula)(torch.from_numpy(np.ascontiguousarray(points.T))).numpy()
    return found
