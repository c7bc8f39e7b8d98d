"""Beale's function: SAM stops at the saddle (0, 1) that gradient descent passes on its way to the minimum (3, 0.5).

The run is deterministic; the seed changes nothing. What to expect is docs/theory.md A1, A2 and E.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samdiag.gallery.comparing import compared, happened, within
from samdiag.gallery.dynamics import Array, cosine, narrowed, run, steps, zero_crossing
from samdiag.gallery.experiment import Experiment, Outcome, Row, Tell
from samdiag.pictures import GD, SAM, THIRD, Sheet, sheet

SADDLE = (0.0, 1.0)
MINIMUM = (3.0, 0.5)
FALLING = np.array([1.0, -1.0]) / np.sqrt(2.0)  # the eigenvector of −27.75 at the saddle
START = (1.0, 2.0)  # KIM's
NEAR = (0.02, 1.03)  # a start on the saddle's doorstep, for USAM
NEARER = 0.01  # of the way from the saddle to NEAR: so near that cubic terms are below 0.1 %
LR = 1e-4
STEPS = 100_000
TRAPPED, FREE = (0.5, 1.0, 2.0), (0.1, 0.2)  # radii, from START
THRESHOLD = (0.3025, 0.3031)  # docs/theory.md E
AT_MINIMUM, AT_SADDLE = 0.1, 0.05  # distances that count as arrived: |w| changes by 3 on the way
SHOWN_RHO = 0.5  # KIM's
ON_ITS_WAY = 20_000  # the step at which the free run is saved: past the saddle, and still going down


def gradient(w: Array) -> Array:
    """∇f of Beale's function, [2, runs] → [2, runs]."""
    x, y = w
    y2 = y * y
    y3 = y2 * y
    a, b, c = 1.5 - x + x * y, 2.25 - x + x * y2, 2.625 - x + x * y3
    return np.stack([2 * (a * (y - 1) + b * (y2 - 1) + c * (y3 - 1)), 2 * x * (a + 2 * b * y + 3 * c * y2)])


def value(w: Array) -> Array:
    """f, [2, …] → […]."""
    x, y = w
    return np.asarray((1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2)


def end_of(point: Array) -> str:
    """Where a run ended, in words."""
    if not np.isfinite(point).all():
        return "diverges"
    if np.hypot(*(point - MINIMUM)) < AT_MINIMUM:
        return "minimum"
    return "saddle" if np.hypot(*(point - SADDLE)) < AT_SADDLE else "elsewhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Every step of some runs: points [steps + 1, 2] and cosines [steps], by rho; 0 is gradient descent."""

    points: Mapping[float, Array]
    cosines: Mapping[float, Array]


def trace(rhos: tuple[float, ...], *, lr: float = LR, num_steps: int = STEPS) -> Trace:
    """The runs of normalised SAM from (1, 2)."""
    points = np.empty((num_steps + 1, 2, len(rhos)))
    cosines = np.empty((num_steps, len(rhos)))
    for k, step in enumerate(steps(gradient, _repeat(START, len(rhos)), rho=rhos, lr=lr, num_steps=num_steps)):
        points[k], points[k + 1], cosines[k] = step.before, step.after, cosine(step)
    return Trace(
        points={rho: points[:, :, j] for j, rho in enumerate(rhos)},
        cosines={rho: cosines[:, j] for j, rho in enumerate(rhos)},
    )


def usam_ends(starts: Array, rhos: ArrayLike, *, lr: float = LR, num_steps: int = STEPS) -> Array:
    """[2, runs] where USAM ends from each of `starts` [2, runs] with each of `rhos` [runs]."""
    return run(gradient, starts, rho=rhos, lr=lr, num_steps=num_steps, variant="usam")


def growth(starts: Array, ends: Array) -> Array:
    """Logarithm of the growth of the offset from the saddle along its falling direction [runs]; ∞: it diverged."""
    with np.errstate(all="ignore"):
        grown = np.abs(FALLING @ _from_saddle(ends)) / np.abs(FALLING @ _from_saddle(starts))
        return np.asarray(np.where(np.isfinite(grown), np.log(grown), np.inf))


def usam_threshold(curvature: float, *, lr: float = LR, num_steps: int = 5000) -> float:
    """The rho at which USAM neither approaches the saddle nor leaves it, from 11 radii within 3 % of 1/curvature."""
    rhos = np.linspace(0.97, 1.03, 11) / curvature
    starts = _repeat(np.array(SADDLE) + NEARER * (np.array(NEAR) - SADDLE), len(rhos))
    return zero_crossing(rhos, growth(starts, usam_ends(starts, rhos, lr=lr, num_steps=num_steps)))


def capture_threshold(*, lr: float = LR, num_steps: int = 20_000, rounds: int = 3) -> tuple[float, float]:
    """Bracket of the rho from which normalised SAM, started at (1, 2), ends at the saddle; 24 radii a round.

    A fifth of the steps will do: after 5000 it is settled which way a run goes.
    """

    def holds(rhos: Array) -> NDArray[np.bool_]:
        ends = run(gradient, _repeat(START, len(rhos)), rho=rhos, lr=lr, num_steps=num_steps)
        return np.array([end_of(point) == "saddle" for point in ends.T])

    return narrowed(holds, FREE[-1], TRAPPED[0], rounds=rounds, points=24)


def curvature_at_saddle() -> tuple[float, float]:
    """The eigenvalues of the Hessian at (0, 1), by automatic differentiation."""
    import torch

    from samdiag.gallery.functions import beale_formula, hessian_at

    low, high = torch.linalg.eigvalsh(hessian_at(beale_formula, SADDLE)).tolist()
    return float(low), float(high)


def perform(folder: Path, _seed: int, tell: Tell) -> Outcome:
    """All rows, the picture and two checkpoints."""
    from samdiag.gallery.endpoints import save_point, verdict_row

    tell(f"{STEPS} steps of GD and SAM from (1, 2)")
    seen = trace((0.0, *FREE, *TRAPPED))
    tell("USAM, near the saddle and from (1, 2)")
    rows = [*_saddle_rows(), *_usam_rows(), *_sam_rows(seen)]
    tell("narrowing the radius from which SAM is captured")
    low, high = capture_threshold()
    rows.append(within("smallest captured ρ from (1, 2)", (low + high) / 2, *THRESHOLD))
    rows.append(_cosine_row(seen.cosines[SHOWN_RHO]))
    checkpoints = [
        save_point(folder / f"{name}.safetensors", seen.points[rho][at], "beale", rho=rho, variant="sam", lr=LR)
        for name, rho, at in (("stuck", SHOWN_RHO, -1), ("on-its-way", FREE[0], ON_ITS_WAY))
    ]
    rows += [verdict_row(checkpoints[0], "saddle-attraction"), verdict_row(checkpoints[1], "descending")]
    picture = folder / "beale.png"
    with sheet(picture, title="Beale's function: SAM is caught by a saddle") as drawn:
        _draw(drawn, seen)
    return Outcome(rows=tuple(rows), pictures=(picture,), checkpoints=tuple(checkpoints), remarks=REMARKS)


REMARKS = (
    "In the trap the cosine of g and g+ reaches both −1 and +1 and wanders in between: the run circles the saddle.",
    "USAM diverges from (1, 2) because |g| is 327 there: e = ρg is longer than the way to the minimum.",
)


def _saddle_rows() -> list[Row]:
    low, high = curvature_at_saddle()
    measured = usam_threshold(abs(low))
    return [
        compared("f at the saddle (0, 1)", float(value(np.array(SADDLE))), 14.203125, digits=8),
        compared("λ₁ there (and −λ₁ = λ₂)", low, -27.75, absolute=1e-9 + abs(low + high), digits=6),
        compared("USAM: captured from ρ", measured, 1 / 27.75, relative=1e-3, published="1/|λ₁| (Thm 1)", digits=5),
    ]


def _usam_rows() -> list[Row]:
    near, far = (0.0355, 0.0365), (0.01, 0.02, 0.05)
    starts = np.concatenate([_repeat(NEAR, len(near)), _repeat(START, len(far))], axis=1)
    ends = usam_ends(starts, (*near, *far))
    rows = []
    for rho, grown, expected in zip(near, growth(starts, ends).tolist(), ("leaves", "captured"), strict=False):
        words = "leaves" if grown > 0 else "captured"
        rows.append(happened(f"USAM from (0.02, 1.03), ρ {rho:g}", words, expected, published=expected))
    ways = _in_words(end_of(point) for point in ends.T[len(near) :])
    return [*rows, happened(f"USAM from (1, 2), ρ {_listed(far)}", ways, "diverges")]


def _sam_rows(seen: Trace) -> list[Row]:
    def ways(rhos: tuple[float, ...]) -> str:
        return _in_words(end_of(seen.points[rho][-1]) for rho in rhos)

    return [
        happened("GD from (1, 2) ends at", ways((0.0,)), "minimum", published="minimum"),
        happened(f"SAM from (1, 2), ρ {_listed(FREE)}", ways(FREE), "minimum"),
        happened(f"SAM from (1, 2), ρ {_listed(TRAPPED)}", ways(TRAPPED), "saddle", published="saddle (ρ 0.5)"),
    ]


def _in_words(ends: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(ends))


def _listed(rhos: tuple[float, ...]) -> str:
    return ", ".join(f"{rho:g}" for rho in rhos)


def _cosine_row(cosines: Array) -> Row:
    """The range of the cosine over the second half of the run, inside the trap."""
    inside = cosines[len(cosines) // 2 :]
    low, high = float(inside.min()), float(inside.max())
    return Row(
        quantity=f"cosine in the trap, ρ {SHOWN_RHO:g}",
        published="flips between ±1",
        expected="reaches −1 and +1",
        measured=f"{low:+.3f} to {high:+.3f}".replace("-", "−"),
        agrees=low < -0.99 and high > 0.99,
        tolerance="± 0.01",
    )


def _draw(drawn: Sheet, seen: Trace) -> None:
    x, y = np.meshgrid(np.linspace(-1.5, 3.7, 261), np.linspace(-0.5, 2.4, 146))
    left, right = drawn.panels
    levels = np.geomspace(0.05, 2000.0, 14)
    left.contour(x, y, value(np.stack([x, y])), levels=levels, colors="0.8", linewidths=0.7)
    shown = ((0.0, GD, "GD"), (FREE[0], THIRD, f"SAM, ρ = {FREE[0]:g}"), (SHOWN_RHO, SAM, f"SAM, ρ = {SHOWN_RHO:g}"))
    for rho, color, label in shown:
        points = seen.points[rho]
        left.plot(points[:, 0], points[:, 1], color=color, label=label)
        left.plot(*points[-1], "o", color=color, markersize=6)
    left.plot(*SADDLE, "X", color="k", markersize=9, label="saddle (0, 1)")
    left.plot(*MINIMUM, "*", color="k", markersize=12, label="minimum (3, 0.5)")
    left.set(xlabel="x", ylabel="y", xlim=(-1.5, 3.7), ylim=(-0.5, 2.4))
    left.set_title(f"One run each from (1, 2): {STEPS} steps")
    left.legend(loc="lower left")
    for rho, color in ((FREE[0], THIRD), (SHOWN_RHO, SAM)):
        cosines = seen.cosines[rho][:3000]
        right.plot(np.arange(1, len(cosines) + 1), cosines, color=color, linewidth=0.9, label=f"SAM, ρ = {rho:g}")
    right.set(xscale="log", xlabel="step", ylabel="cosine of ∇f(x) and ∇f(x + e)", ylim=(-1.05, 1.05))
    right.set_title(f"SAM's two gradients, η = {LR:g}")
    right.legend(loc="lower left")


def _from_saddle(points: Array) -> Array:
    return np.asarray(points - np.array(SADDLE)[:, None])


def _repeat(point: ArrayLike, count: int) -> Array:
    """[2, count] copies of a point."""
    return np.repeat(np.asarray(point, dtype=float)[:, None], count, axis=1)


EXPERIMENT = Experiment(
    name="beale",
    title="Beale's function: SAM stops at a saddle that gradient descent passes",
    source="KIM, Thm 1 and its Beale example; docs/theory.md A1, A2, E",
    run=perform,
)
