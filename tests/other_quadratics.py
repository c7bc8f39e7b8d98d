"""Quadratic cases of the kinds of data/cases.json with other numbers: the answers are closed forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.other_answers import ESCAPES, Case, Draw, Vector, build, escape, linear_verdict, multiplier, step, usam_mu


@dataclass(frozen=True)
class Quadratic:
    """½ (w − c)ᵀA(w − c) with the given eigenvalues: along the axes, or along a random basis."""

    lam: Vector
    basis: Vector
    centre: Vector

    @classmethod
    def of(cls, d: Draw, lam: list[float], *, at_origin: bool = False) -> Quadratic:
        values = d.rng.permutation(np.array(lam))
        basis = np.eye(len(lam)) if d.pick(0, 1) else np.linalg.qr(d.rng.normal(size=(len(lam), len(lam))))[0]
        centre = np.zeros(len(lam)) if at_origin or d.pick(0, 1) else np.round(d.rng.normal(size=len(lam)), 2)
        return cls(lam=values, basis=basis, centre=centre)

    def build(self, kind: str, expected: tuple[str, ...], *, offset: Any = None, **given: Any) -> Case:
        """`offset`: coordinates along the eigenvectors."""
        point = self.centre if offset is None else self.centre + self.basis @ np.array(offset)
        w = "w" if not self.centre.any() else f"(w-array({self.centre.tolist()}))"
        if np.array_equal(self.basis, np.eye(len(self.lam))):
            grad = f"({w}*array({self.lam.tolist()}))"
        else:
            matrix = (self.basis * self.lam) @ self.basis.T
            grad = f"({w}@array({((matrix + matrix.T) / 2).tolist()}))"
        centre = self.centre.tolist()
        return build(kind, f"0.5*{grad}@{w}", grad, point, expected, centre=centre, **given)


def minimum(d: Draw) -> Case:
    lam, rho, gamma = d.curvatures(d.pick(1, 2, 3, 5)), d.log(0.02, 1.0), d.pick(0.0, 0.5, 0.9)
    decay = d.pick(0.0, 0.0, d.log(1e-4, 0.1))
    variant = d.pick("usam", "usam", "sam")
    mu = usam_mu(lam, rho, decay) if variant == "usam" else np.array(lam) + decay
    given = {"rho": rho, "variant": variant, "gamma": gamma, "weight_decay": decay}
    eta = step(d, max(mu), gamma, 0.02, 0.99)
    q = Quadratic.of(d, lam, at_origin=decay > 0)
    return q.build("minimum", ("minimum",), eta=eta, claim="stays" if variant == "usam" else None, **given)


def over_the_edge(d: Draw) -> Case:
    """USAM beyond 2(1 + gamma), at minima and saddles, by a positive or by a captured negative direction (A1, A2)."""
    lam, gamma = d.curvatures(d.pick(1, 2, 4)), d.pick(0.0, 0.5, 0.9)
    rho = d.log(0.1, 1.0)
    if d.pick(0, 1):
        lam.append(-d.log(0.3, 8.0))
        rho = max(rho, d.between(1.1, 6.0) / abs(lam[-1]))
    eta = step(d, max(usam_mu(lam, rho)), gamma, 1.01, 2.5)
    given = {"rho": rho, "variant": "usam", "gamma": gamma, "eta": eta}
    return Quadratic.of(d, lam).build("edge-of-stability", ("unstable",), claim="leaves", **given)


def on_the_edge(d: Draw) -> Case:
    lam, gamma, rho = d.curvatures(d.pick(1, 3)), d.pick(0.0, 0.5), d.log(0.1, 1.0)
    eta = float(2 * (1 + gamma) / max(usam_mu(lam, rho)))
    given = {"rho": rho, "variant": "usam", "gamma": gamma, "eta": eta}
    return Quadratic.of(d, lam).build("marginal", ("undecided",), **given)


def bounce(d: Draw) -> Case:
    """Exactly on the period-2 cycle along the sharpest direction (A9)."""
    lam, rho, gamma = d.log(1.0, 30.0), d.log(0.02, 1.0), d.pick(0.0, 0.0, 0.5)
    others = [lam * d.between(0.05, 0.8) for _ in range(d.pick(0, 0, 1, 3))]
    eta = d.between(0.1, 0.9) * 2 * (1 + gamma) / lam if gamma == 0 else d.between(0.05, 0.3) / lam
    amplitude = eta * lam * rho / (2 * (1 + gamma) - eta * lam)
    q = Quadratic.of(d, [lam, *others])
    offset = np.where(q.lam == lam, amplitude, 0.0)
    given = {"rho": rho, "gamma": gamma, "eta": eta, "sam_edge": lam, "claim": "stays", "far": 3 * amplitude}
    share = 1.0 if gamma else d.pick(1.0, 1.0, d.between(0.85, 1.15))  # on the cycle, or still settling on it
    outside = share > 1 and eta * lam > 1  # a plain descent flips there as well
    expected = ("bounce", "descending") if outside else ("bounce",)
    case = q.build("edge-of-stability bounce", expected, offset=offset * share, **given)
    swing = 2 * (np.array(case["point"]) - q.centre) / eta  # with momentum larger cycles coexist: arrive on this one
    return case | {"velocity": (-swing).tolist()}


def spectrum(d: Draw) -> list[float]:
    """Positive and negative curvatures, at least one of each."""
    return d.curvatures(d.pick(1, 1, 2, 3)) + [-v for v in d.curvatures(d.pick(1, 1, 2, 3))]


def usam_saddle(d: Draw) -> Case:
    """Trapped, escaping, or one direction captured and another free: the smallest magnitude binds (A2)."""
    lam, gamma = spectrum(d), d.pick(0.0, 0.0, 0.5, 0.9)
    weakest = min(-v for v in lam if v < 0)
    rho = d.pick(1 + d.log(0.008, 1.5), 1 - d.log(0.008, 0.9)) / weakest
    decay = d.pick(0.0, 0.0, 0.0, d.between(0.05, 0.5) * weakest)
    mu = usam_mu(lam, rho, decay)
    if min(abs(mu)) < 0.006 * weakest:
        return usam_saddle(d)
    eta = step(d, max(mu), gamma, 0.05, 0.95)
    expected = linear_verdict(lam, rho, eta, gamma, decay)
    kind = "saddle-trapped" if min(mu) > 0 else "multi-index saddle" if len(lam) > 2 else "saddle-escaping"
    given = {"rho": rho, "variant": "usam", "gamma": gamma, "eta": eta, "weight_decay": decay}
    q, claim = Quadratic.of(d, lam, at_origin=decay > 0), "stays" if min(mu) > 0 else "leaves"
    slow = eta * abs(min(mu)) < 5e-4 and claim == "leaves"  # would take the simulation too long
    return q.build(kind, expected, claim=None if slow else claim, **given)


def marginal_saddle(d: Draw) -> Case:
    """rho = 1/|lam| exactly for the weakest negative direction, the others captured (A2)."""
    lam = spectrum(d)
    rho = 1 / min(-v for v in lam if v < 0)
    given = {"rho": rho, "variant": "usam", "eta": step(d, max(usam_mu(lam, rho)), 0.0, 0.01, 0.3)}
    return Quadratic.of(d, lam).build("marginal", ("undecided",), **given)


def many_directions(d: Draw) -> Case:
    """20 to 40 eigenvalues: every negative one decides."""
    size = d.pick(20, 40)
    index = d.pick(1, 2, size // 2)
    lam = d.curvatures(size - index) + [-v for v in d.curvatures(index)]
    rho = d.pick(0.5, 1.1) / min(-v for v in lam if v < 0)
    eta = step(d, max(usam_mu(lam, rho)), 0.0, 0.05, 0.8)
    expected, claim = linear_verdict(lam, rho, eta, 0.0), "stays" if min(usam_mu(lam, rho)) > 0 else "leaves"
    if min(abs(usam_mu(lam, rho))) < 0.01:
        return many_directions(d)
    given = {"rho": rho, "variant": "usam", "eta": eta, "claim": claim}
    return Quadratic.of(d, lam).build("multi-index saddle", expected, **given)


def other_momentum(d: Draw) -> Case:
    """USAM with Nesterov's momentum, or with PyTorch's dampening, down to a plain average: stability moves (A1)."""
    lam, gamma = d.pick(spectrum(d), d.curvatures(d.pick(1, 3))), d.pick(0.5, 0.9)
    weakest = min((-v for v in lam if v < 0), default=max(lam))
    rho = d.pick(d.between(0.1, 0.9), d.between(1.1, 2.5)) / weakest
    mu = usam_mu(lam, rho)
    kind: Case = d.pick({"nesterov": True}, {"dampening": gamma}, {"dampening": d.between(0.1, 0.8)})
    edge = 2 * (1 + gamma) / (1 + 2 * gamma) if "nesterov" in kind else 2 * (1 + gamma) / (1 - kind["dampening"])
    given = {"rho": rho, "variant": "usam", "gamma": gamma, **kind}
    given["eta"] = d.pick(d.between(0.05, 0.95), d.between(1.05, 2.0)) * edge / float(max(mu))
    over = max(multiplier(v, given) for v in mu if v > 0) > 1
    assert over == (given["eta"] * max(mu) > edge)
    if min(abs(mu)) < 0.05 * weakest:
        return other_momentum(d)
    expected = ("unstable",) if over else ("minimum",) if min(lam) > 0 else ("saddle-attraction",)
    if min(mu) < 0 and not over:
        expected = ESCAPES
    claim = "stays" if max(multiplier(v, given) for v in mu) < 1 else "leaves"
    return Quadratic.of(d, lam).build("edge of other momenta", expected, claim=claim, **given)


def maximum(d: Draw) -> Case:
    size, gamma = d.pick(1, 2, 4), d.pick(0.0, 0.0, 0.8)
    lam = [-d.log(0.3, 5.0)] * size if d.pick(0, 1) else [-v for v in d.curvatures(size)]
    rho = d.pick(d.between(1.05, 3.0), d.between(0.1, 0.95)) / min(-v for v in lam)
    mu = usam_mu(lam, rho)
    if min(abs(mu)) < 0.03 * min(-v for v in lam):
        return maximum(d)
    eta = step(d, max(abs(mu)), gamma, 0.02, 0.6)
    given = {"rho": rho, "variant": "usam", "gamma": gamma, "eta": eta, "claim": "stays" if min(mu) > 0 else "leaves"}
    return Quadratic.of(d, lam).build("maximum", linear_verdict(lam, rho, eta, gamma), **given)


def sam_in_the_ball(d: Draw) -> Case:
    """|g| < rho·min|lam_neg|, small steps, and a bounce along lam_max that is too weak to matter (A5, A6)."""
    lam = d.pick(spectrum(d), [-v for v in d.curvatures(d.pick(1, 2, 3))])
    rho, gamma = d.log(0.05, 1.0), d.pick(0.0, 0.0, 0.5)
    weakest = min(-v for v in lam if v < 0)
    sharpest = max(map(abs, lam))
    eta = min(d.log(1e-3, 0.03) / sharpest, 0.3 * (1 + gamma) * weakest / sharpest**2)
    q = Quadratic.of(d, lam)
    direction = d.unit(len(lam))
    if d.pick(0, 1):
        direction = np.where(q.lam < 0, direction, 0.0)
    scale = d.between(0.05, 0.9) * rho * weakest / np.linalg.norm(q.lam * direction)
    offset = direction * scale
    given = {"rho": rho, "gamma": gamma, "eta": eta, "claim": "stays", "far": 4 * rho * sharpest / weakest}
    return q.build("saddle-trapped", ("saddle-attraction",), offset=offset, **given)


def sam_at_the_saddle(d: Draw) -> Case:
    """Exactly at the saddle, where every rho captures at a small step (A5)."""
    case = sam_in_the_ball(d)
    given = {k: case[k] for k in ("rho", "gamma", "eta", "claim", "far", "centre")}
    return build("saddle-trapped", case["f"], case["grad"], case["centre"], ("saddle-attraction",), **given)


def sam_outside_the_ball(d: Draw) -> Case:
    """Every negative direction free, the whole gradient along them: SAM leaves at 1 − rho|lam|/|g| of SGD's rate."""
    lam, rho = spectrum(d), d.log(0.05, 1.0)
    eta = d.log(1e-3, 0.02) / max(map(abs, lam))
    q = Quadratic.of(d, lam)
    offset = np.where(q.lam < 0, d.unit(len(lam)), 0.0)
    strongest = max(-v for v in lam if v < 0)
    norm = d.between(1.3, 5.0) * rho * strongest
    offset *= norm / np.linalg.norm(q.lam * offset)
    rates = [-v - rho * v * v / norm for v in lam if v < 0]
    expected = escape(lam, rates, eta, 0.0)
    far = 6 * float(np.linalg.norm(offset))
    return q.build("saddle-escaping", expected, offset=offset, rho=rho, eta=eta, claim="leaves", far=far)


def ball_boundary(d: Draw) -> Case:
    """|x − c| = rho along one negative direction: x+ is the saddle, and J repels along it (B2)."""
    lam, rho = d.pick(spectrum(d), [-v for v in d.curvatures(d.pick(1, 2))]), d.log(0.05, 2.0)
    q = Quadratic.of(d, lam)
    here = int(d.rng.choice(np.flatnonzero(q.lam < 0)))
    own = abs(q.lam[here])
    eta = d.log(0.02, 0.5) / float(max(abs(v) * (1 + abs(v) / own) for v in lam))
    offset = np.where(np.arange(len(lam)) == here, d.pick(-rho, rho), 0.0)
    given = {"rho": rho, "eta": eta, "claim": "leaves"}
    return q.build("hallucinated (repelling)", ("hallucinated-point",), offset=offset, **given)


def on_the_cycle(d: Draw) -> Case:
    """On the bounce along lam_max: captured iff |lam|(2/eta − lam_max) > lam_max² for every negative lam (A6)."""
    top, rho = d.log(2.0, 20.0), d.log(0.05, 1.0)
    negative = [-top * d.between(0.05, 0.6) for _ in range(d.pick(1, 1, 2))]
    others = [top * d.between(0.05, 0.8) for _ in range(d.pick(0, 0, 1))]
    eta = d.between(0.05, 0.9) / top
    margins = [-v * (2 / eta - top) / top**2 for v in negative]
    if min(abs(m - 1) for m in margins) < 0.15:
        return on_the_cycle(d)
    trapped = min(margins) > 1
    amplitude = eta * top * rho / (2 - eta * top)
    q = Quadratic.of(d, [top, *negative, *others])
    offset = np.where(q.lam == top, amplitude, 0.0)
    expected = ("saddle-attraction",) if trapped else ("bounce", *ESCAPES)
    far = 10 * rho * top / min(map(abs, q.lam))
    claim = "stays" if trapped else "leaves"
    kind = "saddle-trapped" if trapped else "edge-of-stability bounce"
    return q.build(kind, expected, offset=offset, rho=rho, eta=eta, claim=claim, far=far)


def sam_maximum(d: Draw) -> Case:
    """One negative direction alone, full batch: momentum frees it only beyond gamma = 1 − eta|lam| (A8)."""
    freed = bool(d.pick(0, 0, 1))
    lam, rho, share = d.log(0.3, 5.0), d.log(0.05, 1.0), d.between(0.2, 0.5) if freed else d.between(0.03, 0.3)
    eta, gamma = share / lam, d.between(1.12 - share, 0.98) if freed else d.pick(0.0, d.between(0.0, 0.95 - share))
    q = Quadratic.of(d, [-lam])
    offset = [d.pick(-1, 1) * d.between(0.02, 0.8) * rho]
    expected = ESCAPES if freed else ("saddle-attraction",)
    given = {"rho": rho, "eta": eta, "gamma": gamma, "claim": "leaves" if freed else "stays", "far": 5 * rho}
    return q.build("maximum", expected, offset=offset, **given)


def descent(d: Draw) -> Case:
    """Far from the minimum of a bowl, |g| well above rho·lam: the step goes straight down."""
    lam, rho, gamma = d.curvatures(d.pick(1, 2, 4)), d.log(0.02, 0.5), d.pick(0.0, 0.0, 0.5)
    offset = d.unit(len(lam)) * d.between(8.0, 30.0) * rho * max(lam) / min(lam)
    eta = d.between(0.02, 0.4) / max(lam)
    q = Quadratic.of(d, lam)
    return q.build("ordinary", ("descending",), offset=offset, rho=rho, eta=eta, gamma=gamma, claim="descends")


def beside_a_trap(d: Draw) -> Case:
    """USAM at some distance from a saddle that captures: on a quadratic the linear test holds everywhere (A2)."""
    lam = spectrum(d)
    rho = d.between(1.02, 2.5) / min(-v for v in lam if v < 0)
    q = Quadratic.of(d, lam)
    offset = d.unit(len(lam)) * d.log(1e-3, 1.0)
    if d.pick(0, 1):
        offset = np.where(q.lam < 0, offset, 0.0)
    eta = step(d, max(usam_mu(lam, rho)), 0.0, 0.02, 0.8)
    given = {"rho": rho, "variant": "usam", "eta": eta, "claim": "stays", "far": 4 * float(np.linalg.norm(offset))}
    return q.build("saddle-trapped", ("saddle-attraction",), offset=offset, **given)


QUADRATICS = (
    minimum,
    over_the_edge,
    on_the_edge,
    bounce,
    usam_saddle,
    marginal_saddle,
    many_directions,
    other_momentum,
    maximum,
    beside_a_trap,
    sam_in_the_ball,
    sam_at_the_saddle,
    sam_outside_the_ball,
    ball_boundary,
    on_the_cycle,
    sam_maximum,
    descent,
)
