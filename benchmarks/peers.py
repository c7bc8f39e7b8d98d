"""Both ends of the Hessian's spectrum by samdiag and by the other tools: time, products, memory, and who is right.

`python benchmarks/peers.py` measures all problems, prints a table for each, and writes docs/benchmarks/peers.json and
.md; `--problem digits-mlp` renews one. `--quick` takes miniatures and writes nothing unless `--out` is given.
`--device cuda --size resnet50` takes a published architecture with random weights.

Every tool gets the same float32 model, batches and threads, in one process, by turns. A tool with a tolerance is run
from the loosest one down; the row is the first that reaches a true residual of 1 % at every end it was asked for, or
the tightest if none does. Residuals are ‖Hq − θq‖/|θ| with a float64 Hessian of the benchmark's own; errors are against
eigsh on it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from answers import Answer, End
from cases import PROBLEMS, SIZES, Case, large
from contenders import CONTENDERS, Contender, run
from data import NotAvailable
from meters import MIB, machine, peak_bytes
from report import REPORTS, first_line, markdown_table, number, percent, say, show, update_json
from truth import GOOD, Exact, Reference, reference

SLOW = 90.0  # seconds: a tool that takes longer is run once
MEMORY_TIMEOUT = 3600  # seconds for one run in a process of its own
PEER, ALONE, OURS = "curvlinops + eigsh", "PyHessian λ_max alone", "samdiag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One run: what the tool said, and the true residual and error of (top, bottom); None where there is none."""

    answer: Answer
    residuals: tuple[float | None, ...]
    errors: tuple[float | None, ...]


@dataclass(slots=True, kw_only=True)
class Tried:
    """A contender at the rung that is reported, with all its runs there: each has a start vector of its own.

    Attributes:
        climbed: the rungs that were tried, with the worst residual of each.
    """

    contender: Contender
    rung: float
    runs: list[Judged]
    climbed: list[tuple[float, float]]
    peak_mib: float | None = None

    @property
    def right(self) -> bool:
        return all(worst(one.residuals) <= GOOD for one in self.runs)

    @property
    def wall(self) -> float:
        return statistics.median(one.answer.wall for one in self.runs)

    @property
    def cpu(self) -> float:
        return min(one.answer.cpu for one in self.runs)

    @property
    def products(self) -> float:
        return statistics.median(one.answer.products for one in self.runs)

    @property
    def least_disturbed(self) -> Answer:
        return min((one.answer for one in self.runs), key=lambda answer: answer.wall)


def main(arguments: list[str] | None = None) -> int:
    """The exit code, after every problem that was asked for."""
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.memory_of:
        print(json.dumps(memory_here(options, device)))
        return 0
    names = [options.size] if options.size else [options.problem] if options.problem else list(PROBLEMS)
    out = options.out or (None if options.quick else REPORTS)
    failed = False
    for name in names:
        try:
            case = case_of(name, quick=options.quick)
        except NotAvailable as error:
            say(f"{name}: not available: {error}")
            failed = True
            continue
        section = compared(case, options, device)
        show(f"{case.name}: {case.what}, {case.num_params} parameters", HEADER, rows_of(section))
        for line in section["summary"]:
            print(line)
        if out is not None:
            sections = update_json(out / "peers.json", name, section)
            (out / "peers.md").write_text(markdown(sections), encoding="utf-8")
    return 1 if failed else 0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--problem", choices=list(PROBLEMS))
    parser.add_argument("--size", choices=SIZES, help="a published architecture with random weights instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help=f"runs of each tool; one if it takes over {SLOW:g} s")
    parser.add_argument("--only", action="append", choices=list(CONTENDERS), help="only this tool; may be repeated")
    parser.add_argument("--no-memory", action="store_true", help="leave out the runs in processes of their own")
    parser.add_argument("--quick", action="store_true", help="miniatures of the problems")
    parser.add_argument("--out", type=Path, help=f"folder of the reports (default {REPORTS.name})")
    parser.add_argument("--memory-of", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--rung", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def case_of(name: str, *, quick: bool) -> Case:
    """The problem or the published size of that name."""
    return PROBLEMS[name](quick=quick) if name in PROBLEMS else large(name, quick=quick)


def compared(case: Case, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The section of the report about one case."""
    say(f"{case.name}: {case.what}, {case.num_params} parameters")
    exact = Exact(case, device, keep=case.trained)
    truth = reference(case, exact) if case.trained else None
    if truth:
        say(f"  reference: {truth.top:.8g} and {truth.bottom:.8g}")
    chosen = [CONTENDERS[name] for name in options.only or CONTENDERS]
    tried: list[Tried] = []
    failures: list[dict[str, Any]] = []
    for contender in chosen:
        try:
            tried.append(climbed(contender, case, device, exact, truth))
        except Exception as error:  # a peer that crashes is a row, not the end
            failures.append({"tool": contender.name, "failure": f"{type(error).__name__}: {first_line(error)}"})
            say(f"  {contender.name}: {failures[-1]['failure']}")
    repeat(tried, case, device, options.rounds, exact, truth)
    exact.close()
    if not options.no_memory:
        for one in tried:
            one.peak_mib = memory_apart(one, case.name, options)
    return {
        "what": case.what,
        "num_params": case.num_params,
        "num_samples": case.num_samples,
        "batches": [len(inputs) for inputs, _ in case.batches],
        "machine": machine(device),
        "reference": None if truth is None else {"lambda_max": truth.top, "lambda_min": truth.bottom},
        "rows": [row_of(one) for one in tried] + failures,
        "summary": summary({one.contender.name: one for one in tried}),
    }


def climbed(contender: Contender, case: Case, device: torch.device, exact: Exact, truth: Reference | None) -> Tried:
    """The contender at its loosest rung that reaches the residuals, or at its last."""
    rungs: list[tuple[float, float]] = []
    for rung in contender.rungs:
        found = judged(run(contender, case, device, rung), exact, truth)
        answer, off = found.answer, worst(found.residuals)
        rungs.append((rung, off))
        say(
            f"  {contender.name} {contender.rung_name} {rung:g}: {answer.wall:.2f} s ({answer.cpu:.2f} s cpu), "
            f"{answer.products:.1f} products, worst residual {off:.2g}"
        )
        if off <= GOOD or (answer.claimed is not None and answer.claimed <= GOOD):
            break  # its own claim counts: a tool with another operator would climb in vain
    return Tried(contender=contender, rung=rung, runs=[found], climbed=rungs)


def judged(answer: Answer, exact: Exact, truth: Reference | None) -> Judged:
    """The answer with the residuals and errors of both ends."""
    ends = (answer.top, answer.bottom)
    values = (truth.top, truth.bottom) if truth else (None, None)
    residuals = tuple(None if end is None else exact.residual(end.value, end.vector) for end in ends)
    errors = tuple(
        None if end is None or value is None else abs(end.value - value) / abs(value)
        for end, value in zip(ends, values, strict=True)
    )
    return Judged(answer=answer, residuals=residuals, errors=errors)


def repeat(
    tried: list[Tried], case: Case, device: torch.device, rounds: int, exact: Exact, truth: Reference | None
) -> None:
    """More runs of what is fast enough, by turns: backwards in one round, forwards in the next.

    A tool that was right from the first start vector only goes on with its next rung.
    """

    def again(one: Tried, seed: int) -> Judged:
        return judged(run(one.contender, case, device, one.rung, seed), exact, truth)

    for seed in range(1, rounds):
        for one in reversed(tried) if seed % 2 else tried:
            if one.runs[0].answer.wall <= SLOW:
                one.runs.append(again(one, seed))
    for one in tried:
        tighter = [rung for rung in one.contender.rungs if rung not in dict(one.climbed)]
        while tighter and not one.right and worst(one.runs[0].residuals) <= GOOD:
            one.rung = tighter.pop(0)
            one.runs = [again(one, seed) for seed in range(len(one.runs))]
            one.climbed.append((one.rung, max(worst(found.residuals) for found in one.runs)))


def memory_apart(one: Tried, name: str, options: argparse.Namespace) -> float | None:
    """MiB by which a fresh process grows while the contender runs."""
    command = [sys.executable, __file__, "--memory-of", one.contender.name, "--rung", repr(one.rung)]
    command += ["--size" if name in SIZES else "--problem", name]
    command += ["--threads", str(options.threads), "--device", options.device, *(["--quick"] if options.quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MEMORY_TIMEOUT, check=False)
    if done.returncode != 0:
        say(f"  {one.contender.name}: memory was not measured: {done.stderr.strip()[-200:]}")
        return None
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mib"])


def memory_here(options: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """The same in this process, after a miniature so that all imports are done."""
    contender = CONTENDERS[options.memory_of]
    run(contender, PROBLEMS["digits-mlp"](quick=True), device, contender.rungs[0])
    case = case_of(options.size or options.problem, quick=options.quick)
    return {"peak_mib": peak_bytes(lambda: run(contender, case, device, options.rung), device) / MIB}


def worst(residuals: tuple[float | None, ...]) -> float:
    """The largest residual of the ends that were asked for; NaN counts as infinite."""
    known = [r for r in residuals if r is not None]
    return max((math.inf if math.isnan(r) else r for r in known), default=math.inf)


def row_of(one: Tried) -> dict[str, Any]:
    """What the JSON file says of one contender: values of the first run, the worst residual and error of all."""
    answer = one.least_disturbed

    def end(found: End | None, i: int) -> dict[str, float | None] | None:
        if found is None:
            return None
        errors = [run.errors[i] for run in one.runs]
        return {
            "value": found.value,
            "residual": worst(tuple(run.residuals[i] for run in one.runs)),
            "error": None if None in errors else max(e for e in errors if e is not None),
        }

    return {
        "tool": one.contender.name,
        "setting": f"{one.contender.rung_name} {one.rung:g}",
        "right": one.right,
        "seconds": one.wall,
        "cpu_seconds": one.cpu,
        "products": one.products,
        "seconds_all": [run.answer.wall for run in one.runs],
        "cpu_seconds_all": [run.answer.cpu for run in one.runs],
        "products_all": [run.answer.products for run in one.runs],
        "share_outside_products": 1 - answer.product_wall / answer.wall,
        "cpu_share_outside_products": 1 - answer.product_cpu / answer.cpu,
        "peak_mib": one.peak_mib,
        "lambda_max": end(one.runs[0].answer.top, 0),
        "lambda_min": end(one.runs[0].answer.bottom, 1),
        "tried": [{"setting": rung, "worst_residual": r if math.isfinite(r) else None} for rung, r in one.climbed],
        "claimed_residual": answer.claimed,
        "stages": answer.stages,
        "remark": answer.remark,
    }


def summary(tried: dict[str, Tried]) -> list[str]:
    """samdiag against the tool that is right, and against PyHessian's easy end."""
    ours, lines = tried.get(OURS), []
    if ours is None:
        return []
    for name in (PEER, ALONE):
        if name in tried:
            other = tried[name]
            right = "" if other.right else " (which is not right)"
            lines.append(
                f"samdiag against {name}{right}: {other.wall / ours.wall:.1f} times as fast "
                f"(processor time {other.cpu / ours.cpu:.1f}), {number(ours.products)} products against "
                f"{number(other.products)}"
            )
    answer = ours.least_disturbed
    lines.append(
        f"samdiag outside products: {percent(1 - answer.product_wall / answer.wall)} of the time, "
        f"{percent(1 - answer.product_cpu / answer.cpu)} of the processor time"
    )
    return lines


HEADER = ["tool", "setting", "s", "runs", "cpu s", "products", "not products", "peak MiB"]
HEADER += [f"{end} {what}" for end in ("λ_max", "λ_min") for what in ("", "residual", "error")] + ["both right"]


def rows_of(section: dict[str, Any]) -> list[list[str]]:
    """The table's cells for every row of a section."""
    rows = []
    for row in section["rows"]:
        if "failure" in row:
            rows.append([row["tool"], row["failure"], *["–"] * (len(HEADER) - 2)])
            continue
        cells = [row["tool"], row["setting"], number(row["seconds"]), str(len(row["seconds_all"]))]
        cells += [number(row["cpu_seconds"]), number(row["products"]), percent(row["share_outside_products"])]
        cells.append("–" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}")
        for end in (row["lambda_max"], row["lambda_min"]):
            found = end or {"value": None, "residual": None, "error": None}
            cells += [number(found["value"], 5), percent(found["residual"]), percent(found["error"])]
        one_end = row["lambda_min"] is None
        cells.append("λ_max only" if one_end and row["right"] else "yes" if row["right"] else "no")
        rows.append(cells)
    return rows


def markdown(sections: dict[str, Any]) -> str:
    """The report of all sections."""
    parts = ["# samdiag and other tools at both ends of the spectrum", "Written by `benchmarks/peers.py`.", NOTES]
    for name, section in sections.items():
        found, about = section["reference"], section["machine"]
        parts.append(f"## {name}\n\n{section['what']}, {section['num_params']} parameters.")
        if found:
            parts.append(f"Reference: λ_max = {found['lambda_max']:.8g}, λ_min = {found['lambda_min']:.8g}.")
        parts.append(markdown_table(HEADER, rows_of(section)))
        parts.append("\n".join(f"- {line}" for line in section["summary"]))
        versions = ", ".join(f"{tool} {version}" for tool, version in about["versions"].items() if version)
        parts.append(
            f"{about['date']}, {about['device']}, {about['threads']} of {about['cores']} threads, "
            f"Python {about['python']}, {versions}."
        )
    return "\n\n".join(parts) + "\n"


NOTES = """\
All tools get the same float32 model, the same batches and threads, in one process and by turns; `s` is the median wall
clock of `runs`, each with a start vector of its own, `cpu s` the least processor time. Products are the median,
residuals and errors the worst of the runs. Products are full-data equivalents. Peak MiB is how far a fresh
process grows above its size before (resident memory; the allocator's on a GPU). A residual is ‖Hq − θq‖/|θ| with the
benchmark's own float64 Hessian, an error is against eigsh on that; both right: every residual is at most 1 %.

Where a tool has a tolerance, the row is the loosest of its ladder that is right, or the tightest. hessian-eigenthings
has a number of steps instead: the row is the first at which it says itself that it is right. It averages the means of
batches of unequal size, so that its Hessian is another one when the last batch is smaller. Help that the other
tools get: curvlinops goes without its check for determinism; PyHessian finds λ_min by a second
power iteration on H − λ_max; hessian-eigenthings reorthogonalises fully, and both ends are read off one run; for
attention all three run under torch's plain kernel, since the fused ones have no second derivative. samdiag gets the
model as it is, and its time has all its checks in it."""

if __name__ == "__main__":
    sys.exit(main())
