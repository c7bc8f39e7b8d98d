"""One checkpoint's numbers put into the formulas as the papers print them, and into the corrected ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from samdiag.theory import quoted
from samdiag.theory.diffusion import noise_variance, variance
from samdiag.theory.edge import is_stable
from samdiag.theory.saddle import capture_radius, shifted_eigenvalue, usam_window


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One statement of a paper, evaluated as printed and as corrected.

    Attributes:
        name: what is evaluated, with its unit.
        paper: where the printed formula stands.
        quoted: its value; None where an input is not known.
        corrected: the value that simulation confirms; None where an input is not known.
        why: one sentence on the difference.
    """

    name: str
    paper: str
    quoted: float | None
    corrected: float | None
    why: str


def comparisons(
    *,
    eigenvalues: Sequence[float],
    radius: float,
    lr: float | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    batch_size: float | None = None,
    noise: float | None = None,
    steps: int | None = None,
) -> tuple[Comparison, ...]:
    """The quoted-against-corrected table of a checkpoint; empty without a negative eigenvalue.

    The diffusion rows are about the direction of lambda_min, for `steps` from rest at the saddle.

    Args:
        eigenvalues: those known of the Hessian, in any order; the windows speak of these alone.
        radius: rho_eff (`saddle.effective_radius`; rho for USAM), which the papers' rho stands for.
        lr: step size eta, dampening taken off; None: unknown.
        momentum: gamma.
        nesterov: PyTorch's Nesterov momentum.
        weight_decay: in the update.
        batch_size: B; None: full batch, no diffusion.
        noise: qᵀCq along lambda_min; None: not measured, and the diffusion rows have no corrected value.
        steps: N; None: no diffusion rows.

    Source: KIM Thm 1, 2, 3, Cor. 1; theory A2, C1 to C4 [X].
    """
    values = [v for v in eigenvalues if v != 0]
    if not any(v < 0 for v in values):
        return ()
    rows = [
        *_capture(values, radius, lr, momentum, nesterov, weight_decay),
        *_drift(min(values), radius, weight_decay, batch_size, noise),
    ]
    if lr is not None and batch_size is not None and steps is not None and steps > 0 and math.isfinite(radius):
        rows += _diffusion(min(values), radius, lr, momentum, nesterov, weight_decay, batch_size, noise, steps)
    return tuple(rows)


def _capture(
    values: list[float], radius: float, lr: float | None, momentum: float, nesterov: bool, weight_decay: float
) -> list[Comparison]:
    paper = "KIM Theorem 1"
    low, high = quoted.interval_of_theorem_1(values)
    negative = [v for v in values if v < 0]
    last = max(capture_radius(v, weight_decay) for v in negative)
    upper = None
    if lr is not None:
        upper = usam_window(values, lr, momentum, nesterov=nesterov, weight_decay=weight_decay)[1]
    shifted = [shifted_eigenvalue(v, radius, weight_decay) for v in negative]
    held = [math.isinf(mu) or is_stable(mu, lr, momentum, nesterov=nesterov) for mu in shifted]  # inf: |g| = 0, trapped
    return [
        Comparison(
            name="effective radius from which the saddle attracts, lower end",
            paper=paper,
            quoted=low,
            corrected=last,
            why="the negative eigenvalue of smallest magnitude is captured last; lambda_1 is right at index 1"
            + (", and weight decay lowers it" if weight_decay > 0 else ""),
        ),
        Comparison(
            name="effective radius up to which the saddle attracts, upper end",
            paper=paper,
            quoted=high,
            corrected=upper,
            why="the theorem is about gradient flow; a finite step passes the edge of stability",
        ),
        Comparison(
            name="share of the negative directions captured at this effective radius",
            paper=paper,
            quoted=1.0 if radius > low else 0.0,
            corrected=sum(held) / len(held),
            why="each direction has its own threshold 1/|lambda|",
        ),
    ]


def _drift(
    lam: float, radius: float, weight_decay: float, batch_size: float | None, noise: float | None
) -> list[Comparison]:
    rows = []
    if math.isfinite(radius):
        rows.append(
            Comparison(
                name="drift along lambda_min, in 1/(eta·step); negative: it is left",
                paper="KIM Theorem 2",
                quoted=quoted.drift_of_theorem_2(lam, radius),
                corrected=shifted_eigenvalue(lam, radius, weight_decay),
                why="SAM's update gives lambda(1 + rho·lambda); lambda(1 + rho·lambda)² is the surrogate's gradient "
                "and would never capture a saddle",
            )
        )
    size = batch_size or 1.0
    rows.append(
        Comparison(
            name="gradient noise along lambda_min, " + ("per step" if batch_size else "per sample"),
            paper="KIM Sec. on diffusion, C = [H]⁺",
            quoted=quoted.fisher_noise(lam) / size,
            corrected=None if noise is None else noise / size,
            why="the noise is measured as qᵀCq; |lambda| stands for it only at a well-specified optimum",
        )
    )
    return rows


def _diffusion(
    lam: float,
    radius: float,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    batch_size: float,
    noise: float | None,
    steps: int,
) -> list[Comparison]:
    time = lr * steps
    after = f"after {steps} steps"
    mu = shifted_eigenvalue(lam, radius, weight_decay)

    def exact(gamma: float, *, sam: bool = True) -> float | None:
        if noise is None:
            return None
        c = noise_variance(noise, batch_size, radius if sam else 0.0, lam, ascent="same")
        return variance(steps, mu if sam else lam + weight_decay, lr, gamma, c, nesterov=nesterov and gamma > 0)

    plain, sgd, moving = exact(0.0), exact(0.0, sam=False), exact(momentum)
    gap = None if plain is None or sgd is None or math.isinf(sgd) else sgd - plain
    rows = [
        Comparison(
            name=f"variance along lambda_min without momentum {after}",
            paper="KIM Theorem 2",
            quoted=quoted.variance_of_theorem_2(time, lam, radius, lr, batch_size),
            corrected=plain,
            why="SAM's own drift, the measured noise, and one batch for both gradients, which scales the noise by "
            "(1 + rho·lambda)²",
        ),
        Comparison(
            name=f"variance that SAM lacks against SGD {after}",
            paper="KIM Corollary 1",
            quoted=quoted.gap_of_corollary_1(time, lam, radius, lr, batch_size),
            corrected=gap,
            why="with the true drift the coefficient is 1, not 2; with one batch for both gradients the gap is larger "
            "and grows like t, not t²; it falls with the batch size like everything here",
        ),
    ]
    if momentum > 0:
        gain = _gain(steps, mu, lr, momentum, nesterov)
        rows += [
            Comparison(
                name=f"variance along lambda_min with momentum {after}",
                paper="KIM Theorem 3",
                quoted=quoted.displacement_of_theorem_3(time, lam, radius, lr, momentum, batch_size),
                corrected=moving,
                why="exact for the heavy ball from rest; the theorem's velocity term starts in equilibrium and C2 must "
                "be t/eta",
            ),
            Comparison(
                name=f"factor that momentum gives the variance {after}",
                paper="KIM Theorem 3, (1−gamma)⁻³",
                quoted=(1.0 - momentum) ** -3,
                corrected=gain,
                why="1/(1−gamma)² at most until the drift counts, then exp(2|mu|t/(1−gamma)), the rate capped at "
                "√(eta|mu|); momentum never changes the sign of mu",
            ),
        ]
    return rows


def _gain(steps: int, mu: float, lr: float, momentum: float, nesterov: bool) -> float | None:
    """V_N with momentum over V_N without; None where one of them overflows."""
    moving = variance(steps, mu, lr, momentum, 1.0, nesterov=nesterov)
    still = variance(steps, mu, lr, 0.0, 1.0)
    return moving / still if math.isfinite(moving) and math.isfinite(still) and still > 0 else None
