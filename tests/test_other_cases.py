"""Cases of every kind of data/cases.json with other numbers: simulation, then the Python API, then the command line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import samdiag
from samdiag.cli.app import app
from samdiag.theory.diffusion import escape_steps, noise_variance, variance
from samdiag.types import Diagnosis, Problem
from tests.cli.test_cases import PROBLEM
from tests.other_answers import Case, Draw, Vector, displacement, modes, multiplier, numpy_function
from tests.other_cases import KINDS, cases, made, network
from tests.other_networks import network_loss, noisy_run

TEDIOUS = (  # half a second or more of steps each
    *("bounce", "bounce_in_a_bowl", "many_directions", "beside_a_trap", "sam_in_the_ball", "sam_at_the_saddle"),
    *("near_a_hallucinated_minimizer",),
)


def slope(case: Case) -> Callable[[Vector], Vector]:
    """∇f in float64."""
    if "X" not in case:
        return numpy_function(case["grad"], float)
    network = network_loss(case)
    return lambda x: network(x)[1]


def run(case: Case, x: Vector, steps: int) -> Iterator[Vector]:
    """The optimiser's points, one by one: PyTorch's SGD with momentum around SAM."""
    grad, gamma, share = slope(case), case["gamma"], 1.0 - case.get("dampening", 0.0)
    v = np.array(case.get("velocity", np.zeros_like(x)))
    for _ in range(steps):
        shifted = grad(x + displacement(case["variant"], x, grad(x), case["rho"]))
        update = shifted + case["weight_decay"] * x
        v = gamma * v + share * update
        x = x - case["eta"] * (update + gamma * v if case.get("nesterov") else v)
        yield x


def pace(case: Case) -> list[float]:
    """log |r| per step of every mode of the linearised iteration that is not neutral."""
    found = [math.log(max(multiplier(mu, case), 1e-300)) for mu in modes(case)]
    return [v for v in found if abs(v) > 1e-7]


def fate(case: Case, seed: int = 0) -> str:
    """`stays` or `leaves`: from a millionth beside the point, or (`far` given) from the point itself."""
    point, rng = np.array(case["point"]), np.random.default_rng(seed)
    jitter = rng.normal(size=len(point))
    jitter /= np.linalg.norm(jitter)
    if "far" in case:
        centre, far, steps, start = np.array(case["centre"]), case["far"], 20_000, 1e-4 * case["rho"]
    else:
        rates = pace(case)
        relevant = max(rates) if case["claim"] == "leaves" else min(abs(r) for r in rates)
        centre, far, steps, start = point, 1e-4, int(min(12 / abs(relevant), 60_000)), 1e-6
    x = point
    for x in run(case, point + start * jitter, steps):
        if not np.linalg.norm(x - centre) < far:
            return "leaves"
    if "far" not in case and np.linalg.norm(x - centre) > 2e-6:
        return f"undecided after {steps} steps: {np.linalg.norm(x - centre)}"
    return "stays"


class Point(nn.Module):
    """A bare parameter vector `w`."""

    def __init__(self, point: list[float], dtype: torch.dtype) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(point, dtype=dtype))


def diagnose(case: Case, dtype: torch.dtype = torch.float64) -> Diagnosis:
    names = {"cos": torch.cos, "sin": torch.sin, "tanh": torch.tanh}
    names["array"] = lambda values: torch.tensor(values, dtype=dtype)  # type: ignore[assignment]
    code = compile(case["f"], case["id"], "eval")
    problem = Problem(
        model=Point(case["point"], dtype),
        loss=lambda model, _batch: eval(code, {**names, "w": model.w}),
        batches=[0],
    )
    return samdiag.diagnose(
        problem,
        rho=case["rho"],
        variant=case["variant"],
        lr=case["eta"],
        momentum=case["gamma"],
        weight_decay=case["weight_decay"],
        dtype="auto",
        device="cpu",
        **{key: case[key] for key in ("nesterov", "dampening") if key in case},
    )


def disagreements(case: Case, diagnosis: Diagnosis, tolerance: float) -> list[str]:
    """Everything in which the diagnosis differs from the case, one line each."""
    m = diagnosis.measurements
    if m is None:
        return [str(diagnosis.failure)]
    found = []
    if diagnosis.verdict not in case["expected"]:
        found.append(f"verdict {diagnosis.verdict}, not {case['expected']}: {diagnosis.findings[0].message}")
    exact = case["H_eigenvalues"]
    scale = max(1.0, case["grad_norm"], *map(abs, exact))
    slack = 1e-3 * tolerance if tolerance < 1e-6 else tolerance  # float32 rounds the point and the loss as well

    def compare(name: str, value: Any, truth: Any, allowed: float) -> None:
        if value is None or not abs(value - truth) <= allowed:
            found.append(f"{name} {value}, not {truth} ± {allowed:.2g}")

    compare("|g|", m.grad_norm.value, case["grad_norm"], tolerance * scale)
    if case["sam_grad_norm"] is not None:
        compare("|g+|", m.perturbed_grad_norm.value, case["sam_grad_norm"], 10 * tolerance * scale)
    if "cos" in case:
        smaller = min(1.0, case["grad_norm"], case["sam_grad_norm"])
        compare("cosine", m.gradient_cosine.value, case["cos"], tolerance * scale / smaller)
    if not m.spectrum_complete:
        found.append("the spectrum is not complete")
    for estimates, truths in ((m.bottom_eigenvalues, exact), (m.top_eigenvalues, exact[::-1])):
        for k, (estimate, truth) in enumerate(zip(estimates, truths, strict=False)):
            compare(f"eigenvalue {k}", estimate.value, truth, estimate.error + slack * scale)
    if case["J_eigenvalues"] is not None and m.jacobian_eigenvalues is not None:
        ours = sorted((complex(*v) for v in m.jacobian_eigenvalues), key=lambda v: (v.real, v.imag))
        theirs = modes(case)
        largest = max(1.0, *map(abs, theirs))
        if len(ours) != len(theirs):
            found.append(f"{len(ours)} eigenvalues of J")
        for value, truth in zip(ours, theirs, strict=False):
            compare("J", value, truth, 10 * tolerance * largest)
    if case["kind"].startswith("hallucinated") and m.jacobian_eigenvalues is None:
        found.append("no J")
    return found


def assert_agrees(case: Case, dtype: torch.dtype) -> None:
    found = disagreements(case, diagnose(case, dtype), 1e-9 if dtype == torch.float64 else 2e-5)
    assert not found, "\n".join([case["id"], *found, str({k: v for k, v in case.items() if k not in ("X", "Y")})])


def test_the_cases_have_the_schema_of_the_file() -> None:
    """Every key that all cases of data/cases.json have and a test reads, in JSON; the same seed gives the same case."""
    exact = json.loads((Path(__file__).parent / "data" / "cases.json").read_text(encoding="utf-8"))["deterministic"]
    text = {"function", "hess", "derivation", "attracting"}  # for the reader: `claim` and the docstrings say it here
    keys = set.intersection(*(set(case) for case in exact)) - text
    for case in cases(7, 1):
        assert keys <= set(case), keys - set(case)
        assert json.loads(json.dumps(case)) == case
        assert made(case["id"].split("-")[0], 7, 0) == case


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_case_of_every_kind(kind: str, number: int) -> None:
    assert_agrees(made(kind, 1, number), torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_a_case_of_every_kind_in_float32(kind: str) -> None:
    assert_agrees(made(kind, 1, 2), torch.float32)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in TEDIOUS])
def test_the_optimiser_does_what_the_case_says(kind: str) -> None:
    assert_simulated(made(kind, 1, 0))


def assert_simulated(case: Case) -> None:
    if case.get("claim") in ("stays", "leaves"):
        assert fate(case) == case["claim"], case
    elif case.get("claim") == "descends":
        f, start = numpy_function(case["f"], float), np.array(case["point"])
        assert f(list(run(case, start, 200))[-1]) < 0.9 * f(start), case


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_many_cases_of_every_kind(kind: str, dtype: torch.dtype) -> None:
    wrong = []
    for number in range(16):
        try:
            assert_agrees(made(kind, 2, number), dtype)
        except AssertionError as error:
            wrong.append(str(error))
    assert not wrong, f"{len(wrong)} of 16:\n" + "\n\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_optimiser_does_what_many_cases_say(kind: str) -> None:
    for number in range(8):
        assert_simulated(made(kind, 2, number))


# ---- networks and noise -----------------------------------------------------------------------------------------


def diagnose_network(case: Case) -> Diagnosis:
    x, y = (torch.tensor(case[key], dtype=torch.float64) for key in ("X", "Y"))
    model = nn.Sequential(nn.Linear(x.shape[1], case["width"]), nn.Tanh(), nn.Linear(case["width"], 1)).double()
    nn.utils.vector_to_parameters(torch.tensor(case["point"], dtype=torch.float64), model.parameters())
    half = len(x) // 3
    problem = Problem(
        model=model,
        loss=lambda network, batch: 0.5 * ((network(batch[0]) - batch[1]) ** 2).sum(dim=1).mean(),
        batches=[(x[:half], y[:half]), (x[half:], y[half:])],
        population=len(x),
    )
    return samdiag.diagnose(
        problem, rho=case["rho"], lr=case["eta"], momentum=case["gamma"], batch_size=len(x), device="cpu"
    )


def assert_network_agrees(case: Case) -> None:
    diagnosis = diagnose_network(case)
    m = diagnosis.measurements
    assert m is not None
    assert diagnosis.verdict in case["expected"], (case["J_eigenvalues"], [f.message for f in diagnosis.findings])
    assert m.loss.value == pytest.approx(case["loss"], rel=1e-9)
    assert m.perturbed_loss.value == pytest.approx(0.0, abs=1e-20)
    assert m.grad_norm.value == pytest.approx(case["grad_norm"], rel=1e-9)
    assert m.perturbed_grad_norm.value == pytest.approx(0.0, abs=1e-12)
    exact = case["H_eigenvalues"]
    for estimates, truths in ((m.bottom_eigenvalues, exact), (m.top_eigenvalues, exact[::-1])):
        for estimate, truth in zip(estimates, truths, strict=False):
            assert estimate.value == pytest.approx(truth, abs=estimate.error + 1e-12)
    assert m.jacobian_eigenvalues is not None
    ours = sorted((complex(*v) for v in m.jacobian_eigenvalues), key=lambda v: (v.real, v.imag))
    largest = max(map(abs, ours))
    assert np.allclose(ours, modes(case), rtol=1e-5, atol=1e-9 * largest)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_hallucinating_network(number: int) -> None:
    assert_network_agrees(network(1, number))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(24))
def test_many_hallucinating_networks(number: int) -> None:
    case = network(2, number)
    assert_simulated(case)
    assert_network_agrees(case)


@pytest.mark.parametrize("number", range(40))
def test_the_variance_of_a_noisy_run(number: int) -> None:
    case = noisy_run(Draw(np.random.default_rng([1, number])))
    c = noise_variance(case["noise"], case["B"], case["rho"], case["lam"], ascent=case["ascent"])
    assert c == pytest.approx(case["c"], rel=1e-12)
    assert variance(case["N"], case["mu"], case["eta"], case["gamma"], c) == pytest.approx(case["V"], rel=1e-9)


@pytest.mark.parametrize("number", range(40))
def test_the_steps_out_of_a_noisy_saddle(number: int) -> None:
    """The first N at which mean² + variance of the run's own recursion passes the exit."""
    d = Draw(np.random.default_rng([4, number]))
    case = noisy_run(d)
    mu, eta, gamma, c = -abs(case["mu"]), case["eta"], case["gamma"], case["c"]
    step = np.array([[1 - eta * mu, -eta * gamma], [mu, gamma]])
    kick = np.array([[eta * eta, -eta], [-eta, 1.0]]) * c
    offset = d.pick(0.0, d.between(0.5, 3.0)) * eta * math.sqrt(c)
    exit_distance = d.between(3.0, 60.0) * eta * math.sqrt(c)
    mean, spread, steps = np.array([offset, 0.0]), np.zeros((2, 2)), 0
    while mean[0] ** 2 + spread[0, 0] < exit_distance**2:
        mean, spread, steps = step @ mean, step @ spread @ step.T + kick, steps + 1
    found = escape_steps(offset=offset, noise=c, exit_distance=exit_distance, mu=mu, lr=eta, momentum=gamma)
    assert found == steps


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_recursion_is_what_noisy_runs_do(number: int) -> None:
    """40 000 runs: V is right to 2 % (four standard errors of a variance, 4·√(2/40 000) = 2.8 %)."""
    rng = np.random.default_rng([3, number])
    case = noisy_run(Draw(rng))
    std, x, v = math.sqrt(case["noise"] / case["B"]), np.zeros(40_000), np.zeros(40_000)
    for _ in range(case["N"]):
        descent, other = rng.normal(size=(2, len(x))) * std
        ascent = {"full": 0.0, "same": descent, "independent": other}[case["ascent"]]
        there = x + case["rho"] * (case["lam"] * x + ascent)
        v = case["gamma"] * v + case["lam"] * there + descent
        x = x - case["eta"] * v
    assert float((x * x).mean()) == pytest.approx(case["V"], rel=0.028)


# ---- the command line -------------------------------------------------------------------------------------------


def through_the_command_line(case: Case, folder: Path) -> dict[str, Any]:
    name = "other_" + case["id"].replace("-", "_")
    (folder / ".git").mkdir(parents=True)  # the search for a project file ends here
    folder.chmod(0o755)
    (folder / f"{name}.py").write_text(PROBLEM.format(size=len(case["point"]), f=case["f"]))
    save_file({"w": torch.tensor(case["point"], dtype=torch.float64)}, folder / "point.safetensors")
    flags = ("--rho", case["rho"], "--variant", case["variant"], "--lr", case["eta"], "--momentum", case["gamma"])
    more = ("--weight-decay", case["weight_decay"], "--format", "json", "--problem", f"{name}.py:problem")
    arguments = ["inspect", "point.safetensors", *flags, *more]
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="samdiag")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    report: dict[str, Any] = json.loads(result.stdout)
    errors = any(finding["severity"] == "error" for finding in report["findings"])
    assert result.exit_code == (1 if errors else 3 if report["verdict"] == "undecided" else 0)
    return report


@pytest.fixture
def clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The command runs in the empty folder, and what it imports from there is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("_samdiag_user_", "other_")):
            del sys.modules[name]


@pytest.mark.usefixtures("clean_imports")
@pytest.mark.parametrize(
    "kind",
    ["minimum", "bounce", "usam_saddle", "on_the_cycle", "at_a_critical_point", "ring", "between_minima", "toy_tanh"],
)
def test_a_case_through_the_command_line(kind: str, tmp_path: Path) -> None:
    assert_command_agrees(made(kind, 1, 3), tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("clean_imports")
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "other_momentum"])
def test_every_kind_through_the_command_line(kind: str, number: int, tmp_path: Path) -> None:
    assert_command_agrees(made(kind, 3, number), tmp_path)


def assert_command_agrees(case: Case, folder: Path) -> None:
    report = through_the_command_line(case, folder)
    assert report["failure"] is None
    assert report["verdict"] in case["expected"], report["findings"][0]["message"]
    measured, exact = report["measurements"], case["H_eigenvalues"]
    assert measured["grad_norm"]["value"] == pytest.approx(case["grad_norm"], rel=1e-9, abs=1e-9)
    if case["sam_grad_norm"] is not None:
        shifted = pytest.approx(case["sam_grad_norm"], abs=1e-7, rel=1e-7)
        assert measured["perturbed_grad_norm"]["value"] == shifted
    assert measured["spectrum_complete"]
    for ours, theirs in (("bottom_eigenvalues", exact), ("top_eigenvalues", exact[::-1])):
        for estimate, value in zip(measured[ours], theirs, strict=False):
            assert abs(estimate["value"] - value) <= estimate["error"] + 1e-9 * max(1.0, abs(value))
    if case["J_eigenvalues"] is not None and measured["jacobian_eigenvalues"] is not None:
        found = sorted((complex(*v) for v in measured["jacobian_eigenvalues"]), key=lambda v: (v.real, v.imag))
        assert np.allclose(found, modes(case), rtol=1e-5, atol=1e-5)
