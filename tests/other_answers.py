"""How the answers of a case are computed without samdiag's code.

Derivatives come from complex steps in extended precision (f needs only + − × ** sin cos tanh and @), those of the
Hessian and of x ↦ ∇f(x + e(x)) from fourth-order differences of them; the acceptable verdicts from closed forms (the
letters are docs/theory.md's) that tests/test_other_cases.py holds against the optimiser itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Case = dict[str, Any]
Vector = np.ndarray
ESCAPES = ("saddle-escaping", "saddle-slowdown")
TINY = np.longdouble(1e-40)  # the imaginary step: its square vanishes next to 1


def numpy_function(text: str, kind: type = np.clongdouble) -> Callable[[Vector], Any]:
    """The expression in `w` as a function of a numpy vector."""
    names = {"cos": np.cos, "sin": np.sin, "tanh": np.tanh, "array": lambda v, *_: np.array(v, dtype=kind)}
    code = compile(text, "f", "eval")
    return lambda w: eval(code, {"__builtins__": {}, **names, "w": w})


def gradient(f: Callable[[Vector], Any]) -> Callable[[Vector], Vector]:
    """∇f by complex steps: exact to the rounding of long double."""

    def at(x: Vector) -> Vector:
        steps = np.asarray(x, dtype=np.clongdouble) + 1j * TINY * np.eye(len(x), dtype=np.clongdouble)
        return np.array([np.imag(f(row)) / TINY for row in steps], dtype=np.longdouble)

    return at


def derivative(map_: Callable[[Vector], Vector], x: Vector, step: float) -> Vector:
    """Fourth-order central differences of a vector field, in long double."""
    columns = []
    for unit in np.eye(len(x), dtype=np.longdouble) * np.longdouble(step):
        near, far = map_(x + unit) - map_(x - unit), map_(x + 2 * unit) - map_(x - 2 * unit)
        columns.append((8 * near - far) / (12 * np.longdouble(step)))
    return np.array(columns).T


def displacement(variant: str, x: Vector, g: Vector, rho: float) -> Vector:
    """e(x); 0 where normalised SAM has nothing to normalise."""
    if variant == "usam":
        return rho * g
    t = np.abs(x) if variant == "asam" else np.ones_like(x)
    norm = np.sqrt(((t * g) ** 2).sum())
    return rho * t * t * g / norm if norm > 0 else np.zeros_like(g)


def eigenvalues(matrix: Vector) -> list[complex]:
    return sorted((complex(v) for v in np.linalg.eigvals(matrix.astype(float))), key=lambda v: (v.real, v.imag))


def plain(values: list[complex] | None) -> list[Any] | None:
    """Eigenvalues as JSON has them: numbers where all are real, else pairs of real and imaginary part."""
    if values is None or all(abs(v.imag) <= 1e-9 * abs(v) for v in values):
        return values and [float(v.real) for v in values]
    return [[v.real, v.imag] for v in values]


def modes(case: Case) -> list[complex]:
    """The eigenvalues of J, sorted as `eigenvalues` does."""
    found = [complex(*v) if isinstance(v, list) else complex(v) for v in case["J_eigenvalues"]]
    return sorted(found, key=lambda v: (v.real, v.imag))


def build(kind: str, f: str, grad: str, point: Any, expected: tuple[str, ...], **given: Any) -> Case:
    """The case with everything that is measured at the point; `given`: rho, variant, eta, gamma and the rest."""
    case = {"id": "", "kind": kind, "f": f, "grad": grad, "gamma": 0.0, "weight_decay": 0.0, "variant": "sam"} | given
    x = np.array(point, dtype=float).astype(np.longdouble)
    value, rho, variant = numpy_function(f), case["rho"], case["variant"]
    slope = gradient(value)
    g = slope(x)
    norm = float(np.sqrt((g * g).sum()))
    assert np.allclose(g.astype(float), numpy_function(grad, float)(x.astype(float)), rtol=1e-8, atol=1e-8), kind
    hessian = derivative(slope, x, 2e-5)
    hessian = (hessian + hessian.T) / 2
    there = x + displacement(variant, x, g, rho)
    shifted = slope(there)
    critical = norm <= 1e-14 * float(np.abs(hessian).max() * (1 + np.abs(x).max())) + 1e-30  # the rounding of x
    case.pop("cos", None)
    case |= {
        "point": [float(v) for v in x],
        "expected": list(expected),
        "grad_norm": norm,
        "H_eigenvalues": [float(v) for v in np.linalg.eigvalsh(hessian.astype(float))],
        "x_plus": [float(v) for v in there],
        "sam_grad_norm": None if critical and variant != "usam" else float(np.sqrt((shifted * shifted).sum())),
        "J_eigenvalues": None,
        "rise": float((value(there) - value(x)).real),
    }
    if not critical and case["sam_grad_norm"] > 1e-9 * norm:
        case["cos"] = float(g @ shifted) / norm / case["sam_grad_norm"]
    if not critical or variant == "usam":
        turn = 1.0 if variant == "usam" else norm / (norm + float(np.abs(hessian).max()))  # where u turns

        def update(z: Vector) -> Vector:
            return slope(z + displacement(variant, z, slope(z), rho)) + case["weight_decay"] * z

        case["J_eigenvalues"] = eigenvalues(derivative(update, x, 2e-5 * turn))
    return case


def rescaled(case: Case, height: float, length: float) -> Case:
    """The same case in other units: f → height·f(w/length), and every setting with it. The verdict is the same."""
    f, grad = (re.sub(r"\bw\b", f"(w/{length})", case[key]) for key in ("f", "grad"))
    curvature = height / length**2
    given = {k: v for k, v in case.items() if k not in ("f", "grad", "kind", "point", "expected")}
    given |= {"eta": case["eta"] / curvature, "weight_decay": case["weight_decay"] * curvature}
    given["rho"] *= {"sam": length, "usam": 1 / curvature, "asam": 1.0}[case["variant"]]
    for key, unit in (("centre", length), ("far", length), ("velocity", height / length)):
        if key in case:
            given[key] = (np.array(case[key]) * unit).tolist()
    f, grad = f"{height}*({f})", f"{height / length}*({grad})"
    return build(case["kind"], f, grad, np.array(case["point"]) * length, tuple(case["expected"]), **given)


@dataclass(frozen=True)
class Draw:
    """Random numbers of the sizes that the cases need."""

    rng: np.random.Generator

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def log(self, low: float, high: float) -> float:
        return float(f"{math.exp(self.rng.uniform(math.log(low), math.log(high))):.3g}")

    def pick(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def curvatures(self, count: int, low: float = 0.3, high: float = 8.0) -> list[float]:
        return [self.log(low, high) for _ in range(count)]

    def unit(self, size: int) -> Vector:
        v = self.rng.normal(size=size)
        return v / np.linalg.norm(v)


def multiplier(mu: complex, case: Case) -> float:
    """The largest modulus of the linear iteration of (x, v) along a mode where the update is mu·x (PyTorch's SGD)."""
    eta, gamma = case["eta"], case["gamma"]
    share = 1.0 - case.get("dampening", 0.0)
    v_row = np.array([share * mu, gamma])
    x_row = np.array([1.0, 0.0]) - eta * (np.array([mu, 0.0]) + gamma * v_row if case.get("nesterov") else v_row)
    return float(np.abs(np.linalg.eigvals(np.array([x_row, v_row]))).max())


def usam_mu(lam: Any, rho: float, decay: float = 0.0) -> Any:
    """The shifted eigenvalues of USAM."""
    return np.asarray(lam) * (1 + rho * np.asarray(lam)) + decay


def step(d: Draw, mu: float, gamma: float, low: float, high: float) -> float:
    """A step that puts eta·mu at a random share of the edge 2(1 + gamma)."""
    return float(math.exp(d.between(math.log(low), math.log(high))) * 2 * (1 + gamma) / mu)


def escape(lam: Any, rates: Any, eta: float, gamma: float) -> tuple[str, ...]:
    """Escaping or slowed down, by the ratio of escape exponents (A3, A4); both close to the factor of two."""

    def exponent(rate: float) -> float:
        a = 1 + gamma + eta * rate
        return math.log((a + math.sqrt(a * a - 4 * gamma)) / 2)

    slowdown = exponent(-min(lam)) / exponent(max(rates))
    return ESCAPES[:1] if slowdown < 1.9 else ESCAPES[1:] if slowdown > 2.1 else ESCAPES


def linear_verdict(lam: Any, rho: float, eta: float, gamma: float, decay: float = 0.0) -> tuple[str, ...]:
    """What USAM's linear iteration says of a critical point (A1 to A4); margins of 1 % are the caller's duty."""
    mu = usam_mu(lam, rho, decay)
    if eta * max(mu) > 2 * (1 + gamma):
        return ("unstable",)
    if min(mu) > 0:
        return ("saddle-attraction",) if min(lam) + decay < 0 else ("minimum",)
    return escape(np.asarray(lam) + decay, -mu, eta, gamma)
