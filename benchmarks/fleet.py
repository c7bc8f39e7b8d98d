"""Many checkpoints of one small network: one process for all of them against one process per file, side by side.

`python benchmarks/fleet.py` trains small networks with SAM, saves each many times, and inspects the files with the
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from meters import machine
from report import REPORTS, markdown_table, number, percent, say, show, update_json
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from samdiag import stamp
from samdiag.gallery.digits import dataset as digits
from samdiag.gallery.digits import mlp
from samdiag.gallery.toy import ToyNetwork
from samdiag.gallery.toy import dataset as points
from samdiag.gallery.training import Criterion, Recipe, train

SAMDIAG = [sys.executable, "-m", "samdiag"]
HEADER = ["way", "files", "wall, files per s", "processor, files per s", "against one process per file (processor)"]
TIMED = ("timings",)  # of a record: what may differ between two runs
HUNDRED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network of the gallery and how it is trained.

    Attributes:
        what: for the tables.
        model, data, loss: as a stamp names them.
    """

    what: str
    model: str
    data: str
    loss: str
    make: Callable[[], nn.Module]
    dataset: Callable[[], TensorDataset]
    criterion: Criterion
    recipe: Recipe


NETWORKS = {
    "digits": Network(
        what="digits network, 2410 parameters, 1797 samples, full batch",
        model="digits-mlp",
        data="digits",
        loss="cross_entropy",
        make=mlp,
        dataset=digits,
        criterion=functional.cross_entropy,
        recipe=Recipe(steps=2000, lr=0.2, rho=0.05),
    ),
    "digits-256": Network(
        what="the same in mini-batches of 256, whose noise is run as well",
        model="digits-mlp",
        data="digits",
        loss="cross_entropy",
        make=mlp,
        dataset=digits,
        criterion=functional.cross_entropy,
        recipe=Recipe(steps=2000, lr=0.2, rho=0.05, batch_size=256),
    ),
    "toy": Network(
        what="the papers' toy network, 2 parameters",
        model="toy-network",
        data="toy-network",
        loss="mse",
        make=ToyNetwork,
        dataset=points,
        criterion=functional.mse_loss,
        recipe=Recipe(steps=2000, lr=0.01, rho=0.05),
    ),
}


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
    parser.add_argument("--networks", default=",".join(NETWORKS), help="which of them")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of every process")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    codes = [compare(name, asked.files, asked.alone, asked.threads) for name in asked.networks.split(",")]
    write_document()
    return max(codes)


def compare(name: str, count: int, alone: int, threads: int) -> int:
    """Measures one network, prints and writes it; the exit code."""
    network = NETWORKS[name]
    with tempfile.TemporaryDirectory(prefix="samdiag-fleet-") as place:
        folder = Path(place)
        say(f"{network.what}: training, and saving {count} checkpoints")
        files = save_run(folder / "run", count, network)
        some = files[:: max(1, len(files) // alone)][:alone]
        ways = [
            one_process("one process, every file", folder, ["run"], into="all.jsonl"),
            each_alone("one process per file (xargs -n1)", folder, some),
            one_process("one process, 2 workers", folder, ["run", "--workers", "2"], into="workers.jsonl"),
            one_process("one process, warm starts", folder, ["run", "--warm-start", "neighbour"], into="warm.jsonl"),
            one_process("resumed: all is there", folder, ["run"], into="all.jsonl", resumed=True),
        ]
    return report(name, network, ways, threads)


def save_run(folder: Path, count: int, network: Network) -> list[str]:
    """Trains with SAM and saves `count` stamped checkpoints at equal distances; their paths in the order of steps."""
    folder.mkdir()
    torch.manual_seed(0)
    run = network.recipe
    model, every, files = network.make(), run.steps // count, []
    for record in islice(train(model, network.dataset(), run, network.criterion), count * every):
        if record.step % every == 0:
            path = folder / f"step-{record.step:06d}.safetensors"
            save_file(model.state_dict(), path)
            settings = {"rho": run.rho, "lr": run.lr, "batch_size": run.batch_size or len(network.dataset())}
            stamp(path, model=network.model, data=network.data, loss=network.loss, **settings)
            files.append(str(path.relative_to(folder.parent)))
    return files


def one_process(name: str, folder: Path, arguments: Sequence[str], *, into: str, resumed: bool = False) -> Took:
    """`samdiag inspect ARGUMENTS`, watched from outside; `resumed`: `into` holds all of it already."""
    output = folder / into
    assert output.exists() == resumed
    command = [*SAMDIAG, "inspect", *arguments, "--resume", str(output), "-q"]
    before, start = _children(), time.perf_counter()
    run = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    resident, seen = [], 0
    while run.poll() is None:
        time.sleep(0.05)
        size = output.stat().st_size if output.exists() else 0
        if size > seen:
            seen = size
            resident.append((size, _resident(run.pid)))
    wall, cpu = time.perf_counter() - start, _children() - before
    records = _read(output)
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


def report(name: str, network: Network, ways: Sequence[Took], threads: int) -> int:
    """Prints and writes what was measured of one network; the exit code."""
    whole, alone = ways[0], ways[1]
    per_file = alone.files / alone.cpu
    rows = [
        [w.name, str(w.files), number(w.files / w.wall), number(w.files / w.cpu), f"{w.files / w.cpu / per_file:.1f}×"]
        for w in ways
    ]
    differing = {w.name: differing_records(whole, w) for w in ways if "warm" not in w.name}
    first, last = _mean(whole.resident[:HUNDRED]), _mean(whole.resident[-HUNDRED:])
    growth = last / first - 1 if first else None
    show(f"{whole.files} checkpoints: {network.what}", HEADER, rows)
    say(f"records that differ by more than timings: {differing}")
    say(f"memory: {first / 2**20:.0f} MiB at the first hundred records, {last / 2**20:.0f} MiB at the last hundred")
    section = {
        "what": network.what,
        "ways": [way.row for way in ways],
        "differing_records": differing,
        "resident_first_hundred": first,
        "resident_last_hundred": last,
        "resident_growth": growth,
        "threads": threads,
        "machine": machine(torch.device("cpu")),
    }
    update_json(REPORTS / "fleet.json", name, section)
    return 1 if any(differing.values()) else 0


def write_document() -> None:
    """docs/benchmarks/fleet.md from the JSON file."""
    sections: dict[str, Any] = json.loads((REPORTS / "fleet.json").read_text(encoding="utf-8"))
    parts = [_section(section) for section in sections.values()]
    threads = next(iter(sections.values()))["threads"]
    text = f"""# Many checkpoints in one process

`python benchmarks/fleet.py`: checkpoints of SAM runs of small networks, inspected with the commands that a user would
type, {threads} CPU thread(s) per process. Throughput by processor time leaves out what else the machine did.

{"".join(parts)}"""
    (REPORTS / "fleet.md").write_text(text, encoding="utf-8")


def _section(section: dict[str, Any]) -> str:
    ways = section["ways"]
    per_file = ways[1]["cpu_files_per_second"]
    rows = [
        [
            way["name"],
            str(way["files"]),
            number(way["wall_files_per_second"]),
            number(way["cpu_files_per_second"]),
            f"{way['cpu_files_per_second'] / per_file:.1f}×",
            str(way["num_products"]),
        ]
        for way in ways
    ]
    first, last = section["resident_first_hundred"], section["resident_last_hundred"]
    growth = section["resident_growth"] or 0.0
    return f"""## {section["what"][0].upper()}{section["what"][1:]}

{markdown_table([*HEADER, "Hessian products in the records"], rows)}

Records that differ from those of the first row by more than `timings` and the engine's seconds:
{sum(section["differing_records"].values())}. Memory of the one process: {first / 2**20:.0f} MiB over the first hundred
records, {last / 2**20:.0f} MiB over the last hundred ({percent(abs(growth))} {"more" if growth >= 0 else "less"}).

"""


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
