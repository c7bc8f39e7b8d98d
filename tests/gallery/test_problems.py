"""The gallery's problems, in the three ways they can be used, and their closed forms."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import samdiag
import samdiag.gallery
from samdiag import registry
from samdiag.cli.app import app
from samdiag.errors import UsageError
from samdiag.gallery import beale_experiment, toy_experiment
from samdiag.gallery.functions import beale_formula, edge_model, hessian_at, saddle_formula
from samdiag.gallery.toy import ToyNetwork, dataset


def inspect(*arguments: object) -> tuple[int, dict[str, object]]:
    """(exit code, the JSON report) of `samdiag inspect … --format json`."""
    result = CliRunner().invoke(app, ["inspect", *map(str, arguments), "--format", "json", "--fail-on", "never"])
    assert result.exit_code in {0, 3}, result.stderr
    return result.exit_code, json.loads(result.stdout)


def saved(path: Path, *point: float) -> Path:
    save_file({"w": torch.tensor(point, dtype=torch.float64)}, path)
    return path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No project file is found, and none of the checkpoints' folder is searched for modules."""
    (tmp_path / "here" / ".git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize("name", registry.PROBLEMS)
def test_every_problem_has_a_loss_with_a_gradient(name: str) -> None:
    problem = getattr(samdiag.gallery, name)()
    assert isinstance(problem, samdiag.Problem)
    loss = problem.loss(problem.model, next(iter(problem.batches)))
    gradient = torch.autograd.grad(loss, list(problem.model.parameters()))
    assert loss.ndim == 0
    assert all(torch.isfinite(part).all() for part in gradient)


def test_importing_the_gallery_does_not_import_torch() -> None:
    code = "import sys, samdiag.gallery; dir(samdiag.gallery); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_problem_wins_over_a_module_of_its_name() -> None:
    import samdiag.gallery.digits  # the module that would otherwise hide the problem

    assert not isinstance(samdiag.gallery.digits, ModuleType)
    assert isinstance(sys.modules["samdiag.gallery.digits"], ModuleType)
    assert isinstance(samdiag.gallery.digits(), samdiag.Problem)


def test_what_is_no_problem_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'bael'"):
        samdiag.gallery.bael  # noqa: B018 - the access is what raises
    assert "beale" in dir(samdiag.gallery)


def test_inspect_with_a_problem_of_the_gallery(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.safetensors", 1e-3, 1.001)
    code, report = inspect(path, "--problem", "samdiag.gallery:beale", "--variant", "usam", "--rho", 0.04, "--lr", 1e-4)
    assert code == 0
    assert report["verdict"] == "saddle-attraction"
    assert report["measurements"]["lambda_min"]["value"] == pytest.approx(-27.75, rel=0.01)


def test_inspect_with_a_spec_that_names_the_catalog(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.safetensors", 0.0, 0.01)
    Path("samdiag.toml").write_text(
        'loss = "model"\n[model]\ngallery = "saddle"\n[data]\ngallery = "saddle"\n'
        '[sam]\nrho = 0.6\nvariant = "usam"\nlr = 0.01\n'
    )
    code, report = inspect(path)
    assert code == 0
    assert report["verdict"] == "saddle-attraction"
    assert report["measurements"]["lambda_max"]["value"] == pytest.approx(2.0)


def test_a_stamp_may_name_the_catalog(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.safetensors", 1.0 / 30.0, 0.0)
    model = {"gallery": "edge", "args": {"curvatures": [10.0, 1.0]}}
    samdiag.stamp(path, model=model, data="edge", loss="model", rho=0.1, lr=0.05)
    code, report = inspect(path)
    assert code == 0
    assert report["verdict"] == "bounce"


def test_diagnose_in_python_gives_the_same(tmp_path: Path) -> None:
    problem = samdiag.gallery.saddle()
    with torch.no_grad():
        problem.model.w.copy_(torch.tensor([-0.00505, 1e-9]))
    assert samdiag.diagnose(problem, rho=0.5, lr=0.01).verdict == "saddle-attraction"


def test_the_closed_forms_of_beale() -> None:
    saddle = torch.tensor([0.0, 1.0], dtype=torch.float64)
    hessian = hessian_at(beale_formula, saddle)
    assert float(beale_formula(saddle)) == 14.203125
    assert torch.equal(hessian, torch.tensor([[0.0, 27.75], [27.75, 0.0]], dtype=torch.float64))
    assert torch.func.grad(beale_formula)(saddle).abs().max() == 0
    assert float(beale_formula(torch.tensor([3.0, 0.5]))) == 0.0


def test_the_gradients_in_numpy_are_those_of_autograd() -> None:
    points = np.random.default_rng(0).normal(size=(2, 20))
    exact = torch.stack([torch.func.grad(beale_formula)(torch.tensor(point)) for point in points.T], dim=1)
    assert np.allclose(beale_experiment.gradient(points), exact.numpy(), rtol=1e-12)
    assert np.allclose(beale_experiment.value(points), [float(beale_formula(torch.tensor(p))) for p in points.T])
    assert torch.func.grad(saddle_formula)(torch.tensor([3.0, 2.0])).tolist() == [6.0, -4.0]


@pytest.mark.parametrize("activation", ["tanh", "square"])
def test_the_toy_network_in_numpy_is_the_module(activation: str) -> None:
    inputs, targets = dataset(activation).tensors
    model = ToyNetwork(activation)
    points = np.random.default_rng(1).normal(size=(2, 10))
    slope = toy_experiment.gradient(activation, *toy_experiment.data(activation))(points)
    for point, found, loss in zip(points.T, slope.T, toy_experiment.loss(points, activation), strict=True):
        with torch.no_grad():
            model.w.copy_(torch.tensor(point))
        value = (model(inputs) - targets).square().mean()
        (exact,) = torch.autograd.grad(value, [model.w])
        assert np.allclose(found, exact.numpy(), rtol=1e-12)
        assert loss == pytest.approx(float(value.detach()), rel=1e-12)


def test_the_toy_network_has_the_saddle_that_thm_1_speaks_of() -> None:
    """±2 E[xy] at the origin for tanh; 0 there for φ(z) = z², and −4 E[x²y] w2 on the line w1 = 0."""
    for activation in ("tanh", "square"):
        x, y = dataset(activation).tensors
        phi = {"tanh": torch.tanh, "square": torch.square}[activation]

        def loss(w: torch.Tensor, x: torch.Tensor = x, y: torch.Tensor = y, phi: object = phi) -> torch.Tensor:
            return (w[1] * phi(w[0] * x) - y).square().mean()  # type: ignore[operator]

        at_origin = hessian_at(loss, [0.0, 0.0])
        size = 2 * float((x * y).mean())
        expected = [[0.0, -size], [-size, 0.0]] if activation == "tanh" else [[0.0, 0.0], [0.0, 0.0]]
        assert torch.allclose(at_origin, torch.tensor(expected, dtype=torch.float64), atol=1e-12)
    on_line = hessian_at(loss, [0.0, 0.7])
    assert float(on_line[0, 0]) == pytest.approx(toy_experiment.line_curvature(0.7), rel=1e-12)


@pytest.mark.parametrize("curvatures", [[], [1.0] * 65, "10", [float("nan")], [True], None, [[1.0]]])
def test_curvatures_that_a_stamp_may_not_ask_for(curvatures: object) -> None:
    with pytest.raises(UsageError, match="curvatures"):
        edge_model(curvatures)  # type: ignore[arg-type]


def test_an_activation_that_is_not_known() -> None:
    with pytest.raises(UsageError, match="no activation 'relu'"):
        ToyNetwork("relu")
