"""2-D functions with exact critical points, and the cases there: saddles, minima, maxima, and bounces about minima."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.other_answers import (
    Case,
    Draw,
    Vector,
    build,
    derivative,
    displacement,
    gradient,
    linear_verdict,
    numpy_function,
    step,
    usam_mu,
)

Text = tuple[str, str]  # f and its gradient as numpy expressions


def beale(d: Draw) -> Text:
    a, b, c = (d.log(0.3, 4.0) for _ in range(3))
    r, s, t = (f"({v}-w[0]+w[0]*w[1]{p})" for v, p in ((a, ""), (b, "**2"), (c, "**3")))
    x = f"2*{r}*(w[1]-1)+2*{s}*(w[1]**2-1)+2*{t}*(w[1]**3-1)"
    y = f"2*{r}*w[0]+4*{s}*w[0]*w[1]+6*{t}*w[0]*w[1]**2"
    return f"{r}**2+{s}**2+{t}**2", f"array([{x},{y}])"


def himmelblau(d: Draw) -> Text:
    p, q = f"(w[0]**2+w[1]-{d.log(5.0, 20.0)})", f"(w[0]+w[1]**2-{d.log(3.0, 15.0)})"
    return f"{p}**2+{q}**2", f"array([4*w[0]*{p}+2*{q},2*{p}+4*w[1]*{q}])"


def six_hump_camel(d: Draw) -> Text:
    s, c = d.log(0.1, 1.0), d.log(0.3, 2.0)
    f = f"{s}*((4-2.1*w[0]**2+w[0]**4/3)*w[0]**2+{c}*w[0]*w[1]+(-4+4*w[1]**2)*w[1]**2)"
    x, y = f"8*w[0]-8.4*w[0]**3+2*w[0]**5+{c}*w[1]", f"{c}*w[0]-8*w[1]+16*w[1]**3"
    return f, f"{s}*array([{x},{y}])"


def three_hump_camel(d: Draw) -> Text:
    c, e = d.log(0.3, 1.5), d.log(0.5, 2.0)
    f = f"2*w[0]**2-1.05*w[0]**4+w[0]**6/6+{c}*w[0]*w[1]+{e}*w[1]**2"
    return f, f"array([4*w[0]-4.2*w[0]**3+w[0]**5+{c}*w[1],{c}*w[0]+2*{e}*w[1]])"


def styblinski(d: Draw) -> Text:
    a, b = d.log(8.0, 20.0), d.log(0.5, 6.0)
    return f"0.05*(w**4-{a}*w**2+{b}*w).sum()", f"0.05*(4*w**3-2*{a}*w+{b})"


def rastrigin(d: Draw) -> Text:
    a, b, k = d.log(0.1, 0.5), d.log(0.5, 2.0), d.log(1.0, 4.0)
    return f"({a}*w**2-{b}*cos({k}*w)).sum()", f"(2*{a}*w+{b}*{k}*sin({k}*w))"


def waves(d: Draw) -> Text:
    a, k, m = d.log(0.3, 3.0), d.log(0.5, 3.0), d.log(0.5, 3.0)
    x, y = f"{k}*cos({k}*w[0])*cos({m}*w[1])", f"-{m}*sin({k}*w[0])*sin({m}*w[1])"
    return f"{a}*sin({k}*w[0])*cos({m}*w[1])", f"{a}*array([{x},{y}])"


def coupled_wells(d: Draw) -> Text:
    a, b, c, e, t = d.log(0.5, 2.0), d.log(0.7, 2.0), d.log(0.5, 4.0), d.between(-0.4, 0.4), d.between(-0.2, 0.2)
    f = f"0.25*{a}*(w[0]**2-{b}**2)**2+0.5*{c}*w[1]**2+({e})*w[0]*w[1]+({t})*w[0]"
    return f, f"array([{a}*w[0]*(w[0]**2-{b}**2)+({e})*w[1]+({t}),{c}*w[1]+({e})*w[0]])"


FUNCTIONS = (beale, himmelblau, six_hump_camel, three_hump_camel, styblinski, rastrigin, waves, coupled_wells)


def newton(map_: Callable[[Vector], Vector], x: Vector, steps: int = 40) -> Vector | None:
    """A zero of the vector field, to the rounding of long double; None where the iteration does not converge."""
    x = np.asarray(x, dtype=np.longdouble)
    for _ in range(steps):
        value = map_(x)
        if not np.isfinite(value).all() or np.abs(x).max() > 1e3:
            return None
        try:
            move = np.linalg.solve(derivative(map_, x, 1e-5).astype(float), value.astype(float))
        except np.linalg.LinAlgError:
            return None
        x = x - move
        if np.abs(move).max() < 1e-15:
            return x
    return None


def critical_points(d: Draw, slope: Callable[[Vector], Vector], reach: float, size: int = 2) -> list[Vector]:
    """Distinct non-degenerate critical points within the box, as float64."""
    found: list[Vector] = []
    for _ in range(24):
        x = newton(slope, d.rng.uniform(-reach, reach, size))
        if x is None or np.abs(x).max() > 2 * reach or any(np.abs(x - y).max() < 1e-6 for y in found):
            continue
        values = np.abs(np.linalg.eigvalsh(derivative(slope, x, 1e-4).astype(float)))
        if values.min() > 0.02 * values.max():
            found.append(x)
    return [np.where(np.abs(x) < 1e-25, 0.0, x).astype(float) for x in found]


def curvature(slope: Callable[[Vector], Vector], x: Vector) -> Vector:
    return np.linalg.eigvalsh(derivative(slope, x.astype(np.longdouble), 1e-4).astype(float))


def at_a_critical_point(d: Draw) -> Case:
    """USAM, or SAM with a small rho, at a saddle, minimum or maximum whose coordinates need not be round."""
    make = d.pick(*FUNCTIONS)
    f, grad = make(d)
    slope = gradient(numpy_function(f))
    points = [np.array([0.0, 1.0])] if make is beale else critical_points(d, slope, 3.0)
    saddles = [x for x in points if curvature(slope, x)[0] < 0]
    pool = saddles if saddles and d.pick(0, 1, 1) else points
    if not pool:
        return at_a_critical_point(d)
    x = pool[int(d.rng.integers(len(pool)))]
    lam = curvature(slope, x)
    sharpest, weakest = float(np.abs(lam).max()), float(min((-v for v in lam if v < 0), default=1.0))
    kind = f"critical point of {make.__name__}"
    if d.pick(0, 0, 1):
        eta = min(d.log(1e-3, 0.03) / sharpest, 0.3 * weakest / sharpest**2)
        expected = ("saddle-attraction",) if lam[0] < 0 else ("minimum",)
        given = {"rho": d.log(0.005, 0.03), "eta": eta, "claim": "stays" if lam[0] < 0 else None, "far": 0.2}
        return build(kind, f, grad, x, expected, centre=x.tolist(), **given)
    share, gamma = d.pick(d.between(0.1, 0.95), d.between(1.05, 2.5)), d.pick(0.0, 0.0, 0.9)
    rho = share / (weakest if lam[0] < 0 else sharpest)
    mu = usam_mu(lam, rho)
    if min(abs(mu)) < 0.05 * weakest:
        return at_a_critical_point(d)
    eta = step(d, max(abs(mu)), gamma, 0.02, 0.9)
    expected = linear_verdict(lam, rho, eta, gamma)
    claim = "stays" if min(mu) > 0 else "leaves"
    given = {"rho": rho, "variant": "usam", "gamma": gamma, "eta": eta, "claim": claim}
    return build(kind, f, grad, x, expected, centre=x.tolist(), **given)


def bounce_in_a_bowl(d: Draw) -> Case:
    """SAM's period-2 cycle about a minimum that is no quadratic, as the optimiser itself ends on it."""
    make = d.pick(rastrigin, styblinski, coupled_wells, himmelblau, three_hump_camel)
    f, grad = make(d)
    slope, text = gradient(numpy_function(f)), numpy_function(grad, float)
    minima = [x for x in critical_points(d, slope, 3.0) if curvature(slope, x)[0] > 0]
    if not minima:
        return bounce_in_a_bowl(d)
    x = minima[int(d.rng.integers(len(minima)))]
    rho, eta = d.log(0.01, 0.1), d.between(0.05, 0.9) / float(curvature(slope, x)[-1])
    path = [x + 0.1 * rho * d.unit(2)]
    for _ in range(6000):
        here = path[-1]
        path = [*path[-2:], here - eta * text(here + displacement("sam", here, text(here), rho))]
    flip = text(path[-1]) @ text(path[-2]) / np.linalg.norm(text(path[-1])) / np.linalg.norm(text(path[-2]))
    if not np.abs(path[-1] - path[-3]).max() < 1e-9 or flip > -0.9:
        return bounce_in_a_bowl(d)
    given = {"rho": rho, "eta": eta, "claim": "stays", "centre": x.tolist()}
    given["far"] = 3 * max(float(np.linalg.norm(end - x)) for end in path)
    return build("edge-of-stability bounce", f, grad, path[-1], ("bounce",), **given)
