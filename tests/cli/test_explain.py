"""`--explain`: every setting with its source, also where the problem is not said, and nothing loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import Run, network, process

A = "runs/a.safetensors"
PROBLEM = ("--problem", "problems.py:problem")
IMPORTED = (
    "import sys\nfrom samdiag.cli.app import main\ntry:\n    main()\nfinally:\n"
    "    print('HEAVY', [n for n in ('torch', 'numpy') if n in sys.modules], file=sys.stderr)"
)


def rows(text: str) -> dict[str, str]:
    """Setting → the rest of its line."""
    found = (line.partition(" ") for line in text.splitlines()[1:] if line and not line.startswith(" "))
    return {name: rest for name, _, rest in found}


@pytest.fixture
def bert(work: Path) -> str:
    """A Hugging Face directory."""
    folder = work / "bert"
    folder.mkdir()
    config = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": 4}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(2)}, folder / "model.safetensors")
    return "bert"


def test_what_is_known_and_then_the_error(work: Path, bert: str, inspect: Run) -> None:
    ran = inspect(bert, "--explain", "--rho", "0.1")
    assert ran.code == 2
    found = rows(ran.out)
    assert "config.json" in found["model"]
    assert "artifact" in found["model"]
    assert "command line" in found["sam.rho"]
    assert "default" in found["measure.seed"]
    assert "nothing says data" in ran.err
    assert 'model = { transformers = "BertForMaskedLM" }  # as config.json says' in ran.err


def test_nothing_said_at_all(work: Path, inspect: Run) -> None:
    ran = inspect(A, "--explain")
    assert ran.code == 2
    assert "sam.momentum" in rows(ran.out)
    assert "nothing says which model" in ran.err
    assert "samdiag init CKPT" in ran.err


def test_what_was_overruled_and_what_is_not_used(work: Path, bert: str, inspect: Run) -> None:
    ran = inspect(bert, "--explain", "--model", "a:b", "--data", "a:c", "--loss", "mse")
    assert ran.code == 0
    assert "BertForMaskedLM" in ran.out
    assert "overruled" in ran.out
    ran = inspect(bert, "--explain", *PROBLEM)
    assert ran.code == 0
    assert "note: config.json also says model, loss: not used, problem said by command line" in ran.err


def test_the_optimizer_state_of_a_torch_file(work: Path, inspect: Run) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    optimizer.param_groups[0]["rho"] = 0.07
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, work / "runs" / "o.pt")
    ran = inspect("runs/o.pt", "--explain", *PROBLEM, "--rho", "0.1")
    found = rows(ran.out)
    assert "0.07 (optimizer state)" in found["sam.rho"]
    assert "artifact" in found["sam.lr"]


def test_the_sidecar_of_a_folder(work: Path, bert: str, inspect: Run) -> None:
    (work / "bert.samdiag.toml").write_text("[sam]\nrho = 0.4\n")
    assert "sidecar bert.samdiag.toml" in rows(inspect(bert, "--explain", *PROBLEM).out)["sam.rho"]


def test_code_is_named_and_not_run(work: Path, inspect: Run) -> None:
    (work / "problems.py").write_text("raise SystemExit('this file was run')")
    assert inspect(A, "--explain", *PROBLEM).code == 0


def test_a_folder_is_explained_without_torch(work: Path, bert: str) -> None:
    ran = process("inspect", bert, "--explain", *PROBLEM, python=("-c", IMPORTED), cwd=work)
    assert ran.code == 0
    assert ran.err.splitlines()[-1] == "HEAVY []"


def test_trust_is_in_the_json(work: Path, inspect: Run) -> None:
    torch.save({"model": network().state_dict()}, work / "runs" / "o.pt")
    (work / "samdiag.toml").write_text('problem = "problems.py:problem"\n')
    (work / "runs" / "o.pt.samdiag.toml").write_text("[sam]\nlr = 0.5\n")
    settings = inspect("runs/o.pt", "--rho", "0.1", "--format", "json", "--fail-on", "never").report["settings"]
    trusts = {name: settings[name]["trust"] for name in ("sam.rho", "problem", "sam.lr", "measure.seed")}
    assert trusts == {"sam.rho": "cli", "problem": "project", "sam.lr": "artifact", "measure.seed": "default"}
