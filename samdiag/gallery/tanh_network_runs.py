"""Many tanh networks trained at once, full batch, with SAM or gradient descent, in float64.

The gradient is written out, so that sixty networks cost little more than one; tests hold it against autograd. Weights
are rows [runs, 4h + 1]: W1 [h, 2] by rows, b1, W2, b2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdiag.gallery.dynamics import Array

COMPLEX_STEP = 1e-30  # its square vanishes next to 1: the derivative is exact to rounding
ZERO_MODE = 1e-5  # of the largest |J|: counts as zero, as in `samdiag.measure`
RIDGE_STEP = 1e-3  # parameter units
Flags = NDArray[np.bool_]
Radius = float | Array  # one for all runs, or [runs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """f = mean ½(W2 tanh(W1 x + b1) + b2 − y)² over n samples.

    Attributes:
        lifted: [n, 3], inputs and a column of ones.
        targets: [n].
    """

    lifted: Array
    targets: Array

    @staticmethod
    def of(inputs: Array, targets: Array) -> Regression:
        """From inputs [n, 2] and targets [n]."""
        return Regression(lifted=np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1), targets=targets)

    @property
    def constant_loss(self) -> float:
        """The loss of the best constant output: Var(y)/2. It is that of the saddle at W = 0."""
        return float(self.targets.var() / 2)

    def loss_and_gradient(self, w: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """f [runs] and ∇f [runs, 4h + 1] at `w` of the same shape; also for complex weights."""
        runs, n = len(w), len(self.targets)
        hidden = (w.shape[1] - 1) // 4
        first, bias = w[:, : 2 * hidden].reshape(runs, hidden, 2), w[:, 2 * hidden : 3 * hidden]
        second, shift = w[:, 3 * hidden : 4 * hidden], w[:, 4 * hidden, None]
        units = np.concatenate([first, bias[:, :, None]], axis=2).reshape(-1, 3)
        active = np.tanh(units @ self.lifted.T).reshape(runs, hidden, n)
        residual = np.matmul(second[:, None, :], active)[:, 0] + (shift - self.targets)
        loss = (residual * residual).sum(axis=1) / (2 * n)
        residual /= n
        by_second = np.matmul(active, residual[:, :, None])[:, :, 0]
        np.multiply(active, active, out=active)
        np.subtract(1, active, out=active)  # tanh'
        active *= residual[:, None, :]
        by_unit = (active.reshape(-1, n) @ self.lifted).reshape(runs, hidden, 3) * second[:, :, None]
        parts = [by_unit[:, :, :2].reshape(runs, -1), by_unit[:, :, 2], by_second, residual.sum(axis=1)[:, None]]
        return loss, np.concatenate(parts, axis=1)

    def hessian(self, w: Array) -> Array:
        """∇²f [runs, d, d], exact to rounding, by complex steps of the gradient."""
        rows = []
        for unit in np.eye(w.shape[1]):
            _, gradient = self.loss_and_gradient(w + 1j * COMPLEX_STEP * unit)
            rows.append(gradient.imag / COMPLEX_STEP)
        return np.stack(rows, axis=1)


def fresh_weights(count: int, seed: int, hidden: int = 2) -> Array:
    """[count, 4h + 1] uniform in ±1/√fan-in, as PyTorch initialises linear layers by default."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(-1, 1, (count, 3 * hidden)) / math.sqrt(2)
    second = rng.uniform(-1, 1, (count, hidden + 1)) / math.sqrt(hidden)
    return np.concatenate([first, second], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where runs ended, and what was seen on the way.

    Attributes:
        ends: [runs, d].
        steps: [seen], the updates made before each look.
        loss, ratio, cosine: [seen, runs], f, |g+|/|g| and the cosine of g and g+ before the next update.
    """

    ends: Array
    steps: Array
    loss: Array
    ratio: Array
    cosine: Array


def train(
    problem: Regression,
    start: Array,
    *,
    rho: Radius | Callable[[int], Radius],
    lr: float,
    num_steps: int,
    every: int = 0,
) -> Run:
    """x ← x − lr ∇f(x + rho u), `num_steps` times.

    Args:
        problem: the loss.
        start: [runs, d].
        rho: radius, a number or [runs]; or a function of the step 0, 1, …; 0 is gradient descent.
        lr: learning rate.
        num_steps: number of updates.
        every: look at the loss and the two gradients every so many updates; 0: never.
    """
    w, looks = start.copy(), []
    radius = rho if callable(rho) else _constant(rho)
    for step in range(num_steps):
        loss, g = problem.loss_and_gradient(w)
        norm = _norm(g)
        _, shifted = problem.loss_and_gradient(w + (radius(step) / np.maximum(norm, 1e-300))[:, None] * g)
        if every and step % every == 0:
            shifted_norm = _norm(shifted)
            looks.append((loss, shifted_norm / norm, (g * shifted).sum(axis=1) / (norm * shifted_norm)))
        w -= lr * shifted
    seen = np.array(looks) if looks else np.empty((0, 3, len(start)))
    steps = every * np.arange(float(len(looks)))
    return Run(ends=w, steps=steps, loss=seen[:, 0], ratio=seen[:, 1], cosine=seen[:, 2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What holds where runs ended; every array is [runs] unless said otherwise.

    Attributes:
        loss, shifted_loss: f and f(x+).
        norm, shifted_norm: |g| and |g+|.
        plateau: the loss of the best constant output, which the saddle at W = 0 has.
    """

    loss: Array
    shifted_loss: Array
    norm: Array
    shifted_norm: Array
    plateau: float

    @property
    def ratio(self) -> Array:
        return np.asarray(self.shifted_norm / self.norm)

    @property
    def hallucinated(self) -> Flags:
        """|g+| < 0.1|g|: as good as PARK Def. 2.1 after finitely many steps. The sign of f(x+) − f is not asked for."""
        return np.asarray(self.ratio < 0.1)

    @property
    def trapped(self) -> Flags:
        """On the plateau of the constant network: its loss is within 10 % of the saddle's."""
        return np.asarray(~self.hallucinated & (self.loss > 0.9 * self.plateau))

    @property
    def recovered(self) -> Flags:
        """Below a hundredth of the constant network's loss."""
        return np.asarray(~self.hallucinated & (self.loss < 0.01 * self.plateau))


def examine(problem: Regression, w: Array, rho: Radius) -> Ends:
    """Losses and gradients at `w` [runs, d] and at x+ = w + rho u."""
    loss, g = problem.loss_and_gradient(w)
    norm = _norm(g)
    shifted_loss, shifted = problem.loss_and_gradient(_shifted(w, g, rho))
    return Ends(
        loss=loss,
        shifted_loss=shifted_loss,
        norm=norm,
        shifted_norm=_norm(shifted),
        plateau=problem.constant_loss,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attraction:
    """The SAM Jacobian at hallucinated points.

    Attributes:
        jacobian: [runs, d] complex, eigenvalues of J.
        zero: [runs], the modulus below which one counts as a zero mode.
        lowest: [runs], the smallest eigenvalue of the Hessian at x+.
    """

    jacobian: NDArray[np.complex128]
    zero: Array
    lowest: Array

    @property
    def zero_modes(self) -> NDArray[np.intp]:
        """[runs] how many there are."""
        return np.asarray((np.abs(self.jacobian) <= self.zero[:, None]).sum(axis=1))

    def attracting(self, lr: float) -> Flags:
        """[runs], |1 − lr·mu| < 1 for every eigenvalue mu but the zero modes."""
        stable = np.abs(1 - lr * self.jacobian) < 1
        return np.asarray((stable | (np.abs(self.jacobian) <= self.zero[:, None])).all(axis=1))


def sam_jacobian(problem: Regression, w: Array, rho: Radius) -> Array:
    """J = H+[I + (rho/|g|)(I − uuᵀ)H], [runs, d, d].

    Source: docs/theory.md B2.
    """
    _, g = problem.loss_and_gradient(w)
    norm = _norm(g)
    u, eye = g / norm[:, None], np.eye(w.shape[1])
    across = eye - u[:, :, None] * u[:, None, :]
    bracket = eye + (rho / norm)[:, None, None] * (across @ problem.hessian(w))
    return np.asarray(problem.hessian(_shifted(w, g, rho)) @ bracket)


def attraction(problem: Regression, w: Array, rho: Radius) -> Attraction:
    """J and the curvature at x+. Off the manifold that makes zero modes they are as large as |g+|, the weights being of
    order 1: that much counts as zero as well.
    """
    _, g = problem.loss_and_gradient(w)
    there = _shifted(w, g, rho)
    values = np.linalg.eigvals(sam_jacobian(problem, w, rho)).astype(np.complex128)
    left = _norm(problem.loss_and_gradient(there)[1])
    return Attraction(
        jacobian=values,
        zero=np.maximum(ZERO_MODE * np.abs(values).max(axis=1), left),
        lowest=np.asarray(np.linalg.eigvalsh(problem.hessian(there))[:, 0], dtype=np.float64),
    )


def ridge_distances(problem: Regression, w: Array, reach: float) -> Array:
    """[runs] s* = min{s > 0 : u·∇f(x + su) ≤ 0} on a grid of 0.001 up to `reach`; NaN where there is none.

    Source: docs/theory.md B5.
    """
    _, g = problem.loss_and_gradient(w)
    u = g / _norm(g)[:, None]
    found = np.full(len(w), np.nan)
    for s in np.arange(RIDGE_STEP, reach, RIDGE_STEP):
        slope = (problem.loss_and_gradient(w + s * u)[1] * u).sum(axis=1)
        found[np.isnan(found) & (slope <= 0)] = s
        if not np.isnan(found).any():
            break
    return found


def _constant(rho: Radius) -> Callable[[int], Radius]:
    return lambda _step: rho


def _shifted(w: Array, g: Array, rho: Radius) -> Array:
    return np.asarray(w + (rho / _norm(g))[:, None] * g)


def _norm(rows: Array) -> Array:
    return np.asarray(np.sqrt((rows * rows).sum(axis=1)))
