"""The real optimiser on a quadratic, in the eigenbasis: what momentum, bounces and finite steps do to a saddle where
no closed form says it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STAYS, LEAVES, DIVERGES, DRIFTS = 0, 1, 2, 3  # what a run has done: see `Course`
LOOK = 8  # steps between two looks at the exits
BLOCK = 256  # steps between two looks at the peaks: 25 times the memory of momentum 0.9
SETTLED_BLOCKS = 3  # in a row in which every peak repeats itself or decays steadily
REPEATED = 1e-5  # relative change of a peak from block to block on a cycle; growth by that is 8 % in two million steps
STEADY = (
    0.02  # relative change of the factor by which a peak falls: chaotic peaks are not that regular three times over
)
TREND = 1.5  # growth of a component's peak over the last three quarters: an escape within some ten horizons
ORDER = 0.85  # Kendall's tau that it must have with time: chance gives that to 1 of 10 000 components
PARTS = 12  # of the history, of which the first quarter is the run-in
FLOOR = 1e-8  # of the largest component: smaller ones are rounding, and count only once they have grown above it
BLOW_UP = 1e8  # times the start's gradient and rho·|lam|_max: no cycle of a stable step is that large


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What became of every run.

    Attributes:
        outcome: [runs] STAYS; LEAVES along a negative direction; DIVERGES by too large a step; DRIFTS: still there at
            the horizon, but along some negative direction it is still growing.
        steps: [runs] when it left or diverged; else how far it was followed.
        settled: [runs] whether it came to a cycle, or decays steadily, so that it stays for good.
        path: [points, d] displacements of the first run from its start, at steps 1, 2, 4, … and where it ends.
    """

    outcome: NDArray[np.int64]
    steps: NDArray[np.int64]
    settled: NDArray[np.bool_]
    path: NDArray[np.float64]


def exit_gradient(
    lam: NDArray[np.float64], centre: NDArray[np.float64], rho: NDArray[np.float64], weight_decay: float
) -> NDArray[np.float64]:
    """[runs, d] own gradient |q·g| at which a run that moves outward along that direction has left for good; infinite
    where lam + wd ≥ 0.

    Along lam < 0 the update is q·g·(1 − rho|lam|/|g| − wd/|lam|) + wd·c, c the coordinate of the quadratic's top: it
    points outward once |q·g| > (rho|lam| + wd|c|)/(1 − wd/|lam|), because |g| ≥ |q·g|, and |q·g| only grows from there.
    The largest of these limits over the negative directions is asked of all of them: beyond it SAM captures none, while
    a direction of tiny curvature is past its own limit long before the run goes anywhere.

    Args:
        lam: [runs, d] eigenvalues.
        centre: [runs, d] coordinates of the critical point, where lam ≠ 0.
        rho: [runs, 1] SAM's radius.
        weight_decay: wd.

    Source: theory A5 with the weight decay of A1; exact on a quadratic with heavy ball, Nesterov and dampening.
    """
    import numpy as np

    negative = lam < -weight_decay
    size = np.where(negative, np.abs(lam), 1.0)
    share = 1.0 - weight_decay / np.where(negative, size, np.inf)
    limit = np.where(negative, (rho * size + weight_decay * np.abs(centre)) / share, 0.0)
    return np.where(negative, limit.max(axis=1, keepdims=True), np.inf)


def simulate(
    lam: NDArray[np.float64],
    gradient: NDArray[np.float64],
    *,
    position: NDArray[np.float64] | None = None,
    rho: NDArray[np.float64] | float,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    normalised: bool = True,
    steps: int,
) -> Course:
    """Full-batch SAM on the quadratic with these eigenvalues, started from this gradient with an empty momentum buffer.

    PyTorch's SGD: d = g(1 + lam·e) + wd·x, v ← gamma·v + (1 − dampening)·d, x ← x − eta·v (Nesterov: d + gamma·v),
    where e = rho/|g|, or rho where `normalised` is False (USAM). The runs end when they leave (see `exit_gradient`),
    diverge, or settle: SETTLED_BLOCKS blocks in a row in which every component's peak repeats itself or falls by the
    same factor.

    Args:
        lam: [runs, d] eigenvalues.
        gradient: [runs, d] components q_j·g of the gradient at the start.
        position: [runs, d] components of the weights, which weight decay pulls to 0; by default measured from the
            critical point, and 0 where lam = 0.
        rho: [runs], or one for all.
        lr, momentum, dampening, nesterov, weight_decay: of the optimiser.
        normalised: SAM; False: USAM.
        steps: horizon; what drifts is told from PARTS blocks on.

    Source: SAM as Foret et al., algorithm 1, with PyTorch's SGD; theory A (what its closed forms are held to).
    """
    import numpy as np

    runs = _Runs.start(lam, gradient, position, rho, weight_decay, normalised)
    for step in range(1, steps + 1):
        if normalised:
            norm = np.sqrt(np.einsum("rd,rd->r", runs.g, runs.g))[:, None]
            reach = runs.rho / np.where(norm > 0, norm, np.inf)
        else:
            reach = runs.rho
        direction = runs.g * (1.0 + reach * runs.lam)
        if weight_decay:
            direction += weight_decay * (runs.x + runs.y)
        runs.v = momentum * runs.v + (1.0 - dampening) * direction
        move = lr * (direction + momentum * runs.v if nesterov else runs.v)
        runs.g -= runs.lam * move
        runs.y -= move
        np.maximum(runs.peak, np.abs(runs.g), out=runs.peak)
        if (step & (step - 1)) == 0 and runs.followed[0] == 0:
            runs.path.append(runs.y[0].copy())
        if step % LOOK == 0:
            runs.note_exits(step)
        if step % BLOCK == 0:
            runs.note_peaks(step)
        if not len(runs.followed):
            break
    return runs.finish(steps)


class _Runs:
    """The runs that are still followed, and the results of all."""

    def __init__(
        self,
        lam: NDArray[np.float64],
        g: NDArray[np.float64],
        x: NDArray[np.float64],
        rho: NDArray[np.float64],
        limit: NDArray[np.float64],
    ) -> None:
        import numpy as np

        self.lam, self.g, self.x, self.rho, self.limit = lam, g, x, rho, limit
        self.y, self.v = np.zeros_like(g), np.zeros_like(g)
        self.peak, self.before = np.zeros_like(g), np.full_like(g, np.nan)
        self.fall = np.full_like(g, np.nan)  # of the peaks, from block to block
        self.quiet = np.zeros(len(g), dtype=np.int64)  # blocks in a row that were regular
        self.followed = np.arange(len(g))
        scale = np.sqrt(np.einsum("rd,rd->r", g, g)) + rho[:, 0] * np.abs(lam).max(axis=1)
        self.blow_up = BLOW_UP * scale[:, None]
        self.history: list[NDArray[np.float64]] = []  # per block: peaks of all runs, ended ones at 0
        self.shape = g.shape
        self.outcome = np.full(len(g), STAYS)
        self.steps = np.zeros(len(g), dtype=np.int64)
        self.settled = np.zeros(len(g), dtype=bool)
        self.path: list[NDArray[np.float64]] = []

    @classmethod
    def start(
        cls,
        lam: NDArray[np.float64],
        gradient: NDArray[np.float64],
        position: NDArray[np.float64] | None,
        rho: NDArray[np.float64] | float,
        weight_decay: float,
        normalised: bool,
    ) -> _Runs:
        import numpy as np

        lam = np.array(lam, dtype=np.float64)
        g = np.array(gradient, dtype=np.float64)
        radius = np.broadcast_to(np.asarray(rho, dtype=np.float64), len(g))[:, None].copy()
        own = np.where(lam != 0, g / np.where(lam != 0, lam, 1.0), 0.0)  # distance from the critical point
        x = own if position is None else np.array(position, dtype=np.float64)
        limit = exit_gradient(lam, x - own, radius if normalised else 0.0 * radius, weight_decay)
        if not normalised:  # linear: what leaves is a direction whose mu is negative, from any distance
            scale = np.abs(g).max(axis=1, keepdims=True) + 1e-300
            limit = np.where(lam * (1.0 + radius * lam) + weight_decay < 0, np.maximum(limit, 1e3 * scale), np.inf)
        return cls(lam, g, x, radius, limit)

    def note_exits(self, step: int) -> None:
        """End the runs that have left or blown up."""
        import numpy as np

        out = (np.abs(self.g) > self.limit) & (self.g * self.v > 0)
        left = out.any(axis=1)
        blown = (~(np.abs(self.g) < self.blow_up)).any(axis=1) & ~left
        if left.any() or blown.any():
            self.outcome[self.followed[left]] = LEAVES
            self.outcome[self.followed[blown]] = DIVERGES
            self._end(left | blown, step)

    def note_peaks(self, step: int) -> None:
        """End the runs whose components have only repeated themselves, or decayed, for a while."""
        import numpy as np

        floor = FLOOR * self.peak.max(axis=1, keepdims=True)
        fall = self.peak / np.where(self.before > 0, self.before, 1.0)
        repeats = np.abs(fall - 1.0) <= REPEATED
        decays = (fall < 1.0) & (np.abs(fall - self.fall) <= STEADY * self.fall)
        regular = repeats | decays | (np.maximum(self.peak, self.before) <= floor)
        self.quiet = np.where(regular.all(axis=1), self.quiet + 1, 0)
        self.fall = fall
        peaks = np.zeros(self.shape)
        peaks[self.followed] = self.peak
        self.history.append(peaks)
        self.before, self.peak = self.peak, np.zeros_like(self.peak)
        done = self.quiet >= SETTLED_BLOCKS
        if done.any():
            self.settled[self.followed[done]] = True
            self._end(done, step)

    def _end(self, done: NDArray[np.bool_], step: int) -> None:
        self.steps[self.followed[done]] = step
        if done[0] and self.followed[0] == 0:
            self.path.append(self.y[0].copy())
        keep = ~done
        for name in (
            "lam",
            "g",
            "x",
            "rho",
            "limit",
            "y",
            "v",
            "peak",
            "before",
            "fall",
            "quiet",
            "followed",
            "blow_up",
        ):
            setattr(self, name, getattr(self, name)[keep])

    def finish(self, steps: int) -> Course:
        """The results; a run that is followed to the horizon drifts when a later quarter's peaks exceed an earlier
        one's.
        """
        import numpy as np

        self.steps[self.followed] = steps
        if len(self.followed) and self.followed[0] == 0:
            self.path.append(self.y[0].copy())
        if len(self.followed) and len(self.history) >= PARTS:
            grows = _is_growing(np.array(self.history)[:, self.followed]) & np.isfinite(self.limit)
            drifting = self.followed[grows.any(axis=1)]
            self.outcome[drifting] = DRIFTS
        return Course(outcome=self.outcome, steps=self.steps, settled=self.settled, path=np.array(self.path))


def _is_growing(history: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[runs, d] whether a component grows until the end, from its peaks [blocks, runs, d]; chaotic ones go up and down.

    The medians of the last nine of PARTS parts must rise by TREND in all and be ordered in time (Kendall's tau).
    """
    import numpy as np

    parts = np.array([np.median(part, axis=0) for part in np.array_split(history, PARTS)][PARTS // 4 :])
    first, last = parts[:3].mean(axis=0), parts[-3:].mean(axis=0)
    later, earlier = np.triu_indices(len(parts), 1)[::-1]
    tau = np.sign(parts[later] - parts[earlier]).mean(axis=0)
    floor = FLOOR * last.max(axis=1, keepdims=True)
    grown: NDArray[np.bool_] = (last > TREND * np.maximum(first, floor)) & (tau >= ORDER)
    return grown
