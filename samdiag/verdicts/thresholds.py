"""Every number that a verdict compares with, and where it comes from."""

from __future__ import annotations

from samdiag.theory.hallucination import SIGNATURE_RATIO
from samdiag.theory.prescription import KEPT_FRACTION

HALLUCINATION_RATIO = SIGNATURE_RATIO  # theory B6: 207 of 216 spontaneous cases; a choice made on toys
EXACT_ZERO = 1e-3  # of |g|: below it x is a zero of g+, a tenth of a per cent from the trap's edge (margin of A5: 5 %)
QUADRATIC_FAILS = 0.5  # of |He|: beyond it the second-order picture at x is not that at radius rho
SURVIVES = 0.5  # of |g| at the predicted fixed point: 1 at a hallucination, 0 in a linear trap, nothing seen between
BOUNCE_RATIO = 2.0  # theory B6, A9: a bounce has |g+|/|g| = 2(1+gamma)/(eta·lam), > 2 below half the edge of stability
BOUNCE_COSINE = -0.5  # exact period-2 gives −1; half of it says that the gradient's larger part flips
SLOWDOWN = 1.0 / KEPT_FRACTION  # slower than the kept escape fraction of theory D1 allows
PRACTICAL_CAPTURE = (
    10.0  # with an incomplete spectrum: every direction that might be free is slower than SGD by at least this
)
MARGIN_NORMALISED = 0.05  # theory A5: the |g| test is unreliable within 5–10 % of its boundary (cubic terms)
MARGIN_USAM = 0.005  # the linear test is exact at a critical point; half a percent for the point not being one
MOMENTUM_MARGIN = 0.005  # of gamma: A8's threshold is necessary to 0.003 in simulation
MOMENTUM_CLEAR = 0.1  # of gamma beyond A8's threshold: there every simulated start left a one-eigenvalue maximum
NEAR_SADDLE = 0.1  # theory F4: |g| on the scale of rho|lam_min|, read as within a factor of ten
HORIZON = (
    1000  # steps over which progress and escape are weighed: runs that leave do so in hundreds (theory E: 2000 in all)
)
PROGRESS = 0.1  # share of the remaining loss that must fall within HORIZON for a point to count as still moving
LONG_TRIAL = 100  # steps of the real update: twenty e-foldings of a saddle that SGD leaves in 25 steps (EXITS_NEEDED)
SMALL_LOSS = 1e-6  # above a known lower bound: nothing is left to gain
EXITS_NEEDED = (
    5.0  # e-foldings that SGD needs to leave a saddle from an offset of 1 % of the exit distance (ln 100 ≈ 4.6)
)
USABLE_EDGE = 0.05  # of the stability edge: a modest learning rate, taken where a schedule has brought lr near 0
DEPTH = 0.1  # share of the remaining loss that |g|²/(2|lam_min|) may reach for a point to lie near the saddle
FLOOR_SLACK = 1.0  # theory D, SI: |g| ≤ beta·rho, taken as it stands
