"""The emitted settings read back with the stock parsers, and the printed code trains as the schedule says."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tomllib
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from samdiag.advice import prescribe
from samdiag.encoding import jsonable
from samdiag.errors import UsageError
from samdiag.measure.ascent import rule_of
from samdiag.measure.dynamics import Update, Walk
from samdiag.measure.opening import opened
from samdiag.measure.settings import MeasureSettings
from samdiag.remedies import Phase, Schedule
from samdiag.reports import recipes, training_code
from samdiag.types import VERDICTS_BY_HARM, Diagnosis, Measurements, Problem, Setting, Trust

from ..advice.situations import World, captured_world, said
from ..verdicts.samples import bouncing, est, hallucinated, measurements, minimum, reachable, saddle
from .samples import diagnosis, failed, hostile, unbounded

STEPS = 12
READ: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
}


def diagnosed(m: Measurements, verdict: str, **changes: Any) -> Diagnosis:
    findings = said(verdict)
    return dataclasses.replace(
        diagnosis(verdict),
        measurements=m,
        findings=findings,
        prescription=prescribe(m, findings),
        settings={},
        **changes,
    )


def noisy() -> World:
    return World(lam=np.array([-1.0, 1.0]), noise=np.full(2, 32.0), rho=0.5, lr=0.05, momentum=0.5, batch=6400)


def kinds() -> dict[str, Diagnosis]:
    """A diagnosis for every kind of schedule that the advice makes."""
    slowed = World(lam=np.array([-1.0, 1.0]), noise=np.full(2, 32.0), rho=0.16, lr=0.05, momentum=0.0, batch=1024)
    micro = dataclasses.replace(slowed.measured(), micro_batch=1024, ascent_batch=1024, batch_size=2048)
    return {
        "rho-warm-up": diagnosed(captured_world(np.random.default_rng(0)).measured(), "saddle-attraction"),
        "sgd-then-sam": diagnosed(across(), "saddle-attraction"),
        "rho-decay": diagnosed(bouncing(), "bounce"),
        "lower-lr": diagnosed(saddle(est(0.5), top=est(400.0), lr=0.1, momentum=0.5), "unstable"),
        "constant": diagnosed(slowed.measured(), "saddle-slowdown"),
        "micro-batch": diagnosed(micro, "saddle-slowdown"),
    }


def across() -> Measurements:
    """Nearly no gradient along the negative direction: plain steps go first."""
    m = saddle(est(-0.5))
    return dataclasses.replace(m, bottom_directions=(dataclasses.replace(m.bottom_directions[0], offset=1e-6),))


KINDS = kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_the_examples_are_what_they_are_called(kind: str) -> None:
    prescription = KINDS[kind].prescription
    assert prescription is not None
    assert prescription.schedule is not None
    assert prescription.schedule.kind == kind


class TestFile:
    @pytest.mark.parametrize("suffix", READ)
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_format_reads_back_as_the_same(self, kind: str, suffix: str) -> None:
        assert READ[suffix](recipes.render(KINDS[kind], suffix)) == recipes.recipe(KINDS[kind])

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_training_script_can_follow_the_phases_alone(self, kind: str) -> None:
        """Phases are complete, follow each other without a gap, and have the schedule's numbers exactly."""
        found, one = recipes.recipe(KINDS[kind]), KINDS[kind]
        assert one.prescription is not None
        assert one.measurements is not None
        schedule = one.prescription.schedule
        assert schedule is not None
        assert found["action"] == "change"
        assert found["schedule"]["kind"] == kind
        first = 0
        for row, phase in zip(found["schedule"]["phases"], schedule.phases, strict=True):
            assert row["first_step"] == first
            assert row.get("steps") == phase.steps
            assert (row["rho"], row["rho_end"]) == (phase.rho, phase.rho_at((phase.steps or 1) - 1))
            assert row["lr"] == (phase.lr or one.measurements.lr)
            assert row["momentum"] == (one.measurements.momentum if phase.momentum is None else phase.momentum)
            assert row.get("batch_size") == (phase.batch_size or one.measurements.batch_size)
            first += phase.steps or 0
        assert found["change"]["rho"]["from"] == one.measurements.rho
        assert found["change"]["rho"].get("to") == one.prescription.rho.recommended
        assert found["checkpoint"]["fingerprint"] == "sha256:9f2c1e07b3a455d0"
        assert found["schedule"]["risk"]

    def test_nothing_to_change_says_so(self) -> None:
        one = diagnosed(minimum(), "minimum")
        found = recipes.recipe(one)
        assert found["action"] == "nothing"
        assert "schedule" not in found
        assert training_code.render(one) == ""

    def test_no_recommendation_says_what_is_missing(self) -> None:
        one = diagnosed(measurements(lr=None, lookahead_loss=None), "undecided")
        found = recipes.recipe(one)
        assert found["action"] == "no recommendation"
        assert any("--lr" in what for what in found["missing"])
        assert training_code.render(one) == ""

    @pytest.mark.parametrize("suffix", READ)
    @pytest.mark.parametrize("one", [hostile(), unbounded(), failed(), diagnosed(hallucinated(), "hallucinated-point")])
    def test_whatever_is_in_a_diagnosis_reads_back(self, one: Diagnosis, suffix: str) -> None:
        text = recipes.render(one, suffix)
        assert READ[suffix](text) == recipes.recipe(one)
        assert not set(text) & set("\x1b\x07\r\x9b\u202e\u2028\udcff")
        assert recipes.is_recipe(text, suffix)

    @pytest.mark.parametrize("suffix", READ)
    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", "a = 1", "a: 1", "\x00", "{" * 500, "format: other", "- 1\n 2: {"]
    )
    def test_another_file_is_none_of_ours(self, text: str, suffix: str) -> None:
        assert not recipes.is_recipe(text, suffix)

    def test_an_unknown_suffix_lists_the_known(self) -> None:
        with pytest.raises(UsageError, match=r"\.toml, \.json, \.yaml, \.yml"):
            recipes.render(KINDS["constant"], ".ini")


# ---------------------------------------------------------------- the printed code


class SAM(torch.optim.Optimizer):
    """SAM as Foret et al., algorithm 1, with the interface of the davda54 implementation."""

    def __init__(self, params: Any, base_optimizer: Any, rho: float, adaptive: bool = False, **kwargs: Any) -> None:
        super().__init__(params, {"rho": rho, "adaptive": adaptive, **kwargs})
        self.base = base_optimizer(self.param_groups, **kwargs)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        group = self.param_groups[0]
        params = [p for p in group["params"] if p.grad is not None]
        scaled = [(p.abs() if group["adaptive"] else 1.0) * p.grad for p in params]
        norm = torch.sqrt(sum((s * s).sum() for s in scaled))
        for p in params:
            self.state[p]["kept"] = p.clone()
            p.add_((p**2 if group["adaptive"] else 1.0) * p.grad * group["rho"] / (norm + 1e-12))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        for p in self.param_groups[0]["params"]:
            p.copy_(self.state[p]["kept"])
        self.base.step()
        if zero_grad:
            self.zero_grad()


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 2, (12,), generator=generator)


def short(one: Diagnosis) -> Diagnosis:
    """The same with phases of at most 5 steps, so that STEPS of them pass through every phase; full batch."""
    assert one.prescription is not None
    assert one.measurements is not None
    schedule = one.prescription.schedule
    assert schedule is not None
    phases = tuple(
        dataclasses.replace(
            phase,
            steps=min(phase.steps, 5) if phase.steps else None,
            batch_size=None,
            micro_batch=5 if phase.micro_batch else None,
        )
        for phase in schedule.phases
    )
    return with_phases(one, phases, batch_size=None, micro_batch=None)


def with_phases(one: Diagnosis, phases: tuple[Phase, ...], **changes: Any) -> Diagnosis:
    assert one.prescription is not None
    assert one.measurements is not None
    schedule = Schedule(kind="constant", phases=phases, effect="e", risk="r", source="s")
    return dataclasses.replace(
        one,
        prescription=dataclasses.replace(one.prescription, schedule=schedule),
        measurements=dataclasses.replace(one.measurements, **changes),
    )


def trained(one: Diagnosis, part: str, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The weights after STEPS of the printed code, whole batches; the part's name as in `training_code`."""
    fake = types.ModuleType("sam")
    fake.SAM = SAM  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sam", fake)
    model = network()
    space: dict[str, Any] = {"model": model, "loss_fn": F.cross_entropy, "batches": [samples()] * STEPS, "lr": 0.05}
    sections = training_code.render(one).split("\n# --- ")
    (code,) = [s.partition(" ---\n")[2] for s in sections[1:] if s.startswith(f"{part} ---")]
    exec(compile(sections[0] + "\n" + code, part, "exec"), space)
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def expected(one: Diagnosis) -> torch.Tensor:
    """The weights after STEPS of samdiag's own update under the schedule's phases."""
    m, p = one.measurements, one.prescription
    assert m is not None
    assert p is not None
    assert p.schedule is not None
    problem = Problem(model=network(), loss=lambda model, b: F.cross_entropy(model(b[0]), b[1]), batches=[samples()])
    alpha = one.settings["sam.alpha"].value if "sam.alpha" in one.settings else 0.4
    settings = MeasureSettings(
        rho=m.rho,
        variant=m.variant,
        lr=m.lr or 0.05,
        momentum=m.momentum,
        weight_decay=m.weight_decay,
        nesterov=m.nesterov,
        dampening=m.dampening,
        alpha=alpha,
    )
    with opened(problem, settings) as found:
        start = torch.nn.utils.parameters_to_vector(network().parameters()).detach()
        walk = Walk(found.objective, start, seed=0)
        update = Update.configured(settings, rule_of(settings, found.objective), None)
        for step in range(STEPS):
            walk.step(update.scheduled(p.schedule.phases, step))
        return walk.point


PARTS = (training_code.DAVDA54, training_code.PYTORCH_OPTIMIZER, training_code.PLAIN)


def same(one: Diagnosis, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asserts that the part trains as the schedule says; pytorch_optimizer takes the norm in float32."""
    tolerance = 1e-5 if part == training_code.PYTORCH_OPTIMIZER else 1e-9
    found, wanted = trained(one, part, monkeypatch), expected(one)
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance / 100)


def needs(part: str) -> None:
    if part == training_code.PYTORCH_OPTIMIZER:
        pytest.importorskip("pytorch_optimizer")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "micro-batch"])
def test_the_printed_code_trains_as_the_schedule_says(kind: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(part)
    one = short(KINDS[kind])
    same(one, part, monkeypatch)


@pytest.mark.parametrize("part", PARTS)
def test_a_different_schedule_trains_differently(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the comparison above would not see if the code ignored the phases."""
    needs(part)
    decay = short(KINDS["rho-decay"])
    other = with_phases(decay, (Phase(steps=None, rho=0.1),))
    assert (trained(decay, part, monkeypatch) - expected(other)).abs().max() > 1e-6


def test_micro_batches_run_in_the_plain_loop_and_the_packages_say_that_they_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = short(KINDS["micro-batch"])
    same(one, training_code.PLAIN, monkeypatch)
    codes = training_code.parts(one)
    for part in PARTS[:2]:
        assert "no micro-batches" in codes[part]
        assert "SAM(" not in codes[part]


OPTIONS = [
    {"weight_decay": 0.1},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.9, "dampening": 0.5},
    {"lr": None},
]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_optimizers_own_options_are_in_the_code(
    options: dict[str, Any], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(part)
    phases = (Phase(steps=4, rho=0.2, rho_end=0.05), Phase(steps=None, rho=0.05))
    one = with_phases(KINDS["rho-decay"], phases, **options)
    same(one, part, monkeypatch)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("variant", ["usam", "asam", "asam-samsung", "gsam"])
def test_every_variant_trains_or_says_that_the_package_has_none(
    variant: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(part)
    phases = (Phase(steps=3, rho=0.0), Phase(steps=4, rho=0.2, rho_end=0.05), Phase(steps=None, rho=0.05))
    one = with_phases(KINDS["rho-decay"], phases, variant=variant)
    one = dataclasses.replace(one, settings={"sam.alpha": Setting(value=0.3, source="s", trust=Trust.CLI)})
    if part != training_code.PLAIN and variant != "asam":
        assert f"no {variant}" in training_code.parts(one)[part]
        return
    same(one, part, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_rho_at_every_step_is_that_of_the_phases(kind: str) -> None:
    one = KINDS[kind]
    assert one.prescription is not None
    assert one.prescription.schedule is not None
    space: dict[str, Any] = {}
    exec(training_code.shared(one), space)
    step = 0
    for phase in one.prescription.schedule.phases:
        for k in range(min(phase.steps or 50, 400)):
            assert space["settings_at"](step + k)[0] == phase.rho_at(k)
        step += phase.steps or 0


def test_rho_stays_where_it_ended_when_no_phase_is_open_ended() -> None:
    one = with_phases(KINDS["rho-decay"], (Phase(steps=4, rho=0.2, rho_end=0.05),))
    space: dict[str, Any] = {}
    exec(training_code.shared(one), space)
    assert space["settings_at"](50)[0] == pytest.approx(0.05)


def test_the_sizes_of_the_batches_are_said() -> None:
    assert "batches of (inputs, targets): 6400 samples." in training_code.shared(
        diagnosed(noisy().measured(), "bounce")
    )
    phases = (Phase(steps=30, rho=0.0, batch_size=40), Phase(steps=None, rho=0.1))
    said_of = training_code.shared(with_phases(KINDS["lower-lr"], phases))
    assert "40 samples for 30 steps, then all samples at once" in said_of


def test_hostile_text_reaches_no_line_of_code() -> None:
    """What a checkpoint can name (verdict aside, its path and reasons) is not part of the code at all."""
    dirty = dataclasses.replace(
        KINDS["rho-decay"], verdict="x\nimport os", checkpoint=hostile("a\nimport os\x1b").checkpoint
    )
    assert "\nimport os" not in training_code.render(dirty)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(reachable(), st.sampled_from(VERDICTS_BY_HARM))
def test_whatever_is_measured_can_be_emitted(m: Measurements, verdict: str) -> None:
    """Infinite, missing and tiny numbers included: the file reads back, and the code is Python."""
    one = diagnosed(m, verdict)
    for suffix in (".toml", ".json", ".yaml"):
        assert READ[suffix](recipes.render(one, suffix)) == recipes.recipe(one)
    compile(training_code.render(one), "code", "exec")


def test_the_recipe_is_plain_data() -> None:
    found = recipes.recipe(KINDS["rho-warm-up"])
    assert jsonable(found) == found
    assert all(not (isinstance(v, float) and math.isnan(v)) for v in found["current"].values())
