"""Hallucinated minimizers in one and two dimensions: SAM settles where the loss still falls.

Every number that theory gives is held against a measurement: where the points are, what the SAM Jacobian is, which
starts end there, and when the ridge distance rules them out. What to expect is docs/theory.md B1 to B5 and E.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from samdiag.gallery.experiment import Experiment, Outcome, Row, Tell

if TYPE_CHECKING:
    from samdiag.gallery.functions import FunctionOfPoint
    from samdiag.gallery.hallucination_surfaces import Case
    from samdiag.types import Measurements, Problem

STARTS = 200  # per surface
STEPS = 800  # the slowest mode, J = 1 at lr 0.05, shrinks by e⁻⁴⁰
ARRIVED = 1e-6  # from the hallucinated set
PAIRS = 200  # random landscapes per dimension
DIMENSIONS = (2, 3, 5)
NEARLY, ALMOST = 0.95, 0.999  # of the wells' distance: near enough to iterate, near enough for the limit
RETURNING = 5000  # steps: the slowest mode is up to 300 times slower than the fastest
STEEP = 100.0  # condition number at which a few pairs already repel
BEYOND = 0.02  # of its distance, past the hilltop
POINTS = 40  # random points, and as many hallucinated ones, for the ridge
VANISHED = 1e-6  # of |g|: what |g+| is below at a hallucinated point, in float64


def cosine() -> Problem:
    """1 − cos x at its hallucinated point for rho = π + 1.2."""
    return _at_hallucination(cosine_model())


def double_well() -> Problem:
    """(x² − 1)²/4 at its hallucinated point 0.5 for rho = 1.5."""
    return _at_hallucination(double_well_model())


def ring() -> Problem:
    """(|x|² − 1)²/4 in the plane, at its hallucinated point (0.4, 0) for rho = 1.4."""
    return _at_hallucination(ring_model())


def sine() -> Problem:
    """SI's sine for beta = 2 and rho = 0.6, at its hallucinated point −0.06."""
    return _at_hallucination(sine_model())


def two_wells() -> Problem:
    """Two strict minima at distance 2 without a maximiser, at the hallucinated point (1.8, 0) for rho = 1.8."""
    return _at_hallucination(two_wells_model())


def cosine_model() -> FunctionOfPoint:
    """1 − cos x, one parameter `w`."""
    from samdiag.gallery.hallucination_surfaces import cosine_case

    return _model(cosine_case())


def double_well_model() -> FunctionOfPoint:
    """(x² − 1)²/4, one parameter `w`."""
    from samdiag.gallery.hallucination_surfaces import double_well_case

    return _model(double_well_case())


def ring_model() -> FunctionOfPoint:
    """(|x|² − 1)²/4 in the plane, parameter `w` [2]."""
    from samdiag.gallery.hallucination_surfaces import ring_case

    return _model(ring_case())


def sine_model() -> FunctionOfPoint:
    """SI's sine for beta = 2 and rho = 0.6, one parameter `w`."""
    from samdiag.gallery.hallucination_surfaces import sine_case

    return _model(sine_case())


def two_wells_model() -> FunctionOfPoint:
    """Two strict minima at distance 2, parameter `w` [2]."""
    from samdiag.gallery.hallucination_surfaces import two_wells_case

    return _model(two_wells_case())


def perform(folder: Path, seed: int, tell: Tell) -> Outcome:
    """All rows and both pictures."""
    from samdiag.gallery.hallucination_pictures import draw_curves, draw_planes
    from samdiag.gallery.hallucination_surfaces import CASES

    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for make in CASES:
        case = make()
        tell(f"{case.name}: the point, its Jacobian, and {STARTS} starts")
        rows += [*point_rows(case), *start_rows(case, STARTS, rng)]
    tell(f"{PAIRS} random landscapes each in {', '.join(map(str, DIMENSIONS))} dimensions")
    rows += [*well_rows(PAIRS, rng), *hill_rows(PAIRS, rng)]
    tell(f"the ridge at {2 * POINTS} points")
    rows += ridge_rows(POINTS, rng)
    tell("two pictures")
    curves, planes = folder / "hallucination-curves.png", folder / "hallucination-planes.png"
    draw_curves(curves)
    draw_planes(planes, rng)
    return Outcome(rows=tuple(rows), pictures=(curves, planes), remarks=REMARKS)


REMARKS = (
    "At the sine's point f is convex (H = β/2 > 0): a positive curvature at x rules nothing out.",
    "Two wells need no maximiser, but their curvatures matter: with condition numbers above 3 + 2√2 some pairs repel.",
    "The ridge distance excludes exactly hallucinated points only: |g+| < 0.1|g| can hold a little before the ridge.",
)


def point_rows(case: Case) -> list[Row]:
    """|g|, J and s* in closed form, by finite differences or brute force, and as samdiag measures them."""
    import torch

    from samdiag.gallery.comparing import compared
    from samdiag.gallery.hallucination_surfaces import differenced_jacobian, scanned_ridge

    point = torch.tensor(case.point, dtype=torch.float64)
    verdict, m = _diagnosed(case)
    shifted = m.perturbed_grad_norm.value or 0.0
    differences = _eigenvalues(differenced_jacobian(case.formula, point, case.rho))
    found = _real(m.jacobian_eigenvalues or ())
    agrees = _close(differences, case.jacobian, 1e-6) and _close(found, case.jacobian, 1e-6)
    scanned = scanned_ridge(case.formula, point, 4 * case.rho)
    ridge = m.ridge_distance
    return [
        compared(f"{case.name}: |g| at x_h", m.grad_norm.value or math.nan, case.grad_norm, absolute=1e-9),
        compared(f"{case.name}: |g+| at x_h", shifted, 0.0, absolute=1e-12),
        Row(
            quantity=f"{case.name}: eigenvalues of J",
            expected=_listed(case.jacobian),
            measured=f"{_listed(found)} (finite differences: {_listed(differences)})",
            agrees=agrees,
            tolerance="± 1e-6",
        ),
        Row(
            quantity=f"{case.name}: ridge distance s* < ρ = {case.rho:.4g}",
            expected=f"{case.ridge:.4g}",
            measured=f"{ridge.value or math.nan:.4f} ± {ridge.error:.4f} (scan: {scanned:.4g})",
            agrees=abs((ridge.value or math.nan) - case.ridge) <= ridge.error * 1.001
            and abs(scanned - case.ridge) < 1e-9,
            tolerance="its bracket",
        ),
        Row(
            quantity=f"{case.name}: samdiag's verdict",
            expected="hallucinated-minimizer",
            measured=verdict,
            agrees=verdict == "hallucinated-minimizer",
        ),
    ]


def start_rows(case: Case, count: int, rng: np.random.Generator) -> list[Row]:
    """How many starts around x_h end there, with SAM and with gradient descent."""
    from samdiag.gallery.dynamics import run

    starts = case.starts(count, rng)
    ends = run(case.slope, starts, rho=case.rho, lr=case.lr, num_steps=STEPS)
    arrived = int((case.gap(ends) < ARRIVED).sum())
    plain = run(case.slope, starts, rho=0.0, lr=case.lr, num_steps=STEPS)
    at_rest = (np.sqrt((case.slope(plain) ** 2).sum(axis=0)) < ARRIVED) & (case.gap(plain) > 0.01)
    return [
        _counted(f"{case.name}: SAM starts {case.basin} that end at x_h", arrived, count, count),
        _counted(f"{case.name}: GD starts there that end in a minimum", int(at_rest.sum()), count, count),
    ]


def well_rows(count: int, rng: np.random.Generator) -> list[Row]:
    """Two strict minima at distance D: which hallucinate an attractor for rho just below D."""
    from samdiag.gallery.hallucination_spheres import (
        SURE_CONDITION,
        attracts_in_the_limit,
        beside_the_second_well,
        random_wells,
        settled,
    )

    stable = reached = 0
    for dimensions in DIMENSIONS:
        wells = random_wells(count, dimensions, SURE_CONDITION, rng)
        limit, near = beside_the_second_well(wells, ALMOST), beside_the_second_well(wells, NEARLY)
        stable += int((limit.found & limit.attracting).sum())
        reached += int(settled(wells, near, rng, offset=0.02, num_steps=RETURNING).sum())
    total = count * len(DIMENSIONS)
    name = "two wells at distance D, condition ≤ 3 + 2√2"
    published = "asks for a maximiser (Thm 2.2)"
    rows = [
        _counted(f"{name}: J stable at ρ = {ALMOST:g} D", stable, total, total, published=published),
        _counted(f"{name}: SAM returns to x_h at ρ = {NEARLY:g} D", reached, total, total),
    ]
    steep = random_wells(5 * count, 2, STEEP, rng)
    expected = attracts_in_the_limit(steep)
    near = beside_the_second_well(steep, ALMOST)
    same = int(((near.attracting == expected) & near.found).sum())
    name = f"two wells in the plane, condition ≤ {STEEP:g}: J stable at ρ = {ALMOST:g} D"
    rows.append(
        Row(
            quantity=name,
            expected=f"{expected.sum()} of {5 * count} by the limit ρ → D",
            measured=f"{(near.attracting & near.found).sum()} of {5 * count}, {same} as predicted",
            agrees=same >= 5 * count * 0.99,
            tolerance="1 % of the pairs",
        )
    )
    return rows


def hill_rows(count: int, rng: np.random.Generator) -> list[Row]:
    """The hallucinated point that an isolated maximiser makes, and whether it attracts."""
    from samdiag.gallery.hallucination_spheres import beyond_the_hilltop, random_hills

    rows = []
    for dimensions in DIMENSIONS:
        made = beyond_the_hilltop(random_hills(count, dimensions, 5.0, rng), BEYOND)
        number = int(made.found.sum())
        exists = made.found & (made.shifted_norm < VANISHED)
        repelling = int((exists & ~made.attracting).sum())
        rows.append(
            Row(
                quantity=f"beyond a hilltop in {dimensions} dimensions: J unstable",
                published="x_h exists (Thm 2.2)",
                expected="all (det J < 0)" if dimensions == 2 else "all",
                measured=f"{repelling} of {number}",
                agrees=repelling == number == int(exists.sum()) and number >= 0.9 * count,
                tolerance="exact",
            )
        )
    return rows


@dataclass(slots=True)
class _Ridges:
    """What was seen at some points: how many, how many ridges agreed, how many certified, hallucinated, and both."""

    points: int = 0
    agreed: int = 0
    certified: int = 0
    hallucinated: int = 0
    both: int = 0

    def look(self, case: Case) -> None:
        """Adds samdiag's ridge at `case.point`, beside one found by brute force."""
        import torch

        from samdiag.gallery.hallucination_surfaces import scanned_ridge

        _, m = _diagnosed(case)
        scanned = scanned_ridge(case.formula, torch.tensor(case.point, dtype=torch.float64), 4 * case.rho)
        measured = math.inf if m.ridge_distance.value is None else m.ridge_distance.value
        allowed = m.ridge_distance.error * 1.001 if math.isfinite(measured) else 0.0
        certified = measured > case.rho
        hallucinated = (m.perturbed_grad_norm.value or 0.0) < VANISHED * (m.grad_norm.value or 0.0)
        self.points += 1
        self.agreed += measured == scanned or abs(measured - scanned) <= allowed
        self.certified += certified
        self.hallucinated += hallucinated
        self.both += certified and hallucinated


def ridge_rows(count: int, rng: np.random.Generator) -> list[Row]:
    """rho < s* rules a hallucinated point out: at random points and at hallucinated ones."""
    from dataclasses import replace

    from samdiag.gallery.hallucination_surfaces import random_case

    anywhere, made = _Ridges(), _Ridges()
    for _ in range(count):
        case = random_case(rng)
        made.look(case)
        point = tuple(x + rng.uniform(-1.5, 1.5) for x in case.point)
        anywhere.look(replace(case, point=point, rho=case.rho * rng.uniform(0.2, 1.5)))
    agreed, total = anywhere.agreed + made.agreed, anywhere.points + made.points
    return [
        _counted("s* by samdiag as by a scan of 4000 points, at random and hallucinated points", agreed, total, total),
        _counted("hallucinated points with ρ > s*", made.hallucinated - made.both, made.points, made.points),
        Row(
            quantity=f"random points with ρ < s* that are hallucinated (|g+| < {VANISHED:g}|g|)",
            expected="0",
            measured=f"{anywhere.both} of {anywhere.certified}",
            agrees=anywhere.both == 0 and anywhere.certified > 0,
            tolerance="exact",
        ),
    ]


def _counted(quantity: str, found: int, total: int, expected: int, *, published: str = "") -> Row:
    return Row(
        quantity=quantity,
        published=published,
        expected=f"{expected} of {total}",
        measured=f"{found} of {total}",
        agrees=found == expected,
        tolerance="exact",
    )


def _diagnosed(case: Case) -> tuple[str, Measurements]:
    """samdiag's verdict at `case.point`, and what it measured."""
    from samdiag import diagnose

    diagnosis = diagnose(_at_hallucination(_model(case)), rho=case.rho, lr=case.lr)
    if diagnosis.measurements is None:
        raise RuntimeError(f"{case.name} could not be measured: {diagnosis.failure}")
    return diagnosis.verdict, diagnosis.measurements


def _model(case: Case) -> FunctionOfPoint:
    from samdiag.gallery.functions import FunctionOfPoint

    return FunctionOfPoint(case.formula, case.point)


def _at_hallucination(model: FunctionOfPoint) -> Problem:
    from samdiag.gallery.functions import problem_of

    return problem_of(model)


def _eigenvalues(matrix: object) -> list[float]:
    """Real parts, largest first; the imaginary ones vanish on these surfaces."""
    values = np.linalg.eigvals(np.asarray(matrix))
    return sorted((float(value) for value in values.real), reverse=True)


def _real(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return sorted((real for real, _ in pairs), reverse=True)


def _close(found: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
    return len(found) == len(expected) and all(
        abs(a - b) <= tolerance * max(1.0, abs(b)) for a, b in zip(found, expected, strict=True)
    )


def _listed(values: Sequence[float]) -> str:
    """Numbers to four digits; what rounding left of a zero is a zero."""
    return ", ".join(f"{value:.4g}" if abs(value) > 1e-8 else "0" for value in values)


EXPERIMENT = Experiment(
    name="hallucination",
    title="Hallucinated minimizers: SAM settles where the loss still falls",
    source="PARK, Def. 2.1 and Thm 2.2; SI, non-convex example; docs/theory.md B1 to B5, E",
    run=perform,
)
