"""One training run from its start to its last stored case: train, find the truth, judge, rescue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.clinic.families import FAMILIES, Family, Run, fresh
from benchmarks.clinic.judging import CALLS_STUCK, judge, judged, rejudged
from benchmarks.clinic.rescue import HALF_RHO, PRESCRIBED, WARM_START, follow, half_rho, warm_start
from benchmarks.clinic.store import Store, commit, decode
from benchmarks.clinic.training import Trainer
from benchmarks.clinic.treatment import treated
from benchmarks.clinic.truth import Point, label, truth_of


def work(folder: Path, run: Run, *, quick: bool = False, again: Sequence[str] = (), skip: Sequence[str] = ()) -> None:
    """All cases of one run, section by section; what is stored is not made again, unless `again` names it."""
    torch.set_num_threads(1)
    store, family = Store(folder), FAMILIES[run.family]
    fractions = (1.0,) if quick else family.fractions
    if not all(store.has_point(run.case(fraction)) for fraction in fractions):
        for fraction, trainer in checkpoints(family, run, fractions):
            state = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
            store.save_point(run.case(fraction), state, trainer.velocity)
    for fraction in fractions:
        fill(store, run, fraction, again, skip)


def checkpoints(family: Family, run: Run, fractions: tuple[float, ...]) -> Iterator[tuple[float, Trainer]]:
    """The run's trainer at each of these fractions of its steps."""
    trainer = Trainer(
        fresh(family, run.seed),
        family.data(run.seed),
        family.criterion,
        seed=1000 + run.seed,
        replacement=family.replacement,
    )
    at = {round(fraction * family.steps): fraction for fraction in fractions}
    for step in range(1, family.steps + 1):
        trainer.step(run.setting)
        if step in at:
            yield at[step], trainer


def point_of(store: Store, run: Run, fraction: float) -> Point:
    """The stored checkpoint, ready to go on from."""
    family = FAMILIES[run.family]
    model = fresh(family, run.seed)
    state, velocity = store.load_point(run.case(fraction))
    model.load_state_dict(state)
    return Point(family=family, setting=run.setting, model=model, velocity=velocity, data=family.data(run.seed))


def fill(store: Store, run: Run, fraction: float, again: Sequence[str] = (), skip: Sequence[str] = ()) -> None:
    """The sections of one case that are not there yet; the truth is stored before the verdict is asked for."""
    name = run.case(fraction)
    case = {section: made for section, made in store.load(name).items() if section not in again}
    point: Point | None = None
    for section, make in SECTIONS.items():
        if section in case or section in skip:
            continue
        point = point or point_of(store, run, fraction)
        began = time.perf_counter()
        made = {**make(point, case), "commit": commit(), "seconds": time.perf_counter() - began}
        case = {"case": _about(run, fraction), **case, section: made}
        store.save(name, case)


def rejudge(folder: Path) -> int:
    """How many verdicts changed; a rescue that no longer is what is prescribed is dropped, for the next run to make."""
    store, changed = Store(folder), 0
    for case in store.cases():
        if "judged" not in case:
            continue
        old, new = case["judged"], rejudged(case["judged"])
        changed += (old["verdict"], _verified(old)) != (new["verdict"], _verified(new))
        stale = _asks(old) != _asks(new)
        kept = {name: made for name, made in case.items() if not (stale and name in ("rescue", "treated"))}
        store.save(case["case"]["name"], {**kept, "judged": new})
    return changed


def _verified(judged: dict[str, Any]) -> str | None:
    verdict: str | None = judged.get("verified", {}).get("verdict")
    return verdict


def _asks(judged: dict[str, Any]) -> tuple[Any, ...]:
    """What a rescue is made from: the verdicts, and every setting that is prescribed."""
    found = judged.get("prescription") or {}
    advice = {name: (found.get(name) or {}).get("recommended") for name in ("rho", "momentum", "batch_size", "lr")}
    phases = (found.get("schedule") or {}).get("phases")
    return judged["verdict"], _verified(judged), str(advice), str(phases)


def _about(run: Run, fraction: float) -> dict[str, Any]:
    return {
        "name": run.case(fraction),
        "family": run.family,
        "setting": asdict(run.setting),
        "seed": run.seed,
        "half": run.half,
        "fraction": fraction,
        "step": round(fraction * FAMILIES[run.family].steps),
    }


def _truth(point: Point, _case: dict[str, Any]) -> dict[str, Any]:
    return truth_of(point)


def _judged(point: Point, case: dict[str, Any]) -> dict[str, Any]:
    if label(case["truth"]) in ("left", "blown-up"):
        return {"verdict": None, "findings": []}
    return judged(judge(point))


def _is_stuck(case: dict[str, Any]) -> bool:
    """By the truth or by the verdict."""
    verdict = case["judged"]["verdict"]
    return label(case["truth"]) == "stuck" or verdict in CALLS_STUCK or verdict == "saddle-slowdown"


def _rescue(point: Point, case: dict[str, Any]) -> dict[str, Any]:
    """Only where something is or is called stuck or slow, or bouncing (whose truth is half of rho)."""
    found: dict[str, Any] = {}
    if case["judged"]["verdict"] is None:
        return found
    said = {case["judged"]["verdict"], case["judged"].get("verified", {}).get("verdict")}
    if _is_stuck(case) or "bounce" in said:
        found[HALF_RHO] = half_rho(point)
    if _is_stuck(case):
        found[WARM_START] = warm_start(point)
        if "measurements" in case["judged"]:
            found[PRESCRIBED] = follow(
                point, decode(case["judged"]["prescription"]), decode(case["judged"]["measurements"])
            )
    return found


def _treated(point: Point, case: dict[str, Any]) -> dict[str, Any]:
    """samdiag's own treatment, round by round, of what is or is called stuck."""
    return treated(point) if case["judged"]["verdict"] is not None and _is_stuck(case) else {}


SECTIONS: dict[str, Callable[[Point, dict[str, Any]], dict[str, Any]]] = {
    "truth": _truth,
    "judged": _judged,
    "rescue": _rescue,
    "treated": _treated,
}
