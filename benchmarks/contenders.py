"""Every tool's way to both ends of the spectrum, each at its best: one adapter per tool."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from answers import Answer, End
from cases import Case
from meters import Meter, timed
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

MAX_PRODUCTS = 300  # of one power iteration: as many as samdiag may take
PYHESSIAN_DEFAULT = 1e-3  # PyHessian's own default tolerance; with it goes maxIter=100


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A tool with its settings.

    Attributes:
        name: in the tables.
        ask: (case, device, rung, seed, meter) → its answer, without the times.
        rungs: settings from loose to tight; the first that reaches the residuals is the one to report.
        rung_name: what a rung sets.
        both: whether it is asked for both ends.
    """

    name: str
    ask: Callable[[Case, torch.device, float, int, Meter], Answer]
    rungs: tuple[float, ...]
    rung_name: str
    both: bool = True


def run(contender: Contender, case: Case, device: torch.device, rung: float, seed: int = 0) -> Answer:
    """The contender's answer with its times; the case's model is not touched. `seed` is of the start vector."""
    own = Case(
        name=case.name,
        what=case.what,
        model=copy.deepcopy(case.model).to(device),
        batches=[(inputs.to(device), targets.to(device)) for inputs, targets in case.batches],
        trained=case.trained,
    )
    meter = Meter(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own deprecations
        answer, seconds = timed(lambda: contender.ask(own, device, rung, seed, meter), device)
    return replace(
        answer,
        wall=seconds.wall,
        cpu=seconds.cpu,
        product_wall=meter.wall,
        product_cpu=meter.cpu,
    )


# ---------------------------------------------------------------- samdiag


def samdiag(case: Case, device: torch.device, rung: float, seed: int, meter: Meter) -> Answer:
    """As it comes."""
    from ours import settings_for, spectrum

    return spectrum(case, settings_for(rung, seed=seed), meter)


def samdiag_warm(case: Case, device: torch.device, rung: float, seed: int, meter: Meter) -> Answer:
    """`--warm-start subsample`: the full data start from the eigenvectors of an eighth of them."""
    from ours import settings_for, spectrum

    return spectrum(case, settings_for(rung, seed=seed, warm_start="subsample"), meter)


def samdiag_decided(case: Case, device: torch.device, rung: float, seed: int, meter: Meter) -> Answer:
    """`--until decided`: stops when no threshold of a verdict can be crossed any more, however rough the values."""
    from ours import settings_for, spectrum

    return spectrum(case, settings_for(rung, seed=seed, until="decided"), meter)


def samdiag_top(case: Case, device: torch.device, rung: float, seed: int, meter: Meter) -> Answer:
    """The same solver, stopped when lambda_max is known: what PyHessian's power iteration is to be held to."""
    from ours import settings_for, spectrum

    return spectrum(case, settings_for(rung, seed=seed), meter, top_only=True)


# ---------------------------------------------------------------- curvlinops


def curvlinops(case: Case, device: torch.device, rung: float, seed: int, meter: Meter) -> Answer:
    """scipy's eigsh over curvlinops' Hessian operator; its check for determinism is left out."""
    import numpy as np
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import LinearOperator, eigsh

    parameters = [p for p in case.model.parameters() if p.requires_grad]
    with sdpa_kernel(SDPBackend.MATH):
        hessian = HessianLinearOperator(
            case.model,
            case.criterion,
            parameters,
            case.batches,
            check_deterministic=False,
            num_data=case.num_samples,
        ).to_scipy()  # float64 around float32 products: eigsh then needs fewer of them
        counted = LinearOperator(hessian.shape, matvec=meter.wrap(hessian.matvec), dtype=np.float64)
        start = np.random.default_rng(seed).standard_normal(hessian.shape[0])
        values, vectors = eigsh(counted, k=2, which="BE", tol=rung, v0=start, rng=seed)
    low, high = (End(value=float(values[i]), vector=torch.from_numpy(vectors[:, i].copy())) for i in (0, 1))
    return Answer(top=high, bottom=low, products=meter.count)


# ---------------------------------------------------------------- PyHessian


def pyhessian_both(case: Case, device: torch.device, rung: float, seed: int, meter: Meter) -> Answer:
    """Power iteration for the top, then again with the Hessian shifted by it: the bottom."""
    top = _power(case, device, meter, seed, tol=rung, iterations=100, shift=0.0)
    bottom = _power(case, device, meter, seed, tol=rung, iterations=100, shift=top.value)
    return Answer(top=top, bottom=bottom, products=meter.count)


def pyhessian_top(case: Case, device: torch.device, rung: float, seed: int, meter: Meter) -> Answer:
    """Power iteration for the top alone, with as many iterations as its tolerance asks for."""
    top = _power(case, device, meter, seed, tol=rung, iterations=MAX_PRODUCTS, shift=0.0)
    return Answer(top=top, bottom=None, products=meter.count)


def _power(
    case: Case, device: torch.device, meter: Meter, seed: int, *, tol: float, iterations: int, shift: float
) -> End:
    from pyhessian import hessian

    class Shifted(hessian):  # type: ignore[misc]
        def dataloader_hv_product(self, v: list[Tensor]) -> tuple[float, list[Tensor]]:
            value, product = meter.wrap(super().dataloader_hv_product)(v)
            return value - shift, [p - shift * part for p, part in zip(product, v, strict=True)]

    torch.manual_seed(seed)
    with sdpa_kernel(SDPBackend.MATH):
        shifted = Shifted(case.model, case.criterion, dataloader=case.batches, cuda=device.type == "cuda")
        values, vectors = shifted.eigenvalues(maxIter=iterations, tol=tol)
    vector = torch.cat([part.reshape(-1) for part in vectors[0]]).detach()
    return End(value=float(values[0]) + shift, vector=vector)


# ---------------------------------------------------------------- hessian-eigenthings


def eigenthings(case: Case, device: torch.device, rung: float, seed: int, meter: Meter) -> Answer:
    """Its Lanczos with full reorthogonalisation for `rung` steps; both ends are read off one run."""
    from hessian_eigenthings import HessianOperator, lanczos, supervised_loss

    operator = HessianOperator(case.model, case.batches, supervised_loss(case.criterion))
    operator.matvec = meter.wrap(operator.matvec)
    steps = int(rung)
    with sdpa_kernel(SDPBackend.MATH):
        found = lanczos(operator, k=steps, max_iter=steps, reorthogonalize=True, which="SA", seed=seed)
    return Answer(
        top=End(value=float(found.eigenvalues[-1]), vector=found.eigenvectors[-1]),
        bottom=End(value=float(found.eigenvalues[0]), vector=found.eigenvectors[0]),
        products=meter.count,
        claimed=max(float(found.residuals[i] / found.eigenvalues[i].abs()) for i in (0, -1)),
    )


CONTENDERS: dict[str, Contender] = {
    c.name: c
    for c in (
        Contender(name="samdiag", ask=samdiag, rungs=(1e-2,), rung_name="tol"),
        Contender(name="samdiag, warm start", ask=samdiag_warm, rungs=(1e-2,), rung_name="tol"),
        Contender(name="samdiag, until decided", ask=samdiag_decided, rungs=(1e-2,), rung_name="tol"),
        Contender(name="samdiag, λ_max alone", ask=samdiag_top, rungs=(1e-2,), rung_name="tol", both=False),
        Contender(name="curvlinops + eigsh", ask=curvlinops, rungs=(1e-1, 3e-2, 1e-2, 3e-3, 1e-3), rung_name="tol"),
        Contender(name="PyHessian with a shift", ask=pyhessian_both, rungs=(PYHESSIAN_DEFAULT,), rung_name="tol"),
        Contender(
            name="PyHessian λ_max alone",
            ask=pyhessian_top,
            rungs=(1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
            rung_name="tol",
            both=False,
        ),
        Contender(name="hessian-eigenthings", ask=eigenthings, rungs=(25, 50, 100), rung_name="steps"),
    )
}
