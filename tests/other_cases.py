"""Cases of the kinds of data/cases.json with other numbers: `cases(seed, each)`, in that file's schema.

Quadratics are in other_quadratics, 2-D functions in other_functions, networks and noisy runs in other_networks; here
are hallucinated points, degenerate ones and toy networks. No code of samdiag is used. Beside the schema's keys a case
may have `claim` (what the optimiser does from a millionth beside the point: stays or leaves), `far` with `centre` (how
far away counts as left, when it starts at the point), `velocity` (its momentum there), and `rise`, f(x+) − f(x).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.other_answers import (
    Case,
    Draw,
    build,
    displacement,
    gradient,
    linear_verdict,
    multiplier,
    numpy_function,
    plain,
    rescaled,
    step,
)
from tests.other_functions import (
    at_a_critical_point,
    bounce_in_a_bowl,
    coupled_wells,
    critical_points,
    curvature,
    himmelblau,
    newton,
    rastrigin,
    six_hump_camel,
    styblinski,
    waves,
)
from tests.other_networks import tanh_network
from tests.other_quadratics import QUADRATICS

# ---- hallucinated points ----------------------------------------------------------------------------------------


def hallucinated(d: Draw, f: str, grad: str, x: Any, **given: Any) -> Case:
    """The case at a point whose shifted gradient vanishes: a minimizer where J attracts, a mere point elsewhere."""
    gamma = d.pick(0.0, 0.0, 0.5)
    case = build("hallucinated", f, grad, x, (), eta=1.0, gamma=gamma, **given)
    assert case["sam_grad_norm"] < 1e-9 * max(1.0, *np.abs(case["H_eigenvalues"])) < case["grad_norm"]
    values = np.array(case["J_eigenvalues"])
    top = float(np.abs(values).max())
    live = values[np.abs(values) > 1e-6 * top]
    eta = d.between(0.02, 0.8) * 2 * (1 + gamma) / top
    attracting = max(multiplier(v, case | {"eta": eta}) for v in live) < 1
    if np.abs(live.real).min() < 0.01 * top or (live.real.min() > 0) != attracting:  # too close, or only by the step
        eta = 0.02 / top
        attracting = live.real.min() > 0
    case["kind"] = "hallucinated-minimizer" if attracting else "hallucinated (repelling)"
    case |= {"eta": eta, "zero_modes": len(values) - len(live), "claim": "stays" if attracting else "leaves"}
    return case | {"expected": ["hallucinated-minimizer" if attracting else "hallucinated-point"]}


def cosine_valley(d: Draw) -> Case:
    """a(1 − cos kx): x+ is the minimum 0 behind the maximum at pi/k, or further minima, or a maximum."""
    a, k, past = d.log(0.2, 4.0), d.log(0.5, 3.0), d.between(0.15, 2.9)
    rho = (math.pi + past + d.pick(0, 0, 2, 1) * math.pi) / k
    x, s = (math.pi + past) / k, d.pick(1.0, -1.0)
    return hallucinated(d, f"({a}*(1-cos({k}*w))).sum()", f"{a}*{k}*sin({k}*w)", [s * x], rho=rho)


def double_well(d: Draw) -> Case:
    a, b = d.log(0.3, 3.0), d.log(0.5, 2.0)
    rho = b * d.between(1.05, 1.95)
    f, grad = f"0.25*{a}*((w**2-{b}**2)**2).sum()", f"{a}*(w**2-{b}**2)*w"
    return hallucinated(d, f, grad, [d.pick(-1, 1) * (rho - b)], rho=rho)


def ring(d: Draw) -> Case:
    """a/4 (|x|² − R²)² in 2 to 5 dimensions: x+ on the other side of the sphere; d − 1 zero modes."""
    a, radius, size = d.log(0.3, 3.0), d.log(0.5, 3.0), d.pick(2, 3, 4, 5)
    rho = radius * d.between(1.05, 1.9)
    direction = d.unit(size) if d.pick(0, 1) else np.eye(size)[0]
    f, grad = f"0.25*{a}*(w@w-{radius}**2)**2", f"{a}*(w@w-{radius}**2)*w"
    case = hallucinated(d, f, grad, (rho - radius) * direction, rho=rho)
    assert case["zero_modes"] == size - 1
    return case


def isolated_maximum(d: Draw) -> Case:
    """−a Σ cos kx on the diagonal beyond the maximiser: J has 1 − (pi + s) cot s across it, times a k²."""
    a, k, size, past = d.log(0.3, 3.0), d.log(0.5, 2.0), d.pick(2, 2, 3, 4), d.between(0.3, 2.8)
    if abs(1 - (math.pi + past) / math.tan(past)) < 0.05:
        return isolated_maximum(d)
    x = (math.pi + past) / k * np.array([d.pick(-1.0, 1.0) for _ in range(size)])
    return hallucinated(d, f"-({a}*cos({k}*w)).sum()", f"{a}*{k}*sin({k}*w)", x, rho=float(np.linalg.norm(x)))


def usam_cosine(d: Draw) -> Case:
    """USAM, a(1 − cos kx): x + rho·g = 0 behind the maximum; repels while (pi + s) cot s > 1."""
    a, k, past = d.log(0.3, 3.0), d.log(0.5, 2.0), d.between(0.3, 2.6)
    if abs(1 - (math.pi + past) / math.tan(past)) < 0.05:
        return usam_cosine(d)
    rho = (math.pi + past) / (a * k * k * math.sin(past))
    x = d.pick(-1, 1) * (math.pi + past) / k
    return hallucinated(d, f"({a}*(1-cos({k}*w))).sum()", f"{a}*{k}*sin({k}*w)", [x], rho=rho, variant="usam")


def si_sine(d: Draw) -> Case:
    """SI's (9 beta rho²/25 pi²) sin(5 pi x/3 rho) from both sides and other periods."""
    beta, rho = d.log(0.3, 8.0), d.log(0.1, 2.0)
    a, k = 9 * beta * rho**2 / (25 * math.pi**2), 5 * math.pi / (3 * rho)
    x = (d.pick(-math.pi / 6, 7 * math.pi / 6) + 2 * math.pi * d.pick(-1, 0, 2)) / k
    return hallucinated(d, f"({a}*sin({k}*w)).sum()", f"{a * k}*cos({k}*w)", [x], rho=rho)


def tilted_wells(d: Draw) -> Case:
    """x+ is the minimum of a shallow well and x lies in the deep one, so that f(x+) > f(x): J attracts all the same."""
    a, b = d.log(0.5, 2.0), d.log(0.7, 1.5)
    tilt = d.between(0.05, 0.25) * a * b**3
    f, grad = f"0.25*{a}*((w**2-{b}**2)**2).sum()-({tilt})*w.sum()", f"{a}*(w**2-{b}**2)*w-({tilt})"
    wells = np.sort(np.roots([a, 0.0, -a * b * b, -tilt]).real)
    low, top, deep = wells
    x = top + d.between(0.1, 0.97) * (deep - top)
    return hallucinated(d, f, grad, [x], rho=float(x - newton(gradient(numpy_function(f)), np.array([low]))[0]))


def between_minima(d: Draw) -> Case:
    """Two strict minima at distance D hallucinate for rho a little below D (B4); or any other zero of g+ found."""
    make = d.pick(himmelblau, styblinski, rastrigin, coupled_wells, six_hump_camel, waves)
    f, grad = make(d)
    slope = gradient(numpy_function(f))
    minima = [x for x in critical_points(d, slope, 3.0) if curvature(slope, x)[0] > 0]
    if len(minima) < 2:
        return between_minima(d)
    i, j = d.rng.permutation(len(minima))[:2]
    variant = d.pick("sam", "sam", "sam", "asam")
    target, other = minima[i], minima[j]
    apart = other - target
    rho = float(np.linalg.norm(apart)) * d.between(0.75, 0.98)
    if variant == "asam":
        rho /= float(np.abs(other).mean()) + 0.1
    x = newton(
        lambda z: z + displacement(variant, z, slope(z), rho) - target,
        target + 0.95 * apart + 0.02 * d.unit(2) * np.linalg.norm(apart),
    )
    if x is None or np.sqrt((slope(x) ** 2).sum()) < 1e-2 or np.abs(x).max() > 8.0:
        return between_minima(d)
    case = hallucinated(d, f, grad, x.astype(float), rho=rho, variant=variant)
    live = [v for v in case["J_eigenvalues"] if abs(v) > 1e-6]
    if min(abs(v.real) for v in live) < 0.03 * max(map(abs, live)) or any(abs(case["point"][k]) < 0.05 for k in (0, 1)):
        return between_minima(d)
    return case


# ---- degenerate points, toy networks ----------------------------------------------------------------------------


def degenerate(d: Draw) -> Case:
    """A zero eigenvalue and none negative: the linear test is silent."""
    a, k = d.log(0.2, 4.0), d.log(0.3, 4.0)
    f, grad, size = d.pick(
        (f"({a}*w**4).sum()", f"4*{a}*w**3", d.pick(1, 2, 3)),
        (f"({a}*w**6).sum()", f"6*{a}*w**5", d.pick(1, 2)),
        (f"({a}*w**3).sum()", f"3*{a}*w**2", d.pick(1, 2)),
        (f"{a}*(w[0]**3-3*w[0]*w[1]**2)", f"{a}*array([3*w[0]**2-3*w[1]**2,-6*w[0]*w[1]])", 2),
        (f"{a}*w[0]**2*w[1]**2", f"2*{a}*array([w[0]*w[1]**2,w[0]**2*w[1]])", 2),
        (f"0.5*{k}*w[0]**2+{a}*w[1]**4", f"array([{k}*w[0],4*{a}*w[1]**3])", 2),
        (f"0.5*{k}*w[0]**2-{a}*w[1]**4", f"array([{k}*w[0],-4*{a}*w[1]**3])", 2),
        (f"0.5*{k}*w[0]**2+{a}*w[1]**3", f"array([{k}*w[0],3*{a}*w[1]**2])", 2),
        (
            f"(w[0]*w[1]*w[2]-{a})**2",
            f"2*(w[0]*w[1]*w[2]-{a})*array([w[1]*w[2],w[0]*w[2],w[0]*w[1]])",
            3,
        ),
    )
    given = {"rho": d.log(0.02, 0.5), "variant": d.pick("usam", "usam", "sam"), "eta": d.log(1e-3, 0.05)}
    return build("flat/degenerate", f, grad, [0.0] * size, ("undecided",), **given)


def toy_tanh(d: Draw) -> Case:
    """f = mean (w2 tanh(w1 x) − y)² at 0: eigenvalues ± 2 mean(xy)."""
    if d.pick(0, 1):
        y, k = d.log(0.3, 3.0), d.log(0.3, 3.0)
        f = f"(w[1]*tanh({k}*w[0])-{y})**2"
        r = f"2*(w[1]*tanh({k}*w[0])-{y})"
        grad, strength = f"{r}*array([w[1]*{k}*(1-tanh({k}*w[0])**2),tanh({k}*w[0])])", 2 * y * k
    else:
        x, y = np.round(d.rng.normal(size=6), 2), np.round(d.rng.normal(size=6), 2)
        if abs((x * y).mean()) < 0.2:
            return toy_tanh(d)
        xs, ys = f"array({x.tolist()})", f"array({y.tolist()})"
        t = f"tanh(w[0]*{xs})"
        f, strength = f"((w[1]*{t}-{ys})**2).mean()", 2 * abs(float((x * y).mean()))
        r = f"2*(w[1]*{t}-{ys})"
        grad = f"array([({r}*w[1]*{xs}*(1-{t}**2)).mean(),({r}*{t}).mean()])"
    share = d.pick(d.between(1.05, 3.0), d.between(0.1, 0.95))
    rho, gamma, lam = share / strength, d.pick(0.0, 0.0, 0.9), [-strength, strength]
    eta = step(d, strength * (1 + share), gamma, 0.02, 0.8)
    given = {"rho": rho, "variant": "usam", "gamma": gamma, "eta": eta, "claim": "stays" if share > 1 else "leaves"}
    kind = "saddle-trapped" if share > 1 else "saddle-escaping"
    return build(kind, f, grad, [0.0, 0.0], linear_verdict(lam, rho, eta, gamma), **given)


def toy_square(d: Draw) -> Case:
    """f = (w2 w1² − y)² on the line w1 = 0: one eigenvalue −4 y w2, one zero mode along the line."""
    y, v = d.log(0.3, 2.0), d.pick(-1, 1, 1) * d.log(0.3, 2.0)
    r = f"(w[1]*w[0]**2-{y})"
    f, grad, lam = f"{r}**2", f"2*{r}*array([2*w[0]*w[1],w[0]**2])", -4 * y * v
    share = d.pick(d.between(1.05, 2.0), d.between(0.1, 0.95))
    rho = share / abs(lam)
    eta = step(d, abs(lam) * (1 + share), 0.0, 0.02, 0.5)
    if lam > 0:
        expected, claim = ("undecided",), None
    elif share > 1:
        expected, claim = ("saddle-attraction",), "stays"
    else:
        expected, claim = linear_verdict([lam], rho, eta, 0.0), "leaves"
    given = {"rho": rho, "variant": "usam", "eta": eta, "claim": claim, "neutral": True}
    return build("toy network x²", f, grad, [0.0, v], expected, **given)


def saddle_on_a_line(d: Draw) -> Case:
    """f = (w0 w1 w2 − y)² at (0, 0, v): eigenvalues ± 2 y v, and a zero mode along w2."""
    y, v = d.log(0.3, 2.0), d.log(0.3, 2.0)
    r, strength = f"(w[0]*w[1]*w[2]-{y})", 2 * y * v
    share = d.pick(d.between(1.05, 2.0), d.between(0.1, 0.95))
    rho, eta = share / strength, step(d, strength * (1 + share), 0.0, 0.02, 0.5)
    expected = ("saddle-attraction",) if share > 1 else linear_verdict([-strength, strength], rho, eta, 0.0)
    given = {"rho": rho, "variant": "usam", "eta": eta, "claim": "stays" if share > 1 else "leaves", "neutral": True}
    grad = f"2*{r}*array([w[1]*w[2],w[0]*w[2],w[0]*w[1]])"
    return build("toy network of three layers", f"{r}**2", grad, [0.0, 0.0, v], expected, **given)


def near_a_hallucinated_minimizer(d: Draw) -> Case:
    """On the way in: |g+| is a few per cent of |g|, and the run converges to where it is 0."""
    case = d.pick(double_well, cosine_valley, isolated_maximum, usam_cosine, tilted_wells, ring)(d)
    if case["expected"] != ["hallucinated-minimizer"]:
        return near_a_hallucinated_minimizer(d)
    size = len(case["point"])
    beside = np.array(case["point"]) + d.between(0.002, 0.02) * case["grad_norm"] * d.unit(size) / max(
        map(abs, case["J_eigenvalues"])
    )
    given = {k: case[k] for k in ("rho", "variant", "eta", "gamma")}
    given |= {"centre": case["point"], "far": 0.05 * case["rho"], "claim": "stays"}
    return build("hallucinated-minimizer", case["f"], case["grad"], beside, ("hallucinated-minimizer",), **given)


def hallucinated_with_decay(d: Draw) -> Case:
    """g+ + wd·x = 0: the shifted gradient need not vanish, the update does (B1)."""
    a, b, decay = d.log(0.5, 2.0), d.log(0.7, 1.5), d.log(0.003, 0.03)
    rho = b * d.between(1.3, 1.8)
    f, grad = f"0.25*{a}*((w**2-{b}**2)**2).sum()", f"{a}*(w**2-{b}**2)*w"
    slope = gradient(numpy_function(f))
    x = newton(lambda z: slope(z - rho * np.sign(z)) + decay * z, np.array([rho - b]))
    if x is None or not 0.02 < float(x[0]) < 0.95 * b:
        return hallucinated_with_decay(d)
    given = {"rho": rho, "weight_decay": decay, "eta": d.between(0.05, 0.8) / (a * b * b), "claim": "stays"}
    return build("hallucinated-minimizer", f, grad, x.astype(float), ("hallucinated-minimizer",), **given)


KINDS: dict[str, Callable[[Draw], Case]] = {
    make.__name__: make
    for make in (
        *QUADRATICS,
        at_a_critical_point,
        bounce_in_a_bowl,
        cosine_valley,
        double_well,
        ring,
        isolated_maximum,
        usam_cosine,
        si_sine,
        tilted_wells,
        between_minima,
        near_a_hallucinated_minimizer,
        hallucinated_with_decay,
        degenerate,
        toy_tanh,
        toy_square,
        saddle_on_a_line,
    )
}


def made(kind: str, seed: int, number: int) -> Case:
    """The case of that number; every fourth one in units of its own."""
    d = Draw(np.random.default_rng([seed, number]))
    case = KINDS[kind](d)
    if number % 4 == 3:
        case = rescaled(case, d.log(0.01, 100.0), d.log(0.1, 10.0))
    return case | {"id": f"{kind}-{seed}-{number}", "J_eigenvalues": plain(case["J_eigenvalues"])}


def cases(seed: int, each: int) -> Iterator[Case]:
    """`each` cases of every kind, the networks aside; the same seed gives the same cases."""
    for kind in KINDS:
        for number in range(each):
            yield made(kind, seed, number)


def network(seed: int, number: int) -> Case:
    """A tanh network: X, Y, width, point and the rest of the schema."""
    case = tanh_network(Draw(np.random.default_rng([seed, number])))
    return case | {"id": f"network-{seed}-{number}", "J_eigenvalues": plain(case["J_eigenvalues"])}
