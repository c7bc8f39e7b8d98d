"""The table of docs/security.md from the summaries of a run: `python -m tests.fuzz.record DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

READS = {
    "safetensors": "a .safetensors file, its stamp, its tensors",
    "header": "the same, the JSON of the header alone",
    "stamp": "a stamp as JSON, with and without the user's own spec",
    "sidecar": "a sidecar as TOML, likewise",
    "toml": "a project file",
    "index": "the index of a sharded checkpoint",
    "config": "config.json of a Hugging Face folder",
    "trainer-state": "trainer_state.json",
    "adapter": "adapter_config.json of PEFT",
    "distributed": "`.metadata` of torch.distributed.checkpoint",
    "zip": "the archive of torch.save",
    "pickle": "the pickle in it",
    "legacy": "a file of torch before 1.6",
    "saved": "what was saved: weights, optimizer state, arguments",
    "archive": "an .npz archive",
    "array": "the header of an array in it",
    "pattern": "patterns of an adapter; that accepted ones end",
    "quoting": "what is shown of any text",
    "written-toml": "values written as TOML and read again",
}


def table(folder: Path) -> str:
    """Markdown: one row a target, and the sum."""
    rows = ["| target | reads | inputs | edges | features | kept | found |", "|---|---|---:|---:|---:|---:|---:|"]
    total = 0
    for name, reads in READS.items():
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        said = json.loads(path.read_text(encoding="utf-8"))
        total += said["executions"]
        figures = (said["executions"], said["edges"], said["features"], said.get("corpus", 0), len(said["found"]))
        rows.append(f"| `{name}` | {reads} | {' | '.join(f'{figure:,}' for figure in figures)} |")
    rows.append(f"| all | | {total:,} | | | | |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
