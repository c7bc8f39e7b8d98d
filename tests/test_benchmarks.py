"""The benchmark scripts at their smallest sizes: they run, judge by a true float64 Hessian, and write what they say."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("scipy", reason="the bench extra is not installed")
pytest.importorskip("sklearn", reason="the bench extra is not installed")

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
# peers' own deprecations, and what torch says of a quick run's shapes
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a benchmark by its name, as it is when run as a script; the threads are set back."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    torch.set_num_threads(threads)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


def dense_hessian(model: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    """The full Hessian [d, d] in float64, row by row."""
    parameters = list(model.parameters())
    flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(), parameters, create_graph=True)])
    rows = [torch.autograd.grad(entry, parameters, retain_graph=True) for entry in flat]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


def small_case(cases: Any) -> Any:
    """A network of 27 parameters on 7 samples in batches of 4: the last one is smaller."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    inputs, targets = torch.randn(7, 3), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    batches = cases.cut(inputs, targets, 4)
    return cases.Case(name="small", what="small", model=model.eval(), batches=batches, trained=True)


def test_the_reference_is_the_dense_hessian(script: Callable[[str], Any]) -> None:
    cases, truth = script("cases"), script("truth")
    case = small_case(cases)
    exact = truth.Exact(case, torch.device("cpu"), keep=True)
    wide = case.model.double()
    inputs, targets = (torch.cat(column) for column in zip(*case.batches, strict=True))
    hessian = dense_hessian(wide, lambda: nn.functional.cross_entropy(wide(inputs.double()), targets))
    values, vectors = torch.linalg.eigh(hessian)
    v = torch.randn(len(values), dtype=torch.float64)
    assert torch.allclose(exact.product(v), hessian @ v, atol=1e-12)
    assert exact.residual(float(values[-1]), vectors[:, -1]) < 1e-10
    assert exact.residual(2 * float(values[-1]), vectors[:, -1]) == pytest.approx(0.5)
    case.model.float()
    found = truth.reference(case, exact)
    assert found.top == pytest.approx(float(values[-1]), rel=1e-5)
    assert found.bottom == pytest.approx(float(values[0]), rel=1e-5)


@pytest.mark.parametrize("name", ["samdiag", "samdiag, warm start"])
def test_samdiag_is_right_and_times_its_products(script: Callable[[str], Any], name: str) -> None:
    contenders, cases, truth = script("contenders"), script("cases"), script("truth")
    case, device = cases.digits_mlp(quick=True), torch.device("cpu")
    answer = contenders.run(contenders.CONTENDERS[name], case, device, 1e-2)
    exact = truth.Exact(case, device, keep=True)
    for end in (answer.top, answer.bottom):
        assert exact.residual(end.value, end.vector) <= truth.GOOD
    assert 0 < answer.product_wall < answer.wall
    assert answer.products > 0


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("curvlinops", "curvlinops + eigsh"),
        ("pyhessian", "PyHessian λ_max alone"),
        ("hessian_eigenthings", "hessian-eigenthings"),
    ],
)
def test_a_peer_finds_the_top_at_its_tightest(script: Callable[[str], Any], package: str, name: str) -> None:
    pytest.importorskip(package)
    contenders, cases, truth = script("contenders"), script("cases"), script("truth")
    case, device = small_case(cases), torch.device("cpu")
    case.batches[:] = case.batches[:1]  # batches of one size: hessian-eigenthings averages their means
    contender = contenders.CONTENDERS[name]
    rung = 20 if contender.rung_name == "steps" else contender.rungs[-1]
    answer = contenders.run(contender, case, device, rung)
    assert truth.Exact(case, device, keep=True).residual(answer.top.value, answer.top.vector) <= truth.GOOD


def test_peers_writes_every_row_and_counts_a_crash_as_one(
    script: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers, contenders = script("peers"), script("contenders")

    def crash(*_: Any) -> Any:
        raise RuntimeError("derivative not implemented\nmore")

    broken = contenders.Contender(name="curvlinops + eigsh", ask=crash, rungs=(1e-1,), rung_name="tol")
    monkeypatch.setitem(contenders.CONTENDERS, broken.name, broken)
    arguments = ["--quick", "--problem", "digits-mlp", "--threads", "1", "--rounds", "2", "--no-memory"]
    arguments += ["--only", "samdiag", "--only", broken.name, "--out", str(tmp_path)]
    assert peers.main(arguments) == 0
    section = json.loads((tmp_path / "peers.json").read_text())["digits-mlp"]
    ours, crashed = section["rows"]
    assert ours["right"]
    assert len(ours["seconds_all"]) == 2
    assert ours["lambda_min"]["error"] < 1e-3
    assert crashed == {"tool": broken.name, "failure": "RuntimeError: derivative not implemented"}
    assert "derivative not implemented" in (tmp_path / "peers.md").read_text()


def test_a_tool_that_misses_from_another_start_goes_on_with_its_next_rung(script: Callable[[str], Any]) -> None:
    peers, contenders, cases, truth = (script(name) for name in ("peers", "contenders", "cases", "truth"))
    case, device = small_case(cases), torch.device("cpu")
    exact = truth.Exact(case, device, keep=True)
    answers = script("answers")

    def ask(_case: Any, _device: Any, rung: float, seed: int, _meter: Any) -> Any:
        vector = torch.randn(case.num_params, generator=torch.Generator().manual_seed(1))
        for _ in range(200):
            vector = exact.product(vector)
            vector = vector / torch.linalg.vector_norm(vector)
        value = float(vector @ exact.product(vector)) * (1 + rung if seed else 1)
        return answers.Answer(top=answers.End(value=value, vector=vector), bottom=None, products=1)

    contender = contenders.Contender(name="x", ask=ask, rungs=(1e-1, 1e-3), rung_name="tol")
    tried = peers.climbed(contender, case, device, exact, None)
    assert tried.rung == 1e-1
    peers.repeat([tried], case, device, 2, exact, None)
    assert tried.rung == 1e-3
    assert tried.right


def test_scaling_fits_the_exponent_of_a_power(script: Callable[[str], Any]) -> None:
    scaling = script("scaling")
    points = [{"size": n, "seconds": 3.0 * n**1.5, "peak_mib": None} for n in (1, 2, 8)]
    assert scaling.exponent(points, "seconds") == pytest.approx(1.5)
    assert scaling.exponent(points, "peak_mib") is None


def test_scaling_measures_every_axis(script: Callable[[str], Any], tmp_path: Path) -> None:
    arguments = ["--quick", "--threads", "1", "--rounds", "1", "--no-memory", "--out", str(tmp_path)]
    assert script("scaling").main(arguments) == 0
    sections = json.loads((tmp_path / "scaling.json").read_text())
    assert set(sections) == {"samples", "parameters", "eigenvalues"}
    assert [point["size"] for point in sections["samples"]["points"]] == [32, 64]
    assert all(section["exponents"]["products"] is not None for section in sections.values())


@pytest.mark.parametrize(
    "what", [("--model", "lstm"), ("--size", "resnet50"), ("--size", "vit-b16"), ("--size", "gpt2")]
)
def test_products_are_right_for_every_model(
    script: Callable[[str], Any], tmp_path: Path, what: tuple[str, str]
) -> None:
    arguments = ["--quick", "--threads", "1", "--times", "1", "--engine", "kept", "--engine", "recomputed"]
    assert script("products").main([*arguments, *what, "--out", str(tmp_path)]) == 0
    engines = json.loads((tmp_path / "products.json").read_text())[what[1]]["engines"]
    assert [row["engine"] for row in engines] == ["kept", "recomputed"]
    assert all(row["error"] < 1e-4 for row in engines)


def test_published_sizes_have_the_published_numbers_of_parameters(script: Callable[[str], Any]) -> None:
    networks = script("networks")
    with torch.device("meta"):
        sizes = {f.__name__: sum(p.numel() for p in f().parameters()) for f in (networks.resnet50, networks.vit_b16)}
        sizes["gpt2"] = sum(p.numel() for p in networks.gpt2().parameters())
    assert sizes == {"resnet50": 25_557_032, "vit_b16": 86_567_656, "gpt2": 124_439_808}  # torchvision's, OpenAI's


def test_memory_is_how_far_the_process_grew(script: Callable[[str], Any]) -> None:
    meters = script("meters")
    if not meters.resident("VmRSS"):
        pytest.skip("no /proc here")
    megabytes = 64 * 2**20
    peak = meters.peak_bytes(lambda: torch.ones(megabytes // 4).sum(), torch.device("cpu"))
    assert peak >= 0.9 * megabytes


def test_a_product_inside_a_product_counts_once(script: Callable[[str], Any]) -> None:
    meter = script("meters").Meter(torch.device("cpu"))
    inner = meter.wrap(lambda: 1)
    outer = meter.wrap(lambda: inner() + inner())
    assert outer() == 2
    assert meter.count == 1
    assert inner() == 1
    assert meter.count == 2


def test_a_smaller_budget_restarts_and_answers_the_same(
    script: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    budget = script("budget")
    whole, small = (budget.measured(megabytes, 40) for megabytes in (200, 8))
    assert whole["restarts"] == 0
    assert small["restarts"] > 0
    assert small["basis_vectors"] < whole["basis_vectors"]
    for end in ("lambda_max", "lambda_min"):
        assert small[end] == pytest.approx(whole[end], rel=1e-3)


def test_overhead_is_what_products_and_passes_leave(
    script: Callable[[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from samdiag.curvature.objective import Objective

    for name in ("product", "product_of", "block", "gradient", "gradient_of", "loss"):
        monkeypatch.setattr(Objective, name, getattr(Objective, name))  # put back afterwards
    assert script("overhead").main(["--quick", "--problem", "digits-mlp", "--threads", "1"]) == 0
    assert "everything else" in capsys.readouterr().out
