"""Random captured saddles in a noisy quadratic world: their measurements, and the optimiser run in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdiag.remedies import Phase
from samdiag.types import Confidence, Direction, Finding, Measurements, Severity

from ..verdicts.samples import est, measurements

Array = NDArray[np.float64]


def said(verdict: str) -> tuple[Finding, ...]:
    """A verdict put into the mouth of the judge, to reach the advice alone."""
    return (
        Finding(
            verdict=verdict, severity=Severity.ERROR, confidence=Confidence.HIGH, evidence={}, message="m", source="s"
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """½ Σ lam x² with per-sample gradient noise of variance `noise` per coordinate; the saddle is at 0."""

    lam: Array
    noise: Array
    rho: float
    lr: float
    momentum: float
    batch: int

    @property
    def scale(self) -> float:
        return math.sqrt(float(self.noise.sum()) / self.batch)

    def measured(self, **changes: Any) -> Measurements:
        """What a perfect measurement at the saddle would say."""
        radius = self.rho / self.scale
        order = np.argsort(self.lam)
        found = [
            Direction(
                eigenvalue=est(float(self.lam[i]), 1e-9),
                effective_radius=radius,
                noise=float(self.noise[i]),
                offset=0.0,
            )
            for i in order
        ]
        values: dict[str, Any] = {
            "rho": self.rho,
            "lr": self.lr,
            "momentum": self.momentum,
            "batch_size": self.batch,
            "population": None,
            "grad_norm": est(0.0),
            "perturbation_norm": 0.0,
            "effective_radius": radius,
            "noise_trace": est(float(self.noise.sum())),
            "ascent_noise": self.scale**2,
            "loss_lower_bound": None,
            "lambda_min": found[0].eigenvalue,
            "lambda_max": found[-1].eigenvalue,
            "bottom_directions": tuple(d for d in found if (d.eigenvalue.value or 0.0) < 0),
            "top_directions": (found[-1],),
            "lookahead_loss": None,
            "lookahead_loss_sgd": None,
            "lookahead_cosine": None,
        }
        return measurements(**(values | changes))

    def exits(self, *, rho: float, momentum: float, batch: float, distance: float, steps: int, seed: int) -> Array:
        """First step with |x| ≥ `distance` along lambda_min, in 40 runs from the saddle; inf: not within `steps`."""
        rng = np.random.default_rng(seed)
        runs, bottom = 40, int(np.argmin(self.lam))
        x, v = np.zeros((runs, self.lam.size)), np.zeros((runs, self.lam.size))
        std = np.sqrt(self.noise / batch)
        first = np.full(runs, math.inf)
        for step in range(1, steps + 1):
            n = std * rng.standard_normal(x.shape)
            g = self.lam * x + n
            v = momentum * v + self.lam * (x + rho * g / np.sqrt((g * g).sum(axis=1, keepdims=True))) + n
            x = x - self.lr * v
            first = np.where(np.isinf(first) & (np.abs(x[:, bottom]) >= distance), step, first)
            if np.isfinite(first).all():
                break
        return first

    def follow(self, phases: Sequence[Phase], *, distance: float, steps: int, seed: int, runs: int = 40) -> Followed:
        """`runs` runs from the saddle under a schedule, m-SAM where it says so."""
        rng = np.random.default_rng(seed)
        bottom = int(np.argmin(self.lam))
        x, v = np.zeros((runs, self.lam.size)), np.zeros((runs, self.lam.size))
        first = np.full(runs, math.inf)
        for step in range(steps):
            phase, k = phase_at(phases, step)
            rho, batch = phase.rho_at(k), phase.batch_size or self.batch
            parts = batch // phase.micro_batch if phase.micro_batch else 1
            n = np.sqrt(self.noise * parts / batch) * rng.standard_normal((parts, *x.shape))
            g = self.lam * x + n
            e = rho * g / np.sqrt((g * g).sum(axis=-1, keepdims=True))
            gamma = self.momentum if phase.momentum is None else phase.momentum
            v = gamma * v + (self.lam * (x + e) + n).mean(axis=0)
            x = x - (self.lr if phase.lr is None else phase.lr) * v
            first = np.where(np.isinf(first) & (np.abs(x[:, bottom]) >= distance), step + 1, first)
        return Followed(exits=first, ends=np.abs(x[:, bottom]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What became of the runs: first step at the exit distance (inf: never), and where they are at the end."""

    exits: Array
    ends: Array


def phase_at(phases: Sequence[Phase], step: int) -> tuple[Phase, int]:
    """The phase of update `step` = 0, 1, … and the update's number in it."""
    for phase in phases:
        if phase.steps is None or step < phase.steps:
            return phase, step
        step -= phase.steps
    raise AssertionError("the schedule ended")


def captured_world(rng: np.random.Generator, dim: int | None = None) -> World:
    """A saddle of 6 to 50 dimensions (or `dim`) whose every negative direction is held, by a factor of 2 to 4."""
    lam, noise = _landscape(rng, dim)
    return _world(rng, lam, noise, float(rng.uniform(2.0, 4.0)) / float(np.abs(lam[lam < 0]).min()))


def slowed_world(rng: np.random.Generator) -> World:
    """The same, free along lambda_min, where 5 to 40 % of SGD's escape rate are left."""
    lam, noise = _landscape(rng)
    return _world(rng, lam, noise, float(rng.uniform(0.6, 0.95)) / float(np.abs(lam.min())))


def _landscape(rng: np.random.Generator, dim: int | None = None) -> tuple[Array, Array]:
    dim = int(rng.integers(6, 51)) if dim is None else dim
    index = int(rng.integers(1, max(2, dim // 4)))
    lam = np.concatenate([-rng.uniform(0.7, 2.0, index), rng.uniform(0.05, 2.5, dim - index)])
    return lam, rng.uniform(0.5, 2.0, dim)


def _world(rng: np.random.Generator, lam: Array, noise: Array, radius: float) -> World:
    batch = int(rng.choice([64, 256, 1024]))
    return World(
        lam=lam,
        noise=noise,
        rho=radius * math.sqrt(noise.sum() / batch),
        lr=float(rng.uniform(0.02, 0.06)),
        momentum=float(rng.choice([0.0, 0.5])),
        batch=batch,
    )
