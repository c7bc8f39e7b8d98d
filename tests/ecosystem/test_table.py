"""Checkpoints made by the real libraries: each is opened, compared bit for bit, and is a row of docs/formats.md.

`python -m tests.ecosystem.test_table` makes every file again and rewrites the table.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from samdiag.errors import UsageError
from samdiag.formats import Checkpoint, open_checkpoint
from samdiag.spec.parsing import parse
from tests import ecosystem
from tests.ecosystem.produced import Made, Producer

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
BEGIN, END = "<!-- table: python -m tests.ecosystem.test_table -->", "<!-- end of table -->"
FAST = {None, "pytorch_optimizer", "torch-ema", "ema-pytorch", "safetensors"}  # libraries that import at once


def producers() -> Iterator[Producer]:
    """All rows, module by module."""
    for module in sorted(item.name for item in pkgutil.iter_modules(ecosystem.__path__)):
        if module.startswith("produce_"):
            yield from importlib.import_module(f"{ecosystem.__name__}.{module}").PRODUCERS


def _parameters() -> Iterator[Any]:
    for number, producer in enumerate(producers()):
        marks = [] if producer.library in FAST else [pytest.mark.slow]
        yield pytest.param(producer, id=f"{number}-{producer.format}-{producer.how}"[:80], marks=marks)


def make(producer: Producer, folder: Path) -> Made:
    """What the library writes; its own warnings are not samdiag's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return producer.make(folder)


def revealed(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything the checkpoint says about its run, the nearest origin first."""
    found: dict[str, Any] = {}
    for embedded in checkpoint.embedded:
        parse(dict(embedded.document), embedded.source)  # it is a spec that may be heard
        said = {key: value for key, value in embedded.document.items() if key != "sam"}
        said |= {f"sam.{key}": value for key, value in embedded.document.get("sam", {}).items()}
        found = {**said, **found}
    return {**{name: hint.value for name, hint in checkpoint.hints.items()}, **found}


def check(producer: Producer, folder: Path) -> None:
    """Nothing, or AssertionError where samdiag does not find what the library wrote."""
    made = make(producer, folder)
    checkpoint = open_checkpoint(made.path)
    assert checkpoint.format == producer.kind
    check_equal(checkpoint.weights(), made.weights)
    if made.ema is not None:
        check_equal(checkpoint.weights("ema"), made.ema)
        assert any(not torch.equal(made.ema[name], made.weights[name]) for name in made.ema)
    else:
        with pytest.raises(UsageError, match="no EMA weights"):
            checkpoint.weights("ema")
    found = revealed(checkpoint)
    assert {name: found.get(name) for name in made.hints} == dict(made.hints)
    assert {name for name in found if name.startswith("sam.")} <= set(made.hints)
    buffers = checkpoint.velocity()
    assert ("momentum buffers" in producer.reads) == (buffers is not None)
    infos = checkpoint.tensor_infos()
    assert {name: info.shape for name, info in infos.items()} == {n: tuple(t.shape) for n, t in made.weights.items()}


def check_equal(found: Any, expected: Any) -> None:
    """Nothing, or AssertionError unless names, dtypes, shapes and bits agree."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        assert torch.equal(_bits(found[name]), _bits(value)), name


def _bits(value: torch.Tensor) -> torch.Tensor:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("producer", list(_parameters()))
def test_what_the_library_wrote_is_read(producer: Producer, tmp_path: Path) -> None:
    check(producer, tmp_path)


def rows() -> list[str]:
    """The table of docs/formats.md."""
    lines = ["| format | written by | loaded | read beside the weights |", "|---|---|---|---|"]
    for producer in producers():
        library = producer.library or "torch"
        version = ".".join(importlib.metadata.version(library).split("+")[0].split(".")[:2])
        weights = "bit for bit" if producer.reads else "–"
        lines.append(f"| {producer.format} | {producer.how} ({library} {version}) | {weights} | {producer.reads} |")
    return lines


def _table(text: str) -> list[str]:
    inside = text.partition(BEGIN)[2].partition(END)[0]
    return [line for line in inside.splitlines() if line]


def _without_versions(lines: list[str]) -> list[str]:
    return [re.sub(r" [\d.]+(rc\d+|a\d+|b\d+)?\) \|", ") |", line) for line in lines]


def test_the_documented_table_is_that_of_the_producers() -> None:
    documented = _table(DOCUMENT.read_text(encoding="utf-8"))
    assert _without_versions(documented) == _without_versions(rows())


def main() -> None:
    """Makes and opens every file, then writes the table."""
    for producer in producers():
        with tempfile.TemporaryDirectory() as folder:
            check(producer, Path(folder))
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    table = "\n".join(rows())
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
