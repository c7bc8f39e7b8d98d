"""Tanh networks trained from random weights with SAM, with and without a warm start: the runs behind the experiment.

The set-up: the 2-2-1 teacher and the 60 inputs of tanh_network.safetensors, students of the same shape with PyTorch's
default initialisation, full batch, plain steps with lr 0.1, float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from samdiag.gallery.dynamics import Array
from samdiag.gallery.experiment import Tell
from samdiag.gallery.tanh_network_runs import Ends, Flags, Regression, Run, examine, train

if TYPE_CHECKING:
    from samdiag.types import Diagnosis

SEEDS = 60  # initial weights, as many as docs/theory.md E had
LR = 0.1
STEPS = 6000  # SAM updates; by then most |g+| of hallucinated runs are below 1e-4
WARM = (200, 1000)  # updates of gradient descent before SAM begins
COLD_RHOS = (0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
WARM_RHOS = (1.0, 1.5, 2.0, 2.5, 3.0)
SHOWN = 2.5  # the radius that is looked at closely
LOOK_EVERY = 20  # updates


@dataclass(slots=True)
class Study:
    """All runs from random weights: by (warm-up updates, rho)."""

    ends: dict[tuple[int, float], Ends] = field(default_factory=dict)
    runs: dict[tuple[int, float], Run] = field(default_factory=dict)
    warm_ups: dict[int, Run] = field(default_factory=dict)  # the gradient descent before SAM
    plain: Run | None = None  # gradient descent throughout

    def share(self, warm: int, rho: float) -> tuple[int, int]:
        """(hallucinated, all)."""
        flags = self.ends[warm, rho].hallucinated
        return int(flags.sum()), len(flags)

    @property
    def shown(self) -> Flags:
        """Which of the runs without a warm start, at the radius that is looked at, are hallucinated."""
        return self.ends[0, SHOWN].hallucinated

    @property
    def stuck(self) -> Array:
        """[n, 9], where these ended."""
        return self.runs[0, SHOWN].ends[self.shown]


def observe(problem: Regression, start: Array, tell: Tell) -> Study:
    """Every run: SAM from `start` at all radii, and after gradient descent at the larger ones."""
    study = Study()
    every = {SHOWN: LOOK_EVERY}
    tell(f"gradient descent, {STEPS} steps")
    study.plain = train(problem, start, rho=0.0, lr=LR, num_steps=STEPS, every=LOOK_EVERY)
    for warm in (0, *WARM):
        tell(f"SAM after {warm} steps of gradient descent, {STEPS} steps at each radius")
        study.warm_ups[warm] = train(problem, start, rho=0.0, lr=LR, num_steps=warm, every=LOOK_EVERY)
        for rho in WARM_RHOS if warm else COLD_RHOS:
            run = train(problem, study.warm_ups[warm].ends, rho=rho, lr=LR, num_steps=STEPS, every=every.get(rho, 0))
            study.runs[warm, rho], study.ends[warm, rho] = run, examine(problem, run.ends, rho)
    return study


def regression() -> Regression:
    """The loss of the shipped data."""
    from samdiag.gallery.tanh_network_model import dataset

    inputs, targets = dataset().tensors
    return Regression.of(inputs.numpy(), targets[:, 0].numpy())


def diagnosed(weights: Array, rho: float, lr: float = LR) -> Diagnosis:
    """samdiag on a network of these weights [9]."""
    import torch

    from samdiag import diagnose
    from samdiag.gallery.tanh_network_model import TanhNetwork, as_problem

    problem = as_problem(TanhNetwork(torch.from_numpy(weights.copy())))
    return diagnose(problem, rho=rho, lr=lr, batch_size=problem.population)
