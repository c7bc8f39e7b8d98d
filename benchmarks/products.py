"""What one Hessian-vector product costs in gradients, for every engine and model.

`python benchmarks/products.py` prints a table, and writes docs/benchmarks/products.json and .md; `--quick` takes
miniatures and writes nothing unless `--out` is given. `--device cuda --size gpt2` takes a published architecture with
random weights. A gradient is what training pays: one forward and one backward pass over the same batches by torch
alone, with whatever kernels it likes. The share of the gradient throughput is one over the cost.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import SIZES, Case, digits_mlp, gpt, large, lstm, resnet, transformer
from data import NotAvailable
from meters import MIB, Seconds, best, machine, peak_bytes
from report import REPORTS, first_line, markdown_table, number, percent, say, show, update_json
from torch import Tensor
from truth import Exact

from samdiag.curvature.objective import Objective
from samdiag.curvature.products.choice import ENGINES, choose_engine

MODELS: dict[str, Callable[..., Case]] = {
    "digits-mlp": digits_mlp,
    "resnet": resnet,
    "transformer": transformer,
    "lstm": lstm,
    "gpt": gpt,
}

AUTO = "auto"  # what samdiag chooses by itself


def main(arguments: list[str] | None = None) -> int:
    """The exit code, after every model that was asked for."""
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    out = options.out or (None if options.quick else REPORTS)
    failed = False
    for name in [options.size] if options.size else [options.model] if options.model else list(MODELS):
        try:
            case = MODELS[name](quick=options.quick) if name in MODELS else large(name, quick=options.quick)
        except NotAvailable as error:
            say(f"{name}: not available: {error}")
            failed = True
            continue
        section = measured(case, options, device)
        show(f"{name}: {case.what}, {case.num_params} parameters", HEADER, rows_of(section))
        if out is not None:
            sections = update_json(out / "products.json", name, section)
            (out / "products.md").write_text(markdown(sections), encoding="utf-8")
    return 1 if failed else 0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", choices=list(MODELS))
    parser.add_argument("--size", choices=SIZES, help="a published architecture with random weights instead")
    parser.add_argument("--engine", action="append", choices=[*ENGINES, AUTO], help="only this one; may be repeated")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--times", type=int, default=5, help="timings of which the least counts")
    parser.add_argument("--quick", action="store_true", help="miniatures of the models")
    parser.add_argument("--out", type=Path, help=f"folder of the reports (default {REPORTS.name})")
    return parser.parse_args(arguments)


def measured(case: Case, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The section of the report about one model."""
    say(f"{case.name}: {case.what}, {case.num_params} parameters")
    vector = torch.randn(case.num_params, generator=torch.Generator().manual_seed(0))
    truth = Exact(case, device, keep=False).product(vector)
    model = copy.deepcopy(case.model).to(device)
    batches = [(inputs.to(device), targets.to(device)) for inputs, targets in case.batches]
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradient() -> None:
        for batch in batches:
            torch.autograd.grad(case.loss(model, batch), parameters)

    base = best(gradient, device, options.times)
    rows = [
        engine_row(name, case, device, vector, truth, base, options.times)
        for name in options.engine or [*ENGINES, AUTO]
    ]
    return {
        "what": case.what,
        "num_params": case.num_params,
        "num_samples": case.num_samples,
        "machine": machine(device),
        "gradient_seconds": base.wall,
        "gradient_cpu_seconds": base.cpu,
        "gradient_peak_mib": peak_bytes(gradient, device) / MIB if device.type == "cuda" else None,
        "engines": rows,
    }


def engine_row(
    engine: str, case: Case, device: torch.device, vector: Tensor, truth: Tensor, base: Seconds, times: int
) -> dict[str, Any]:
    """Cost and error of one engine, or why there are none."""
    model = copy.deepcopy(case.model)
    batches = [((inputs.to(device), targets.to(device)), len(inputs)) for inputs, targets in case.batches]
    objective = Objective(model, case.loss, batches, device=device, dtype=torch.float32)
    v = vector.to(device)
    try:
        with objective.borrowed():
            chosen = choose_engine(objective, engine)
            product = objective.product(v).double()
            seconds = best(lambda: objective.product(v), device, times)
            peak = peak_bytes(lambda: objective.product(v), device) / MIB if device.type == "cuda" else None
    except Exception as error:  # an engine that this model or machine cannot have is a row, not the end
        say(f"  {engine}: {type(error).__name__}: {first_line(error)}")
        return {"engine": engine, "failure": f"{type(error).__name__}: {first_line(error)}"}
    error = float(torch.linalg.vector_norm(product - truth) / torch.linalg.vector_norm(truth))
    say(f"  {engine}: {seconds.wall / base.wall:.2f} gradients, error {error:.1g}")
    return {
        "engine": engine,
        "chosen": chosen.name,
        "kept_share": chosen.kept_share,
        "joined": chosen.joined,
        "seconds": seconds.wall,
        "cpu_seconds": seconds.cpu,
        "gradients": seconds.wall / base.wall,
        "cpu_gradients": seconds.cpu / base.cpu,
        "share_of_gradient_throughput": base.wall / seconds.wall,
        "error": error,
        "peak_mib": peak,
    }


HEADER = ["engine", "ms", "cost in gradients", "by processor time", "share of gradient throughput", "error"]


def rows_of(section: dict[str, Any]) -> list[list[str]]:
    """The table's cells: the gradient first."""
    rows = [["one gradient", number(1000 * section["gradient_seconds"]), "1", "1", "100 %", "–"]]
    for row in section["engines"]:
        if "failure" in row:
            rows.append([row["engine"], row["failure"], *["–"] * (len(HEADER) - 2)])
            continue
        name = f"auto: {row['chosen']}" if row["engine"] == AUTO else row["engine"]
        cells = [name, number(1000 * row["seconds"]), number(row["gradients"]), number(row["cpu_gradients"])]
        rows.append([*cells, percent(row["share_of_gradient_throughput"]), f"{row['error']:.1g}"])
    return rows


def markdown(sections: dict[str, Any]) -> str:
    """The report of all models."""
    parts = ["# What a Hessian-vector product costs", "Written by `benchmarks/products.py`.", NOTES]
    for name, section in sections.items():
        about = section["machine"]
        parts.append(
            f"## {name}\n\n{section['what']}, {section['num_params']} parameters, {section['num_samples']} samples."
        )
        parts.append(markdown_table(HEADER, rows_of(section)))
        parts.append(
            f"{about['date']}, {about['device']}, {about['threads']} of {about['cores']} threads, "
            f"Python {about['python']}, torch {about['versions']['torch']}."
        )
    return "\n\n".join(parts) + "\n"


NOTES = """\
A product is over all batches, its graphs (if the engine keeps any) already built; the least of several timings. The
gradient is one forward and one backward pass over the same batches by torch alone. The error is ‖Hv − truth‖/‖truth‖
for a random v against a float64 product of the benchmark's own."""

if __name__ == "__main__":
    sys.exit(main())
