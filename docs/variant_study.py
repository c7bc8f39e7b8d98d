"""The simulations behind docs/theory.md A10: GSAM near saddles and hallucinated minimizers, and SAM inside Adam.

    python docs/variant_study.py        # one or two minutes; prints every number that the page quotes

Quadratics and one quartic only, in float64, seeded. Points are arrays [runs, d].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Stepper = Callable[[Array, int], Array]  # (direction, step number from 1) → displacement to subtract

ALPHAS = (0.1, 0.4, 0.8)
RUNS, STEPS = 4000, 20_000
SEEDS = (1, 2, 3)
ADAM_RUNS, ADAM_STEPS = 400, 30_000
DIMENSION = 3
CURVATURES = (0.1, 3.0)  # magnitudes, log-uniform
FAR = 1e3  # times the largest gradient of the trap: no run comes back from there
AWAY = 5.0  # the same for Adam, whose steps do not grow with the distance
PRECONDITIONERS = (0.01, 1.0)  # frozen diagonals, log-uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class Saddles:
    """Random quadratic saddles ½ Σ lam_j x_j² in their eigenbasis, rho = 1, and where the runs start.

    Attributes:
        lam: [runs, d] eigenvalues, at least one of either sign.
        lr: [runs] eta, with eta·max|lam| between 0.05 and 1.
        gradient: [runs, d] at the start; its norm is 0.1 to 10 times rho·min|lam_neg|.
    """

    lam: Array
    lr: Array
    gradient: Array


def random_saddles(runs: int, seed: int) -> Saddles:
    """As in `Saddles`; signs, magnitudes, directions and step sizes independent."""
    rng = np.random.default_rng(seed)
    lam = _log_uniform(rng, CURVATURES, (runs, DIMENSION)) * _signs(rng, runs)
    lr = _log_uniform(rng, (0.05, 1.0), runs) / np.abs(lam).max(axis=1)
    unit = rng.standard_normal((runs, DIMENSION))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    gradient = unit * (_log_uniform(rng, (0.1, 10.0), runs) * weakest(lam))[:, None]
    return Saddles(lam=lam, lr=lr, gradient=gradient)


def weakest(lam: Array) -> Array:
    """[runs] smallest magnitude of a negative eigenvalue."""
    return np.asarray(np.where(lam < 0, -lam, np.inf).min(axis=1))


def mixed(g: Array, shifted: Array, alpha: float) -> Array:
    """GSAM's direction g+ − alpha·(part of g orthogonal to g+), [runs, d]; g+ itself for alpha = 0."""
    if alpha == 0:
        return shifted
    norm = np.linalg.norm(shifted, axis=1, keepdims=True)
    along = shifted / np.where(norm > 0, norm, 1.0)
    return np.asarray(shifted - alpha * (g - along * (along * g).sum(axis=1, keepdims=True)))


def leaves(saddles: Saddles, alpha: float, steps: int = STEPS) -> Flags:
    """[runs] whether full-batch GSAM leaves within `steps` plain steps; alpha = 0 is SAM."""
    g = saddles.gradient.copy()
    limit = FAR * np.maximum(np.linalg.norm(g, axis=1), np.abs(saddles.lam).max(axis=1))
    left, here = np.zeros(len(g), dtype=bool), np.arange(len(g))
    for step in range(steps):
        own, lam = g[here], saddles.lam[here]
        shifted = own * (1.0 + lam / np.linalg.norm(own, axis=1, keepdims=True))
        g[here] = own - saddles.lr[here, None] * lam * mixed(own, shifted, alpha)
        if step % 50 == 0:
            gone = np.linalg.norm(g[here], axis=1) > limit[here]
            left[here[gone]] = True
            here = here[~gone]
    return left


def hovering_distance(alpha: float, lr: float, *, across: float = 1.0, steps: int = 20_000) -> float:
    """Largest distance from a hallucinated minimizer in GSAM's last 1000 steps, over eta·alpha·|g|.

    f = (x² − 1)²/4 + across·y²/2 at (0.5, 0), rho = 1.5: g+ = 0, |g| = 0.375, J = diag(2, across(1 + 4·across)), so
    that SAM settles there while eta·J is below 2. The start is 0.002 beside it.
    """
    centre, rho = np.array([0.5, 0.0]), 1.5

    def gradient(x: Array) -> Array:
        return np.stack([x[:, 0] * (x[:, 0] ** 2 - 1.0), across * x[:, 1]], axis=1)

    x, farthest = (centre + np.array([1e-3, 2e-3]))[None], 0.0
    for step in range(steps):
        g = gradient(x)
        x = x - lr * mixed(g, gradient(x + rho * g / np.linalg.norm(g)), alpha)
        if step >= steps - 1000:
            farthest = max(farthest, float(np.linalg.norm(x - centre)))
    return farthest / (lr * alpha * 0.375)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """Random quadratic saddles whose eigenvectors are not the coordinate axes.

    Attributes:
        lam: [runs, d] eigenvalues.
        hessian: [runs, d, d].
        diagonal: [runs, d] a frozen preconditioner P.
        rng: what the starts are drawn from.
    """

    lam: Array
    hessian: Array
    diagonal: Array
    rng: np.random.Generator


def turned_saddles(runs: int, seed: int) -> Turned:
    """As in `Turned`, rotations uniform."""
    rng = np.random.default_rng(seed)
    lam = _log_uniform(rng, CURVATURES, (runs, DIMENSION)) * _signs(rng, runs)
    q = np.linalg.qr(rng.standard_normal((runs, DIMENSION, DIMENSION)))[0]
    hessian = np.einsum("nij,nj,nkj->nik", q, lam, q)
    return Turned(lam=lam, hessian=hessian, diagonal=_log_uniform(rng, PRECONDITIONERS, (runs, DIMENSION)), rng=rng)


def adam(lr: Array, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Stepper:
    """Adam's displacement for a stream of directions [runs, d]; `lr` [runs]."""
    mean: Array = np.zeros(1)
    square: Array = np.zeros(1)

    def step(direction: Array, k: int) -> Array:
        nonlocal mean, square
        mean = beta1 * mean + (1.0 - beta1) * direction
        square = beta2 * square + (1.0 - beta2) * direction**2
        return np.asarray(lr[:, None] * (mean / (1.0 - beta1**k)) / (np.sqrt(square / (1.0 - beta2**k)) + eps))

    return step


def departs(
    field: Callable[[Array], Array],
    size: Callable[[Array], Array],
    start: Array,
    step: Stepper,
    limit: Array,
    steps: int,
) -> Flags:
    """[runs] whether size(x) passes `limit` [runs] within `steps` updates of x along −field(x)."""
    x, gone = start.copy(), np.zeros(len(start), dtype=bool)
    for k in range(1, steps + 1):
        x = np.where(gone[:, None], x, x - step(field(x), k))
        if k % 20 == 0:
            gone |= size(x) > limit
    return gone


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamUsam:
    """USAM: M = H + rho H² and what Adam does with it.

    Attributes:
        runs: saddles tried.
        captured: those with no negative eigenvalue of M.
        same_inertia: those for which P·M has as many eigenvalues with negative real part as M.
        adam_agrees: those that Adam leaves exactly when M has a negative eigenvalue.
    """

    runs: int
    captured: int
    same_inertia: int
    adam_agrees: int


def adam_usam(runs: int = ADAM_RUNS, steps: int = ADAM_STEPS, seed: int = 0) -> AdamUsam:
    """USAM under a frozen diagonal and under Adam (lr 0.01, betas 0.9 and 0.999), rho around the threshold."""
    s = turned_saddles(runs, seed)
    rho = _log_uniform(s.rng, (0.3, 3.0), runs) / weakest(s.lam)
    matrix = s.hessian + rho[:, None, None] * s.hessian @ s.hessian
    negative = (np.linalg.eigvalsh(matrix) < 0).sum(axis=1)
    preconditioned = np.linalg.eigvals(s.diagonal[:, :, None] * matrix).real
    start = s.rng.standard_normal((runs, DIMENSION))
    gone = departs(
        lambda x: np.einsum("nij,nj->ni", matrix, x),
        lambda x: np.asarray(np.linalg.norm(x, axis=1)),
        start,
        adam(np.full(runs, 0.01)),
        3.0 * np.linalg.norm(start, axis=1),
        steps,
    )
    return AdamUsam(
        runs=runs,
        captured=int((negative == 0).sum()),
        same_inertia=int((negative == (preconditioned < 0).sum(axis=1)).sum()),
        adam_agrees=int(((negative > 0) == gone).sum()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamSam:
    """Normalised SAM, rho = 1, from the same starts: how many leave by SGD, by a frozen diagonal, by Adam.

    Attributes:
        runs: saddles tried.
        sgd: left by small plain steps.
        frozen, adam: left by these.
        frozen_differs, adam_differs: runs whose fate is not SGD's.
    """

    runs: int
    sgd: int
    frozen: int
    adam: int
    frozen_differs: int
    adam_differs: int


def adam_sam(scale: tuple[float, float], runs: int = ADAM_RUNS, steps: int = ADAM_STEPS, seed: int = 3) -> AdamSam:
    """As in `AdamSam`; the start's |g| is log-uniform in `scale`, in units of rho·min|lam_neg|."""
    s = turned_saddles(runs, seed)
    unit = s.rng.standard_normal((runs, DIMENSION))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    size = _log_uniform(s.rng, scale, runs) * weakest(s.lam)
    start = np.linalg.solve(s.hessian, (unit * size[:, None])[:, :, None])[:, :, 0]
    steepest = np.abs(s.lam).max(axis=1)
    limit = AWAY * np.maximum(size, steepest)
    eta = 0.05 / steepest

    def gradient(x: Array) -> Array:
        return np.asarray(np.einsum("nij,nj->ni", s.hessian, x))

    def size_of(x: Array) -> Array:
        return np.asarray(np.linalg.norm(gradient(x), axis=1))

    def field(x: Array) -> Array:
        g = gradient(x)
        return gradient(x + g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-300))

    sgd = departs(field, size_of, start, lambda d, _: eta[:, None] * d, limit, steps)
    frozen = departs(field, size_of, start, lambda d, _: eta[:, None] * s.diagonal * d, limit, 3 * steps)
    with_adam = departs(field, size_of, start, adam(1e-2 * np.linalg.norm(start, axis=1)), limit, steps)
    return AdamSam(
        runs=runs,
        sgd=int(sgd.sum()),
        frozen=int(frozen.sum()),
        adam=int(with_adam.sum()),
        frozen_differs=int((frozen != sgd).sum()),
        adam_differs=int((with_adam != sgd).sum()),
    )


def steps_to_leave(mu: float, *, with_adam: bool, lr: float = 1e-3, start: float = 1e-3, end: float = 0.1) -> int:
    """Steps from `start` to `end` along one direction of curvature `mu` < 0, by Adam or by plain steps."""
    x, step = np.array([[start]]), adam(np.array([lr]))
    for k in range(1, 1_000_000):
        x = x - (step(mu * x, k) if with_adam else lr * mu * x)
        if abs(x[0, 0]) >= end:
            return k
    raise RuntimeError("it does not leave")


def _log_uniform(rng: np.random.Generator, ends: tuple[float, float], shape: int | tuple[int, ...]) -> Array:
    return np.asarray(np.exp(rng.uniform(np.log(ends[0]), np.log(ends[1]), shape)))


def _signs(rng: np.random.Generator, runs: int) -> Array:
    """[runs, d] random signs, the first −1 and the second +1."""
    signs = rng.choice([-1.0, 1.0], (runs, DIMENSION))
    signs[:, 0], signs[:, 1] = -1.0, 1.0
    return np.asarray(signs)


def main() -> None:
    """Prints the numbers."""
    held = free = 0
    left, stayed = dict.fromkeys(ALPHAS, 0), dict.fromkeys(ALPHAS, 0)
    for seed in SEEDS:
        saddles = random_saddles(RUNS, seed)
        sam = leaves(saddles, 0.0)
        held, free = held + int((~sam).sum()), free + int(sam.sum())
        for alpha in ALPHAS:
            gsam = leaves(saddles, alpha)
            left[alpha] += int((gsam & ~sam).sum())
            stayed[alpha] += int((~gsam & sam).sum())
    print(f"{len(SEEDS)} times {RUNS} saddles, {STEPS} steps: SAM stays at {held}, leaves {free}")
    for alpha in ALPHAS:
        print(f"  GSAM alpha {alpha}: left {left[alpha]} of those {held}, stayed at {stayed[alpha]} of those {free}")
    for across, lr in ((1.0, 0.1), (1.0, 0.01), (3.0, 0.01)):
        distances = ", ".join(f"{hovering_distance(a, lr, across=across):.2f} at alpha {a}" for a in ALPHAS)
        print(f"GSAM about a hallucinated minimizer, y-curvature {across:g}, eta {lr}: {distances} (eta·alpha·|g|)")
    print(adam_usam())
    for mu in (-1.0, -0.01):
        print(f"mu {mu:g}: steps to leave {steps_to_leave(mu, with_adam=False)} (SGD), ", end="")
        print(f"{steps_to_leave(mu, with_adam=True)} (Adam), lr 0.001")
    print("|g| below 0.9 rho·min|lam_neg|:", adam_sam((0.02, 0.9)))
    print("|g| from 0.1 to 10 of it:      ", adam_sam((0.1, 10.0)))


if __name__ == "__main__":
    main()
