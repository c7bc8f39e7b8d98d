"""Every command on the shell page runs as it stands there, prints what the page says, and ends with its exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from samdiag.cli.app import app

from ..fleet.checkpoints import STAMP

PAGE = Path(__file__).parents[2] / "docs" / "shell.md"
FENCED = re.compile(r"^```(\w+)(?: exit=(\d+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("jq", "parallel", "xargs", "find", "timeout")
RUNS = {
    "a": [(0.5, 0.5), (0.8, 0.8), (0.9, 0.9), (0.99, 1.0), (1.0, 1.0)],
    "b": [(-0.3, 0.3), (0.1, 0.1), (0.01, 0.0), (0.001, -0.001), (0.0, 0.0)],
}
BROKEN = Path("runs/b/step-500.safetensors")
CUT_OFF = 9  # bytes that its copying left out
LONGEST = 300.0  # seconds after which a block counts as hanging


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A code block, what the page says it prints (None: nothing is said), and its exit code."""

    number: int
    code: str
    prints: str | None
    exit_code: int

    @property
    def measures(self) -> bool:
        return "samdiag inspect" in self.code

    @property
    def missing(self) -> list[str]:
        words = set(re.findall(r"[\w-]+", self.code))
        return [name for name in PROGRAMS if name in words and shutil.which(name) is None]


def read_page() -> list[Block]:
    found = [(m[1], int(m[2] or 0), m[3]) for m in FENCED.finditer(PAGE.read_text("utf-8"))]
    following = [*found[1:], ("", 0, "")]
    pairs = [(one, after) for one, after in zip(found, following, strict=True) if one[0] == "sh"]
    return [
        Block(number=number, code=code, exit_code=exit_code, prints=after[2] if after[0] == "text" else None)
        for number, ((_, exit_code, code), after) in enumerate(pairs, 1)
    ]


BLOCKS = read_page()


def write_runs(folder: Path) -> None:
    for run, points in RUNS.items():
        (folder / "runs" / run).mkdir(parents=True)
        for i, point in enumerate(points, 1):
            weights = {"w": torch.tensor(point, dtype=torch.float64)}
            path = folder / f"runs/{run}/step-{i}00.safetensors"
            save_file(weights, path, metadata={"samdiag": json.dumps(STAMP)})
    broken = folder / BROKEN
    broken.write_bytes(broken.read_bytes()[:-CUT_OFF])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's folder. The results that its first block makes are there already, made without a process."""
    folder = tmp_path_factory.mktemp("project")
    write_runs(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        made = CliRunner().invoke(app, ["inspect", "runs", "--resume", "out.jsonl", "-qq"])
    finally:
        os.chdir(before)
    assert made.exit_code == 1, made.output
    shutil.copy(folder / "out.jsonl", folder / "all.jsonl")
    return folder


def run(block: Block, folder: Path) -> None:
    if block.missing:
        pytest.skip(f"not installed here: {', '.join(block.missing)}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SAMDIAG_")}
    environment = {**kept, "PATH": path, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        ["bash", "-c", block.code],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    assert ended.returncode == block.exit_code, f"{block.code}\n{ended.stdout}{ended.stderr}"
    assert "Traceback" not in ended.stderr
    if block.prints is not None:
        assert ended.stdout == block.prints, block.code


def test_the_page_has_at_least_ten() -> None:
    assert len(BLOCKS) >= 10
    used = " ".join(block.code for block in BLOCKS)
    assert all(name in used for name in PROGRAMS)
    assert sum(block.prints is not None for block in BLOCKS) >= 6


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if not b.measures and "by-xargs" not in b.code], ids=lambda b: b.number
)
def test_what_looks_at_results(project: Path, block: Block) -> None:
    run(block, project)


@pytest.mark.slow
def test_the_page_from_top_to_bottom(tmp_path: Path) -> None:
    write_runs(tmp_path)
    for block in BLOCKS:
        if not block.missing:
            run(block, tmp_path)
    expected = records(tmp_path / "out.jsonl")
    assert len(expected) == 10
    for name in ("crash.jsonl", "all.jsonl", "by-xargs/*.jsonl", "by-parallel/*.jsonl"):
        found = [one for file in tmp_path.glob(name) for one in records(file)]
        assert sorted(found) == sorted(expected) or (not found and shutil.which("parallel") is None), name
    left_out = {program for block in BLOCKS for program in block.missing}
    if left_out:
        pytest.skip(f"not installed here: {', '.join(sorted(left_out))}; the blocks without them were run")


def records(path: Path) -> list[tuple[str, str]]:
    documents = map(json.loads, path.read_text().splitlines())
    return [(document["checkpoint"]["path"], document["verdict"]) for document in documents]
