"""The prescription followed, with the independent trainer, against four simpler ideas with the same number of steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.clinic.training import Setting
from benchmarks.clinic.truth import MOVES, Plan, Point, continuations, gain, saddle_exit, sgd, steadily
from samdiag.remedies import Phase, Prescription
from samdiag.types import Measurements

WARM_UP = 0.1  # PARK: SGD for the first tenth of the steps
PRESCRIBED, HALF_RHO, WARM_START = "prescribed", "half rho", "10 % SGD, then SAM"
ENOUGH = 0.5  # of what SGD takes off in the same steps
LANCZOS_STEPS = 80  # for the steepest negative direction: far more than either end needs here


def prescribed(prescription: Prescription, setting: Setting) -> Plan | None:
    """The run that the prescription describes; None where it changes nothing."""
    phases = prescription.phases(rho=setting.rho, micro_batch=None)
    return scheduled(phases, setting) if phases else None


def scheduled(phases: tuple[Phase, ...], setting: Setting) -> Plan:
    """The phases one after the other; the last one goes on for as long as it is asked."""

    def at(step: int) -> Setting:
        for phase in phases[:-1]:
            if phase.steps is None or step < phase.steps:
                return _in_phase(phase, step, setting)
            step -= phase.steps
        return _in_phase(phases[-1], step, setting)

    return at


def _in_phase(phase: Phase, step: int, setting: Setting) -> Setting:
    changed = {name: value for name, value in phase.changes.items() if name != "micro_batch"}
    return replace(setting, rho=phase.rho_at(step), **changed)


def half_rho(point: Point) -> list[dict[str, Any]]:
    """What half of the present rho does."""
    return continuations(point, steadily(replace(point.setting, rho=point.setting.rho / 2)), saddle_exit(point.model))


def warm_start(point: Point) -> list[dict[str, Any]]:
    """PARK's remedy: SGD for a tenth of the steps, then SAM as before."""
    until = round(WARM_UP * point.family.horizon)
    plan: Plan = lambda step: sgd(point.setting) if step < until else point.setting  # noqa: E731
    return continuations(point, plan, saddle_exit(point.model))


def follow(point: Point, prescription: Prescription, measured: Measurements) -> dict[str, Any] | None:
    """H steps as prescribed, with the escape that was predicted beside what was seen; None: nothing is prescribed."""
    plan = prescribed(prescription, point.setting)
    if plan is None:
        return None
    watch = _exit(point, measured, plan(0))
    return {
        "first": {"rho": plan(0).rho, "momentum": plan(0).momentum, "batch_size": plan(0).batch_size, "lr": plan(0).lr},
        "predicted": prescription.escape_steps if watch is not None else None,
        "runs": continuations(
            point, plan, watch if prescription.escape_steps is not None else saddle_exit(point.model)
        ),
    }


def _exit(point: Point, m: Measurements, setting: Setting) -> Callable[[Tensor], bool] | None:
    """Whether |(x − top)·q| has passed G/|lam|, where the prediction's escape ends; q is found here by Lanczos."""
    if not m.bottom_directions:
        return None
    lam, q = steepest_direction(point)
    if lam >= 0:
        return None
    trainer = point.trainer(0)
    start = trainer.point().double()
    inputs, targets = point.data.tensors
    gradient = torch.cat([g.reshape(-1) for g in _gradient(trainer.model, point, inputs, targets)]).detach().double()
    offset = float(q @ gradient) / lam
    share = 1 / setting.batch_size - 1 / len(inputs) if setting.batch_size else 0.0
    scale = math.sqrt(float(gradient @ gradient) + max((m.noise_trace.value or 0.0) * share, 0.0))
    return lambda x: abs(float((x.double() - start) @ q) + offset) >= scale / abs(lam)


def steepest_direction(point: Point) -> tuple[float, Tensor]:
    """(lambda_min, its eigenvector in float64) over all data, by Lanczos with full reorthogonalisation."""
    model = point.trainer(0).model
    model.eval()
    parameters = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        gradient = _gradient(model, point, *point.data.tensors, graph=True)
    flat = torch.cat([g.reshape(-1) for g in gradient])

    def product(v: Tensor) -> Tensor:
        found = torch.autograd.grad(flat @ v.to(flat.dtype), parameters, retain_graph=True)
        return torch.cat([f.reshape(-1) for f in found]).double()

    start = torch.randn(len(flat), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = [start / start.norm()]
    rows: list[Tensor] = []
    for _ in range(min(LANCZOS_STEPS, len(flat))):
        image = product(basis[-1])
        stack = torch.stack(basis)
        rows.append(image)
        for _ in range(2):  # twice is enough
            image = image - stack.T @ (stack @ image)
        length = float(image.norm())
        if length < 1e-6 or len(rows) == len(flat):  # nothing new within rounding
            break
        basis.append(image / length)
    stack = torch.stack(basis[: len(rows)])
    small = stack @ torch.stack(rows).T
    values, vectors = torch.linalg.eigh((small + small.T) / 2)
    return float(values[0]), torch.nn.functional.normalize(stack.T @ vectors[:, 0], dim=0)


def _gradient(
    model: nn.Module, point: Point, inputs: Tensor, targets: Tensor, *, graph: bool = False
) -> tuple[Tensor, ...]:
    loss = point.family.criterion(model(inputs), targets)
    return torch.autograd.grad(loss, list(model.parameters()), create_graph=graph)


def rescued(runs: list[dict[str, Any]], truth: dict[str, Any]) -> bool | None:
    """Whether at least half of what SGD takes off in the same steps came off, and 10 % of the remaining loss.

    An exact saddle is rescued where most of the runs leave it.
    """
    if not runs:
        return None
    if "left" in truth:
        return statistics.fmean(run["escape"] is not None for run in runs) > ENOUGH
    (share, _), (plain, _) = gain(runs, truth["loss"]), gain(truth["sgd"], truth["loss"])
    return share >= MOVES and share >= ENOUGH * plain
