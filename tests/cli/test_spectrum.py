"""`samdiag spectrum`: closed forms, three media, and every mistake in two lines."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from samdiag.reports.schema import report_schema
from samdiag.spectral import SpectralReport
from tests.cli.conftest import CALL, Ran, Run, interrupt, save

PROBLEM = """
import time
from pathlib import Path

import torch
from torch import nn

import samdiag

SIZES = torch.tensor([3.0, 1.0, -0.5, -2.0], dtype=torch.float64)


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4, dtype=torch.float64))


def saddle():
    def loss(model, batch):
        return 0.5 * (SIZES * model.w**2).sum()

    return samdiag.Problem(model=Point(), loss=loss, batches=[0], num_samples=lambda _: 1, population=1)


def network(size=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, size), nn.Tanh(), nn.Linear(size, 3))


def _batches():
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(49, 6, generator=generator), torch.randint(0, 3, (49,), generator=generator)
    return list(zip(inputs.split(20), labels.split(20)))


def _loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def _linear(size):
    return samdiag.Problem(
        model=nn.Linear(size, 1, bias=False), loss=lambda m, b: m(b).mean(), batches=[torch.ones(3, size)]
    )


def flat():
    return _linear(5)


def flat_large():
    return _linear(400)


def small():
    return samdiag.Problem(model=network(), loss=_loss, batches=_batches())


def large():
    return samdiag.Problem(model=network(40), loss=_loss, batches=_batches())


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(6, 3)
        self.idle = nn.Linear(6, 2)

    def forward(self, x):
        return self.used(x)


def idle():
    return samdiag.Problem(model=Idle(), loss=_loss, batches=_batches())


def twice():
    return samdiag.Problem(model=network(), loss=lambda m, b: _loss(m, b) + m(b[0]).mean() ** 2, batches=_batches())


def slow():
    def loss(model, batch):
        Path("started").touch()
        time.sleep(0.05)
        return _loss(model, batch)

    return samdiag.Problem(model=network(40), loss=loss, batches=_batches())
"""


@pytest.fixture
def problems(work: Path) -> Path:
    (work / "own.py").write_text(PROBLEM)
    save({"w": [1.0, 0.0, 0.0, 0.0]}, "point.safetensors")
    save({"weight": [[1.0] * 5]}, "flat.safetensors")
    save({"weight": [[1.0] * 400]}, "flat_large.safetensors")
    for size, name in ((8, "small"), (40, "large")):
        import torch
        from torch import nn

        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = nn.Sequential(nn.Linear(6, size), nn.Tanh(), nn.Linear(size, 3))
        save({key: value.double() for key, value in model.state_dict().items()}, f"{name}.safetensors")
    return work


Measured = Callable[..., tuple[Ran, dict[str, Any]]]


@pytest.fixture
def measured(run: Run) -> Measured:
    def call(*arguments: Any) -> tuple[Ran, dict[str, Any]]:
        ran = run("spectrum", *arguments, "--format", "json")
        report = json.loads(ran.out)
        jsonschema.validate(report, report_schema(SpectralReport))
        return ran, report

    return call


def test_a_quadratic_is_known_exactly(problems: Path, measured: Measured) -> None:
    """|g| = 3 at (1, 0, 0, 0), so that −1/rho_eff = −3/rho; lr 0.5 puts the edge of stability at 4."""
    ran, report = measured(
        *("point.safetensors", "--problem", "own.py:saddle", "--rho", "2", "--lr", "0.5", "--threshold", "0.75")
    )
    assert ran.code == 0
    (hessian,) = report["matrices"]
    assert hessian["complete"]
    assert [e["value"] for e in hessian["top_eigenvalues"]] == pytest.approx([3, 1, -0.5, -2])
    assert hessian["traces"]["trace"]["value"] == pytest.approx(1.5)
    assert hessian["traces"]["squared_norm"]["value"] == pytest.approx(14.25)
    assert report["effective_radius"] == pytest.approx(2 / 3)
    counts = [(c["side"], c["count"]) for c in hessian["counts"]]
    assert counts == [("below", 1), ("above", 0), ("below", 1), ("within", 1), ("above", 2)]
    thresholds = [c["threshold"] for c in hessian["counts"]]
    assert thresholds == pytest.approx([-1.5, 4.0, -0.75, 0.75, 0.75])
    assert hessian["self_check"]["passed"]


def test_at_an_exact_critical_point_every_negative_direction_is_reversed(problems: Path, measured: Measured) -> None:
    save({"w": [0.0, 0.0, 0.0, 0.0]}, "origin.safetensors")
    ran, report = measured("origin.safetensors", "--problem", "own.py:saddle", "--rho", "0.1")
    assert ran.code == 0
    assert report["effective_radius"] == "Infinity"
    first = report["matrices"][0]["counts"][0]
    assert (first["side"], first["threshold"], first["count"]) == ("below", 0.0, 2)


def test_a_loss_without_curvature(problems: Path, measured: Measured, run: Run) -> None:
    for problem in ("flat", "flat_large"):
        ran, report = measured(f"{problem}.safetensors", "--problem", f"own.py:{problem}")
        assert ran.code == 0, ran.err
        (hessian,) = report["matrices"]
        assert hessian["lambda_max"]["value"] == hessian["lambda_min"]["value"] == 0
        assert hessian["traces"]["trace"]["value"] == 0
        assert run("spectrum", f"{problem}.safetensors", "--problem", f"own.py:{problem}", "--plot", "f.svg").code == 0


def test_blocks_of_the_other_matrices(problems: Path, measured: Measured) -> None:
    _, report = measured(*("small.safetensors", "--problem", "own.py:small", "--matrix", "ggn,fisher", "--params", "2"))
    assert [one["num_params"] for one in report["matrices"]] == [27, 27]
    assert all(one["lambda_max"]["value"] > 0 for one in report["matrices"])


def test_rho_may_be_left_out(problems: Path, measured: Measured) -> None:
    ran, report = measured("point.safetensors", "--problem", "own.py:saddle")
    assert ran.code == 0
    assert report["effective_radius"] is None
    assert report["stability_edge"] is None
    assert "sam.rho" not in report["settings"]
    assert [c["meaning"] for c in report["matrices"][0]["counts"]] == ["0.001 of the largest |λ|"] * 3


def test_matrices_and_layers(problems: Path, measured: Measured) -> None:
    _, report = measured(
        *("small.safetensors", "--problem", "own.py:small", "--matrix", "hessian,ggn", "--matrix", "fisher"),
        "--per-layer",
    )
    assert [one["matrix"] for one in report["matrices"]] == ["hessian", "ggn", "fisher"]
    assert report["matrices"][1]["lambda_min"]["value"] >= -1e-6
    assert {layer["module"]: layer["num_params"] for layer in report["layers"]} == {"0": 56, "2": 27}
    sizes = [max(abs(x["lambda_max"]["value"]), abs(x["lambda_min"]["value"])) for x in report["layers"]]
    assert sizes == sorted(sizes, reverse=True)
    total = sum(layer["trace"]["value"] for layer in report["layers"])
    assert total == pytest.approx(report["matrices"][0]["traces"]["trace"]["value"], rel=1e-4)


def test_a_module_that_the_loss_does_not_use_is_flat(problems: Path, measured: Measured) -> None:
    save(
        {
            "used.weight": [[0.1] * 6] * 3,
            "used.bias": [0.0] * 3,
            "idle.weight": [[1.0] * 6] * 2,
            "idle.bias": [0.0] * 2,
        },
        "idle.safetensors",
    )
    ran, report = measured("idle.safetensors", "--problem", "own.py:idle", "--per-layer")
    assert ran.code == 0, ran.err
    used, idle = report["layers"]
    assert (used["module"], used["num_params"]) == ("used", 21)
    assert used["lambda_max"]["value"] > 0
    assert (idle["module"], idle["num_params"], idle["lambda_max"]["value"], idle["num_products"]) == ("idle", 14, 0, 0)


def test_params_restrict(problems: Path, measured: Measured) -> None:
    _, whole = measured("small.safetensors", "--problem", "own.py:small", "--rho", "0.1")
    _, part = measured("small.safetensors", "--problem", "own.py:small", "--rho", "0.1", "--params", "2.weight,2.bias")
    assert part["parameters"] == ["2.weight", "2.bias"]
    assert part["matrices"][0]["num_params"] == 27
    assert part["effective_radius"] == whole["effective_radius"]  # rho is divided by the whole gradient
    assert part["matrices"][0]["lambda_max"]["value"] < whole["matrices"][0]["lambda_max"]["value"]


def test_probes_and_steps_are_obeyed(problems: Path, measured: Measured) -> None:
    _, report = measured("large.safetensors", "--problem", "own.py:large", "--probes", "3", "--steps", "7")
    density = report["matrices"][0]["density"]
    assert (density["num_probes"], density["num_steps"]) == (3, 7)
    lengths = {name: len(density[name]) for name in ("values", "density", "low", "high")}
    assert set(lengths.values()) == {241}
    assert len(density["edges"]) == len(density["counts"]) + 1 == len(density["below"])
    _, none = measured("large.safetensors", "--problem", "own.py:large", "--probes", "0")
    assert none["matrices"][0]["density"] is None


def test_the_same_seed_gives_the_same_numbers(problems: Path, measured: Measured) -> None:
    arguments = ("large.safetensors", "--problem", "own.py:large", "--probes", "2", "--steps", "5")
    first, second = (measured(*arguments)[1]["matrices"] for _ in range(2))
    other = measured(*arguments, "--seed", "1")[1]["matrices"]
    assert first == second
    assert first != other


def test_text_and_picture(problems: Path, run: Run) -> None:
    ran = run(
        *("spectrum", "large.safetensors", "--problem", "own.py:large", "--rho", "0.5", "--lr", "0.1"),
        *("--matrix", "hessian,ggn", "--plot", "spectrum.svg", "--per-layer"),
        *("--probes", "2", "--steps", "8"),
    )
    assert ran.code == 0, ran.err
    for text in ("Hessian: 403 eigenvalues from", "λ_max", "effective rank", "−1/ρ_eff", "Gauss-Newton", "Layers"):
        assert text in ran.out
    assert "picture: spectrum.svg" in ran.err
    assert (problems / "spectrum.svg").read_text().startswith("<?xml")


def test_quiet_and_output(problems: Path, run: Run) -> None:
    command = ("spectrum", "point.safetensors", "--problem", "own.py:saddle")
    assert run(*command, "-qq").out == ""
    ran = run(*command, "--output", "report.txt")
    assert ran.out == ""
    assert "Hessian: 4 eigenvalues" in (problems / "report.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--matrix", "jacobian"), "--matrix 'jacobian' is unknown"),
        (("--params", "3.*"), "--params '3.*' matches no parameter"),
        (("--probes", "-1"), "--probes -1 is out of range"),
        (("--steps", "1"), "--steps 1 is out of range"),
        (("--threshold", "x"), "--threshold 'x' is not a number"),
        (("--threshold", "-1"), "--threshold -1 is not positive"),
        (("--threshold", "1", "--probes", "0"), "--threshold needs a density"),
        (("--plot", "a.bmp"), "no known kind of picture"),
        (("--plot", "nowhere/a.png"), "cannot write nowhere/a.png"),
        (("--plot", "a.png", "--probes", "0"), "--plot draws the density"),
        (("--format", "xml"), "--format 'xml' is unknown"),
        (("--rho", "-1"), "-1"),
        (("--output", "small.safetensors"), "is one of the checkpoints"),
    ],
)
def test_mistakes_have_two_lines(problems: Path, run: Run, arguments: tuple[str, ...], what: str) -> None:
    ran = run("spectrum", "small.safetensors", "--problem", "own.py:small", *arguments)
    assert ran.code == 2
    assert what in ran.err.splitlines()[0]
    assert len(ran.err.splitlines()) >= 2
    assert ran.out == ""


def test_options_without_effect_are_named(problems: Path, run: Run) -> None:
    command = ("spectrum", "point.safetensors", "--problem", "own.py:saddle")
    assert "no effect" not in run(*command).out
    assert "--until, --block: no effect on the spectrum command" in run(*command, "--until", "ends", "--block", "2").out


def test_products_may_be_chosen(problems: Path, measured: Measured) -> None:
    """Recomputed products are the kept ones to rounding."""
    arguments = ("large.safetensors", "--problem", "own.py:large", "--probes", "0")
    first, second = (measured(*arguments, "--products", how)[1]["matrices"][0] for how in ("kept", "recomputed"))
    assert first["lambda_min"]["value"] == pytest.approx(second["lambda_min"]["value"], rel=1e-5)


def test_a_matrix_that_cannot_be_had_is_named(problems: Path, run: Run) -> None:
    ran = run("spectrum", "small.safetensors", "--problem", "own.py:twice", "--matrix", "ggn")
    assert ran.code == 3
    assert "no Gauss-Newton matrix: the loss calls the model 2 times" in ran.err
    assert "--matrix hessian" in ran.err


def test_a_failure_is_a_record_too(problems: Path, measured: Measured) -> None:
    ran, report = measured("missing.safetensors", "--problem", "own.py:small")
    assert ran.code == 2
    assert report["failure"]["what"]
    assert report["matrices"] == []


def test_schema_is_printed(run: Run) -> None:
    ran = run("schema", "spectrum")
    assert ran.code == 0
    schema = json.loads(ran.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == "samdiag spectrum"
    assert "description" in schema["$defs"]["Density"]["properties"]["width"]


def test_an_interruption_is_quiet(problems: Path) -> None:
    command = [sys.executable, "-c", CALL, "spectrum", "large.safetensors", "--problem", "own.py:slow"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (problems / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    interrupt(child)  # hundreds of slow evaluations are still to come
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert out == ""
    assert "samdiag: interrupted" in err
    assert "Traceback" not in err
