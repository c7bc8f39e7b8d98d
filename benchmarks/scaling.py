"""How samdiag's time, products and memory grow with samples, parameters and the number of eigenvalues.

`python benchmarks/scaling.py` prints a table for each with the fitted exponents, and writes scaling.json and .md in
docs/benchmarks; `--quick` takes small sizes and writes nothing unless `--out` is given. An exponent is the slope of a
straight line through the logarithms, by least squares.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answers import Answer
from cases import Case, digits_mlp, wide_mlp
from contenders import Contender, run
from meters import MIB, Meter, machine, peak_bytes
from ours import settings_for, spectrum
from report import REPORTS, markdown_table, number, say, show, update_json

TOL = 1e-2  # relative residual of the first eigenvalue at either end
TIMEOUT = 1800  # seconds for one measurement in a process of its own
MEASURED = ("seconds", "cpu_seconds", "products", "cpu_seconds_per_product", "peak_mib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is varied, and the case and the number of eigenvalues at every value of it."""

    name: str
    what: str
    values: tuple[int, ...]
    quick: tuple[int, ...]
    case: Callable[[int], Case]
    eigenvalues: Callable[[int], int] = lambda _: 1
    size: Callable[[Case, int], int] = lambda _, value: value


AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis(
            name="samples",
            what="the digits MLP on a part of its data, in batches of 112",
            values=(112, 224, 448, 896, 1792),  # ×16; 1792 is what there is
            quick=(32, 64),
            case=lambda count: _part(digits_mlp(quick=count < 112), count),
        ),
        Axis(
            name="parameters",
            what="MLPs 64-w-w-10 on 512 digits after a short training",
            values=(56, 130, 270, 545, 910),  # w: ×100 in parameters
            quick=(16, 32),
            case=lambda width: wide_mlp(width, 512 if width > 32 else 32, 256),
            size=lambda case, _: case.num_params,
        ),
        Axis(
            name="eigenvalues",
            what="the digits MLP, so many eigenvalues at either end (those behind the first to 10 %)",
            values=(1, 2, 5, 10, 20),
            quick=(1, 2),
            case=lambda _: digits_mlp(),
            eigenvalues=lambda count: count,
        ),
    )
}


def main(arguments: list[str] | None = None) -> int:
    """The exit code 0, after all axes that were asked for."""
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.memory_at is not None:
        print(json.dumps(memory_here(options, device)))
        return 0
    out = options.out or (None if options.quick else REPORTS)
    for name in [options.axis] if options.axis else list(AXES):
        section = measured(AXES[name], options, device)
        show(f"{name}: {section['what']}", HEADER, rows_of(section))
        print("exponents: " + exponents_of(section))
        if out is not None:
            sections = update_json(out / "scaling.json", name, section)
            (out / "scaling.md").write_text(markdown(sections), encoding="utf-8")
    return 0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--axis", choices=list(AXES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two small sizes of every axis")
    parser.add_argument("--no-memory", action="store_true", help="leave out the runs in processes of their own")
    parser.add_argument("--out", type=Path, help=f"folder of the reports (default {REPORTS.name})")
    parser.add_argument("--memory-at", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measured(axis: Axis, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The section of the report about one axis."""
    points = []
    for value in axis.quick if options.quick else axis.values:
        case, contender = _case(axis, value, options), asking(axis, value)
        run(contender, case, device, TOL)  # what only the first call pays for
        answers = [run(contender, case, device, TOL, seed) for seed in range(options.rounds)]
        point = point_of(axis.size(case, value), answers)
        point["peak_mib"] = None if options.no_memory else memory_apart(axis, value, options)
        points.append(point)
        say(f"  {axis.name} {point['size']}: {point['seconds']:.2f} s, {point['products']:g} products")
    return {
        "what": axis.what,
        "machine": machine(device),
        "tol": TOL,
        "rounds": options.rounds,
        "points": points,
        "exponents": {key: exponent(points, key) for key in MEASURED},
    }


def asking(axis: Axis, value: int) -> Contender:
    """samdiag with this many eigenvalues."""

    def ask(case: Case, device: torch.device, tol: float, seed: int, meter: Meter) -> Answer:
        settings = settings_for(tol, seed=seed, num_eigenvalues=axis.eigenvalues(value))
        return spectrum(case, settings, meter)

    return Contender(name="samdiag", ask=ask, rungs=(TOL,), rung_name="tol")


def point_of(size: int, answers: list[Answer]) -> dict[str, Any]:
    """Medians over the start vectors; the time of one product is the least disturbed one."""
    return {
        "size": size,
        "seconds": statistics.median(a.wall for a in answers),
        "cpu_seconds": statistics.median(a.cpu for a in answers),
        "products": statistics.median(a.products for a in answers),
        "cpu_seconds_per_product": min(a.product_cpu / a.products for a in answers),
    }


def exponent(points: list[dict[str, Any]], key: str) -> float | None:
    """b of the least-squares fit value ≈ a·size^b; None where a value is missing or zero."""
    values = [point[key] for point in points]
    if any(value is None or value <= 0 for value in values):
        return None
    sizes = np.log([point["size"] for point in points])
    return float(np.polyfit(sizes, np.log(values), 1)[0])


def memory_apart(axis: Axis, value: int, options: argparse.Namespace) -> float:
    """MiB by which a fresh process grows while samdiag measures this point."""
    command = [sys.executable, __file__, "--axis", axis.name, "--memory-at", str(value)]
    command += ["--threads", str(options.threads), "--device", options.device, *(["--quick"] if options.quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mib"])


def memory_here(options: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """The same in this process, after a miniature so that all imports are done."""
    axis, value = AXES[options.axis], options.memory_at
    run(asking(AXES["samples"], 32), digits_mlp(quick=True), device, TOL)
    case, contender = _case(axis, value, options), asking(axis, value)
    return {"peak_mib": peak_bytes(lambda: run(contender, case, device, TOL), device) / MIB}


def _case(axis: Axis, value: int, options: argparse.Namespace) -> Case:
    return digits_mlp(quick=True) if options.quick and axis.name == "eigenvalues" else axis.case(value)


def _part(case: Case, count: int) -> Case:
    """The same network on its first `count` samples, in batches of at most 112."""
    inputs, targets = (torch.cat(column)[:count] for column in zip(*case.batches, strict=True))
    batches = list(zip(inputs.split(112), targets.split(112), strict=True))
    return Case(name=case.name, what=case.what, model=case.model, batches=batches, trained=False)


HEADER = ["size", "s", "cpu s", "products", "cpu s per product", "peak MiB"]


def rows_of(section: dict[str, Any]) -> list[list[str]]:
    """The table's cells."""
    return [
        [
            str(point["size"]),
            *(number(point[key]) for key in MEASURED[:-1]),
            "–" if point["peak_mib"] is None else f"{point['peak_mib']:.0f}",
        ]
        for point in section["points"]
    ]


def exponents_of(section: dict[str, Any]) -> str:
    """All exponents in one line."""
    return ", ".join(f"{key.replace('_', ' ')} {number(value, 2)}" for key, value in section["exponents"].items())


def markdown(sections: dict[str, Any]) -> str:
    """The report of all axes."""
    parts = ["# How samdiag's cost grows", "Written by `benchmarks/scaling.py`.", NOTES]
    for name, section in sections.items():
        about = section["machine"]
        parts.append(f"## {name}\n\n{section['what']}.")
        parts.append(markdown_table(HEADER, rows_of(section)))
        parts.append(f"Exponents: {exponents_of(section)}.")
        parts.append(
            f"{about['date']}, {about['device']}, {about['threads']} of {about['cores']} threads, "
            f"Python {about['python']}, torch {about['versions']['torch']}."
        )
    return "\n\n".join(parts) + "\n"


NOTES = """\
Both ends to a relative residual of 1 %, medians over start vectors; the whole call with all its checks. Peak MiB is how
far a fresh process grows above its size before. An exponent is the slope of a straight line through the logarithms."""

if __name__ == "__main__":
    sys.exit(main())
