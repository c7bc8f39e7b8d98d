"""samdiag's verdict on a case, and which verdict is right where."""

from __future__ import annotations

import copy
import math
import statistics
from typing import Any

from benchmarks.clinic.families import cut
from benchmarks.clinic.store import commit, decode, encode
from benchmarks.clinic.truth import LATE, MOVES, Point, gain, label
from samdiag.advice import prescribe
from samdiag.errors import SamdiagError
from samdiag.pipeline import diagnose
from samdiag.probes import Verify
from samdiag.types import Diagnosis, Problem
from samdiag.verdicts import judge_all
from samdiag.verdicts.verified import confirm

PIECES, SMALLEST = 8, 32  # of a full batch: enough to estimate gradient noise from; a tiny data set stays whole
PROBED = 0.2  # of the horizon are the probe's steps, so that it cannot simply watch the truth

# verdict → (labels on which it is right, why)
RIGHT: dict[str, tuple[frozenset[str], str]] = {
    "saddle-attraction": (frozenset({"stuck"}), "SAM is held where SGD would leave"),
    "hallucinated-minimizer": (frozenset({"stuck"}), "SAM rests where the loss has no minimum, and SGD goes on"),
    "convergence-floor": (frozenset({"stuck"}), "SAM's steps gain nothing any more, and SGD's would"),
    "saddle-slowdown": (frozenset({"stuck", "slowed"}), "SGD makes clearly more progress"),
    "hallucinated-point": (frozenset({"healthy", "slowed"}), "the shifted gradient's zero repels: SAM goes on"),
    "descending": (frozenset({"healthy", "slowed"}), "SAM's loss falls"),
    "saddle-escaping": (frozenset({"healthy", "slowed"}), "SAM leaves, and its loss falls"),
    "minimum": (frozenset({"resting"}), "nothing worth the steps is left, for SAM or SGD"),
    "unstable": (frozenset({"diverging"}), "the loss rises; or it swings widely and does not fall: see `is_right`"),
    "bounce": (frozenset(), "this rho does not come closer: see `is_right`"),
}
CALLS_STUCK = frozenset({"saddle-attraction", "hallucinated-minimizer", "convergence-floor"})
SWINGS = 0.10  # of the loss: between one late step and the next


def problem_of(point: Point) -> Problem:
    """The case as a user would hand it over: the whole training set, mini-batches cut as in training."""
    batch = point.setting.batch_size
    criterion = point.family.criterion
    return Problem(
        model=copy.deepcopy(point.model).eval(),
        loss=lambda model, pair: criterion(model(pair[0]), pair[1]),
        batches=cut(point.data, batch or max(math.ceil(len(point.data) / PIECES), SMALLEST)),
        population=len(point.data),
        loss_lower_bound=point.family.lower_bound,
        batch_size_is_training=batch is not None,
    )


def judge(point: Point) -> Diagnosis | SamdiagError:
    """The diagnosis at the run's own settings with its probe, or why there is none."""
    setting = point.setting
    try:
        return diagnose(
            problem_of(point),
            rho=setting.rho,
            lr=setting.lr,
            momentum=setting.momentum,
            batch_size=setting.batch_size,
            device="cpu",
            verify=Verify(steps=max(1, round(PROBED * point.family.horizon))),
        )
    except SamdiagError as error:
        return error


def judged(diagnosis: Diagnosis | SamdiagError) -> dict[str, Any]:
    """The diagnosis as a section of the case: the verdict without the probe, and under `verified` the one with it."""
    if isinstance(diagnosis, SamdiagError):
        nothing = {"verdict": "undecided", "findings": []}
        return {**nothing, "verified": nothing, "failure": [diagnosis.what, diagnosis.todo]}
    assert diagnosis.measurements is not None
    findings = judge_all(diagnosis.measurements)
    return {
        "verdict": findings[0].verdict,
        "findings": [encode(finding) for finding in findings],
        "prescription": encode(prescribe(diagnosis.measurements, findings)),
        "measurements": encode(diagnosis.measurements),
        "timings": dict(diagnosis.timings),
        "verified": {
            "verdict": diagnosis.verdict,
            "findings": [encode(finding) for finding in diagnosis.findings],
            "prescription": encode(diagnosis.prescription),
            "probe": encode(diagnosis.probe),
        },
    }


def rejudged(section: dict[str, Any]) -> dict[str, Any]:
    """The section with the verdicts and the prescription of now, from what was measured and probed then."""
    if "measurements" not in section:
        return section
    m = decode(section["measurements"])
    findings = judge_all(m)
    probe = section.get("verified", {}).get("probe")
    kept = findings if probe is None else confirm(findings, decode(probe), m)
    new: dict[str, Any] = {"verdict": findings[0].verdict, "findings": [encode(f) for f in findings]}
    new["prescription"] = encode(prescribe(m, findings))
    if "verified" in section:
        verified = {"verdict": kept[0].verdict, "findings": [encode(f) for f in kept]}
        new["verified"] = {**section["verified"], **verified, "prescription": encode(prescribe(m, kept))}
    return {**section, **new, "rejudged": commit()}


def is_right(verdict: str, case: dict[str, Any]) -> bool | None:
    """Whether the verdict's claim came true; None where it makes none, or where the case is on a border line."""
    truth, name = case["truth"], label(case["truth"])
    if verdict == "undecided" or name in ("borderline", "left", "blown-up"):
        return None
    if verdict == "bounce":
        return _bounce_is_right(case)
    if verdict == "unstable" and name in ("stuck", "resting"):
        return any(_swings(run) for run in truth["sam"])
    return name in RIGHT[verdict][0]


def _swings(run: dict[str, Any]) -> bool:
    late = run["losses"][-LATE:]
    return max(late) - min(late) > SWINGS * run["losses"][0]


def _bounce_is_right(case: dict[str, Any]) -> bool | None:
    """Half of rho gets lower than the present one by 10 % of what is left, or |g| does not fall by 10 % at this rho."""
    truth, half = case["truth"], case.get("rescue", {}).get("half rho")
    if not half or not truth["sam"]:
        return None
    (present, _), (smaller, _) = gain(truth["sam"], truth["loss"]), gain(half, truth["loss"])
    remaining = max(1.0 - present, 1e-12)
    late = statistics.fmean(g for run in truth["sam"] for g in run["grads"][-LATE:])
    return (smaller - present) / remaining > MOVES or late > (1 - MOVES) * truth["grad"]
