"""`samdiag info`: headers only, escaped, and quick."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.cli.conftest import Run, process

LOOKS = (
    "import sys; from typer.testing import CliRunner; from samdiag.cli.app import app; "
    "ran = CliRunner().invoke(app, sys.argv[1:]); sys.stdout.write(ran.stdout); "
    "sys.exit(100 if {'torch', 'numpy', 'safetensors'} & set(sys.modules) else ran.exit_code)"
)


@pytest.fixture
def optimised(work: Path) -> Path:
    """A torch file with an optimizer that knows rho."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.75)
    optimizer.param_groups[0]["rho"] = 0.25
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, work / "a.pt")
    return work / "a.pt"


def shard(folder: Path) -> Path:
    """Two shards and their index."""
    save_file({"a": torch.zeros(2, 3)}, folder / "model-1.safetensors")
    save_file({"b": torch.zeros(4).half()}, folder / "model-2.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    return index


def test_safetensors(run: Run, work: Path) -> None:
    tensors = {"w": torch.zeros(30, 4), "half": torch.zeros(5).half(), "norm.running_mean": torch.zeros(3)}
    save_file({**tensors, "count": torch.zeros(1).long()}, work / "a.safetensors", metadata={"author": "x"})
    found = run("info", "a.safetensors", "--format", "json").report
    assert found["format"] == "safetensors"
    assert found["num_tensors"] == 4
    assert found["num_parameters"] == 125  # neither the statistics nor the counter
    assert found["num_bytes"] == 4 * 120 + 2 * 5 + 4 * 3 + 8
    assert found["file_bytes"] == (work / "a.safetensors").stat().st_size
    assert found["fingerprint"] is None
    assert found["metadata"] == {"author": "x"}
    assert found["tensors"][0] == {"name": "w", "dtype": "float32", "shape": [30, 4], "num_bytes": 480}
    assert {share["dtype"]: share["num_tensors"] for share in found["dtypes"]} == {
        "float32": 2,
        "float16": 1,
        "int64": 1,
    }


def test_torch_file_with_an_optimizer(run: Run, optimised: Path) -> None:
    found = run("info", optimised, "--format", "json").report
    assert found["format"] == "torch-zip"
    assert found["num_parameters"] == 15 + 6
    hints = {hint["name"]: hint["value"] for hint in found["hints"]}
    assert hints == {"sam.rho": 0.25, "sam.lr": 0.5, "sam.momentum": 0.75, "sam.weight_decay": 0.0} | {
        "sam.dampening": 0.0,
        "sam.nesterov": False,
    }
    text = run("info", optimised).out
    assert "sam.rho = 0.25 (optimizer state)" in text
    assert "3×4" in text


def test_every_tensor_in_the_files_order(run: Run, work: Path) -> None:
    save_file({f"layer{number}": torch.zeros(number + 1) for number in range(9)}, work / "a.safetensors")
    assert run("info", "a.safetensors").out.count("layer") == 5
    assert run("info", "a.safetensors", "--tensors").out.count("layer") == 9
    assert len(run("info", "a.safetensors", "--tensors", "--format", "json").report["tensors"]) == 9


def test_the_fingerprint_only_when_asked(run: Run, work: Path) -> None:
    save_file({"w": torch.zeros(3)}, work / "a.safetensors")
    expected = hashlib.sha256((work / "a.safetensors").read_bytes()).hexdigest()
    assert expected not in run("info", "a.safetensors").out
    assert f"sha256:{expected}" in run("info", "a.safetensors", "--fingerprint").out


def test_a_large_file_is_not_read(run: Run, work: Path) -> None:
    length = 8 * 2**30  # a hole: nothing is on the disk, and hashing it would take minutes
    header = json.dumps({"w": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}).encode()
    with (work / "large.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + length)
    found = run("info", "large.safetensors", "--format", "json").report
    assert found["num_bytes"] == length


@pytest.mark.parametrize("sharded", [False, True])
def test_neither_torch_nor_numpy_for_safetensors(work: Path, sharded: bool) -> None:
    path = shard(work)
    path = path if sharded else work / "model-1.safetensors"
    ran = process("info", path, "--format", "json", python=("-c", LOOKS))
    assert ran.code == 0
    assert ran.report["num_tensors"] == (2 if sharded else 1)


def test_shards_are_one_checkpoint(run: Run, work: Path) -> None:
    found = run("info", shard(work), "--tensors", "--format", "json").report
    assert {line["name"]: line["shape"] for line in found["tensors"]} == {"a": [2, 3], "b": [4]}
    assert (found["format"], found["fingerprint"]) == ("sharded", None)


def test_what_a_terminal_would_obey_is_escaped(run: Run, work: Path) -> None:
    evil = "\x1b[2J\u202e[bold]x"
    metadata = {evil: evil, "samdiag": json.dumps({"model": {evil: evil}})}
    save_file({evil: torch.zeros(2)}, work / "a.safetensors", metadata=metadata)
    for arguments in ((), ("--tensors",)):
        out = run("info", "a.safetensors", *arguments).out
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "[bold]x" in out
    assert json.loads(run("info", "a.safetensors", "--format", "json").out)["stamp"] == {"model": {evil: evil}}


def test_several_and_one_that_cannot_be_read(run: Run, work: Path, optimised: Path) -> None:
    (work / "text.pt").write_text("hello")
    ran = run("info", optimised, "text.pt", "missing.pt", "--format", "json")
    assert ran.code == 3
    codes = [report["failure"] and report["failure"]["exit_code"] for report in ran.reports]
    assert codes == [None, 3, 2]
    assert "not a checkpoint" in ran.err


def test_exit_codes(run: Run, work: Path, optimised: Path) -> None:
    (work / "text.pt").write_text("hello")
    assert run("info", optimised).code == 0
    assert run("info", "missing.pt").code == 2
    assert run("info", "text.pt").code == 3
    assert run("info", optimised, "--format", "xml").code == 2


def test_the_report_goes_where_it_is_told(run: Run, work: Path, optimised: Path) -> None:
    assert run("info", optimised, "--output", "report.txt").out == ""
    assert "torch-zip" in (work / "report.txt").read_text()
    ran = run("info", optimised, "--output", optimised)
    assert ran.code == 2


def test_the_telling_part_of_a_configuration(run: Run, work: Path) -> None:
    (work / "hf").mkdir()
    save_file({"w": torch.zeros(2)}, work / "hf" / "model.safetensors")
    config = {"architectures": ["BertModel"], "model_type": "bert", "id2label": {str(n): "x" for n in range(9999)}}
    (work / "hf" / "config.json").write_text(json.dumps(config))
    found = run("info", "hf", "--format", "json").report
    assert found["configuration"] == {"architectures": ["BertModel"], "model_type": "bert"}
    assert "model_type = bert" in run("info", "hf").out
