"""Coverage-guided fuzzing with atheris: `python -m tests.fuzz.run TARGET|all --minutes 60 --corpus DIR`.

Each target runs in a process of its own, which is started again after a hang or when memory runs out. An input that
breaks the property is kept under DIR/found/TARGET; DIR/TARGET.json says how many inputs ran and what was covered.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

HANG = 25  # seconds for one input
MEMORY = 3000  # megabytes of the process; torch alone takes 400
LONGEST = 16_384  # bytes of an input; the largest seed has some 5000
LAZY = (
    *(f"formats.{name}" for name in ("torch_zip", "torch_legacy", "torch_saved", "distributed", "adapter", "sharded")),
    *("spec.data.numpy_archive", "spec.models.lora_config", "spec.toml_text"),
)
STATUS = re.compile(r"#(\d+)\t(?:INITED|NEW|REDUCE|RELOAD|pulse|DONE)\s+cov: (\d+) ft: (\d+) corp: (\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--minutes", type=float, default=60.0, help="in all")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.corpus.mkdir(parents=True, exist_ok=True)
    if given.child is not None:
        fuzz(given.target, given.child, given.corpus)
        return
    from tests.fuzz.targets import TARGETS

    names = list(TARGETS) if given.target == "all" else given.target.split(",")
    end = time.monotonic() + 60 * given.minutes
    for number, name in enumerate(names):
        share = (end - time.monotonic()) / (len(names) - number)
        supervise(name, share, given.corpus)


def supervise(name: str, seconds: float, corpus: Path) -> None:
    """Runs one target for `seconds`, however often its process ends, and writes the summary."""
    summary: dict[str, Any] = {"target": name, "seconds": 0.0, "executions": 0, "edges": 0, "features": 0, "ends": []}
    start = time.monotonic()
    while (left := seconds - (time.monotonic() - start)) > 5:
        command = [sys.executable, "-m", "tests.fuzz.run", name, "--corpus", str(corpus), "--child", str(left)]
        child = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace"
        )
        assert child.stderr is not None
        executions, last = 0, ""
        for line in child.stderr:
            found = STATUS.search(line)
            if found is not None:
                executions = int(found[1])
                summary["edges"] = max(summary["edges"], int(found[2]))
                summary["features"] = max(summary["features"], int(found[3]))
                summary["corpus"] = int(found[4])
            elif "ERROR" in line or "Error" in line:
                last = line.strip()[:300]
        code = child.wait()
        summary["executions"] += executions
        if code:
            summary["ends"].append({"code": code, "said": last})
        summary["seconds"] = round(time.monotonic() - start, 1)
        kept = corpus / "found" / name
        summary["found"] = sorted(path.name for path in kept.iterdir()) if kept.is_dir() else []
        (corpus / f"{name}.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    print(json.dumps(summary), flush=True)


def fuzz(name: str, seconds: float, corpus: Path) -> None:
    """Fuzzes in this process until the time is over; never returns."""
    import atheris

    with atheris.instrument_imports(include=["samdiag.formats", "samdiag.spec", "samdiag.quoting"]):
        from tests.fuzz.targets import TARGETS

        for module in LAZY:  # what is imported on first use would be left without instruments
            importlib.import_module(f"samdiag.{module}")
    from tests.fuzz.checking import Violation, check

    target = TARGETS[name]
    inputs, kept = corpus / name, corpus / "found" / name
    for folder in (inputs, kept):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (inputs / f"seed-{number}").write_bytes(seed)
    dictionary = corpus / f"{name}.words"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words or (b"\0",)), encoding="ascii")
    seen: set[str] = set()

    def one(data: bytes) -> None:
        try:
            check(target, data)
        except Violation as error:
            place = _place(error)
            if place not in seen:  # one input for each way to fail, and on it goes
                seen.add(place)
                (kept / hashlib.sha256(place.encode()).hexdigest()[:16]).write_bytes(data)
                sys.stderr.write(f"found in {name}: {place}\n")

    options = [
        *(f"-max_total_time={int(seconds)}", f"-timeout={HANG}", f"-rss_limit_mb={MEMORY}", f"-max_len={LONGEST}"),
        *(f"-artifact_prefix={kept}/", f"-dict={dictionary}", "-verbosity=1", "-print_final_stats=1"),
    ]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    atheris.Setup([sys.argv[0], *options, str(inputs)], one)
    atheris.Fuzz()


def _place(error: BaseException) -> str:
    """What failed and where, without what differs from input to input."""
    cause = error.__cause__ or error
    frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if "tests/fuzz/run" not in frame.filename]
    where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:]]
    return f"{type(cause).__name__} {' '.join(where)}"


def _escaped(word: bytes) -> str:
    return "".join(chr(byte) if 32 < byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
