"""Memory of the spectrum under a budget that the whole Krylov basis would not fit into, and whether the answer changes.

    python benchmarks/budget.py [--budgets 1500 700 500] [--threads 2]

Each budget runs in a process of its own; the peak is the rise of its resident memory over that after one gradient.
Prints a table and renews docs/benchmarks/budget.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch
from meters import MIB, machine, peak_bytes
from report import REPORTS, number, show, update_json
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 1400  # hidden width: 784·w + w² + 10·w parameters, 3.1 million, 12 MiB a vector


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", nargs="+", type=int, default=[1500, 700, 500], help="10⁶ bytes each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(measured(options.one, options.width)))
        return 0
    rows = [in_a_process(budget, options) for budget in options.budgets]
    show(
        f"{rows[0]['num_params']} parameters, {rows[0]['vector_mib']:.0f} MiB a vector",
        ["budget", "peak MiB", "basis vectors", "restarts", "products", "s", "λ_max", "λ_min"],
        [
            [
                row["budget"],
                number(row["peak_mib"]),
                str(row["basis_vectors"]),
                str(row["restarts"]),
                str(row["products"]),
                number(row["seconds"]),
                f"{row['lambda_max']:.6g}",
                f"{row['lambda_min']:.6g}",
            ]
            for row in rows
        ],
    )
    if options.width == WIDTH:
        update_json(REPORTS / "budget.json", "mlp", {"rows": rows, "machine": machine(torch.device("cpu"))})
    return 0


def in_a_process(budget: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        "--one",
        str(budget),
        "--threads",
        str(options.threads),
        "--width",
        str(options.width),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(budget: int, width: int) -> dict[str, Any]:
    """Both ends of a tanh network on random classes, with the memory that the solver took."""
    from samdiag.measure.opening import opened
    from samdiag.measure.settings import MeasureSettings
    from samdiag.measure.spectrum import Spectrum, measure_spectrum
    from samdiag.types import Problem

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10))
    inputs, targets = torch.randn(512, 784), torch.randint(10, (512,))

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(network(batch[0]), batch[1])

    problem = Problem(model=model, loss=loss, batches=[(inputs, targets)], population=512)
    settings = MeasureSettings(rho=0.05, samples=None, memory=budget * 10**6, device="cpu")
    with opened(problem, settings) as ready:
        objective = ready.objective
        objective.gradient()
        found: list[Spectrum] = []
        began = time.perf_counter()
        peak = peak_bytes(
            lambda: found.append(
                measure_spectrum(
                    objective, num_eigenvalues=1, tol=1e-3, max_products=300, seed=0, population=512, solver="lanczos"
                )
            ),
            objective.device,
        )
        seconds = time.perf_counter() - began
        top, bottom, run = found[0].top[0], found[0].bottom[0], found[0].run
        return {
            "budget": f"{budget} MB",
            "peak_mib": peak / MIB,
            "num_params": objective.num_params,
            "vector_mib": objective.num_params * 4 / MIB,
            "basis_vectors": run.basis_vectors,
            "restarts": run.restarts,
            "products": run.steps,
            "seconds": seconds,
            "lambda_max": top.value,
            "lambda_min": bottom.value,
            "residuals": [top.error, bottom.error],
        }


if __name__ == "__main__":
    raise SystemExit(main())
