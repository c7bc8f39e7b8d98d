"""One problem a verdict: what the pages in docs/verdicts/ show, and what samdiag says of it.

    python docs/verdict_examples.py      # writes the report excerpts of the pages anew

The pictures (docs/verdict_pictures.py) show the same problems. A test holds the excerpts to the present code.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samdiag import diagnose
from samdiag.gallery.functions import FunctionOfPoint, beale_formula, problem_of, saddle_formula
from samdiag.reports.digest import digest
from samdiag.reports.rows import DigestedReport
from samdiag.types import Diagnosis, Problem

PAGES = Path(__file__).parent / "verdicts"
WIDTHS = (32, 20)  # columns of the label and of the value

RAVINE = (10.0, 1.0)  # curvatures
RAVINE_RHO, RAVINE_LR = 0.1, 0.05
BOUNCE = RAVINE_LR * RAVINE[0] * RAVINE_RHO / (2.0 - RAVINE_LR * RAVINE[0])  # A9: 1/30
UNSTABLE_LR = 0.21

WELL_RHO, WELL_POINT = 1.5, 0.5  # of (x² − 1)²/4: x_h = rho − 1

SADDLE_RHO, SADDLE_LR = 0.5, 0.01
TRAPPED = (-0.00505, -0.001)  # where SAM from (−3, −0.01) bounces

SLOW_RHO, SLOW_BATCH = 0.1, 32
HILL_OFFSET = 1.0  # of −cos x − cos y: the point lies that far beyond the maximiser along either axis
HILL_RHO = math.sqrt(2.0) * (math.pi + HILL_OFFSET)

FLOOR_CURVATURE, FLOOR_DIRECTIONS, FLOOR_BATCH = 2.0, 300, 32
FLOOR_RHO, FLOOR_LR = 2.5, 0.0025  # the noise of a batch has length 1, so that rho_eff = 2.5

SINE_BETA, SINE_RHO, SINE_POINT, SINE_LR = 2.0, 0.6, -0.1, 0.05  # SAM settles at −rho/10 = −0.06

ESCAPE_RHO, ESCAPE_POINT = 0.2, (0.26, 0.8)

SAMPLED, SAMPLED_SPREAD = (4.0, 2.0, -1.0), 2.0  # curvatures, and their standard deviation over the samples
SAMPLED_RHO, FEW, MANY = 1.25, 32, 4096


class NoisyBowl(nn.Module):
    """½ Σ lam_j w_j² + z·w, z the sample: a quadratic with gradient noise."""

    def __init__(self, curvatures: list[float], point: list[float]) -> None:
        super().__init__()
        self.curvatures = torch.tensor(curvatures, dtype=torch.float64)
        self.w = nn.Parameter(torch.tensor(point, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return 0.5 * (self.curvatures * self.w**2).sum() + (z @ self.w).mean()


class SampledCurvature(nn.Module):
    """½ Σ (lam_j + z_j) w_j² at its critical point 0, z the sample: the Hessian of a subset is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.curvatures = torch.tensor(SAMPLED, dtype=torch.float64)
        self.w = nn.Parameter(torch.zeros(len(SAMPLED), dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return 0.5 * ((self.curvatures + z) * self.w**2).sum(dim=1).mean()


def own_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """The loss that the model returns."""
    loss: Tensor = model(batch)
    return loss


def centred_noise(samples: int, directions: int, spread: float) -> Tensor:
    """[samples, directions] Gaussian, mean exactly 0 and standard deviation exactly `spread` in every direction."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(samples, directions, generator=generator, dtype=torch.float64)
    z = z - z.mean(dim=0)
    return z * (spread / z.std(dim=0, unbiased=False))


def slow_saddle() -> Problem:
    """Five directions of curvature 2, five of −2, at 0.01 in each; batches of 32 whose noise has length about 0.28."""
    curvatures = [2.0] * 5 + [-2.0] * 5
    batches = list(centred_noise(1024, len(curvatures), 0.5).split(SLOW_BATCH))
    return Problem(model=NoisyBowl(curvatures, [0.01] * 10), loss=own_loss, batches=batches, population=1024)


def floor_noise() -> Tensor:
    """[1024, directions] the samples of the bowl; a batch's mean has length 1."""
    return centred_noise(1024, FLOOR_DIRECTIONS, math.sqrt(FLOOR_BATCH / FLOOR_DIRECTIONS))


def floor_run(rho: Callable[[int], float], steps: int, *, seed: int = 0) -> tuple[Tensor, list[float]]:
    """Mini-batch SAM on the bowl from 0.05 in every direction: where it ends [directions], and |g| before every step.

    Args:
        rho: step → radius; 0 is SGD.
        steps: updates.
        seed: of the order of the samples.
    """
    generator, z = torch.Generator().manual_seed(seed), floor_noise()
    w, norms = torch.full((FLOOR_DIRECTIONS,), 0.05, dtype=torch.float64), []
    for step in range(steps):
        norms.append(FLOOR_CURVATURE * float(torch.linalg.vector_norm(w)))
        noise = z[torch.randperm(len(z), generator=generator)[:FLOOR_BATCH]].mean(dim=0)
        g = FLOOR_CURVATURE * w + noise
        w = w - FLOOR_LR * (g + FLOOR_CURVATURE * rho(step) * g / torch.linalg.vector_norm(g))
    return w, norms


def sine_formula(w: Tensor) -> Tensor:
    """SI's (9 beta rho²/25 pi²) sin(5 pi w/(3 rho)), a beta-smooth function on which SAM at rho stops with |g| > 0."""
    height = 9.0 * SINE_BETA * SINE_RHO**2 / (25.0 * math.pi**2)
    return (height * torch.sin(5.0 * math.pi * w / (3.0 * SINE_RHO))).sum()


def sampled(count: int) -> Problem:
    """The saddle with sampled curvatures, seen through the first `count` of its samples."""
    generator = torch.Generator().manual_seed(0)
    z = SAMPLED_SPREAD * torch.randn(MANY, len(SAMPLED), generator=generator, dtype=torch.float64)
    batches = list(z[:count].split(max(2, count // 32)))
    return Problem(model=SampledCurvature(), loss=own_loss, batches=batches, batch_size_is_training=False)


def ravine(point: tuple[float, float]) -> Problem:
    """½(10 x² + y²) at `point`."""
    lam = torch.tensor(RAVINE, dtype=torch.float64)
    return problem_of(FunctionOfPoint(lambda w: 0.5 * (lam * w * w).sum(), point))


def at(formula: Callable[[Tensor], Tensor], *point: float) -> Callable[[], Problem]:
    """The formula at a point, as a factory."""
    return lambda: problem_of(FunctionOfPoint(formula, point))


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A verdict's example.

    Attributes:
        problem: makes it.
        settings: of `samdiag.diagnose`.
        rows: evidence labels that the page shows, beginnings of them.
    """

    problem: Callable[[], Problem]
    settings: Mapping[str, Any]
    rows: tuple[str, ...] = field(default=())


LOSSES = ("loss f(x)", "loss at SAM's point")
NORMS = ("gradient ‖g‖", "SAM's gradient")
EXAMPLES: dict[str, Example] = {
    "unstable": Example(
        problem=lambda: ravine((0.1, 0.1)),
        settings={"rho": 0.05, "lr": UNSTABLE_LR},
        rows=("loss f(x)", "loss after", "largest eigenvalue"),
    ),
    "hallucinated-minimizer": Example(
        problem=at(lambda w: 0.25 * ((w**2 - 1) ** 2).sum(), WELL_POINT),
        settings={"rho": WELL_RHO, "lr": 0.05},
        rows=(*LOSSES, *NORMS, "ratio ‖g+‖ / ‖g‖", "ridge distance", "loss after", "largest multiplier"),
    ),
    "saddle-attraction": Example(
        problem=at(saddle_formula, *TRAPPED),
        settings={"rho": SADDLE_RHO, "lr": SADDLE_LR},
        rows=("gradient ‖g‖", "loss after", "smallest eigenvalue", "effective radius"),
    ),
    "saddle-slowdown": Example(
        problem=slow_saddle,
        settings={"rho": SLOW_RHO, "lr": 0.01, "batch_size": SLOW_BATCH},
        rows=(
            "gradient ‖g‖",
            f"m-SAM ({SLOW_BATCH}): mean",
            "smallest eigenvalue",
            "effective radius",
            "gradient noise",
        ),
    ),
    "hallucinated-point": Example(
        problem=at(lambda w: -torch.cos(w).sum(), *[math.pi + HILL_OFFSET] * 2),
        settings={"rho": HILL_RHO, "lr": 0.05},
        rows=(*NORMS, "ratio ‖g+‖ / ‖g‖", "ridge distance", "largest multiplier"),
    ),
    "convergence-floor": Example(
        problem=at(sine_formula, SINE_POINT),
        settings={"rho": SINE_RHO, "lr": SINE_LR},
        rows=("loss f(x)", "gradient ‖g‖", "ratio ‖g+‖ / ‖g‖", "cosine", "loss after", "largest eigenvalue"),
    ),
    "bounce": Example(
        problem=lambda: ravine((BOUNCE, 0.01)),
        settings={"rho": RAVINE_RHO, "lr": RAVINE_LR},
        rows=(*LOSSES, "ratio ‖g+‖ / ‖g‖", "loss after", "largest eigenvalue"),
    ),
    "saddle-escaping": Example(
        problem=at(saddle_formula, *ESCAPE_POINT),
        settings={"rho": ESCAPE_RHO, "lr": SADDLE_LR},
        rows=("gradient ‖g‖", "loss after", "smallest eigenvalue", "effective radius"),
    ),
    "undecided": Example(
        problem=lambda: sampled(FEW),
        settings={"rho": SAMPLED_RHO, "lr": 0.01, "variant": "usam", "samples": MANY},
        rows=("gradient ‖g‖", "smallest eigenvalue", "effective radius"),
    ),
    "descending": Example(
        problem=at(beale_formula, 1.0, 2.0),
        settings={"rho": 0.05, "lr": 1e-4},
        rows=("loss f(x)", "ratio ‖g+‖ / ‖g‖", "cosine", "loss after"),
    ),
    "minimum": Example(
        problem=at(beale_formula, 3.0, 0.5),
        settings={"rho": 0.05, "lr": 1e-4},
        rows=("loss f(x)", "gradient ‖g‖", "largest eigenvalue", "smallest eigenvalue"),
    ),
}


def diagnosed(verdict: str) -> Diagnosis:
    """What samdiag says of the example."""
    example = EXAMPLES[verdict]
    return diagnose(example.problem(), **example.settings)


def excerpt(verdict: str) -> str:
    """The verdict, its finding and the evidence rows that the page explains, as text without a final newline."""
    report = digest(diagnosed(verdict))
    chosen = [row for row in report.evidence if row.label.startswith(EXAMPLES[verdict].rows)]
    label_width, value_width = WIDTHS
    lines = [
        f"{row.label:<{label_width}} {f'{row.value} {row.error}'.strip():<{value_width}} {row.note}".rstrip()
        for row in chosen
    ]
    finding = textwrap.wrap(_finding(report, verdict), width=100, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([_head(report), *finding, "", *lines])


def _head(report: DigestedReport) -> str:
    confidence = f", confidence {report.confidence}" if report.confidence else ""
    return f"{report.headline} ({report.verdict}): {report.severity}{confidence}"


def _finding(report: DigestedReport, verdict: str) -> str:
    return next((finding.message for finding in report.findings if finding.verdict == verdict), "")


def written(page: str, verdict: str) -> str:
    """The page's text with its excerpt, the first fenced block, made anew."""
    return re.sub(
        r"^```text\n.*?^```$", lambda _: f"```text\n{excerpt(verdict)}\n```", page, count=1, flags=re.S | re.M
    )


def main() -> None:
    """Writes every page's excerpt."""
    torch.set_num_threads(1)
    for verdict in EXAMPLES:
        path = PAGES / f"{verdict}.md"
        if path.exists():
            path.write_text(written(path.read_text(encoding="utf-8"), verdict), encoding="utf-8")
        print(excerpt(verdict), end="\n\n")


if __name__ == "__main__":
    main()
