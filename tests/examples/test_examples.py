"""Published checkpoints that nobody here trained: fetched by package name, checked on their own task, inspected.

What a registry does not have is skipped with the registry's own reason.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from samdiag.types import VERDICTS_BY_HARM
from tests.torchvision_ops import declare

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
sys.path.insert(0, str(EXAMPLES))
import check  # noqa: E402
import fetch  # noqa: E402

pytestmark = pytest.mark.slow

CHUNK = 250  # rows of the dense Hessian at a time
TIMEOUT = 1200  # seconds for one command: ten times what it takes alone on a core
AT_LEAST = {  # share of right answers; chance is a half, and 1/3, 1/32 and the most frequent token for the last ones
    "pnet": 0.98,
    "rnet": 0.99,
    "onet": 0.99,
    "crepe": 0.95,
    "silero_vad": 0.9,
    "attacut": 0.95,
    "resemblyzer": 0.95,
    "minilm": 0.65,
    "rxnmapper": 0.85,
    "rxnfp": 0.85,
}
HURRIED = dict.fromkeys(
    ("resemblyzer", "minilm", "rxnfp"), ("--until", "decided", "--time-limit", "100")
)  # large, slow
ALONE = (
    "pnet",
    "rnet",
    "onet",
    "crepe",
    "silero_vad",
    "attacut",
    "rxnmapper",
)  # `samdiag init` needs no help with these

Laid = Callable[[str], Path]


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laid]:
    """A function giving a copy of an example's folder with weights and data; it skips what is not to be had."""
    folders: dict[str, Path] = {}

    def copy(name: str) -> Path:
        if name not in folders:
            folder = tmp_path_factory.mktemp(name) / name
            folder.mkdir()
            for file in ("samdiag.toml", "model.py", "problem.py", "loss.py"):
                if (EXAMPLES / name / file).is_file():
                    shutil.copy(EXAMPLES / name / file, folder)
            try:
                fetch.lay_out(name, folder)
            except fetch.NotAvailable as error:
                pytest.skip(str(error))
            folders[name] = folder
        return folders[name]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "path", [*sys.path])  # what user code puts there goes again
        yield copy


def test_every_example_is_complete() -> None:
    """Each folder says what it is, how it is inspected, and where its data come from."""
    assert set(fetch.EXAMPLES) == set(check.CHECKPOINTS) == set(AT_LEAST)
    for name in fetch.EXAMPLES:
        for file in ("README.md", "samdiag.toml", "prepare.py"):
            assert (EXAMPLES / name / file).is_file(), f"{name}/{file}"


@pytest.mark.parametrize("name", AT_LEAST)
def test_weights_do_their_own_task(name: str, laid_out: Laid, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are trained, and loaded where they belong: far above chance on real data."""
    folder = laid_out(name)
    declare()
    for module in ("model", "loss", "problem"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    figures = check.figures_of(name, folder)
    assert figures[check.TASKS[name]] >= AT_LEAST[name], figures


@pytest.mark.parametrize("name", AT_LEAST)
def test_inspected(name: str, laid_out: Laid) -> None:
    """The report has a verdict and both ends of the spectrum, each converged or said not to be."""
    report = inspected(laid_out(name), name, *HURRIED.get(name, ()))
    found = report["measurements"]
    assert report["verdict"] in VERDICTS_BY_HARM
    assert math.isfinite(found["lambda_max"]["value"])
    assert found["lambda_max"]["value"] > 0
    assert math.isfinite(found["lambda_min"]["value"])
    said = [text for text in found["notes"] if "time ran out" in text or "stopped once" in text]
    assert found["lambda_max"]["converged"] or said


@pytest.mark.parametrize("name", ALONE)
def test_init_then_inspect(name: str, laid_out: Laid, tmp_path: Path) -> None:
    """What `samdiag init` writes is inspected unchanged, and says the same as the spec written by hand."""
    source = laid_out(name)
    folder = tmp_path / name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("samdiag.toml", "__pycache__"))
    run = samdiag(folder, "init", check.CHECKPOINTS[name])
    assert run.returncode == 0, run.stderr
    assert "unknown  rho" in run.stderr  # the only thing that no tensor and no data say
    ours, theirs = inspected(source, name), inspected(folder, name)
    assert theirs["verdict"] == ours["verdict"]
    assert theirs["measurements"]["loss"]["value"] == pytest.approx(ours["measurements"]["loss"]["value"], rel=1e-5)
    assert top(theirs) == pytest.approx(top(ours), rel=1e-3)  # the solver's own tolerance


def test_dense_hessian_of_pnet(laid_out: Laid, tmp_path: Path) -> None:
    """Both ends of the spectrum are those of the whole Hessian in float64, made row by row; on 16 of the crops."""
    folder = tmp_path / "pnet"
    shutil.copytree(laid_out("pnet"), folder)
    with np.load(folder / "faces.npz") as arrays:
        few = {name: values[4::12] for name, values in arrays.items()}
    np.savez(folder / "faces.npz", **few)
    model, parameters, loss = float64_problem(folder, "PNet", "pnet.pt", "faces.npz")
    rows = dense_hessian(loss(model), parameters)
    assert (rows - rows.T).abs().max() < 1e-9 * rows.abs().max()
    lowest, highest = arpack(lambda vector: rows.numpy() @ vector, len(rows), "BE", 2)
    report = inspected(folder, "pnet", "--until", "converged")
    assert top(report) == pytest.approx(highest, rel=1e-3)
    found = report["measurements"]["lambda_min"]
    assert abs(found["value"] - lowest) <= found["error"] + 1e-3 * abs(lowest)


def test_largest_eigenvalue_of_rnet(laid_out: Laid) -> None:
    """The largest eigenvalue is that which ARPACK finds from float64 Hessian products."""
    folder = laid_out("rnet")
    model, parameters, loss = float64_problem(folder, "RNet", "rnet.pt", "faces.npz")
    gradients = torch.autograd.grad(loss(model), parameters, create_graph=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients])

    def product(vector: np.ndarray) -> np.ndarray:
        rows = torch.autograd.grad(flat @ torch.from_numpy(vector).flatten(), parameters, retain_graph=True)
        return torch.cat([row.flatten() for row in rows]).numpy()

    (highest,) = arpack(product, len(flat), "LA", 1)
    assert top(inspected(folder, "rnet")) == pytest.approx(highest, rel=1e-3)


_reports: dict[tuple[str, ...], dict[str, Any]] = {}


def inspected(folder: Path, name: str, *flags: str) -> dict[str, Any]:
    """The JSON report of the command a user types in `folder`; each is made once."""
    key = (str(folder), *flags)
    if key not in _reports:
        run = samdiag(folder, "inspect", check.CHECKPOINTS[name], "--format", "json", "--fail-on", "never", *flags)
        report = json.loads(run.stdout)
        assert report["failure"] is None, report["failure"]
        assert run.returncode == (3 if report["verdict"] == "undecided" else 0), run.stderr
        _reports[key] = report
    return _reports[key]


def samdiag(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in `folder`, on one thread, with nothing of this process but the declared operators."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.torchvision_ops", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def top(report: dict[str, Any]) -> float:
    return float(report["measurements"]["lambda_max"]["value"])


def arpack(product: Callable[[np.ndarray], np.ndarray], size: int, which: str, count: int) -> list[float]:
    """Eigenvalues at the ends of the spectrum, in ascending order, by a solver that is not samdiag's."""
    linalg = pytest.importorskip("scipy.sparse.linalg")
    operator = linalg.LinearOperator((size, size), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=size)
    found = linalg.eigsh(operator, k=count, which=which, v0=start, tol=1e-6, return_eigenvectors=False)
    return sorted(float(value) for value in found)


def float64_problem(
    folder: Path, kind: str, weights: str, data: str
) -> tuple[torch.nn.Module, list[Tensor], Callable[[torch.nn.Module], Tensor]]:
    """The model in float64, the parameters that the loss uses, and the loss over all samples; without samdiag."""
    namespace: dict[str, Any] = {}
    exec((folder / "model.py").read_text(encoding="utf-8"), namespace)  # the example's own file, just copied here
    model = namespace[kind]().eval()
    model.load_state_dict(torch.load(folder / weights, weights_only=True, map_location="cpu"))
    model.double()
    arrays = np.load(folder / data)
    inputs, targets = torch.from_numpy(arrays["inputs"]).double(), torch.from_numpy(arrays["targets"])

    def loss(model: torch.nn.Module) -> Tensor:
        return torch.nn.functional.cross_entropy(model(inputs), targets)

    gradients = torch.autograd.grad(loss(model), list(model.parameters()), allow_unused=True)
    used = [own for own, gradient in zip(model.parameters(), gradients, strict=True) if gradient is not None]
    return model, used, loss


def dense_hessian(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    """Every row of the Hessian [parameters, parameters]."""
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    parts = []
    for start in range(0, len(flat), CHUNK):
        ones = torch.eye(len(flat), dtype=torch.float64)[start : start + CHUNK]
        found = torch.autograd.grad(flat, parameters, ones, retain_graph=True, is_grads_batched=True)
        parts.append(torch.cat([part.flatten(1) for part in found], 1))
    return torch.cat(parts)
