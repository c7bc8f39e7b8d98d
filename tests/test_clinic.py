"""The clinic's own arithmetic: its trainer, its labels, its plans, its store, and what it counts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from benchmarks.clinic import cases, families, figures, models, report
from benchmarks.clinic.judging import CALLS_STUCK, RIGHT, is_right, problem_of
from benchmarks.clinic.rescue import prescribed, rescued, scheduled, steepest_direction
from benchmarks.clinic.store import Store, decode, encode
from benchmarks.clinic.training import Setting, Trainer
from benchmarks.clinic.truth import Point, continuation, gain, label, saddle_exit, sgd, steadily
from samdiag.gallery.digits import dataset, mlp
from samdiag.gallery.training import Recipe, train
from samdiag.remedies import Advice, Phase, Prescription, Schedule
from samdiag.types import VERDICTS_BY_HARM, Direction, Estimate

from .verdicts.samples import measurements

ROOT = Path(__file__).resolve().parents[1]
SAM = Setting(lr=0.1, rho=0.5, momentum=0.9, batch_size=256)


def run_of(*losses: float, escape: int | None = None) -> dict[str, Any]:
    """A continuation that stays at its last loss for its late steps."""
    values = [*losses, *[losses[-1]] * 4]
    return {"steps": list(range(len(values))), "losses": values, "grads": [1.0] * len(values), "escape": escape}


def truth(sam: float, plain: float, loss: float = 2.0) -> dict[str, Any]:
    """SAM and SGD take off these shares of the loss."""
    return {
        "loss": loss,
        "grad": 1.0,
        "sam": [run_of(loss, loss * (1 - sam))],
        "sgd": [run_of(loss, loss * (1 - plain))],
    }


def case(happened: dict[str, Any], verdict: str, **rescue: Any) -> dict[str, Any]:
    made = {"commit": "c", "seconds": 1.0}
    return {
        "case": {"name": f"f/{verdict}", "family": "f", "setting": {}, "seed": 1, "half": "second"},
        "truth": {"horizon": 100, **made, **happened},
        "judged": {"verdict": verdict, "findings": [], "verified": {"verdict": verdict}, **made},
        "rescue": {**made, **rescue},
    }


# ---------------------------------------------------------------- the trainer


@pytest.mark.parametrize("setting", [SAM, Setting(lr=0.2, rho=2.0), sgd(SAM)])
def test_the_trainer_makes_the_gallerys_steps(setting: Setting) -> None:
    data = dataset()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs, ours = mlp(), mlp()
    ours.load_state_dict(theirs.state_dict())
    recipe = Recipe(
        steps=12, lr=setting.lr, rho=setting.rho, momentum=setting.momentum, batch_size=setting.batch_size, seed=3
    )
    seen = [record.loss for record in train(theirs, data, recipe)]
    trainer = Trainer(ours, data, functional.cross_entropy, seed=3)
    assert [trainer.step(setting) for _ in range(12)] == pytest.approx(seen, rel=1e-6)
    for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def test_a_run_goes_on_from_its_momentum_buffer_as_if_it_had_not_stopped() -> None:
    data, setting = dataset(), Setting(lr=0.1, rho=0.5, momentum=0.9)
    straight = Trainer(mlp(), data, functional.cross_entropy)
    first = Trainer(mlp(), data, functional.cross_entropy)
    first.model.load_state_dict(straight.model.state_dict())
    for _ in range(6):
        straight.step(setting)
    for _ in range(3):
        first.step(setting)
    second = Trainer(first.model, data, functional.cross_entropy, velocity=first.velocity)
    for _ in range(3):
        second.step(setting)
    assert torch.equal(second.point(), straight.point())


def test_momentum_that_is_switched_on_starts_from_nothing_as_in_torch() -> None:
    data, model = dataset(), mlp()
    theirs = mlp()
    theirs.load_state_dict(model.state_dict())
    trainer, optimizer = Trainer(model, data, functional.cross_entropy), torch.optim.SGD(theirs.parameters(), lr=0.1)
    inputs, targets = data.tensors
    for momentum in (0.0, 0.9, 0.9):
        trainer.step(Setting(lr=0.1, rho=0.0, momentum=momentum))
        optimizer.param_groups[0]["momentum"] = momentum
        optimizer.zero_grad()
        functional.cross_entropy(theirs(inputs), targets).backward()
        optimizer.step()
    for one, other in zip(theirs.parameters(), model.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def test_looking_changes_nothing() -> None:
    family = families.FAMILIES["conv-bn"]
    trainer = Trainer(families.fresh(family, 0), images(), family.criterion)
    trainer.step(Setting(lr=0.1, rho=0.5, batch_size=16))
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    loss, norm = trainer.look()
    assert loss > 0
    assert norm > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())


def images() -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return torch.utils.data.TensorDataset(
        torch.rand(32, 1, 28, 28, generator=generator), torch.randint(10, (32,), generator=generator)
    )


# ---------------------------------------------------------------- labels and claims


@pytest.mark.parametrize(
    ("sam", "plain", "expected"),
    [
        (0.0, 0.9, "stuck"),
        (-0.05, 0.9, "stuck"),
        (-0.5, 0.9, "diverging"),
        (math.nan, 0.9, "diverging"),
        (0.0, 0.05, "resting"),
        (0.0, 0.15, "borderline"),  # neither at rest nor clearly SAM's fault
        (0.09, 0.9, "borderline"),
        (0.11, 0.9, "borderline"),
        (0.11, 0.11, "healthy"),  # as much as SGD
        (0.3, 0.9, "slowed"),
        (0.45, 0.9, "borderline"),
        (0.6, 0.9, "healthy"),
        (0.9, 0.9, "healthy"),
    ],
)
def test_labels(sam: float, plain: float, expected: str) -> None:
    assert label(truth(sam, plain)) == expected


@pytest.mark.parametrize(
    ("sam", "plain", "expected"),
    [
        ((None, None), (30, 31), "stuck"),
        ((40, 45), (30, 31), "healthy"),
        ((90, 95), (30, 31), "slowed"),
        ((90, None), (30, 31), "borderline"),
        ((None, None), (None, None), "resting"),
    ],
)
def test_labels_of_exact_saddles(sam: tuple[Any, ...], plain: tuple[Any, ...], expected: str) -> None:
    happened = {"loss": 0.0, "left": False}
    happened |= {"sam": [run_of(0.0, escape=e) for e in sam], "sgd": [run_of(0.0, escape=e) for e in plain]}
    assert label(happened) == expected


def test_what_the_data_orders_disagree_about_is_on_the_border() -> None:
    happened = truth(0.0, 0.9)
    happened["sam"] = [run_of(2.0, 1.6), run_of(2.0, 2.2)]  # 5 % ± 15 %
    assert label(happened) == "borderline"
    happened["sam"] = [run_of(2.0, 1.99), run_of(2.0, 2.01)]
    assert label(happened) == "stuck"


def test_the_gain_is_of_the_late_mean_over_the_orders() -> None:
    share, error = gain([run_of(2.0, 1.0), run_of(2.0, 1.2)], 2.0)
    assert share == pytest.approx(0.45)
    assert error == pytest.approx(0.05)  # half of the two shares' difference
    assert gain([run_of(2.0, math.nan)], 2.0)[0] == -math.inf


def test_every_verdict_that_claims_something_has_its_line() -> None:
    assert set(RIGHT) == set(VERDICTS_BY_HARM) - {"undecided"}
    assert all(RIGHT[verdict][0] == {"stuck"} for verdict in CALLS_STUCK)


def test_claims_are_held_to_what_happened() -> None:
    stuck, healthy = truth(0.0, 0.9), truth(0.9, 0.9)
    assert is_right("saddle-attraction", case(stuck, "saddle-attraction")) is True
    assert is_right("saddle-attraction", case(healthy, "saddle-attraction")) is False
    assert is_right("descending", case(stuck, "descending")) is False
    assert is_right("undecided", case(stuck, "undecided")) is None
    assert is_right("descending", case(truth(0.09, 0.9), "descending")) is None  # on a border line


def test_a_bounce_is_right_where_half_of_rho_gets_lower() -> None:
    happened = truth(0.3, 0.9)
    for run in happened["sam"]:
        run["grads"] = [1.0, 0.5, 0.5, 0.5, 0.5, 0.5]  # it falls while rho stays
    lower, same = [run_of(2.0, 0.6)], [run_of(2.0, 1.4)]
    assert is_right("bounce", case(happened, "bounce", **{"half rho": lower})) is True
    assert is_right("bounce", case(happened, "bounce", **{"half rho": same})) is False
    assert is_right("bounce", case(happened, "bounce")) is None


def test_unstable_is_right_where_the_loss_swings_and_does_not_fall() -> None:
    happened = truth(0.0, 0.9)
    assert is_right("unstable", case(happened, "unstable")) is False
    happened["sam"][0]["losses"][-4:] = [1.8, 2.2, 1.8, 2.2]
    assert is_right("unstable", case(happened, "unstable")) is True


# ---------------------------------------------------------------- remedies


def advice(current: float | None, recommended: float | None) -> Advice:
    return Advice(current=current, recommended=recommended, interval=None, binding=None, reason="r", source="s")


def test_advice_becomes_a_plan() -> None:
    found = Prescription(rho=advice(0.5, 0.1), momentum=advice(0.9, None), batch_size=advice(256.0, 31.6))
    plan = prescribed(found, SAM)
    assert plan is not None
    assert plan(0) == plan(99) == Setting(lr=0.1, rho=0.1, momentum=0.9, batch_size=31)
    same = Prescription(rho=advice(0.5, None), momentum=advice(0.9, None), batch_size=advice(256.0, None))
    assert prescribed(same, SAM) is None


def test_a_schedule_is_run_phase_by_phase() -> None:
    phases = (Phase(steps=3, rho=0.0), Phase(steps=4, rho=0.8, rho_end=0.1, momentum=0.5), Phase(steps=None, rho=0.2))
    plan = scheduled(phases, SAM)
    assert [plan(step).rho for step in (0, 2, 3, 6, 7, 50)] == pytest.approx([0, 0, 0.8, 0.1, 0.2, 0.2])
    assert [plan(step).momentum for step in (2, 3, 7)] == [0.9, 0.5, 0.9]
    kept = advice(None, None)
    schedule = Schedule(kind="sgd-then-sam", phases=phases, effect="e", risk="r", source="s")
    found = prescribed(Prescription(rho=kept, momentum=kept, batch_size=kept, schedule=schedule), SAM)
    assert found is not None
    assert found(3).rho == 0.8


def test_rescued_is_half_of_what_sgd_takes_off_and_a_tenth() -> None:
    happened = truth(0.0, 0.9)
    assert rescued([run_of(2.0, 1.0)], happened) is True
    assert rescued([run_of(2.0, 1.2)], happened) is False
    assert rescued([run_of(2.0, 1.85)], truth(0.0, 0.12)) is False
    assert rescued([], happened) is None


def test_the_steepest_direction_is_the_dense_hessians() -> None:
    family = replace(families.FAMILIES["digits-mlp"], model=lambda _seed: mlp(hidden=2), data=lambda _seed: dataset())
    model, data = families.fresh(family, 0).double(), dataset()
    inputs, targets = data.tensors
    data = torch.utils.data.TensorDataset(inputs.double(), targets)
    point = Point(
        family=family, setting=SAM, model=model, velocity=[torch.zeros_like(p) for p in model.parameters()], data=data
    )
    lam, q = steepest_direction(point)
    names = [name for name, _ in model.named_parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def loss(x: torch.Tensor) -> torch.Tensor:
        parts = x.split([p.numel() for p in model.parameters()])
        weights = {n: part.view_as(p) for n, part, p in zip(names, parts, model.parameters(), strict=True)}
        return functional.cross_entropy(torch.func.functional_call(model, weights, (data.tensors[0],)), targets)

    hessian = torch.autograd.functional.hessian(loss, flat)
    values, vectors = torch.linalg.eigh(hessian)
    assert lam == pytest.approx(float(values[0]), rel=1e-4)
    assert abs(float(q @ vectors[:, 0])) == pytest.approx(1.0, abs=1e-3)


# ---------------------------------------------------------------- families


def test_the_halves_share_no_seed_and_every_family_has_both() -> None:
    for family in families.FAMILIES.values():
        for quick in (False, True):
            first, second = (list(families.runs_of(family, half=half, quick=quick)) for half in ("first", "second"))
            assert first
            assert second
            assert {run.seed % 2 for run in first} == {0}
            assert {run.seed % 2 for run in second} == {1}
        names = [run.case(1.0) for run in families.runs_of(family, half="both", quick=False)]
        assert len(set(names)) == len(names)


def test_the_saddle_is_what_its_family_says() -> None:
    saddle, noise = models.saddle(3), models.saddle_data(3).tensors[0]
    lam = saddle.eigenvalues
    assert (float(lam.min()), float(lam[lam < 0].max())) == (-models.STEEPEST, -models.WEAKEST)
    assert float(noise.mean(dim=0).abs().max()) < 1e-12
    assert float(noise.square().sum(dim=1).mean()) == pytest.approx(models.SADDLE_BATCH)
    leaves = saddle_exit(saddle)
    assert leaves is not None
    assert not leaves(torch.zeros(200, dtype=torch.float64))
    assert leaves(0.51 * (lam == lam.min()))  # |lam x| = 1.02
    assert not leaves(100.0 * (lam > 0))


@pytest.mark.parametrize(("rho", "expected"), [(0.2, True), (5.7, False)])
def test_exact_saddles_hold_and_let_go_as_theory_says(rho: float, expected: bool) -> None:
    family = replace(families.FAMILIES["saddle-200"], horizon=150)
    model = models.saddle(1)
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    setting = Setting(lr=0.04, rho=rho, batch_size=64)
    point = Point(family=family, setting=setting, model=model, velocity=velocity, data=models.saddle_data(1))
    seen = continuation(point, steadily(setting), 0, saddle_exit(model))
    assert (seen["escape"] is not None) is expected


def test_mini_batch_problems_say_their_batch_and_full_ones_do_not() -> None:
    family = families.FAMILIES["toy"]
    model = families.fresh(family, 0)
    point = Point(family=family, setting=Setting(lr=0.1, rho=0.1), model=model, velocity=[], data=family.data(0))
    assert not problem_of(point).batch_size_is_training
    cut = problem_of(replace(point, setting=Setting(lr=0.1, rho=0.1, batch_size=2)))
    assert cut.batch_size_is_training
    assert [len(inputs) for inputs, _ in cut.batches] == [2, 2, 2, 2]


# ---------------------------------------------------------------- the store


def test_measurements_come_back_from_json() -> None:
    m = measurements(
        bottom_directions=(Direction(eigenvalue=Estimate(value=-1.0, error=0.1), effective_radius=math.inf),),
        jacobian_eigenvalues=((1.0, 0.0), (2.0, -1.0)),
    )
    assert decode(json.loads(json.dumps(encode(m)))) == m


def test_a_case_is_made_once_and_a_section_again_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(families.FAMILIES["toy"], steps=20, horizon=20, fractions=(0.5, 1.0))
    monkeypatch.setitem(cases.FAMILIES, "toy", small)
    run = families.Run(family="toy", setting=Setting(lr=0.02, rho=0.1), seed=1)
    cases.work(tmp_path, run, skip=("treated",))
    store = Store(tmp_path)
    names = [run.case(fraction) for fraction in small.fractions]
    stored = {name: store.load(name) for name in names}
    assert all(set(found) == {"case", "truth", "judged", "rescue"} for found in stored.values())
    assert [len(found["truth"]["sam"]) for found in stored.values()] == [1, 1]
    with monkeypatch.context() as patch:
        patch.setattr(cases, "checkpoints", None)  # whoever trains again now, fails
        patch.setattr(cases, "truth_of", None)
        cases.work(tmp_path, run, skip=("treated",))
        assert {name: store.load(name) for name in names} == stored
        cases.work(tmp_path, run, again=("judged",), skip=("treated",))
    again = store.load(names[0])
    assert again["truth"] == stored[names[0]]["truth"]
    assert again["judged"]["seconds"] != stored[names[0]]["judged"]["seconds"]
    assert not list(tmp_path.rglob(".*"))  # nothing half written is left


def test_rejudging_takes_the_verdicts_of_now_and_drops_a_rescue_that_is_no_longer_prescribed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(families.FAMILIES["toy"], steps=5, horizon=5, fractions=(1.0,))
    monkeypatch.setitem(cases.FAMILIES, "toy", small)
    run = families.Run(family="toy", setting=Setting(lr=0.02, rho=0.1), seed=1)
    cases.work(tmp_path, run, skip=("treated",))
    store, name = Store(tmp_path), run.case(1.0)
    now = store.load(name)
    assert cases.rejudge(tmp_path) == 0
    assert store.load(name)["rescue"] == now["rescue"]
    store.save(name, {**now, "judged": {**now["judged"], "verdict": "minimum"}})  # as an older version had said
    assert cases.rejudge(tmp_path) == 1
    again = store.load(name)
    assert again["judged"]["verdict"] == now["judged"]["verdict"]
    assert again["truth"] == now["truth"]
    assert "rescue" not in again


# ---------------------------------------------------------------- what is counted


def test_wilson_intervals() -> None:
    assert figures.wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert figures.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert figures.wilson(0, 0) == (0.0, 1.0)


def test_what_is_counted_of_the_diagnosis() -> None:
    stuck, healthy, border = truth(0.0, 0.9), truth(0.9, 0.9), truth(0.1, 0.9)
    known = [
        case(stuck, "saddle-attraction"),
        case(stuck, "descending"),
        case(healthy, "descending"),
        case(healthy, "convergence-floor"),
        case(healthy, "undecided"),
        case(border, "descending"),
    ]
    found = figures.diagnosis(known)
    assert (found["right"]["hits"], found["right"]["count"]) == (2, 4)
    assert (found["undecided"]["hits"], found["undecided"]["count"]) == (1, 5)
    assert (found["healthy_called_stuck"]["hits"], found["healthy_called_stuck"]["count"]) == (1, 3)
    assert found["borderline"] == 1
    assert found["confusion"]["healthy"] == {"convergence-floor": 1, "undecided": 1, "descending": 1}
    assert [c["judged"]["verdict"] for c in figures.wrong(known)] == ["descending", "convergence-floor"]


def test_a_remedy_with_nothing_to_offer_rescues_nothing() -> None:
    helped = case(truth(0.0, 0.9), "saddle-attraction", prescribed={"runs": [run_of(2.0, 0.2)], "predicted": 10.0})
    silent = case(truth(0.0, 0.9), "undecided", prescribed=None)
    found = figures.rescue([helped, silent], figures.is_stuck)
    assert (found["prescribed"]["hits"], found["prescribed"]["count"]) == (1, 2)
    assert (found["do nothing"]["hits"], found["do nothing"]["count"]) == (0, 2)
    assert (found["switch to SGD"]["hits"], found["switch to SGD"]["count"]) == (2, 2)
    assert found["half rho"]["count"] == 0


def test_an_escape_that_did_not_come_counts_as_infinite() -> None:
    seen = [{"predicted": 10.0, "observed": o, "horizon": 100} for o in (5.0, 10.0, 20.0, None)]
    late = {"predicted": 200.0, "observed": None, "horizon": 100}  # could not have been seen
    found = figures.ratios([*seen, late])
    assert (found["count"], found["left"]) == (4, 3)
    assert found["low"] == pytest.approx(0.875)
    assert found["median"] == pytest.approx(1.5)
    assert found["high"] is None


def test_the_report_is_written_from_what_is_stored(tmp_path: Path) -> None:
    store, docs = Store(tmp_path / "cases"), tmp_path / "docs"
    followed = {"runs": [run_of(2.0, 0.2, escape=12)], "predicted": 10.0, "first": {"rho": 0.1}}
    store.save("f/one", case(truth(0.0, 0.9), "saddle-attraction", prescribed=followed))
    store.save("f/two", case(truth(0.0, 0.9), "descending"))
    report.write(tmp_path / "cases", docs=docs)
    text = (docs / "clinic.md").read_text()
    assert "50.0 % (1 of 2; 9 to 91 %)" in text
    assert "f/descending | stuck | descending" in text
    found = json.loads((docs / "benchmarks" / "clinic.json").read_text())
    assert found["halves"]["second"]["escape"]["median"] == pytest.approx(1.2)
    assert sorted(path.name for path in (docs / "images").iterdir()) == [
        "clinic-confusion.png",
        "clinic-escape.png",
        "clinic-rescue.png",
    ]


@pytest.mark.slow
def test_the_quick_clinic_runs_and_reports(tmp_path: Path) -> None:
    for words in (
        ("run", "--quick", "--half", "second", "--workers", "1"),
        ("report", "--docs", str(tmp_path / "docs")),
    ):
        command = [sys.executable, "-m", "benchmarks.clinic", *words, "--out", str(tmp_path / "cases")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    found = list(Store(tmp_path / "cases").cases())
    assert {c["case"]["family"] for c in found} == set(families.FAMILIES)
    labels = {c["case"]["name"]: label(c["truth"]) for c in found}
    assert labels["mnist-tanh/lr0.5-rho0.05-s1-p100"] == "healthy"
    assert labels["toy/lr0.02-rho0.5-s1-p100"] == "stuck"
    assert "## Headline" in (tmp_path / "docs" / "clinic.md").read_text()
