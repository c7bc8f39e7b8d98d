"""One computed picture a verdict, for the pages in docs/verdicts/.

    python docs/verdict_pictures.py [FOLDER]      # under a minute; the same bytes for the same numbers

The problems are those of docs/verdict_examples.py, so that a page's picture and its report are of one thing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import verdict_examples as examples
from numpy.typing import ArrayLike, NDArray

from samdiag import diagnose
from samdiag.gallery.beale_experiment import gradient as beale_gradient
from samdiag.gallery.beale_experiment import value as beale_value
from samdiag.gallery.dynamics import Gradient, quadratic, steps
from samdiag.pictures import FAINT, FOURTH, GD, SAM, THEORY, THIRD, sheet
from samdiag.theory.diffusion import noise_variance, stationary_variance
from samdiag.theory.edge import largest_multiplier, stability_edge
from samdiag.theory.floor import sine_example
from samdiag.theory.saddle import retained_escape_rate, shifted_eigenvalue

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
IMAGES = Path(__file__).parent / "images"
PANEL = (5.0, 3.7)
SADDLE = (2.0, -2.0)
START = (-3.0, -0.01)  # KIM's, on x² − y²


def path_of(gradient: Gradient, start: ArrayLike, *, rho: float, lr: float, count: int) -> Array:
    """[d, count + 1, …] the points of full-batch SAM from `start` [d, …]; rho = 0 is gradient descent."""
    made = [step.after for step in steps(gradient, start, rho=rho, lr=lr, num_steps=count)]
    return np.stack([np.asarray(start), *made], axis=1)


def contours(axes: Axes, value: Callable[[Array], Array], x: tuple[float, float], y: tuple[float, float]) -> None:
    """Faint level lines of `value` over the rectangle."""
    grid = np.stack(np.meshgrid(np.linspace(*x, 241), np.linspace(*y, 241)))
    axes.contour(grid[0], grid[1], value(grid), levels=24, colors=FAINT, linewidths=0.5, linestyles="solid")
    axes.set(xlim=x, ylim=y)


def unstable(file: Path) -> None:
    """A step beyond the edge throws the run out of the ravine; the multiplier passes 1 there."""
    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels
        lam = np.array(examples.RAVINE)[:, None]
        for lr, rho, color, label in (
            (0.19, 0.05, THIRD, "SAM, η = 0.19: ηλ = 1.9"),
            (examples.UNSTABLE_LR, 0.05, SAM, "SAM, η = 0.21: ηλ = 2.1"),
            (examples.UNSTABLE_LR, 0.0, GD, "SGD, η = 0.21: ηλ = 2.1"),
        ):
            points = path_of(quadratic(examples.RAVINE), (0.1, 0.1), rho=rho, lr=lr, count=60)
            left.plot((0.5 * lam * points**2).sum(axis=0), color=color, label=label)
        left.set(yscale="log", xlabel="step", ylabel="loss", title="½(10x² + y²), ρ = 0.05")
        left.legend()
        grid = np.linspace(0.0, 4.6, 461)
        for momentum, nesterov, color, label in (
            (0.0, False, GD, "γ = 0"),
            (0.9, False, SAM, "γ = 0.9"),
            (0.9, True, THIRD, "γ = 0.9, Nesterov"),
        ):
            factor = [largest_multiplier(s, 1.0, momentum, nesterov=nesterov) for s in grid.tolist()]
            right.plot(grid, factor, color=color, label=f"{label}: {stability_edge(momentum, nesterov=nesterov):.3g}")
        right.axhline(1.0, color=THEORY, linewidth=0.8)
        right.set(xlabel="ημ", ylabel="factor per step", ylim=(0, 2.4), title="Above 1 the step diverges")
        right.legend(title="edge", loc="lower right")


def hallucinated_minimizer(file: Path) -> None:
    """The loss and the loss that SAM sees; SAM and gradient descent from one start."""

    def value(x: Array) -> Array:
        return np.asarray(0.25 * (x**2 - 1) ** 2)

    def gradient(x: Array) -> Array:
        return x * (x**2 - 1)

    rho, here = examples.WELL_RHO, examples.WELL_POINT
    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels
        x = np.linspace(-1.7, 1.7, 1201)
        shifted = np.where(np.abs(gradient(x)) > 1e-9, value(x + rho * np.sign(gradient(x))), np.nan)
        for part in (x < -1, (x > -1) & (x < 0), (x > 0) & (x < 1), x > 1):  # f^SAM jumps where f' = 0
            left.plot(x[part], shifted[part], color=SAM, label="f(x + ρu), what SAM descends" if part[0] else None)
        left.plot(x, value(x), color=GD, label="f(x) = (x² − 1)²/4")
        left.plot([here, here - rho], [value(np.array(here)), 0.0], "o", color=THEORY, markersize=5)
        arrow = {"arrowstyle": "->", "color": THEORY, "linewidth": 1.2}
        left.annotate("", (here - rho, 0.0), (here, float(value(np.array(here)))), arrowprops=arrow)
        left.annotate("x", (here + 0.06, 0.16))
        left.annotate("x + ρu", (here - rho - 0.02, -0.075), ha="center")
        left.set(ylim=(-0.11, 0.75), xlabel="x", title=f"ρ = {rho:g}")
        left.legend(loc="upper center")
        for radius, color, label in (
            (rho, SAM, f"SAM, ρ = {rho:g}"),
            (0.0, GD, "gradient descent"),
            (0.45, THIRD, "SAM, ρ = 0.9 s* = 0.45"),
        ):
            points = path_of(gradient, (0.7,), rho=radius, lr=0.05, count=160)
            right.plot(points[0], color=color, label=label)
        right.axhline(here, color=THEORY, linewidth=0.8, linestyle=":")
        right.set(xlabel="step", ylabel="x", title="From x = 0.7, η = 0.05", ylim=(0.4, 1.08))
        right.legend(loc="center right")


def saddle_attraction(file: Path) -> None:
    """x² − y² from KIM's start: the two paths, and |g| against rho|lambda|."""
    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels
        contours(left, lambda w: np.asarray(w[0] ** 2 - w[1] ** 2), (-3.2, 1.2), (-2.6, 0.6))
        for rho, color, label in (
            (0.0, GD, "gradient descent"),
            (examples.SADDLE_RHO, SAM, f"SAM, ρ = {examples.SADDLE_RHO:g}"),
        ):
            points = path_of(quadratic(SADDLE), START, rho=rho, lr=examples.SADDLE_LR, count=500)
            left.plot(*points, color=color, label=label)
            right.plot(2.0 * np.hypot(*points), color=color, label=label)
        left.plot(0, 0, "x", color=THEORY, markersize=8)
        left.set(xlabel="x", ylabel="y", title="x² − y² from (−3, −0.01), η = 0.01")
        left.legend(loc="lower left")
        right.axhline(
            2.0 * examples.SADDLE_RHO, color=THEORY, linestyle="--", linewidth=1, label="ρ|λ|: below it SAM is held"
        )
        right.set(yscale="log", xlabel="step", ylabel="‖g‖", title="The gradient on the way")
        right.legend(loc="upper left")


def saddle_slowdown(file: Path) -> None:
    """Growth along one direction at several effective radii, and the rate that is left."""
    lam, lr = -2.0, examples.SADDLE_LR
    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels
        for reach, color in ((0.0, GD), (0.5, THIRD), (0.75, FOURTH), (0.9, SAM), (1.1, THEORY)):
            gradient = quadratic([lam])
            made = [s.after[0] for s in steps(gradient, [0.01], rho=reach / 2.0, lr=lr, num_steps=800, variant="usam")]
            left.plot(np.abs([0.01, *made]), color=color, label=f"{reach:g}")
        left.set(yscale="log", ylim=(2e-4, 10), xlabel="step", ylabel="distance along q", title="λ = −2, η = 0.01")
        left.legend(title="ρ_eff|λ|", loc="lower left", ncols=5, columnspacing=1.0, handlelength=1.2)
        grid = np.linspace(0.0, 3.0, 301)
        many = (-np.geomspace(1.0, 1e-3, 400)).tolist()
        right.plot(grid, [retained_escape_rate([-1.0], r) for r in grid.tolist()], color=GD, label="one negative λ")
        right.plot(
            grid, [retained_escape_rate(many, r) for r in grid.tolist()], color=SAM, label="many, from λ_min to 0"
        )
        bound = [1.0 / (4.0 * r) if r > 0.5 else math.nan for r in grid.tolist()]
        right.plot(grid, bound, color=THEORY, linestyle=":", label="bound 1/(4ρ_eff)")
        right.axhline(0.5, color=FAINT, linewidth=0.8)
        right.annotate("saddle-slowdown below", (2.98, 0.515), ha="right", color="#666666", fontsize=9)
        right.set(
            xlabel="ρ_eff|λ_min|", ylabel="share of SGD's escape rate", ylim=(0, 1.02), title="What is left of the pace"
        )
        right.legend()


def hallucinated_point(file: Path) -> None:
    """−cos x − cos y beyond its maximiser: near it the point repels, farther out it attracts."""

    def gradient(w: Array) -> Array:
        return np.asarray(np.sin(w))

    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels
        contours(left, lambda w: -np.cos(w).sum(axis=0), (2.6, 5.9), (2.6, 5.9))
        for offset, color in ((examples.HILL_OFFSET, SAM), (1.6, THIRD)):
            point, rho = math.pi + offset, math.sqrt(2.0) * (math.pi + offset)
            start = (point + 0.03, point - 0.05)
            points = path_of(gradient, start, rho=rho, lr=0.05, count=160)
            label = f"π + {offset:g} on either axis"
            left.plot(*points, color=color)
            left.plot(point, point, "o", color=color, markersize=6)
            right.plot(np.hypot(*(points - point)), color=color, label=label)
        left.plot(math.pi, math.pi, "^", color=THEORY, markersize=7)
        left.annotate("maximum", (math.pi + 0.08, math.pi - 0.19))
        left.set(aspect="equal", xlabel="x", ylabel="y", title="−cos x − cos y: g+ = 0 at the dots")
        right.set(yscale="log", xlabel="step", ylabel="distance from the dot", title="One repels, the other attracts")
        right.legend(loc="lower left")


def convergence_floor(file: Path) -> None:
    """SI's sine, where no step size helps; and gradient noise, where the level grows with rho as theory says."""
    beta, rho = examples.SINE_BETA, examples.SINE_RHO
    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels

        def gradient(x: Array) -> Array:
            return np.asarray(3 * beta * rho / (5 * math.pi) * np.cos(5 * math.pi * x / (3 * rho)))

        for radius, lr, color, label in (
            (rho, 0.05, SAM, "SAM, ρ = 0.6, η = 0.05"),
            (rho, 0.01, FOURTH, "SAM, ρ = 0.6, η = 0.01"),
            (0.0, 0.05, GD, "gradient descent, η = 0.05"),
        ):
            points = path_of(gradient, (examples.SINE_POINT,), rho=radius, lr=lr, count=200)
            left.plot(np.abs(gradient(points[0])), color=color, label=label)
        left.axhline(sine_example(beta, rho).grad_norm, color=THEORY, linewidth=1, linestyle=":", label="0.1654 βρ")
        left.set(ylim=(0, 0.32), xlabel="step", ylabel="‖g‖", title="SI's sine from x = −0.1")
        left.legend(loc="upper right")
        grid = np.linspace(0.0, 5.0, 51)
        right.plot(grid, [_noise_floor(r) for r in grid.tolist()], color=THEORY, linewidth=1.2, label="theory C2")
        radii = (0.0, 0.5, 1.0, 2.0, 2.5, 3.5, 5.0)
        runs = [examples.floor_run(lambda _step, r=r: r, 3000)[1][1000:] for r in radii]
        levels = [float(np.sqrt(np.mean(np.square(norms)))) for norms in runs]
        right.plot(radii, levels, "o", color=SAM, label="measured, steps 1000 to 3000")
        right.set(xlabel="ρ (0: SGD)", ylabel="‖g‖ where it stops", ylim=(0, None), title="A bowl with gradient noise")
        right.legend(loc="lower right")


def _noise_floor(rho: float) -> float:
    """√E|g|² of mini-batch SAM on the bowl, rho_eff = rho/√(|g|² + 1) found by iteration."""
    lam, lr, directions = examples.FLOOR_CURVATURE, examples.FLOOR_LR, examples.FLOOR_DIRECTIONS
    level = 0.0
    for _ in range(100):
        radius = rho / math.sqrt(level**2 + 1.0)
        noise = noise_variance(1.0 / directions, 1.0, radius, lam, ascent="same")
        spread = stationary_variance(shifted_eigenvalue(lam, radius), lr, 0.0, noise)
        level = lam * math.sqrt(directions * spread)
    return level


def bounce(file: Path) -> None:
    """The jumps across the ravine, and their size at several rho."""
    lr, rho = examples.RAVINE_LR, examples.RAVINE_RHO
    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels
        lam = np.array(examples.RAVINE)[:, None, None]
        contours(left, lambda w: np.asarray((0.5 * lam * w**2).sum(axis=0)), (-0.06, 0.06), (-0.02, 0.4))
        points = path_of(quadratic(examples.RAVINE), (0.05, 0.3), rho=rho, lr=lr, count=60)
        left.plot(*points, color=SAM, marker=".", linewidth=0.9, label=f"SAM, ρ = {rho:g}")
        left.plot(
            *path_of(quadratic(examples.RAVINE), (0.05, 0.3), rho=0.0, lr=lr, count=60),
            color=GD,
            marker=".",
            linewidth=0.9,
            label="gradient descent",
        )
        left.set(xlabel="x, curvature 10", ylabel="y, curvature 1", title="½(10x² + y²), η = 0.05")
        left.legend(loc="upper right")
        decaying = [0.06]
        for step in range(119):
            decaying.append(
                decaying[-1] - lr * 10.0 * (decaying[-1] + rho * 0.96**step * math.copysign(1.0, decaying[-1]))
            )
        for radius, color in ((rho, SAM), (rho / 2, FOURTH)):
            run = path_of(quadratic([10.0]), (0.06,), rho=radius, lr=lr, count=119)[0]
            right.plot(np.abs(run), color=color, label=f"ρ = {radius:g}")
            right.axhline(radius * examples.BOUNCE / rho, color=THEORY, linewidth=0.8, linestyle=":")
        right.plot(np.abs(decaying), color=THIRD, label="ρ = 0.1·0.96^step")
        right.set(yscale="log", xlabel="step", ylabel="|x|", ylim=(1e-4, 0.2), title="Dotted: ηλρ/(2 − ηλ)")
        right.legend(loc="lower left")


def saddle_escaping(file: Path) -> None:
    """A small rho near the same saddle: SAM leaves almost as fast as gradient descent."""
    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels
        contours(left, lambda w: np.asarray(w[0] ** 2 - w[1] ** 2), (-0.3, 1.3), (-0.3, 2.6))
        for rho, color, label in (
            (0.0, GD, "gradient descent"),
            (examples.ESCAPE_RHO, SAM, f"SAM, ρ = {examples.ESCAPE_RHO:g}"),
        ):
            points = path_of(quadratic(SADDLE), (1.2, 0.32), rho=rho, lr=examples.SADDLE_LR, count=160)
            left.plot(*points, color=color, label=label)
            right.plot(
                np.log(points[1, 1:] / points[1, :-1]) / math.log1p(2 * examples.SADDLE_LR), color=color, label=label
            )
        left.plot(0, 0, "x", color=THEORY, markersize=8)
        left.plot(*examples.ESCAPE_POINT, "o", color=THEORY, markersize=5, label="the report below")
        left.set(xlabel="x", ylabel="y", title="x² − y², η = 0.01")
        left.legend(loc="upper right")
        right.set(
            xlabel="step",
            ylabel="pace along y, over SGD's",
            ylim=(0, 1.08),
            title="ρ_eff = ρ/‖g‖ falls as the run leaves",
        )
        right.legend(loc="lower right")


def undecided(file: Path) -> None:
    """lambda_min's interval at growing sample counts, and what it makes of mu."""
    rho, counts = examples.SAMPLED_RHO, [2**k for k in range(4, 13)]
    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels
        intervals = {}
        for count in counts:
            found = diagnose(examples.sampled(count), **examples.EXAMPLES["undecided"].settings)
            assert found.measurements is not None
            e = found.measurements.lambda_min
            intervals[count] = (e.value or 0.0, e.spread())
            color = SAM if found.verdict == "saddle-attraction" else FAINT if found.verdict == "undecided" else GD
            left.errorbar(count, e.value or 0.0, yerr=e.spread(), fmt="o", color=color, capsize=3)
        for color, label in ((FAINT, "undecided"), (SAM, "saddle-attraction")):
            left.plot([], [], "o", color=color, label=label)
        left.axhline(0.0, color=THEORY, linewidth=0.8)
        left.axhline(-1.0 / rho, color=THEORY, linewidth=1, linestyle="--", label="−1/ρ_eff: captured below")
        left.set(
            xscale="log",
            xlabel="samples analysed",
            ylabel="λ_min and its interval",
            title=f"USAM, ρ = {rho:g}",
            ylim=(-2.4, 0.75),
        )
        left.legend(loc="lower right")
        grid = np.linspace(-1.7, 0.4, 211)
        right.plot(grid, [shifted_eigenvalue(v, rho) for v in grid.tolist()], color=GD)
        for count, height, color in ((examples.FEW, 1.3, FAINT), (examples.MANY, 1.0, SAM)):
            value, spread = intervals[count]
            right.errorbar(
                value, height, xerr=spread, fmt="o", color=color, capsize=3, label=f"λ_min from {count} samples"
            )
        right.axhline(0.0, color=THEORY, linewidth=0.8)
        right.annotate("μ > 0: captured", (-1.66, 0.06), fontsize=9)
        right.annotate("μ < 0: it leaves", (-1.66, -0.22), fontsize=9)
        right.set(xlabel="λ", ylabel="μ = λ(1 + ρ_effλ)", ylim=(-0.4, 1.9), title="The sign of μ decides")
        right.legend(loc="upper right")


def descending(file: Path) -> None:
    """Beale's function from (1, 2): SAM with a small rho goes the way of gradient descent."""
    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels
        contours(left, lambda w: np.log10(beale_value(w) + 1e-3), (-0.5, 3.4), (-0.1, 2.1))
        for rho, color, style, label in ((0.0, GD, "-", "gradient descent"), (0.05, SAM, "--", "SAM, ρ = 0.05")):
            points = path_of(beale_gradient, (1.0, 2.0), rho=rho, lr=1e-4, count=60_000)
            left.plot(*points, color=color, linestyle=style, label=label)
            right.plot(beale_value(points), color=color, linestyle=style, label=label)
        left.plot(3.0, 0.5, "*", color=THEORY, markersize=10)
        left.plot(0.0, 1.0, "x", color=THEORY, markersize=8)
        left.set(xlabel="x", ylabel="y", title="Beale's function: minimum ★, saddle ×")
        left.legend(loc="upper right")
        right.set(
            xscale="symlog", yscale="log", xlabel="step", ylabel="loss", title="From (1, 2), η = 0.0001", xlim=(0, 6e4)
        )
        right.legend()


def minimum(file: Path) -> None:
    """Beale's minimum: the loss rises along both eigenvectors, and SAM from around it comes back."""
    centre, h = np.array([3.0, 0.5]), 1e-5
    nearby = centre[:, None] + h * np.hstack([np.eye(2), -np.eye(2)])
    slopes = beale_gradient(nearby)
    values, vectors = np.linalg.eigh((slopes[:, :2] - slopes[:, 2:]) / (2 * h))
    with sheet(file, panel=PANEL) as drawn:
        left, right = drawn.panels
        t = np.linspace(-0.25, 0.25, 201)
        for value, vector, color in zip(values, vectors.T, (GD, SAM), strict=True):
            along = beale_value(centre[:, None] + vector[:, None] * t)
            left.plot(t, along, color=color, label=f"along q, λ = {value:.3g}")
        left.set(
            ylim=(0, 0.6), xlabel="distance from (3, 0.5)", ylabel="loss", title="It rises along every eigenvector"
        )
        left.legend(loc="upper center")
        contours(right, lambda w: np.log10(beale_value(w) + 1e-5), (2.3, 3.7), (0.25, 0.7))
        angle = np.linspace(0, 2 * math.pi, 8, endpoint=False)
        start = np.stack([3.0 + 0.55 * np.cos(angle), 0.5 + 0.16 * np.sin(angle)])
        points = path_of(beale_gradient, start, rho=0.05, lr=2e-4, count=60_000)
        right.plot(*points[:, 0], "o", color=SAM, markersize=4)
        for run in points.transpose(2, 0, 1):
            right.plot(*run[:, ::20], color=SAM, linewidth=1.1)
        right.plot(*centre, "*", color=THEORY, markersize=10)
        right.set(xlabel="x", ylabel="y", title="SAM from eight starts, ρ = 0.05, η = 0.0002")


PICTURES: dict[str, Callable[[Path], None]] = {
    "unstable": unstable,
    "hallucinated-minimizer": hallucinated_minimizer,
    "saddle-attraction": saddle_attraction,
    "saddle-slowdown": saddle_slowdown,
    "hallucinated-point": hallucinated_point,
    "convergence-floor": convergence_floor,
    "bounce": bounce,
    "saddle-escaping": saddle_escaping,
    "undecided": undecided,
    "descending": descending,
    "minimum": minimum,
}


def main() -> None:
    """Writes every picture."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    for verdict, draw in PICTURES.items():
        draw(folder / f"verdict-{verdict}.png")
        print(folder / f"verdict-{verdict}.png")


if __name__ == "__main__":
    main()
