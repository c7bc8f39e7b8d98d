"""The spectrum's text and picture: what is said, what is escaped, and how wide it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from samdiag.reports import density_picture, density_text
from samdiag.spectral import Density, EigenvalueCount, LayerSpectrum, MatrixSpectrum, SpectralReport, Traces
from samdiag.types import CheckpointInfo, Estimate, Failure
from tests.reports.samples import HOSTILE_TEXT


def density(**more: object) -> Density:
    values = tuple(-0.5 + 0.1 * i for i in range(30))
    found = Density(
        linear_within=0.01,
        width=0.15,
        values=values,
        density=tuple(10.0 for _ in values),
        low=tuple(8.0 for _ in values),
        high=tuple(13.0 for _ in values),
        edges=(-0.5, -0.01, 0.01, 0.5, 2.5),
        counts=(12.4, 1000.0, 31.0, 3.0),
        counts_low=(9.0, 900.0, 0.0, 3.0),
        counts_high=(16.0, 1100.0, 60.0, 3.0),
        below=(0.0, 12.4, 1012.4, 1043.4, 1046.4),
        below_low=(0.0, 9.0, 1000.0, 1040.0, 1046.0),
        below_high=(0.0, 16.0, 1030.0, 1046.0, 1046.0),
        num_probes=8,
        num_steps=40,
        num_known=10,
    )
    return replace(found, **more)  # type: ignore[arg-type]


def matrix(name: str = "hessian", **more: object) -> MatrixSpectrum:
    found = MatrixSpectrum(
        matrix=name,
        num_params=1046,
        lambda_max=Estimate(value=2.5, error=0.01),
        lambda_min=Estimate(value=-0.5, error=0.02),
        lambda_min_bound=-0.55,
        top_eigenvalues=(Estimate(value=2.5, error=0.01),),
        bottom_eigenvalues=(Estimate(value=-0.5, error=0.02),),
        complete=False,
        traces=Traces(
            trace=Estimate(value=20.0, error=1.0),
            squared_norm=Estimate(value=16.0, error=0.8),
            absolute=Estimate(value=24.0, error=2.0),
            effective_rank=Estimate(value=36.0, error=6.0),
            products=30,
        ),
        density=density(),
        counts=(
            EigenvalueCount(
                side="below", threshold=-0.1, meaning="−1/ρ_eff: directions that SAM reverses", count=7, low=5, high=9
            ),
            EigenvalueCount(side="above", threshold=4.0, meaning="edge of stability", count=0, low=0, high=0),
        ),
        num_products=400,
    )
    return replace(found, **more)  # type: ignore[arg-type]


def report(**more: object) -> SpectralReport:
    found = SpectralReport(
        checkpoint=CheckpointInfo(path="runs/a.safetensors"),
        settings={},
        patterns=(),
        parameters=(),
        loss=Estimate(value=0.3),
        grad_norm=Estimate(value=0.1),
        effective_radius=10.0,
        stability_edge=4.0,
        matrices=(matrix(),),
        layers=(
            LayerSpectrum(
                module="0",
                parameters=("0.weight",),
                num_params=30,
                lambda_max=Estimate(value=1.0),
                lambda_min=Estimate(value=-0.1),
                trace=Estimate(value=3.0, error=0.5),
                num_products=60,
            ),
        ),
        num_samples=100,
        num_batches=4,
        timings={"measure": 2.0},
        samdiag_version="0",
    )
    return replace(found, **more)  # type: ignore[arg-type]


def test_what_is_said_first() -> None:
    text = density_text.render(report(), width=120, color=False)
    first = text.splitlines()[0]
    assert first.startswith("Hessian: 1046 eigenvalues from −0.500 ± 0.020 to 2.500 ± 0.010. 7 (5 … 9) lie below")
    assert "above −0.55 with probability 0.99" in text
    assert "‖·‖_F           4.00 ± 0.10" in text


@pytest.mark.parametrize(
    ("low", "count", "high", "words"),
    [(0, 0.0, 0, "None lies below"), (1, 1.0, 1, "1 lies below"), (0, 0.2, 3, "0 (0 … 3) lie below")],
)
def test_how_many_are_reversed(low: float, count: float, high: float, words: str) -> None:
    counts = (replace(matrix().counts[0], low=low, count=count, high=high),)
    assert words in density_text.sentence(report(matrices=(matrix(counts=counts),)))


def test_an_estimate_outside_its_interval_is_moved_to_its_end() -> None:
    """A middle of the open weight may lie outside the whole numbers that are compatible with it."""
    found = replace(matrix().counts[0], low=5, count=4.2, high=9)
    assert density_text.interval(found) == "5 (5 … 9)"


def test_bars_are_sure_likely_and_possible() -> None:
    lines = density_text.render(report(), width=100, color=False).splitlines()
    rows = {key: next(line for line in lines if key in line) for key in ("−0.5 … −0.01", "0.01 … 0.5", "0.5 … 2.5")}
    assert "█" in rows["−0.5 … −0.01"]
    assert "▓" in rows["0.01 … 0.5"]
    assert "░" in rows["0.01 … 0.5"]
    assert "█" not in rows["0.01 … 0.5"]  # none of these is certain
    assert rows["0.5 … 2.5"].rstrip().endswith(" 3")
    assert "░" not in rows["0.5 … 2.5"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_no_line_is_wider_than_asked_for(width: int) -> None:
    text = density_text.render(report(patterns=("a" * 300,)), width=width, color=False)
    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_hostile_names_are_escaped() -> None:
    layer = replace(report().layers[0], module=HOSTILE_TEXT)
    text = density_text.render(
        report(
            layers=(layer,),
            checkpoint=CheckpointInfo(path=HOSTILE_TEXT),
            patterns=(HOSTILE_TEXT,),
            notes=(HOSTILE_TEXT,),
        ),
        color=False,
    )
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_failure_is_two_lines() -> None:
    text = density_text.render(report(failure=Failure(what="it broke", todo="mend it", exit_code=3)), color=False)
    assert text.splitlines() == ["✖ runs/a.safetensors: it broke", "→ mend it"]


def test_what_was_not_asked_for_is_left_out() -> None:
    bare = matrix(density=None, counts=(), traces=replace(matrix().traces, absolute=None, effective_rank=None))
    text = density_text.render(report(matrices=(bare,), layers=()), color=False)
    for words in ("effective rank", "Layers", "How many", "Spectrum "):
        assert words not in text


@pytest.mark.parametrize("kind", [".png", ".svg", ".pdf"])
def test_pictures_are_written_and_repeat(tmp_path: Path, kind: str) -> None:
    several = report(matrices=(matrix(), matrix("ggn"), matrix("fisher")))
    first, second = tmp_path / f"a{kind}", tmp_path / f"b{kind}"
    density_picture.draw(several, first)
    density_picture.draw(several, second)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size > 5000


@pytest.mark.parametrize("linear_within", [0.001, 5.0])
def test_both_kinds_of_axis(tmp_path: Path, linear_within: float) -> None:
    density_picture.draw(report(matrices=(matrix(density=density(linear_within=linear_within)),)), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text.count("linear within") == (2 if linear_within < 1 else 1)  # the counts' own axis is always of both
