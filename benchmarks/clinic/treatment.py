"""samdiag's own treatment of a case, round by round, judged by where the run stands after the same number of steps."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from benchmarks.clinic.judging import problem_of
from benchmarks.clinic.truth import Point, continuation, saddle_exit, steadily
from samdiag.errors import SamdiagError
from samdiag.measure.settings import MeasureSettings
from samdiag.treating import treat_problem
from samdiag.treatment import Treatment

ROUNDS = 5  # as `samdiag treat` has them; each gets a fifth of H, so that all together have what SGD has


def treated(point: Point) -> dict[str, Any]:
    """What `treat_problem` did, and where its last settings lead in what is left of H steps."""
    problem, setting = problem_of(point), point.setting
    settings = MeasureSettings(
        rho=setting.rho, lr=setting.lr, momentum=setting.momentum, batch_size=setting.batch_size, device="cpu"
    )
    velocity = torch.cat([v.reshape(-1) for v in point.velocity]).double() if setting.momentum > 0 else None
    try:
        found = treat_problem(problem, settings, rounds=ROUNDS, steps=point.family.horizon // ROUNDS, velocity=velocity)
    except SamdiagError as error:
        return {"outcome": "failed", "reason": error.what, "runs": []}
    rounds = [
        {
            "verdict": entry.before.verdict,
            "kind": entry.kind,
            "rho": [phase.rho for phase in entry.phases],
            "steps": entry.steps,
            "loss": entry.loss_after,
            "then": entry.verdict_after,
            "note": entry.note,
        }
        for entry in found.rounds
    ]
    runs = [_rest(point, found, problem.model, order) for order in range(point.family.orders)]
    return {
        "outcome": found.outcome.value,
        "reason": found.reason,
        "rounds": rounds,
        "steps": found.steps,
        "runs": runs,
    }


def _rest(point: Point, found: Treatment, model: torch.nn.Module, order: int) -> dict[str, Any]:
    """The last settings for the rest of the H steps, with the independent trainer."""
    setting, velocity = point.setting, point.velocity
    if found.recipe is not None:
        recipe = found.recipe
        setting = replace(setting, rho=recipe.rho, lr=recipe.lr, momentum=recipe.momentum, batch_size=recipe.batch_size)
    if found.velocity is not None:
        sizes = [v.numel() for v in velocity]
        parts = found.velocity.cpu().split(sizes)
        velocity = [part.view_as(v).to(v.dtype) for part, v in zip(parts, velocity, strict=True)]
    family = replace(point.family, horizon=max(point.family.horizon - found.steps, 0))
    here = Point(family=family, setting=setting, model=copy.deepcopy(model), velocity=velocity, data=point.data)
    return continuation(here, steadily(setting), order, saddle_exit(model))
