"""Many checkpoints of one small network: one process for all of them against one process per file, side by side.

`python benchmarks/fleet.py` trains the digits network with SAM, saves it many times, and inspects the files with the
commands that a user would type: `xargs -n1 samdiag inspect`, `samdiag inspect DIR`, the same with workers, with warm
starts from the neighbour, and resumed. It prints a table and writes docs/benchmarks/fleet.json and .md. Exit code 1
where a record of one way differs from the same file's record of another by more than its timings.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from meters import machine
from report import REPORTS, markdown_table, number, percent, say, show, update_json
from safetensors.torch import save_file

from samdiag import stamp
from samdiag.gallery.digits import dataset, mlp
from samdiag.gallery.training import Recipe, train

RUN = Recipe(steps=2000, lr=0.2, rho=0.05, batch_size=256, seed=0)
SAMDIAG = [sys.executable, "-m", "samdiag"]
HEADER = ["way", "files", "wall, files per s", "processor, files per s", "against one process per file (processor)"]
TIMED = ("timings", "environment")  # of a record: what may differ between two runs
HUNDRED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """One way of inspecting `files` checkpoints: what it took, its records by path, and the memory after each."""

    name: str
    files: int
    wall: float
    cpu: float
    records: dict[str, Any]
    resident: tuple[int, ...] = ()

    @property
    def row(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "name": self.name,
            "files": self.files,
            "wall_seconds": self.wall,
            "cpu_seconds": self.cpu,
            "wall_files_per_second": self.files / self.wall,
            "cpu_files_per_second": self.files / self.cpu,
            "num_products": sum(_products(record) for record in self.records.values()),
        }


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=500, help="checkpoints of the run")
    parser.add_argument("--alone", type=int, default=100, help="of which so many also get a process each")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of every process")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    with tempfile.TemporaryDirectory(prefix="samdiag-fleet-") as name:
        folder = Path(name)
        say(f"training, and saving {asked.files} checkpoints")
        files = save_run(folder / "run", asked.files)
        some = files[:: max(1, len(files) // asked.alone)][: asked.alone]
        ways = [
            one_process("one process, every file", folder, ["run"]),
            each_alone("one process per file (xargs -n1)", folder, some),
            one_process("one process, 2 workers", folder, ["run", "--workers", "2"]),
            one_process("one process, warm starts", folder, ["run", "--warm-start", "neighbour"]),
            one_process("resumed: all is there", folder, ["run"], resume=folder / "a.jsonl"),
        ]
    return report(ways, asked.threads)


def save_run(folder: Path, count: int) -> list[str]:
    """Trains with SAM and saves `count` stamped checkpoints at equal distances; their paths in the order of steps."""
    folder.mkdir()
    torch.manual_seed(0)
    model, every, files = mlp(), RUN.steps // count, []
    for record in islice(train(model, dataset(), RUN), count * every):
        if record.step % every == 0:
            path = folder / f"step-{record.step:06d}.safetensors"
            save_file(model.state_dict(), path)
            settings = {"rho": RUN.rho, "lr": RUN.lr, "batch_size": RUN.batch_size}
            stamp(path, model="digits-mlp", data="digits", loss="cross_entropy", **settings)
            files.append(str(path.relative_to(folder.parent)))
    return files


def one_process(name: str, folder: Path, arguments: Sequence[str], *, resume: Path | None = None) -> Took:
    """`samdiag inspect ARGUMENTS`, watched from outside."""
    output = folder / ("a.jsonl" if resume is None else "resumed.txt")
    if resume is None:
        command = [*SAMDIAG, "inspect", *arguments, "--format", "json", "--output", str(output), "-q"]
    else:
        command = [*SAMDIAG, "inspect", *arguments, "--resume", str(resume), "--output", str(output), "-q"]
    before, start = _children(), time.perf_counter()
    run = subprocess.Popen(command, cwd=folder)
    resident, seen = [], 0
    while run.poll() is None:
        time.sleep(0.05)
        size = output.stat().st_size if output.exists() else 0
        if size > seen:
            seen = size
            resident.append((size, _resident(run.pid)))
    wall, cpu = time.perf_counter() - start, _children() - before
    records = _read(output if resume is None else resume)
    say(f"{name}: {len(records)} records in {wall:.0f} s")
    return Took(
        name=name,
        files=len(records),
        wall=wall,
        cpu=cpu,
        records=records,
        resident=tuple(size for _, size in resident if size),
    )


def each_alone(name: str, folder: Path, files: Sequence[str]) -> Took:
    """`xargs -n1 samdiag inspect` over the files."""
    output = folder / "alone.jsonl"
    before, start = _children(), time.perf_counter()
    with output.open("wb") as stream:
        command = ["xargs", "-n1", *SAMDIAG, "inspect", "--format", "json", "-q"]
        subprocess.run(command, input="\n".join(files).encode(), stdout=stream, cwd=folder, check=False)
    wall, cpu = time.perf_counter() - start, _children() - before
    text, records, place = output.read_text(), {}, 0
    decoder = json.JSONDecoder()
    while place < len(text.rstrip()):  # one indented object per process
        record, place = decoder.raw_decode(text, place)
        records[record["checkpoint"]["path"]] = record
        place = len(text) - len(text[place:].lstrip())
    say(f"{name}: {len(records)} records in {wall:.0f} s")
    return Took(name=name, files=len(files), wall=wall, cpu=cpu, records=records)


def report(ways: Sequence[Took], threads: int) -> int:
    """Prints and writes what was measured; the exit code."""
    whole, alone = ways[0], ways[1]
    per_file = alone.files / alone.cpu
    rows = [
        [w.name, str(w.files), number(w.files / w.wall), number(w.files / w.cpu), f"{w.files / w.cpu / per_file:.1f}×"]
        for w in ways
    ]
    differing = {w.name: differing_records(whole, w) for w in ways if "warm" not in w.name}
    first, last = _mean(whole.resident[:HUNDRED]), _mean(whole.resident[-HUNDRED:])
    growth = last / first - 1 if first else None
    show("500 checkpoints of the digits network (2410 parameters, 1797 samples)", HEADER, rows)
    say(f"records that differ by more than timings: {differing}")
    say(f"memory: {first / 2**20:.0f} MiB at the first hundred records, {last / 2**20:.0f} MiB at the last hundred")
    section = {
        "ways": [way.row for way in ways],
        "differing_records": differing,
        "resident_first_hundred": first,
        "resident_last_hundred": last,
        "resident_growth": growth,
        "threads": threads,
        "machine": machine(torch.device("cpu")),
    }
    update_json(REPORTS / "fleet.json", "digits", section)
    text = f"""# Many checkpoints in one process

`python benchmarks/fleet.py`: {whole.files} checkpoints of one SAM run of the digits network (2410 parameters, 1797
samples), inspected with the commands that a user would type, {threads} CPU thread(s) per process. Throughput by
processor time leaves out what else the machine did.

{markdown_table(HEADER, rows)}

Records that differ from those of the first row by more than `timings` and `environment`: {sum(differing.values())}.
Memory of the one process: {first / 2**20:.0f} MiB over the first hundred samples of it, {last / 2**20:.0f} MiB over
the last hundred ({percent(abs(growth or 0.0))} {"more" if (growth or 0.0) >= 0 else "less"}).
"""
    (REPORTS / "fleet.md").write_text(text, encoding="utf-8")
    return 1 if any(differing.values()) else 0


def differing_records(one: Took, other: Took) -> int:
    """How many records of equal path differ by more than their timings."""
    common = [path for path in other.records if path in one.records]
    return sum(_comparable(one.records[path]) != _comparable(other.records[path]) for path in common)


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in record.items() if name not in TIMED}
    if kept.get("measurements"):
        kept["measurements"] = {**kept["measurements"], "engine": None}  # it holds seconds
    return kept


def _products(record: dict[str, Any]) -> int:
    return int((record.get("measurements") or {}).get("num_products", 0))


def _read(path: Path) -> dict[str, Any]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {record["checkpoint"]["path"]: record for record in records}


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0


if __name__ == "__main__":
    sys.exit(main())
