"""The edge of stability: how far SAM bounces across a ravine, what the bounce says about it, and whom it sets free.

Quadratics only, where every formula is exact. What to expect is docs/theory.md A1, A6 and A9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samdiag.gallery.comparing import compared, happened
from samdiag.gallery.cycles import observed_period, symmetric_cycles
from samdiag.gallery.dynamics import Array, quadratic, run, steps, zero_crossing
from samdiag.gallery.experiment import Experiment, Outcome, Row, Tell
from samdiag.pictures import FAINT, GD, SAM, THEORY, THIRD, Sheet, sheet
from samdiag.theory.edge import bounce_amplitude, bounced_curvature, sam_edge
from samdiag.theory.saddle import captured_while_bouncing, shifted_eigenvalue

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVATURE = 10.0
RHO = 0.1
LR = 0.05
STEPS = 2000
MOMENTA = (0.0, 0.5)

CYCLES_AT = 0.07  # eta·lam at which momentum 0.9 has six cycles
CYCLES_MOMENTUM = 0.9

NEGATIVE = -2.0  # of the ravine (10, −2) in which a decay of the learning rate makes a trap
DECAYED_LR = 0.02
DECAY_AT, DECAY_STEPS = 200, 600
OFFSET = 1e-9  # along −2 at the start
BOWL = {"curvatures": [CURVATURE, 1.0]}
EXACT: dict[str, Any] = {"relative": 1e-9, "digits": 5}  # formulas without approximation: rounding only

NUM_RAVINES = 400
MARGIN = 0.02  # ravines within 2 % of the boundary of A6 are not asked: their growth is below rounding in 200 steps
GROWTH_STEPS = 200
TINY = 1e-12  # of the bounce's amplitude: the offset along the negative direction, so that it stays linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounce:
    """What the last steps of a run look like: mean |x|, and the means of |g| and of |g+|/|g|."""

    amplitude: float
    grad_norm: float
    ratio: float


def bounce(lr: float, momentum: float, *, rho: float = RHO, lam: float = CURVATURE, num_steps: int = STEPS) -> Bounce:
    """Normalised SAM on ½ lam x², begun 5 % off the period-2 cycle; seen over its last 100 steps."""
    c = 1.05 * bounce_amplitude(lam, rho, lr, momentum)
    sizes, norms, ratios = [], [], []
    taken = steps(quadratic([lam]), [c], rho=rho, lr=lr, num_steps=num_steps, momentum=momentum, velocity=-2.0 * c / lr)
    for count, step in enumerate(taken):
        if count >= num_steps - 100:
            sizes.append(float(np.abs(step.before[0])))
            norms.append(float(np.abs(step.gradient[0])))
            ratios.append(float(np.abs(step.shifted[0] / step.gradient[0])))
    return Bounce(amplitude=float(np.mean(sizes)), grad_norm=float(np.mean(norms)), ratio=float(np.mean(ratios)))


def observed_cycles(a: float, momentum: float, *, num_steps: int = 4000) -> dict[int, float]:
    """Period → largest |x| in units of rho, of the cycles that 300 runs from a grid of points and velocities end in."""
    reach = 3.0 * max(symmetric_cycles(a, momentum).values())
    x = np.concatenate([np.linspace(0.01, 1.0, 60) * reach] * 5)
    velocity = np.repeat(np.linspace(-1.0, 1.0, 5), 60) * reach
    seen = []
    settings = {"rho": 1.0, "lr": a, "num_steps": num_steps, "momentum": momentum, "velocity": velocity}
    for count, step in enumerate(steps(quadratic([1.0]), x[None], **settings)):  # type: ignore[arg-type]
        if count >= num_steps - 240:
            seen.append(step.before[0])
    found: dict[int, float] = {}
    for tail in np.array(seen).T:
        period = observed_period(tail)
        if period is not None:
            found[period] = max(found.get(period, 0.0), float(np.abs(tail).max()))
    return dict(sorted(found.items()))


def growth(lam_max: Array, lam: Array, rho: Array, lr: Array, momentum: float) -> Array:
    """Factor per step by which a tiny offset along `lam` < 0 grows while SAM bounces along `lam_max`; all [runs].

    Measured over the second half of 200 steps.
    """
    c = np.array([bounce_amplitude(*each, momentum) for each in zip(lam_max, rho, lr, strict=True)])
    start, velocity = np.stack([c, TINY * c]), np.stack([-2.0 * c / lr, np.zeros(len(c))])
    curvatures = np.stack([lam_max, lam])
    middle = end = start[1]
    settings = {"rho": rho, "lr": lr, "num_steps": GROWTH_STEPS, "momentum": momentum, "velocity": velocity}
    for count, step in enumerate(steps(quadratic(curvatures), start, **settings), start=1):  # type: ignore[arg-type]
        middle = step.after[1] if count == GROWTH_STEPS // 2 else middle
        end = step.after[1]
    return np.asarray(np.abs(end / middle) ** (2.0 / GROWTH_STEPS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ravines:
    """Random ravines (lam_max, lam < 0) in units of lam_max, and whether simulation and A6 call them captured."""

    steepness: Array
    depth: Array
    rho: Array
    momentum: float
    captured: NDArray[np.bool_]
    expected: NDArray[np.bool_]


def ravines(rng: np.random.Generator, momentum: float, *, count: int = NUM_RAVINES // 2) -> Ravines:
    """`count` ravines with eta·lam_max in (0.05, 1 + gamma), |lam|/lam_max in (0.02, 1) and rho over four decades."""
    steepness = rng.uniform(0.05, 1.0 + momentum, 4 * count)
    depth = np.exp(rng.uniform(math.log(0.02), 0.0, 4 * count))
    boundary = steepness / (2.0 * (1.0 + momentum) - steepness)
    clear = np.flatnonzero(np.abs(depth / boundary - 1.0) > MARGIN)[:count]
    steepness, depth = steepness[clear], depth[clear]
    rho = 10.0 ** rng.uniform(-3.0, 1.0, len(clear))
    factor = growth(np.ones(len(clear)), -depth, rho, steepness, momentum)
    judged = [captured_while_bouncing(-d, 1.0, a, momentum) for d, a in zip(depth, steepness, strict=True)]
    return Ravines(
        steepness=steepness,
        depth=depth,
        rho=rho,
        momentum=momentum,
        captured=factor < 1.0,
        expected=np.array(judged),
    )


def trap_lr(*, lam_max: float = CURVATURE, lam: float = NEGATIVE, rho: float = RHO) -> float:
    """The learning rate below which the bounce no longer frees the direction `lam`, from 6 that were simulated."""
    lr = np.linspace(0.2, 0.53, 6) / lam_max
    factor = growth(np.full(6, lam_max), np.full(6, lam), np.full(6, rho), lr, 0.0)
    return zero_crossing(lr, factor - 1.0)


def decayed_run(*, decay: bool, num_steps: int = DECAY_STEPS) -> Array:
    """[num_steps, 2] points of SAM in the ravine (10, −2); with `decay` the learning rate falls after 200 steps."""
    slope, lr = quadratic([CURVATURE, NEGATIVE]), DECAYED_LR if decay else LR
    start = [bounce_amplitude(CURVATURE, RHO, LR, 0.0), OFFSET]
    first = [step.after for step in steps(slope, start, rho=RHO, lr=LR, num_steps=DECAY_AT)]
    second = steps(slope, first[-1], rho=RHO, lr=lr, num_steps=num_steps - DECAY_AT)
    return np.array([*first, *(step.after for step in second)])


def expected_growth(lr: float, *, lam_max: float = CURVATURE, lam: float = NEGATIVE, rho: float = RHO) -> float:
    """1 − eta·mu of `lam` at the gradient |g| = lam_max·c of the bounce.

    Source: docs/theory.md A1, A6, A9.
    """
    radius = rho / (lam_max * bounce_amplitude(lam_max, rho, lr, 0.0))
    return 1.0 - lr * shifted_eigenvalue(lam, radius)


def perform(folder: Path, seed: int, tell: Tell) -> Outcome:
    """All rows, the picture and three checkpoints."""
    from samdiag.gallery.endpoints import save_point, verdict_row

    tell("bounces and cycles")
    rows = [*_bounce_rows(), *_cycle_rows()]
    tell(f"{NUM_RAVINES} random ravines")
    rng = np.random.default_rng(seed)
    judged = [ravines(rng, momentum) for momentum in MOMENTA]
    rows += [*_capture_rows(judged), *_decay_rows()]
    settings = {"rho": RHO, "variant": "sam"}
    trap = {"curvatures": [CURVATURE, NEGATIVE]}
    before, after = decayed_run(decay=True)[[DECAY_AT - 1, -1]]
    points = [
        save_point(folder / "bounce.safetensors", _end_of_bounce(), "edge", args=BOWL, lr=LR, **settings),
        save_point(folder / "before-decay.safetensors", before, "edge", args=trap, lr=LR, **settings),
        save_point(folder / "after-decay.safetensors", after, "edge", args=trap, lr=DECAYED_LR, **settings),
    ]
    verdicts = (("bounce",), ("saddle-slowdown", "saddle-escaping"), ("saddle-attraction",))
    rows += [verdict_row(path, *expected) for path, expected in zip(points, verdicts, strict=True)]
    picture = folder / "edge.png"
    tell("picture")
    with sheet(picture, panels=3, title="SAM on quadratic ravines: bounces, and whom they free") as drawn:
        _draw(drawn, judged)
    return Outcome(rows=tuple(rows), pictures=(picture,), checkpoints=tuple(points), remarks=REMARKS)


REMARKS = (
    "With momentum 0.9 there are longer cycles than the bounce, up to 25 times as large at ηλ = 0.07; the curvature "
    "read off |g+|/|g| holds on the bounce only.",
    f"The ravine ({CURVATURE:g}, −{-NEGATIVE:g}) is left at η = {LR:g}; at η = {DECAYED_LR:g}, with the same ρ, it is "
    "a trap.",
)


def _end_of_bounce() -> Array:
    """[2] where SAM ends in the ravine (10, 1), from (0.5, 0.3)."""
    return run(quadratic(BOWL["curvatures"]), [0.5, 0.3], rho=RHO, lr=LR, num_steps=STEPS)


def _bounce_rows() -> list[Row]:
    rows = []
    for momentum in MOMENTA:
        seen, expected = bounce(LR, momentum), bounce_amplitude(CURVATURE, RHO, LR, momentum)
        ratio = 2 * (1 + momentum) / (LR * CURVATURE)
        published = "ηλρ/(2 − ηλ)" if momentum == 0 else ""
        rows += [
            compared(
                f"γ {momentum:g}: distance c of the bounce", seen.amplitude, expected, **EXACT, published=published
            ),
            compared(f"γ {momentum:g}: |g+|/|g|", seen.ratio, ratio, **EXACT),
        ]
    seen = bounce(LR, 0.0)
    read, edge = bounced_curvature(seen.ratio, LR, 0.0), sam_edge(seen.grad_norm, RHO, LR, 0.0)
    published = "λ_edge(|g|, ρ, η)"
    return [
        *rows,
        compared("curvature read off |g+|/|g|", read, CURVATURE, **EXACT),
        compared("SAM edge at the bounce's |g|", edge, CURVATURE, **EXACT, published=published),
    ]


def _cycle_rows() -> list[Row]:
    exact, seen = symmetric_cycles(CYCLES_AT, CYCLES_MOMENTUM), observed_cycles(CYCLES_AT, CYCLES_MOMENTUM)
    label = f"γ {CYCLES_MOMENTUM:g}, ηλ {CYCLES_AT:g}"
    words = [", ".join(str(period) for period in cycles) for cycles in (seen, exact)]
    ratios = [max(cycles.values()) / min(cycles.values()) for cycles in (seen, exact)]
    return [
        happened(f"{label}: periods of the cycles", *words),
        compared(f"{label}: largest over smallest", *ratios, relative=1e-6),
    ]


def _capture_rows(judged: list[Ravines]) -> list[Row]:
    right = sum(int((each.captured == each.expected).sum()) for each in judged)
    asked = sum(len(each.captured) for each in judged)
    captured = sum(int(each.captured.sum()) for each in judged)
    rho = np.geomspace(1e-3, 10.0, 9)
    same = [np.full(len(rho), value) for value in (CURVATURE, NEGATIVE, LR)]
    factor = growth(same[0], same[1], rho, same[2], 0.0)
    return [
        compared(f"ravines that A6 judges right ({captured} captured)", right, asked),
        compared("growth per step: spread over ρ 0.001 to 10", float(np.ptp(factor)), 0.0, absolute=1e-9),
    ]


def _decay_rows() -> list[Row]:
    rows = []
    for lr in (LR, DECAYED_LR):
        one = [np.array([value]) for value in (CURVATURE, NEGATIVE, RHO, lr)]
        measured = float(growth(one[0], one[1], one[2], one[3], 0.0)[0])
        rows.append(compared(f"λ 10, −2, η {lr:g}: growth along −2", measured, expected_growth(lr), relative=1e-9))
    limit = 2.0 / (CURVATURE + CURVATURE**2 / abs(NEGATIVE))
    return [*rows, compared("λ 10, −2: captured below η", trap_lr(), limit, relative=1e-6)]


def _draw(drawn: Sheet, judged: list[Ravines]) -> None:
    first, second, third = drawn.panels
    _draw_ratio(first)
    _draw_capture(second, judged)
    for decay, color, label in (
        (False, GD, f"η = {LR:g} throughout"),
        (True, SAM, f"η = {DECAYED_LR:g} from step {DECAY_AT}"),
    ):
        third.plot(np.abs(decayed_run(decay=decay)[:, 1]), color=color, label=label)
    third.axvline(DECAY_AT, color=FAINT, linewidth=1, linestyle=":")
    third.set(yscale="log", xlabel="step", ylabel="|y|, the distance from the saddle", ylim=(1e-12, 1e5))
    third.set_title(f"Decay of η makes a trap (λ = {CURVATURE:g}, −{-NEGATIVE:g}; ρ = {RHO:g})")
    third.legend(loc="upper left")


def _draw_ratio(axes: Axes) -> None:
    """|g+|/|g| on the bounce against eta·lam, and the largest cycle of momentum 0.9."""
    grid = np.linspace(0.05, 1.8, 100)
    for momentum, color, marker in ((0.0, GD, "o"), (0.5, THIRD, "s"), (0.9, SAM, "^")):
        axes.plot(
            grid, 2 * (1 + momentum) / grid, color=THEORY, linewidth=1, label="2(1 + γ)/ηλ" if momentum == 0 else None
        )
        at = np.array([0.1, 0.2, 0.4, 0.8, 1.2, 1.6])
        seen = [bounce(a / CURVATURE, momentum, num_steps=400).ratio for a in at.tolist()]
        axes.plot(at, seen, marker, color=color, markersize=6, label=f"measured, γ = {momentum:g}")
    axes.set(yscale="log", xlabel="ηλ", ylabel="|∇f(x + e)| / |∇f(x)| on the bounce")
    axes.set_title("The ratio tells the bounced curvature")
    axes.legend(loc="upper right")


def _draw_capture(axes: Axes, judged: list[Ravines]) -> None:
    each = judged[0]
    for chosen, color, marker, label in ((~each.captured, GD, "o", "free"), (each.captured, SAM, "^", "captured")):
        text = f"{label}: {int(chosen.sum())} of {len(chosen)}"
        axes.plot(each.steepness[chosen], each.depth[chosen], marker, color=color, markersize=4.5, label=text)
    grid = np.linspace(0.03, 1.0, 100)
    axes.plot(grid, grid / (2 - grid), color=THEORY, linewidth=1.5, label="theory A6")
    axes.set(
        yscale="log", xlabel=r"$\eta\,\lambda_{max}$", ylabel=r"$|\lambda_{neg}|\,/\,\lambda_{max}$", ylim=(0.006, 1.2)
    )
    axes.set_title("Whom the bounce frees (ρ from 0.001 to 10, γ = 0)")
    axes.legend(loc="lower right")


EXPERIMENT = Experiment(
    name="edge",
    title="The edge of stability: SAM bounces, and learning-rate decay makes a trap",
    source="Bartlett, Long & Bousquet; Long & Bartlett; docs/theory.md A1, A6, A9",
    run=perform,
)
