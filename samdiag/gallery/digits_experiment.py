"""A healthy and a stuck network on 8×8 digits, and what frees the stuck one; see samdiag/gallery/digits_runs.py."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from samdiag.gallery.comparing import compared
from samdiag.gallery.digits import NUM_CLASSES, dataset
from samdiag.gallery.digits_runs import LR, MODEL_ARGS, RUNS, fresh_model
from samdiag.gallery.endpoints import inspected, save_weights, verdict_row
from samdiag.gallery.experiment import Experiment, Outcome, Row, Tell
from samdiag.gallery.training import Recipe, Record, evaluate, one_thread, train
from samdiag.pictures import FAINT, GD, SAM, THEORY, THIRD, Sheet, sheet
from samdiag.reports.numbers import number
from samdiag.types import Diagnosis

LINE_EVERY = 100  # steps between lines of progress
CHANCE = math.log(NUM_CLASSES)  # the loss of a network that cannot tell ten classes apart
NEAR_CHANCE = 0.02  # a stuck run bounces about the saddle
LEARNT = 0.2  # a loss at which 95 % of the digits are right
FREED = 0.6  # a quarter of chance: 80 % of the digits are right


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A network after its training, and what was seen on the way."""

    model: nn.Sequential
    recipe: Recipe
    records: tuple[Record, ...]

    @property
    def loss(self) -> float:
        """Over all of the digits, at the end."""
        return evaluate(self.model, dataset())[0]

    @property
    def accuracy(self) -> float:
        """Share of right digits at the end."""
        return evaluate(self.model, dataset())[1]


def trained(name: str, model: nn.Sequential, recipe: Recipe, tell: Tell) -> Run:
    """A copy of `model` after `recipe`; progress in a line every hundred steps."""
    model = copy.deepcopy(model)
    records = []
    with one_thread():
        for record in train(model, dataset(), recipe):
            records.append(record)
            if record.step % LINE_EVERY == 0:
                tell(f"{name}: step {record.step} of {recipe.steps}, loss {record.loss:.4f}")
    return Run(model=model, recipe=recipe, records=tuple(records))


def save_run(run: Run, path: Path) -> Path:
    """The stamped checkpoint of a run."""
    return save_weights(
        path,
        run.model.state_dict(),
        model={"gallery": "digits-mlp", "args": dict(MODEL_ARGS)},
        data={"gallery": "digits"},
        loss="cross_entropy",
        rho=run.recipe.rho,
        variant=run.recipe.variant,
        lr=run.recipe.lr,
        momentum=run.recipe.momentum,
        batch_size=run.recipe.batch_size or len(dataset()),  # full batch
    )


def perform(folder: Path, seed: int, tell: Tell) -> Outcome:
    """Both runs, their checkpoints and verdicts, and two ways out of the saddle."""
    runs, paths = {}, []
    for name, recipe in RUNS.items():
        run = runs[name] = trained(name, fresh_model(seed), recipe, tell)
        paths.append(save_run(run, folder / f"{name}.safetensors"))
        tell(
            f"{name}: rho {recipe.rho:g}, {recipe.steps} steps → loss {run.loss:.4f}, "
            f"accuracy {run.accuracy:.1%}, saved to {paths[-1]}"
        )
    tell("inspecting both")
    diagnoses = {name: inspected(path) for name, path in zip(runs, paths, strict=True)}
    stuck = runs["stuck"]
    runs["gd"] = trained("stuck, then GD", stuck.model, replace(stuck.recipe, rho=0.0), tell)
    advised = recommended_rho(diagnoses["stuck"])
    if advised is not None:
        recipe = replace(stuck.recipe, rho=advised)
        runs["advised"] = trained(f"stuck, then SAM at rho {advised:.2g}", stuck.model, recipe, tell)
    rows = [*_loss_rows(runs), *_saddle_rows(diagnoses["stuck"])]
    expected = {"healthy": ("descending",), "stuck": ("saddle-attraction",)}
    for path, (name, verdicts) in zip(paths, expected.items(), strict=True):
        rows.append(verdict_row(path, *verdicts, diagnosis=diagnoses[name]))
    picture = folder / "digits.png"
    with sheet(picture, title="8×8 digits: the same network and seed, another ρ") as drawn:
        _draw(drawn, runs)
    return Outcome(
        rows=tuple(rows),
        pictures=(picture,),
        checkpoints=tuple(paths),
        remarks=REMARKS,
        diagnoses=tuple(diagnoses.values()),
    )


REMARKS = ("The stuck run takes over the usual ρ of adaptive SAM, about forty times that of SAM, without the switch.",)


def recommended_rho(diagnosis: Diagnosis) -> float | None:
    """What the prescription says; None where it says nothing."""
    prescription = diagnosis.prescription
    return prescription.rho.recommended if prescription is not None else None


def _loss_rows(runs: Mapping[str, Run]) -> list[Row]:
    rows = [
        _below("healthy: loss", runs["healthy"].loss, LEARNT),
        compared("stuck: loss (chance is ln 10)", runs["stuck"].loss, CHANCE, absolute=NEAR_CHANCE),
        _below("GD from the stuck weights: loss", runs["gd"].loss, FREED),
    ]
    if "advised" in runs:
        quantity = f"SAM at the recommended ρ {number(runs['advised'].recipe.rho, digits=2)}: loss"
        return [*rows, _below(quantity, runs["advised"].loss, FREED)]
    return [*rows, Row(quantity="recommended ρ", expected="a number", measured="none", agrees=False)]


def _saddle_rows(diagnosis: Diagnosis) -> list[Row]:
    """The test of docs/theory.md A5 at the stuck weights, from the diagnosis."""
    m = diagnosis.measurements
    if m is None or m.lambda_min.value is None or m.grad_norm.value is None:
        return [Row(quantity="stuck: ρ|λ_min|/|g|", expected="above 1", measured="not measured", agrees=False)]
    share = m.rho * abs(m.lambda_min.value) / m.grad_norm.value
    agrees = m.lambda_min.high < 0 and share > 1
    return [Row(quantity="stuck: ρ|λ_min|/|g|", expected="above 1", measured=number(share, digits=3), agrees=agrees)]


def _below(quantity: str, measured: float, limit: float) -> Row:
    return Row(
        quantity=quantity, expected=f"below {limit:g}", measured=number(measured, digits=3), agrees=measured < limit
    )


def _draw(drawn: Sheet, runs: Mapping[str, Run]) -> None:
    left, right = drawn.panels
    shown = [("healthy", GD, "-"), ("stuck", SAM, "-"), ("gd", THIRD, "-"), ("advised", THEORY, ":")]
    names = {"healthy": "SAM, ρ = {:g}", "stuck": "SAM, ρ = {:g}", "gd": "then GD", "advised": "then SAM, ρ = {:.2g}"}
    for name, color, style in shown:
        if name not in runs:
            continue
        run = runs[name]
        first = 0 if name in RUNS else len(runs["stuck"].records)
        step = np.array([record.step for record in run.records]) + first
        label = names[name].format(run.recipe.rho)
        for axes, values in ((left, [r.loss for r in run.records]), (right, [r.grad_norm for r in run.records])):
            axes.plot(step, values, style, color=color, label=label)
    left.axhline(CHANCE, color=FAINT, linewidth=1, linestyle=":")
    left.annotate("chance, ln 10", (0, CHANCE), (4, 4), textcoords="offset points", color="0.4")
    samples = f"n = {len(dataset())} digits"
    left.set(xlabel="step", ylabel=f"mean cross-entropy ({samples})", ylim=(0, 2.7))
    left.set_title(f"Loss, full batch, η = {LR:g}")
    right.set(xlabel="step", ylabel="gradient norm |g|", yscale="log")
    right.set_title("Gradient norm")
    right.legend(loc="lower right")
    for axes in drawn.panels:
        axes.axvline(len(runs["stuck"].records), color=FAINT, linewidth=1, linestyle=":")


EXPERIMENT = Experiment(
    name="digits",
    title="8×8 digits: a healthy and a stuck network, and what frees the stuck one",
    source="docs/theory.md A5, D1, G3",
    run=perform,
)
