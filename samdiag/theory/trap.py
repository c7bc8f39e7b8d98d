"""The trap of full-batch normalised SAM: the ball of gradient norms inside which every direction contracts."""

from __future__ import annotations

import math
from collections.abc import Sequence


def direction_contracts(lam: float, rho: float, grad_norm: float, weight_decay: float = 0.0) -> bool:
    """Whether small steps of normalised SAM shrink the component along curvature `lam`: lam(1 + rho·lam/|g|) + wd > 0.

    For lam < 0 and no decay: |g| < rho|lam|. Exact on a quadratic at this |g|, for steps small enough not to
    overshoot. On networks unreliable within 5 to 10 % of its boundary, where cubic terms decide.

    Source: theory A5 (checked by simulation).
    """
    if grad_norm <= 0:
        return lam != 0 or weight_decay > 0
    return lam * (1.0 + rho * lam / grad_norm) + weight_decay > 0


def trapped_ball_radius(eigenvalues: Sequence[float], rho: float, weight_decay: float = 0.0) -> float:
    """Gradient norm below which full-batch normalised SAM never leaves a critical point with these eigenvalues.

    rho·min over lam < −wd of lam²/(|lam| − wd), which is rho·min|lam_neg| without decay: every non-degenerate saddle
    and maximum has such a ball for any rho > 0. Infinite where no direction escapes from SGD either.

    Assumes a quadratic, full batches, no momentum, and steps up to `trapped_ball_step_size`. Zero eigenvalues neither
    help nor hurt. Mini-batch noise voids it (`saddle.critical_batch_size`); momentum may (`saddle.freeing_momentum`).

    Source: theory A5 (checked by simulation); (D) with weight decay.
    """
    escaping = [abs(v) for v in eigenvalues if v < -weight_decay]
    return rho * min((v**2 / (v - weight_decay) for v in escaping), default=math.inf)


def trapped_ball_step_size(eigenvalues: Sequence[float], weight_decay: float = 0.0) -> float:
    """Largest eta at which the trapped ball is exactly invariant: min(R/(rho·max lam²), 1/max(lam + wd)).

    R is `trapped_ball_radius`; without decay the bound is min|lam_neg|/max lam². Sufficient, and sharp as far as the
    largest step from inside to outside goes; a larger eta leaves a smaller trap or none.

    Derivation: a step takes g_j to g_j(1 − eta(lam_j + wd) − eta·rho·lam_j²/|g|), so |g| to at most the largest of
    ||g|(1 − eta(lam_j + wd)) − eta·rho·lam_j²|, which lies between −eta·rho·lam_j² and R.

    Source: theory A5; (D) the finite step.
    """
    ball = trapped_ball_radius(eigenvalues, 1.0, weight_decay)
    largest = max((v**2 for v in eigenvalues), default=0.0)
    steepest = max((abs(v + weight_decay) if v >= -weight_decay else 0.0 for v in eigenvalues), default=0.0)
    return min(ball / largest if largest > 0 else math.inf, 1.0 / steepest if steepest > 0 else math.inf)
