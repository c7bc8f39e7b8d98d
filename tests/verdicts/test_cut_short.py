"""A spectrum that was cut short decides nothing that hangs on its ends, and says why."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

import samdiag
from samdiag.instruments import SolverRun
from samdiag.reports.evidence import evidence_rows
from samdiag.types import Confidence, Diagnosis, Estimate, Finding, Measurements, Problem
from samdiag.verdicts import judge_all
from samdiag.verdicts.unstable import edge_position

from . import samples
from .samples import bouncing, est, hallucinated, saddle

SADDLES = {"saddle-attraction", "saddle-slowdown", "saddle-escaping"}
SIZE = 300  # too many parameters for a complete spectrum
LOWEST, HIGHEST = -0.5, 1.0


class Quartic(nn.Module):
    """1 + ½ Σ lam_i w_i² + ¼ Σ w_i⁴ with three negative lam: a saddle at 0, and nothing below 0.8."""

    lam: torch.Tensor

    def __init__(self, distance: float, lowest: float = LOWEST) -> None:
        super().__init__()
        draw = torch.randn(SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.w = nn.Parameter(distance * draw / draw.norm())
        lam = torch.linspace(0.05, HIGHEST, SIZE, dtype=torch.float64)
        lam[:3] = lowest * torch.tensor([1.0, 0.8, 0.6])
        self.register_buffer("lam", lam)

    def forward(self) -> torch.Tensor:
        return 1.0 + (0.5 * self.lam * self.w**2 + 0.25 * self.w**4).sum()


def diagnose(distance: float = 0.0, lowest: float = LOWEST, **changes: Any) -> Diagnosis:
    problem = Problem(
        model=Quartic(distance, lowest), loss=lambda m, _: m(), batches=[0], population=1, loss_lower_bound=0.0
    )
    return samdiag.diagnose(problem, **({"rho": 0.5, "lr": 0.1} | changes))


def measured(diagnosis: Diagnosis) -> Measurements:
    assert diagnosis.measurements is not None
    return diagnosis.measurements


CASES: list[tuple[str, dict[str, Any]]] = [
    ("saddle-attraction", {}),  # at the saddle itself
    ("saddle-attraction", {"distance": 1e-6, "lr": None}),
    ("saddle-attraction", {"variant": "usam", "rho": 6.0}),
    ("saddle-slowdown", {"variant": "usam", "rho": 3.0, "distance": 1e-6}),
    ("unstable", {"lr": 3.0}),
    ("minimum", {"lowest": 0.1}),
]


@pytest.mark.parametrize(("verdict", "case"), CASES)
@pytest.mark.parametrize("limit", [{"time_limit": 1e-6}, {"max_products": 3}])
def test_without_time_for_the_ends_the_verdict_stays_open(
    verdict: str, case: dict[str, Any], limit: dict[str, Any]
) -> None:
    assert diagnose(**case).verdict == verdict
    cut = diagnose(**case, **limit)
    assert cut.verdict == "undecided", cut.findings[0].message
    assert "before the ends of the spectrum were known" in cut.findings[0].message
    assert "--time-limit" in cut.findings[0].message
    assert not [f for f in cut.findings if f.verdict == "minimum" or f.verdict in SADDLES | {"unstable"}]
    assert all(f.confidence is Confidence.LOW for f in cut.findings if f.verdict == "descending")


@pytest.mark.parametrize("limit", [{"time_limit": 1e-6}, *({"max_products": n} for n in (2, 3, 5, 8, 12, 16))])
def test_the_error_bars_of_a_cut_spectrum_hold_its_ends(limit: dict[str, Any]) -> None:
    m = measured(diagnose(**limit))
    assert m.solver is not None
    assert m.solver.stopped in ("time limit", "products")
    low, high = m.lambda_min, m.lambda_max
    assert low.low - 1e-12 <= LOWEST <= (low.value or 0.0) + 1e-12
    assert (high.value or 0.0) - 1e-12 <= HIGHEST <= high.high + 1e-12
    assert m.lambda_min_bound == pytest.approx(low.low)
    assert m.solver.lambda_max_bound == pytest.approx(high.high)
    wide = low.error > 0.01 * abs(low.value or 0.0)
    assert low.converged is not wide


def test_products_that_suffice_for_a_verdict_give_it() -> None:
    cut = diagnose(max_products=12)
    assert measured(cut).lambda_min.error > 0.01
    assert cut.verdict == "saddle-attraction"


# ---------------------------------------------------------------- measurements made by hand


def verdict(m: Measurements) -> Finding:
    return judge_all(m)[0]


def cut(m: Measurements, stopped: str = "time limit", **changes: Any) -> Measurements:
    return dataclasses.replace(
        m, **({"solver": SolverRun(stopped=stopped, steps=3), "spectrum_complete": False} | changes)
    )


def bottom(m: Measurements, end: Estimate) -> Measurements:
    directions = (dataclasses.replace(m.bottom_directions[0], eigenvalue=end),)
    return dataclasses.replace(m, lambda_min=end, bottom_eigenvalues=(end,), bottom_directions=directions)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(samples.reachable(), st.sampled_from(["products", "time limit", "interrupted"]))
def test_whatever_was_measured_unknown_ends_are_no_minimum_saddle_or_instability(m: Measurements, why: str) -> None:
    assume(m.variant != "usam" or math.isfinite(m.effective_radius))  # USAM's is rho
    low, high = (dataclasses.replace(end, error=math.inf) for end in (m.lambda_min, m.lambda_max))
    top = (dataclasses.replace(m.top_directions[0], eigenvalue=high),)
    found = judge_all(cut(bottom(dataclasses.replace(m, lambda_max=high, top_directions=top), low), why))
    assert not {f.verdict for f in found} & (SADDLES | {"minimum", "unstable"})


UNKNOWN_END = est(-0.001, math.inf, converged=False)


@pytest.mark.parametrize("stopped", ["products", "time limit", "interrupted"])
def test_an_end_without_a_bound_is_unknown(stopped: str) -> None:
    m = cut(bottom(saddle(est(-0.5)), UNKNOWN_END), stopped, lambda_min_bound=-math.inf)
    finding = verdict(m)
    assert finding.verdict == "undecided"
    assert "between -inf and -0.001" in finding.message
    [row] = [row for row in evidence_rows(m) if "λ_min" in row.label]
    assert row.error == "± ∞"
    assert "not converged" in row.note


def test_what_lies_too_far_off_or_a_run_that_goes_on_is_not_waited_for() -> None:
    """A bound above −0.1/rho_eff with a gradient that still counts; 22 % of the loss within 1000 steps, not 4 %."""
    slow, fast = (
        saddle(est(-0.5), radius=0.5, lookahead_loss=ahead, gradient_cosine=est(0.9)) for ahead in (2.2998, 2.299)
    )
    for m, end, expected in (
        (slow, est(-0.01, 0.1), "descending"),
        (slow, est(-0.01, 9.0), "undecided"),
        (fast, est(-0.01, 9.0), "descending"),
    ):
        found = verdict(cut(bottom(m, end)))
        assert found.verdict == expected, found.message


def test_a_floor_is_no_finding_while_a_capture_may_explain_it() -> None:
    floor = saddle(
        est(0.5),
        top=est(4.0),
        radius=1.0,
        lookahead_loss=2.3,
        lookahead_loss_sgd=2.29,
        gradient_ratio=est(1.5),
    )
    assert verdict(floor).verdict == "convergence-floor"
    assert verdict(cut(bottom(floor, est(0.4, 0.1)))).verdict == "convergence-floor"
    assert verdict(cut(bottom(floor, est(0.4, 3.0)))).verdict == "undecided"


def test_a_bounce_says_that_the_rest_is_open() -> None:
    finding = verdict(cut(bottom(bouncing(loss=est(1.0), lookahead_loss=1.0), est(0.4, 30.0)), "interrupted"))
    assert finding.verdict == "bounce"
    assert "the solver was interrupted before lambda_min was known" in finding.message
    assert "open" not in verdict(bouncing()).message


def test_a_hallucination_without_its_jacobian_is_open() -> None:
    m = hallucinated()
    assert verdict(m).verdict == "hallucinated-minimizer"
    finding = verdict(cut(m, jacobian_eigenvalues=None))
    assert finding.verdict == "undecided"
    assert "SAM Jacobian was left out" in finding.message


def test_the_bar_of_the_lowest_eigenvalue_says_nothing_about_the_edge() -> None:
    """lambda_min ± 50, but lambda_max is known: lr 1 times 1 is stable."""
    m = cut(bottom(saddle(est(-0.5), lr=1.0), est(-0.5, 50.0)))
    position = edge_position(m)
    assert position is not None
    assert position[2] == pytest.approx(1.0)
