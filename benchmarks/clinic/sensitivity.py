"""Every number that a verdict compares with, and what becomes of the verdicts when it is halved or doubled.

Judged again from stored measurements: the clinic's first half, the exact cases of `tests/data/cases.json`, and random
quadratics held to the simulated optimiser (`tests/verdicts`). Writes docs/thresholds.md.
"""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.clinic.judging import CALLS_STUCK, is_right
from benchmarks.clinic.store import ROOT, Store, decode, measurements
from benchmarks.clinic.truth import label
from samdiag.advice import batch_size, decays, escape, learning_rate, leaving, moving_away, rho
from samdiag.measure import forecast, trial
from samdiag.probes import Probe
from samdiag.theory import prescription
from samdiag.types import Diagnosis, Measurements
from samdiag.verdicts import descending, foresight, judge_all, thresholds, verified
from tests import test_exact_cases
from tests.verdicts import study
from tests.verdicts.quadratics import Case, examine, random_cases, simulate

PAGE = ROOT / "docs" / "thresholds.md"
QUADRATICS = 400  # a sixth of docs/confusion.md: a minute
FACTORS = (0.5, 0.8, 1.25, 2.0)
MODULES: tuple[ModuleType, ...] = (thresholds, descending, foresight, verified)
UNTRIED: tuple[ModuleType, ...] = (
    forecast,
    trial,
    rho,
    batch_size,
    learning_rate,
    leaving,
    moving_away,
    decays,
    escape,
    prescription,
)
NOT_COMPARED = ("LOSS_DIGITS",)  # how a message is printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Counts over everything that is judged: of the clinic wrong, wrong with the probe, undecided and healthy called
    stuck; of the exact cases and the quadratics those contradicted by their known answers.
    """

    wrong: int
    probed: int
    undecided: int
    alarms: int
    exact: int
    quadratics: int

    def __str__(self) -> str:
        return f"{self.wrong} / {self.probed} / {self.undecided} / {self.alarms} / {self.exact} / {self.quadratics}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is judged again and again, measured once.

    Attributes:
        clinic: cases of the first half with their measurements, and their probes where they were made.
        exact: measurements and the verdicts that are right.
        quadratics: cases with their diagnosis, and what became of the run early and late.
    """

    clinic: list[tuple[dict[str, Any], Measurements, Probe | None]]
    exact: list[tuple[Measurements, list[str]]]
    quadratics: list[tuple[Case, Diagnosis, str, str | None]]

    @classmethod
    def gathered(cls, folder: Path) -> Evidence:
        first = [
            c for c in Store(folder).cases() if c["case"]["half"] == "first" and "measurements" in c.get("judged", {})
        ]
        clinic = [(c, measurements(c), _probe_of(c)) for c in first if c["judged"]["measurements"] is not None]
        exact = []
        for case in test_exact_cases.DETERMINISTIC.values():
            found = test_exact_cases.diagnose(case, torch.float64).measurements
            assert found is not None
            exact.append((found, case["expected"]))
        return cls(clinic=clinic, exact=exact, quadratics=_quadratics())

    def score(self) -> Score:
        """The counts with the thresholds as they are now."""
        wrong = probed = undecided = alarms = 0
        for case, m, probe in self.clinic:
            findings = judge_all(m)
            verdict = findings[0].verdict
            wrong += is_right(verdict, case) is False
            probed += probe is not None and is_right(verified.confirm(findings, probe, m)[0].verdict, case) is False
            undecided += verdict == "undecided"
            alarms += verdict in CALLS_STUCK and label(case["truth"]) == "healthy"
        exact = sum(judge_all(m)[0].verdict not in expected for m, expected in self.exact)
        return Score(
            wrong=wrong,
            probed=probed,
            undecided=undecided,
            alarms=alarms,
            exact=exact,
            quadratics=sum(_is_contradicted(*one) for one in self.quadratics),
        )


def _probe_of(case: dict[str, Any]) -> Probe | None:
    stored = case["judged"].get("verified", {}).get("probe")
    return None if stored is None else decode(stored)


def _quadratics() -> list[tuple[Case, Diagnosis, str, str | None]]:
    cases = random_cases(QUADRATICS, seed=1)
    outcomes = simulate(cases, steps=study.STEPS).outcome
    diagnoses = [examine(case) for case in cases]
    late = study._late(cases, outcomes, diagnoses)
    return [(c, d, o, late.get(i)) for i, (c, d, o) in enumerate(zip(cases, diagnoses, outcomes, strict=True))]


def _is_contradicted(case: Case, diagnosis: Diagnosis, outcome: str, late: str | None) -> bool:
    assert diagnosis.measurements is not None
    findings = judge_all(diagnosis.measurements)
    again = dataclasses.replace(diagnosis, verdict=findings[0].verdict, findings=findings)
    return study.compare(case, again, outcome, late)[1]


@contextmanager
def set_to(module: ModuleType, name: str, value: float) -> Iterator[None]:
    """The threshold at another value for a while."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def constants(module: ModuleType) -> dict[str, str]:
    """The module's numbers by name, with the reason on their line."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            reason = " ".join(comments[line] for line in lines if line in comments)
            name = node.targets[0].id
            if isinstance(getattr(module, name), (int, float)) and name not in NOT_COMPARED:
                found[name] = reason
    return found


def study_all(folder: Path) -> dict[str, Any]:
    """Every constant with its value, reason and scores; the scores are strings in the order of `Score`."""
    evidence = Evidence.gathered(folder)
    rows = []
    for module in MODULES:
        for name, reason in constants(module).items():
            value = getattr(module, name)
            scores = {}
            for factor in FACTORS:
                scaled = round(value * factor) if isinstance(value, int) else value * factor
                with set_to(module, name, scaled):
                    scores[f"{factor:g}"] = str(evidence.score())
            rows.append({"name": name, "value": value, "reason": reason, "scores": scores})
            print(name, value, scores, flush=True)
    return {
        "now": str(evidence.score()),
        "clinic": len(evidence.clinic),
        "exact": len(evidence.exact),
        "quadratics": len(evidence.quadratics),
        "rows": rows,
    }


HEAD = """# Every number that a verdict compares with

Made by `python -m benchmarks.clinic thresholds`. Each number is in `samdiag/verdicts/thresholds.py` (or the verdict's
own file) with its reason. The last columns show what the verdicts come to when it is multiplied by 0.5, 0.8, 1.25 and 2
and everything else stays. Six counts each:

> wrong / wrong with the probe / undecided / healthy called stuck, of {clinic} checkpoints of the clinic's first half
> ([clinic.md](clinic.md));
> contradicted, of {exact} exact cases with known answers; contradicted, of {quadratics} random quadratics held to the
> simulated optimiser ([confusion.md](confusion.md)).

As they are: **{now}**. A dot: the same counts. The second half of the clinic had no part in setting any of them.

| number | value | where it comes from | ×0.5 | ×0.8 | ×1.25 | ×2 |
|---|---:|---|---|---|---|---|
"""


def page(found: dict[str, Any]) -> str:
    """docs/thresholds.md."""
    lines = [HEAD.format(**{key: found[key] for key in ("clinic", "exact", "quadratics", "now")})]
    for row in found["rows"]:
        cells = ["·" if s == found["now"] else s for s in row["scores"].values()]
        reason = row["reason"].replace("|", "\\|") or "see the formula in the file"
        lines.append(f"| `{row['name']}` | {row['value']:.4g} | {reason} | " + " | ".join(cells) + " |\n")
    lines += [
        TAIL,
        *(f"| `{module}` | `{name}` | {value:.4g} | {reason} |\n" for module, name, value, reason in _untried()),
    ]
    return "".join(lines)


TAIL = """
## Numbers that measurements and prescriptions rest on

These decide what is measured or what is prescribed, so that judging stored measurements again says nothing about them;
each has its reason, and the clinic's rescue rates and escape times are what they come to together.

| module | number | value | where it comes from |
|---|---|---:|---|
"""


def _untried() -> Iterator[tuple[str, str, float, str]]:
    for module in UNTRIED:
        for name, reason in constants(module).items():
            yield module.__name__, name, getattr(module, name), reason.replace("|", "\\|")


def write(folder: Path) -> None:
    """Studies the cases in `folder` and writes the page and its numbers."""
    found = study_all(folder)
    PAGE.write_text(page(found), encoding="utf-8")
    (PAGE.parent / "benchmarks" / "thresholds.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
