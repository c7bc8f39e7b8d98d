"""Two training runs on the digits that differ in rho alone: one goes well, the other is captured by a saddle.

The stuck run is a mistake that is easy to make. The usual rho of *adaptive* SAM is about forty times that of plain
SAM (2.0 against 0.05), because there the step is scaled by the weights. Whoever takes the number over and forgets the
switch runs plain SAM at rho = 2, and on full batches nothing frees it from the saddle near the zero network.

Measured with dense float64 Hessians, seed 0. Stuck: loss 2.303 = ln 10, |g| of 0.01 to 0.02, lambda_min = −0.24 and
rho·|lambda_min|/|g| of 25 to 45; the 288 negative eigenvalues of any size are all captured. 2000 more steps leave the
loss where it is; 500 steps of plain gradient descent from the same weights take it to 0.25. Healthy: loss 0.12, and
0.03 after 2000 more steps. Seeds 1 to 7 end the same way (seed 3 is still on its way into the saddle after 500
steps), and so do rho 1.75 to 2.5 at this lr and rho = 2 at lr 0.3 and 0.5; rho = 1.5 is marginal. The stuck run
bounces about the saddle, so its last digits depend on the machine; where it is does not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from samdiag.gallery.digits import dataset, mlp
from samdiag.gallery.training import Recipe
from samdiag.types import Problem

STEPS = 500  # the healthy run has 97 % of the digits right by then, and both take about a second
LR = 0.2  # large enough to train in 500 steps; at 0.5 the healthy run would bounce between the walls of a ravine
RHO_HEALTHY = 0.05  # the default of the SAM paper
NUM_BATCHES = 8  # of the problem: enough to estimate gradient noise from
RHO_STUCK = 2.0  # the usual rho of adaptive SAM, here without the adaptive scaling

RUNS: Mapping[str, Recipe] = {
    "healthy": Recipe(steps=STEPS, lr=LR, rho=RHO_HEALTHY),
    "stuck": Recipe(steps=STEPS, lr=LR, rho=RHO_STUCK),
}
MODEL_ARGS: Mapping[str, int | str] = {"hidden": 32, "activation": "tanh"}


def fresh_model(seed: int = 0) -> nn.Sequential:
    """The untrained digits network of `seed`; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mlp(hidden=32, activation="tanh")


def digits() -> Problem:
    """The digits network, untrained, on all 1797 digits in 8 batches as a problem; its loss never goes below 0."""
    data = dataset()
    inputs, targets = data.tensors
    return Problem(
        model=fresh_model(),
        loss=_cross_entropy,
        batches=list(zip(inputs.chunk(NUM_BATCHES), targets.chunk(NUM_BATCHES), strict=True)),
        population=len(data),
        loss_lower_bound=0.0,
        batch_size_is_training=False,
    )


def _cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return functional.cross_entropy(model(inputs), targets)
