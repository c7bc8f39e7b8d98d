"""Which engine computes the Hessian products: every candidate is timed once, checked, and held to the memory budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from samdiag.curvature.batches import halve
from samdiag.curvature.objective import Objective
from samdiag.curvature.products.batch_loss import Piece
from samdiag.curvature.products.compiled import Compiled
from samdiag.curvature.products.difference import STEPS, Difference
from samdiag.curvature.products.engine import Engine
from samdiag.curvature.products.forward import Forward
from samdiag.curvature.products.joining import data_bytes, join_batches
from samdiag.curvature.products.kept import Kept
from samdiag.curvature.products.recomputed import Recomputed, write_rows
from samdiag.curvature.products.timing import now
from samdiag.errors import CannotDecide, SamdiagError
from samdiag.instruments import ProductEngine, TriedEngine
from samdiag.user_errors import is_out_of_memory

ENGINES: Mapping[str, Callable[..., Engine]] = {
    "kept": Kept,
    "recomputed": Recomputed,
    "forward": Forward,
    "compiled": Compiled,
    "difference": Difference,
}
TOLERANCE = {torch.float32: 1e-2, torch.float64: 1e-4}  # of two engines against each other, as in the self-check
SHORT = 0.02  # seconds of a full product: below it a choice costs more than it can save
REPEATS = 5  # of a short measurement
LONG = 0.05  # seconds of one that is not repeated: many times a scheduler's time slice
TRIAL_SHARE = 8  # a trial takes at most one in … of the samples, where batches can be cut
SLOWER = 2.0  # a first run, warm-up included, that takes this many times the best one's time is not repeated
DIFFERENCES = 4  # random directions in which central differences must agree with recomputed products
FORWARD_WORTH = 2.0  # seconds of a full product: torch loads forward-mode rules for 2 s, and some 60 products follow
COMPILE_WORTH = 2.0  # seconds of a full product from which compiling (up to a minute) pays within 60 products


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """One piece of data, a direction, and what the reference engine makes of them."""

    objective: Objective
    piece: Piece
    vector: Tensor
    reference: Tensor
    gradient: float  # seconds
    recomputed: float  # seconds
    engines: dict[str, Engine] = field(default_factory=dict)

    def engine(self, name: str) -> Engine:
        """The engine called `name`, made once: compiling twice would cost twice."""
        if name not in self.engines:
            self.engines[name] = ENGINES[name](self.objective.function)
        return self.engines[name]

    @property
    def scale(self) -> float:
        """Full-data evaluations per evaluation of the piece."""
        return self.objective.num_samples / self.piece.count

    def run(self, engine: Engine) -> tuple[Tensor, float]:
        """The piece's product [num_params] and its seconds, the first one's, warm-up included."""
        return _run(engine, self.objective, self.piece, self.vector)

    def seconds(self, engine: Engine) -> float:
        """The best of a few products' seconds."""
        return _best(lambda: self.run(engine)[1])

    def error(self, product: Tensor) -> float:
        """Relative distance from the reference."""
        norm = float(torch.linalg.vector_norm(self.reference))
        return float(torch.linalg.vector_norm(product - self.reference)) / (norm or 1.0)


def choose_engine(objective: Objective, name: str = "auto") -> ProductEngine:
    """Gives the objective the fastest engine that agrees with recomputed products, or the one called `name`.

    What is evaluated in one piece, or takes less than SHORT seconds a product, keeps its default, kept graphs, untimed.

    Raises:
        CannotDecide: the engine called for fails, disagrees, or does not fit in memory.
    """
    if name == "auto" and objective.united:
        return ProductEngine(name="kept", kept_share=1.0, joined=objective.num_samples)
    if name == "auto" and _is_short(objective):
        return ProductEngine(name="kept", kept_share=1.0)
    trial = _begin(objective, _small_piece(objective))
    tried = _try_all(trial) if name == "auto" else [_try_forced(trial, name)]
    fit = [t for t in tried if not t.refused]
    if any(t.name == "kept" for t in fit):  # it does a part of the recomputed product's work: where it reads slower,
        fit = [t for t in fit if t.name != "recomputed"]  # something else was using the machine
    best = min(fit, key=lambda t: t.seconds or 0.0)
    engine = trial.engine(best.name)
    objective.drop_graphs()
    objective.engine = engine
    pieces = _joined(objective, engine, trial) if name != "compiled" else None
    objective.join(pieces)
    return ProductEngine(
        name=best.name,
        seconds=best.seconds,
        gradients=best.gradients,
        kept_share=_kept_share(objective) if engine.keeps else 0.0,
        joined=pieces[0].count if pieces else None,
        tried=tuple(tried),
    )


def _is_short(objective: Objective) -> bool:
    """Whether a product takes next to no time, judged by two gradients; the first one may be slow for being first."""
    piece = objective.largest_batch()
    scale = 2 * objective.num_samples / piece.count  # a product costs two gradients
    return any(scale * _gradient_seconds(objective, piece) < SHORT for _ in range(2))


def _gradient_seconds(objective: Objective, piece: Piece) -> float:
    start = now(objective.device)
    objective.function.gradient(piece.data)
    return now(objective.device) - start


def _small_piece(objective: Objective) -> Piece:
    piece = objective.largest_batch()
    while not objective.train_mode and TRIAL_SHARE * piece.count > objective.num_samples:
        halves = halve(piece.data, piece.count)
        if halves is None:
            break
        piece = Piece(halves[0], piece.count // 2)
    return piece


def _begin(objective: Objective, piece: Piece) -> _Trial:
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(objective.num_params, generator=generator).to(objective.flat)
    reference = Recomputed(objective.function)
    product, first = _run(reference, objective, piece, vector)
    seconds = min(first, _best(lambda: _run(reference, objective, piece, vector)[1]))
    gradient = _best(lambda: _gradient_seconds(objective, piece))
    return _Trial(
        objective=objective, piece=piece, vector=vector, reference=product, gradient=gradient, recomputed=seconds
    )


def _best(measured: Callable[[], float]) -> float:
    """The smallest of up to REPEATS measurements: others may use the machine; long ones are taken once."""
    best, spent = float("inf"), 0.0
    for _ in range(REPEATS):
        best = min(best, seconds := measured())
        spent += seconds
        if spent > LONG:
            break
    return best


def _run(engine: Engine, objective: Objective, piece: Piece, vector: Tensor) -> tuple[Tensor, float]:
    product = torch.empty_like(objective.flat)
    start = now(objective.device)
    with engine.along(vector) as work:
        write_rows(objective.function, [(work(piece), product)])
    return product, now(objective.device) - start


def _try_all(trial: _Trial) -> list[TriedEngine]:
    tried = [_try_recomputed(trial), _try_kept(trial)]
    best = min(t.seconds or 0.0 for t in tried if not t.refused)
    if best < FORWARD_WORTH:
        tried.append(TriedEngine(name="forward", refused="loading it would take longer than it saves"))
    else:
        tried.append(_refusing("forward", lambda: _try(trial, trial.engine("forward"), best / trial.scale)))
    best = min(t.seconds or 0.0 for t in tried if not t.refused)
    if trial.objective.device.type == "cuda":
        if best < COMPILE_WORTH:
            tried.append(TriedEngine(name="compiled", refused="compiling would take longer than it saves"))
        else:
            tried.append(_refusing("compiled", lambda: _try_compiled(trial)))
    return tried


def _try_forced(trial: _Trial, name: str) -> TriedEngine:
    match name:
        case "recomputed":
            found = _try_recomputed(trial)
        case "kept":
            found = _try_kept(trial)
        case "compiled":
            found = _try_compiled(trial)
        case "difference":
            found = _try_difference(trial)
        case _:
            found = _try(trial, trial.engine(name))
    if found.refused:
        raise CannotDecide(f"--products {name}: {found.refused}", "use --products auto")
    return found


def _refusing(name: str, attempt: Callable[[], TriedEngine]) -> TriedEngine:
    """The attempt's result; what it raises is the reason why the engine is refused."""
    try:
        return attempt()
    except SamdiagError as error:
        return TriedEngine(name=name, refused=error.what)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return TriedEngine(name=name, refused="out of memory")


def _try_recomputed(trial: _Trial) -> TriedEngine:
    return _record(trial, "recomputed", trial.recomputed, error=0.0)


def _try_kept(trial: _Trial) -> TriedEngine:
    """On a graph of its own; what does not fit in the budget is recomputed, and counted so."""
    objective, engine = trial.objective, trial.engine("kept")
    share = _kept_share(objective)
    if share == 0.0:
        needed, budget = (objective.graphs.sample_bytes or 0.0) * objective.counts[0], objective.memory_for_graphs
        return TriedEngine(
            name="kept", refused=f"one batch's graph takes {needed / 1e6:.0f} MB, and {budget / 1e6:.0f} MB are there"
        )
    trial = replace(trial, piece=replace(trial.piece, graph=objective.function.graph(trial.piece.data)))
    product, _ = trial.run(engine)
    seconds = trial.seconds(engine)
    return _record(trial, "kept", share * seconds + (1 - share) * trial.recomputed, error=trial.error(product))


def _try(trial: _Trial, engine: Engine, best: float | None = None) -> TriedEngine:
    """Twice, the first one being the warm-up; once where it is clearly slower than `best` seconds."""
    product, seconds = trial.run(engine)
    error = trial.error(product)
    if best is None or seconds < SLOWER * best:
        seconds = trial.seconds(engine)
    return _record(trial, engine.name, seconds, error=error)


def _try_compiled(trial: _Trial) -> TriedEngine:
    """On a whole batch, whose shape it is compiled for."""
    piece = trial.objective.largest_batch()
    whole = trial if piece.count == trial.piece.count else _begin(trial.objective, piece)
    return _try(whole, trial.engine("compiled"))


def _try_difference(trial: _Trial) -> TriedEngine:
    """With two step lengths, along several directions, on all the data: a kink that few samples do not cross spoils it.

    An error of either kind, truncation or rounding, shows in the difference between the two steps.
    """
    objective, function = trial.objective, trial.objective.function
    seconds = trial.run(Difference(function))[1]
    generator, errors = torch.Generator().manual_seed(1), []
    for _ in range(DIFFERENCES):
        vector = torch.randn(objective.num_params, generator=generator).to(objective.flat)
        found = []
        for engine in (Recomputed(function), Difference(function), Difference(function, 2 * STEPS[objective.dtype])):
            objective.drop_graphs()
            objective.engine = engine
            found.append(objective.product(vector))
        exact, short, long = found
        norm = float(torch.linalg.vector_norm(exact)) or 1.0
        errors += [float(torch.linalg.vector_norm(short - other)) / norm for other in (exact, long)]
    return _record(trial, "difference", seconds, error=max(errors))


def _record(trial: _Trial, name: str, seconds: float, *, error: float) -> TriedEngine:
    limit = TOLERANCE[trial.objective.dtype]
    refused = "" if error <= limit else f"its products differ from the recomputed ones by {error:.1e}"
    return TriedEngine(
        name=name,
        seconds=seconds * trial.scale,
        gradients=seconds / trial.gradient if trial.gradient > 0 else None,
        error=error,
        refused=refused,
    )


def _kept_share(objective: Objective) -> float:
    """Share of the samples whose graphs fit the budget, in whole batches."""
    budget, each = objective.memory_for_graphs, objective.graphs.sample_bytes
    if each is None:
        return 0.0
    fitting, used = 0, 0.0
    for count in objective.counts:
        used += each * count
        if used > budget:
            break
        fitting += count
    return fitting / objective.num_samples


def _joined(objective: Objective, engine: Engine, trial: _Trial) -> list[Piece] | None:
    if objective.train_mode or len(objective.counts) == 1:
        return None
    budget, each = objective.memory_for_graphs, objective.graphs.sample_bytes or 0.0
    pieces: list[Any] = [Piece(data, count) for data, count in zip(objective.batches, objective.counts, strict=True)]
    if 4 * data_bytes(pieces) > objective.memory_for_basis + budget:  # a quarter of the budget for a copy of the data
        return None
    return join_batches(
        pieces, objective.function, engine, vector=trial.vector, fits=lambda count: each * count <= budget
    )
