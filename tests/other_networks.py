"""Tanh networks that hallucinate their teacher, and noisy runs whose variance is known: other numbers, own code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.other_answers import Case, Draw, Vector, derivative, eigenvalues


def network_loss(case: Case) -> Callable[[Vector], tuple[float, Vector]]:
    """x → (f, ∇f), f the mean of ½(W2 tanh(W1 x + b1) + b2 − y)²; parameters in the order W1 (by rows), b1, W2, b2."""
    inputs, outputs, width = np.array(case["X"]), np.array(case["Y"])[:, 0], case["width"]
    size = inputs.shape[1]

    def at(w: Vector) -> tuple[float, Vector]:
        first, bias = w[: width * size].reshape(width, size), w[width * size : width * (size + 1)]
        last, shift = w[width * (size + 1) : width * (size + 2)], w[-1]
        hidden = np.tanh(inputs @ first.T + bias)
        error = hidden @ last + shift - outputs
        back = error[:, None] * last * (1 - hidden**2)
        parts = [(back.T @ inputs).ravel(), back.sum(axis=0), hidden.T @ error, error.sum(keepdims=True)]
        return float((error**2).mean() / 2), np.concatenate(parts) / len(outputs)

    return at


def pulled_towards(
    loss: Callable[[Vector], tuple[float, Vector]], centre: Vector, start: Vector, pull: float, *, downhill: bool
) -> Vector | None:
    """x with g + pull·(x − centre) = 0: there x + rho·u = centre with rho = |x − centre|.

    Newton in long double; `downhill` along |curvature| to a minimum of f + ½ pull·|x − centre|², which is lowest on its
    sphere about the centre and attracts (B4), else to whatever is near.
    """

    def total(z: Vector) -> tuple[float, Vector]:
        f, g = loss(z)
        return f + pull / 2 * float((z - centre) @ (z - centre)), g + pull * (z - centre)

    x = start.astype(np.longdouble)
    for _ in range(60):
        f, g = total(x)
        matrix = derivative(lambda z: total(z)[1], x, 1e-4).astype(float)
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        move = vectors @ (vectors.T @ g.astype(float) / (np.abs(values) if downhill else values))
        if not np.isfinite(move).all():
            return None
        if np.abs(move).max() < 1e-16:
            return x
        share = min(1.0, 0.5 / float(np.linalg.norm(move)))
        while downhill and share > 1e-3 and np.abs(move).max() > 1e-6 and total(x - share * move)[0] > f:
            share /= 2
        x = x - share * move
    return None


def teacher_and_copy(d: Draw) -> tuple[Case, Vector, Vector]:
    """Data of a random teacher, its weights, and those of a copy: a hidden unit's signs flipped, or two exchanged."""
    size, width, samples = d.pick(1, 2, 3), d.pick(2, 2, 3), d.pick(30, 60)
    xs, last = d.rng.normal(size=(samples, size)), width * (size + 1)
    teacher = np.concatenate([d.rng.normal(size=last) * 1.2, d.rng.normal(size=width) * 0.8, [0.3]])
    first, bias = teacher[: width * size].reshape(width, size), teacher[width * size : last]
    outputs = np.tanh(xs @ first.T + bias) @ teacher[last:-1] + teacher[-1]
    copy, unit = teacher.copy(), int(d.rng.integers(width))
    rows = [[*range(k * size, (k + 1) * size), width * size + k, last + k] for k in range(width)]
    if d.pick(0, 1):
        copy[rows[unit]] *= -1
    else:
        other = (unit + 1) % width
        copy[rows[unit]], copy[rows[other]] = teacher[rows[other]], teacher[rows[unit]]
    return {"X": xs.tolist(), "Y": outputs[:, None].tolist(), "width": width}, teacher, copy


def tanh_network(d: Draw) -> Case:
    """A teacher with more samples than weights, and a point away from it from which SAM steps exactly onto it.

    Attracting ones are sought downhill from a copy of the teacher, repelling ones around it; J says which it is.
    """
    downhill, found = bool(d.pick(0, 1, 1)), None
    while found is None:
        found = _attempt(d, downhill)
    return found


def _attempt(d: Draw, downhill: bool) -> Case | None:
    data, teacher, copy = teacher_and_copy(d)
    loss = network_loss(data)
    start = copy + (0.0 if downhill else 0.2) * d.unit(len(copy))
    x = pulled_towards(loss, teacher, start, d.log(1e-3, 2e-2), downhill=downhill)
    if x is None or np.linalg.norm((x - teacher).astype(float)) < 0.5:
        return None
    rho = float(np.linalg.norm((x - teacher).astype(float)))
    f, g = loss(x)
    norm = float(np.sqrt(g @ g))
    hessian = derivative(lambda z: loss(z)[1], x, 1e-4).astype(float)

    def update(z: Vector) -> Vector:
        here = loss(z)[1]
        return loss(z + rho * here / np.sqrt(here @ here))[1]

    values = eigenvalues(derivative(update, x, 1e-5 * norm / (norm + float(np.abs(hessian).max()))))
    top, bottom = max(map(abs, values)), min(v.real for v in values)
    clear = bottom > 1e-6 * top if downhill else bottom < -1e-4 * top
    if not clear or max(abs(v.imag) for v in values) > 1e-3 * top:
        return None
    gamma = d.pick(0.0, 0.0, 0.5)
    return data | {
        "kind": "hallucinated-minimizer" if downhill else "hallucinated (repelling)",
        "expected": ["hallucinated-minimizer" if downhill else "hallucinated-point"],
        "point": x.astype(float).tolist(),
        "rho": rho,
        "variant": "sam",
        "eta": d.between(0.05, 0.8) * 2 * (1 + gamma) / top,
        "gamma": gamma,
        "weight_decay": 0.0,
        "loss": f,
        "grad_norm": norm,
        "H_eigenvalues": np.linalg.eigvalsh((hessian + hessian.T) / 2).tolist(),
        "J_eigenvalues": values,
        "claim": "stays" if downhill else "leaves",
    }


def noisy_run(d: Draw) -> Case:
    """USAM along one eigenvalue with additive noise: V_N by the covariance recursion P ← APAᵀ + Q of (x, v)."""
    lam, rho = d.pick(-1.0, 1.0) * d.log(0.2, 3.0), d.log(0.02, 0.9)
    gamma, steps = d.pick(0.0, 0.5, 0.9, 0.95), d.pick(20, 100, 400)
    eta = d.between(0.002, 0.03) / abs(lam) * (1 - gamma)
    noise, batch, ascent = d.log(0.1, 5.0), d.pick(1, 16, 64, 512), d.pick("full", "same", "independent")
    mu = lam * (1 + rho * lam)
    share = {"full": 1.0, "same": (1 + rho * lam) ** 2, "independent": 1 + (rho * lam) ** 2}[ascent]
    c = noise / batch * share
    step = np.array([[1 - eta * mu, -eta * gamma], [mu, gamma]])  # of (x, v): v' = gamma v + mu x + n, x' = x − eta v'
    kick = np.array([[eta * eta, -eta], [-eta, 1.0]]) * c
    p = np.zeros((2, 2))
    for _ in range(steps):
        p = step @ p @ step.T + kick
    given = {"lam": lam, "rho": rho, "eta": eta, "gamma": gamma, "B": batch, "N": steps, "noise": noise}
    return given | {"kind": "diffusion", "ascent": ascent, "mu": mu, "c": c, "V": float(p[0, 0])}
