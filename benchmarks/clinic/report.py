"""docs/clinic.md, docs/benchmarks/clinic.json and the pictures, from the stored cases."""

from __future__ import annotations

import datetime
import json
import math
import platform
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.clinic import figures, pictures
from benchmarks.clinic.families import FAMILIES
from benchmarks.clinic.figures import ARMS, Case, verdict_of
from benchmarks.clinic.judging import RIGHT
from benchmarks.clinic.store import Store
from benchmarks.clinic.truth import gain, label
from benchmarks.report import markdown_table, number
from samdiag.types import VERDICTS_BY_HARM

Row = list[str]
SECTIONS = ("truth", "judged", "rescue", "treated")
HALVES = ("second", "first")
UNDECIDED = ["undecided", "–", "it claims nothing"]
ANSWERS = {True: "yes", False: "no", None: "–"}


def write(folder: Path, *, docs: Path) -> None:
    """Everything that the report consists of."""
    cases = list(Store(folder).cases())
    content = figures_of(cases)
    (docs / "benchmarks").mkdir(parents=True, exist_ok=True)
    (docs / "images").mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (docs / "benchmarks" / "clinic.json").write_text(text + "\n", encoding="utf-8")
    second = half_of(cases, "second")
    pictures.confusion(second, docs / "images" / "clinic-confusion.png", "What was said, and what then happened")
    rates = content["halves"]["second"]["rescue_of_stuck"]
    pictures.rescue(rates, docs / "images" / "clinic-rescue.png", "Stuck runs, and what rescues them")
    pictures.escape(second, docs / "images" / "clinic-escape.png", "Steps to leave the saddle")
    (docs / "clinic.md").write_text(markdown(cases, content), encoding="utf-8")


def half_of(cases: list[Case], half: str) -> list[Case]:
    """The cases of the seeds of one half."""
    return [c for c in cases if c["case"]["half"] == half]


def figures_of(cases: list[Case]) -> dict[str, Any]:
    """The report's numbers, and one line per case to compute them again from."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commits": commits_of(cases),
        "hours": sum(c[name]["seconds"] for c in cases for name in SECTIONS if name in c) / 3600,
        "labels": dict(Counter(label(c["truth"]) for c in cases)),
        "halves": {half: figures.digest(half_of(cases, half)) for half in ("first", "second")},
        "families": {
            name: {
                half: figures.digest([c for c in half_of(cases, half) if c["case"]["family"] == name])
                for half in ("first", "second")
            }
            for name in FAMILIES
        },
        "cases": [line_of(c) for c in cases],
    }


def commits_of(cases: list[Case]) -> dict[str, list[str]]:
    """The commits that made each section; a plus sign: with changes since."""
    return {name: sorted({c[name]["commit"] for c in cases if name in c}) for name in SECTIONS}


def line_of(case: Case) -> dict[str, Any]:
    """One case in a line."""
    truth = case["truth"]
    found = {"name": case["case"]["name"], "half": case["case"]["half"], "label": label(truth)}
    found |= {"loss": _finite(truth["loss"]), "grad": _finite(truth["grad"])}
    if truth["sam"] and "left" not in truth:
        found |= {name: _finite(gain(truth[name], truth["loss"])[0]) for name in ("sam", "sgd")}
    if "left" in truth:
        found |= {f"{name}_escapes": [run["escape"] for run in truth[name]] for name in ("sam", "sgd")}
    return {**found, "verdict": verdict_of(case), "verified": verdict_of(case, verified=True)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------- the page


def markdown(cases: list[Case], content: dict[str, Any]) -> str:
    """The page."""
    second, first = (half_of(cases, half) for half in HALVES)
    commits = "; ".join(f"{name}: {', '.join(found) or '–'}" for name, found in content["commits"].items())
    parts = [
        INTRODUCTION,
        f"{content['date']}, Python {content['python']}, torch {content['torch']}. Commits by section: {commits}. "
        f"Cases: {len(cases)}; {_counted(content['labels'])}. Without the training it took "
        f"{content['hours']:.1f} hours of one-thread processes, on cores that others used as well.",
        "## Headline: the second half",
        headline(content),
        "![label by verdict](images/clinic-confusion.png)",
        "## What happened against what was said",
        f"All families, second half, without probe:\n\n{confusion(content['halves']['second']['diagnosis'])}",
        f"The same with the probe:\n\n{confusion(content['halves']['second']['verified'])}",
        families_table(content["families"]),
        *(
            f"### {name}\n\n{FAMILIES[name].what}.\n\n{confusion(found['second']['diagnosis'])}"
            for name, found in content["families"].items()
            if found["second"]["diagnosis"]["cases"]
        ),
        "## Which verdict is right on which label",
        right_table(),
        "## Rescue",
        RESCUE,
        rescue_table(content["halves"]["second"]),
        "![rescue rates](images/clinic-rescue.png)",
        "## Predicted against observed escape",
        escape_table(content),
        "![escape steps](images/clinic-escape.png)",
        "## Every wrong case of the second half",
        wrong_table(second),
        "## Wrong cases of the first half",
        wrong_table(first),
        "## Stuck cases of the second half that the prescription did not rescue",
        lost_table(second),
    ]
    return "\n\n".join(parts) + "\n"


def headline(content: dict[str, Any]) -> str:
    """The figures that the goal is stated in; the first half is beside it."""
    halves = content["halves"]
    rows: list[Row] = []
    for name, key in (("verdict", "diagnosis"), ("verdict with the probe", "verified")):
        for what, entry in (
            ("right, of the decided cases", "right"),
            ("undecided", "undecided"),
            ("healthy called stuck", "healthy_called_stuck"),
        ):
            rows.append([f"{name}: {what}", *(share(halves[half][key][entry]) for half in HALVES)])
        rows.append([f"{name}: right, mean over the families", *(_mean(content, half, key) for half in HALVES)])
    for arm in ARMS:
        cells = [share(halves[half]["rescue_of_stuck"][arm]) for half in HALVES]
        rows.append([f"stuck runs rescued: {arm}", *cells])
    rows.append(["cases (runs)", *(f"{d['cases']} ({d['runs']})" for d in _diagnoses(halves))])
    return markdown_table(["", "second half", "first half"], rows)


def _mean(content: dict[str, Any], half: str, key: str) -> str:
    """The plain mean of the families' rates: those with many cases count no more than the others."""
    rates = [found[half][key]["right"]["share"] for found in content["families"].values()]
    known = [rate for rate in rates if rate is not None]
    return f"{100 * sum(known) / len(known):.1f} % ({len(known)} families)" if known else "–"


def _diagnoses(halves: dict[str, Any]) -> list[dict[str, Any]]:
    return [halves[half]["diagnosis"] for half in HALVES]


def share(found: dict[str, Any]) -> str:
    """As "97 % (58 of 60; 89 to 99 %)"."""
    if not found["count"]:
        return "–"
    low, high = (round(100 * found[end]) for end in ("low", "high"))
    return f"{100 * found['share']:.1f} % ({found['hits']} of {found['count']}; {low} to {high} %)"


def confusion(found: dict[str, Any]) -> str:
    """Label × verdict, counts."""
    table = found["confusion"]
    if not table:
        return "No cases."
    verdicts = [v for v in VERDICTS_BY_HARM if any(v in row for row in table.values())]
    rows = [[name, *(str(row.get(v, "·")) for v in verdicts)] for name, row in table.items()]
    return markdown_table(["happened \\ said", *verdicts], rows)


def families_table(families: dict[str, Any]) -> str:
    """One line a family, second half."""
    rows = []
    for name, halves in families.items():
        found, seen = halves["second"]["diagnosis"], halves["second"]["verified"]
        if found["cases"]:
            rows.append(
                [
                    name,
                    str(found["cases"]),
                    share(found["right"]),
                    share(seen["right"]),
                    share(found["undecided"]),
                    share(found["healthy_called_stuck"]),
                    share(halves["second"]["rescue_of_stuck"][ARMS[0]]),
                ]
            )
    header = ["family", "cases", "right", "right with the probe", "undecided", "healthy called stuck", "rescued"]
    return markdown_table(header, rows)


def right_table() -> str:
    """What every verdict claims."""
    rows = [[name, ", ".join(sorted(labels)) or "see the reason", why] for name, (labels, why) in RIGHT.items()]
    return markdown_table(["verdict", "right on", "because it says that"], [*rows, UNDECIDED])


def rescue_table(half: dict[str, Any]) -> str:
    """Both populations."""
    rows = [[arm, share(half["rescue_of_stuck"][arm]), share(half["rescue_of_called"][arm])] for arm in ARMS]
    return markdown_table(["remedy", "runs that are stuck", "runs that samdiag calls stuck or slowed down"], rows)


def escape_table(content: dict[str, Any]) -> str:
    """Observed over predicted."""
    named = [("all, second half", content["halves"]["second"]), ("all, first half", content["halves"]["first"])]
    named += [(name, found["second"]) for name, found in content["families"].items()]
    rows = []
    for name, found in named:
        e = found["escape"]
        if e["count"]:
            middle = [number(e[key]) if e[key] is not None else "∞" for key in ("low", "median", "high")]
            rows.append([name, f"{e['left']} of {e['count']}", *middle])
    return markdown_table(["", "left within H", "lower quartile", "median observed/predicted", "upper quartile"], rows)


def wrong_table(cases: list[Case]) -> str:
    """Every wrong case with its numbers."""
    missed = {c["case"]["name"]: c for c in (*figures.wrong(cases), *figures.wrong(cases, verified=True))}
    rows = [_wrong_row(c) for _, c in sorted(missed.items())]
    header = ["case", "happened", "said", "said with the probe", "loss", "SAM takes off", "SGD takes off", "numbers"]
    return markdown_table(header, rows) if rows else "None."


def _wrong_row(case: Case) -> Row:
    line = line_of(case)
    findings = case["judged"].get("findings") or [{"evidence": {}}]
    evidence = {k: v for k, v in findings[0]["evidence"].items() if isinstance(v, int | float)}
    took = [
        f"{100 * line[name]:.0f} %" if line.get(name) is not None else str(line.get(f"{name}_escapes", "NaN"))
        for name in ("sam", "sgd")
    ]
    numbers = ", ".join(f"{k} {number(v)}" for k, v in list(evidence.items())[:5])  # the first say what it stands on
    return [
        line["name"],
        line["label"],
        line["verdict"] or "–",
        line["verified"] or "–",
        number(line["loss"]),
        *took,
        numbers,
    ]


def lost_table(cases: list[Case]) -> str:
    """Stuck, and not rescued by what was prescribed."""
    rows = []
    for case in figures.judged_cases(cases):
        runs = figures.runs_of_arm(case, ARMS[0])
        if not figures.is_stuck(case) or runs is None or figures.rescued(runs, case["truth"]) is True:
            continue
        followed = case["rescue"].get(ARMS[0])
        what = "nothing is prescribed" if not followed else _settings(followed["first"])
        came = "–" if not runs or "left" in case["truth"] else f"{100 * gain(runs, case['truth']['loss'])[0]:.0f} %"
        treated = figures.rescued(case.get("treated", {}).get("runs", []), case["truth"])
        rows.append([case["case"]["name"], verdict_of(case) or "–", what, came, ANSWERS[treated]])
    header = ["case", "said", "prescribed", "takes off", "rescued in rounds"]
    return markdown_table(header, rows) if rows else "None."


def _settings(first: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in first.items() if value is not None)


def _counted(labels: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(labels.items(), key=lambda item: -item[1]))


INTRODUCTION = """\
# The clinic: how often the diagnosis is right, and what the prescription rescues

Written by `python -m benchmarks.clinic run --out DIR` and `python -m benchmarks.clinic report --out DIR`
(`make clinic`). A *case* is a training run at one of its checkpoints, after 10 %, 40 % or 100 % of its steps. What
happens next is found by brute force, by a trainer that shares no code with samdiag's measurements: H more steps as
configured, and H steps of SGD with the same learning rate, momentum and batches (H = 1000 on full batches, 500 on the
exact saddles, 300 with mini-batches, where two or three data orders are run). That gives the label, without the
verdict:

| label | SAM in H steps | SGD in H steps |
| --- | --- | --- |
| stuck | takes off less than 10 % of the remaining loss | takes off 20 % or more |
| slowed | takes off 10 % or more, but less than half of what SGD does, or half of that more than twice as late | |
| healthy | takes off 10 % or more | |
| resting | takes off less than 10 % | takes off less than 10 % |
| diverging | rises by more than 10 % and its noise, or NaN | |
| borderline | within 2 % of one of these lines, or two standard errors of the data orders: in the tables alone | |

The remaining loss is the loss itself: its lower bound is 0. On exact saddles, whose loss has no bound, moving is
leaving the saddle within H steps, and slowed is taking more than twice SGD's steps. Then samdiag judges the checkpoint
by the settings of the run, on the whole training set, once without its dynamics probe and once
with it (for H/5 steps).

Even seeds are the first half: thresholds may be set on them. The figures are of the second half, the odd seeds. The
checkpoints of one run, and the runs of one setting, are not independent; the 95 % intervals (Wilson) treat them as if
they were, and are too narrow for that reason."""

RESCUE = """\
The prescription is followed for H steps with the independent trainer, from the checkpoint and its momentum buffer.
*Treated in rounds* is `treat_problem`: up to five rounds of H/5 steps with a diagnosis before each, and then its last
settings for what is left of H steps. A run is rescued when at least half of what SGD takes off in H steps has come off,
and at least 10 % of the remaining loss; an exact saddle when it is left. Where nothing is prescribed nothing is
rescued. Switching to SGD is the yardstick itself on stuck runs, so that it rescues all of them by definition; it gives
up SAM."""
