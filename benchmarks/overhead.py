"""Where the time of one diagnosis goes: products, gradients and losses, imports, everything else.

    python benchmarks/overhead.py [--problem resnet] [--threads 2]

Prints a table and renews its section of docs/benchmarks/overhead.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from meters import Meter, machine
from ours import PRODUCTS
from peers import case_of
from report import REPORTS, number, percent, show, update_json

PASSES = ("gradient", "gradient_of", "loss")  # the other methods of an objective that run the network


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="resnet", choices=("digits-mlp", "resnet", "gpt"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="the smallest size, for the tests")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    case = case_of(options.problem, quick=options.quick)

    began = time.perf_counter()
    import samdiag
    import samdiag.advice
    import samdiag.measure.measuring
    import samdiag.verdicts
    from samdiag.curvature.objective import Objective

    imports = time.perf_counter() - began
    meters = {name: Meter(torch.device("cpu")) for name in ("products", "passes")}
    for names, meter in ((PRODUCTS, meters["products"]), (PASSES, meters["passes"])):
        for name in names:
            setattr(Objective, name, meter.wrap(getattr(Objective, name)))
    problem = samdiag.Problem(
        model=case.model, loss=case.loss, batches=case.batches, population=case.num_samples, batch_size_is_training=True
    )
    began = time.perf_counter()
    diagnosis = samdiag.diagnose(problem, rho=0.05, lr=0.1, momentum=0.9, samples=None, device="cpu")
    total = time.perf_counter() - began
    row = shares(total, meters) | {
        "imports": imports,
        "verdict": diagnosis.verdict,
        "machine": machine(torch.device("cpu")),
    }
    show(
        f"{case.name}: {case.what}, {case.num_params} parameters",
        ["total s", "products", "gradients and losses", "everything else", "verdict"],
        [
            [
                number(total),
                f"{number(row['products'])} s, {percent(row['products'] / total)}",
                f"{number(row['passes'])} s, {percent(row['passes'] / total)}",
                f"{number(row['rest'])} s, {percent(row['rest'] / total)}",
                diagnosis.verdict,
            ]
        ],
    )
    if not options.quick:
        update_json(REPORTS / "overhead.json", case.name, row)
    return 0


def shares(total: float, meters: dict[str, Meter]) -> dict[str, Any]:
    """Seconds in products, in other passes over the data, and in the rest; a pass inside a product counts once."""
    products, passes = meters["products"].wall, meters["passes"].wall
    return {"total": total, "products": products, "passes": passes, "rest": total - products - passes}


if __name__ == "__main__":
    raise SystemExit(main())
