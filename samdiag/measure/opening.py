"""From a Problem to an Objective: data materialised once, settings resolved, and every bad input refused by name."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from samdiag.curvature.batches import count_samples, move, plain, same
from samdiag.curvature.objective import Objective
from samdiag.curvature.products.uniting import unite
from samdiag.curvature.restoring import batch_norms, rng_kept, seed_everything
from samdiag.curvature.saying import remarks
from samdiag.curvature.vocabulary import NONNEGATIVE
from samdiag.curvature.wrappers import quantised, scripted, unwrapped
from samdiag.errors import CannotDecide, UsageError
from samdiag.keeping import Keep
from samdiag.measure.as_trained import as_in_training, with_decay
from samdiag.measure.loss_checks import check_loss
from samdiag.measure.settings import MeasureSettings
from samdiag.quoting import listed
from samdiag.types import Problem
from samdiag.user_errors import is_out_of_memory, user_code

# last nodes of losses that cannot go below 0, whatever the model does
NONNEGATIVE_LOSSES = frozenset(
    {
        "MseLossBackward0",
        "BinaryCrossEntropyBackward0",
        "BinaryCrossEntropyWithLogitsBackward0",
        "SmoothL1LossBackward0",
        "HuberLossBackward0",
        "L1LossBackward0",
    }
)
NEGATIVE_LOG_LIKELIHOODS = frozenset(
    {"NllLossBackward0", "NllLoss2DBackward0"}
)  # of probabilities: after a log-softmax


HALF = (torch.float16, torch.bfloat16)
Loss = Callable[[Any, Any], Any]
LOSS_TODO = "correct it: it is called as loss(model, batch) with the problem's own batches"
KNOWN_REFUSALS = {  # what torch says in a forward pass: what it means here, and what to do
    "FlexAttention does not support backward on CPU": (
        "flex_attention has no derivative on the CPU",
        "use scaled_dot_product_attention in the model, or attn_implementation='eager' of a Hugging Face one",
    ),
    "SyncBatchNorm expected input tensor to be on": (
        "SyncBatchNorm has no batch statistics on the CPU",
        "use --mode eval, or torch.nn.BatchNorm layers of the same parameters",
    ),
}
DATA_TODO = "correct it: batches must be a list, a DataLoader or another iterable that can be read again and again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An objective ready for measurement, with what was decided on the way."""

    objective: Objective
    population: int | None
    batch_size: int | None  # training batch; None: full batch
    ascent_batch: int | None  # samples behind one ascent gradient; None: all of them
    loss_lower_bound: float | None
    notes: tuple[str, ...]
    loss: Loss  # the problem's with the decay that is part of it, its exceptions named
    batch_norm: bool


@contextmanager
def opened(problem: Problem, settings: MeasureSettings) -> Iterator[Opened]:
    """The problem's objective on its materialised batches; the model is given back exactly on leaving.

    Raises:
        UsageError: no trainable parameters, empty data, a loss that is not a mean loss of the model.
        CannotDecide: NaN weights, a NaN loss, data or a loss that differ between two passes, no such device.
    """
    device, dtype = choose_device(settings.device), choose_dtype(problem, settings.dtype)
    _check_problem(problem)
    problem = replace(problem, model=unwrapped(problem.model))
    _check_parameters(problem)
    notes: list[str] = []
    keep = problem.keep or Keep()
    read = functools.partial(_read, problem, settings, device, dtype)
    batches = keep.once(("batches", settings.samples, settings.seed, device, dtype), read)
    halved = next((str(p.dtype).removeprefix("torch.") for p in problem.model.parameters() if p.dtype in HALF), None)
    batch_norm = bool(batch_norms(problem.model))
    train_mode = settings.mode == "train" and batch_norm
    training = _training_batch(problem, settings, [count for _, count in batches], problem.population)
    if train_mode:
        batches = as_in_training(batches, training)
    undecayed = keep.once("loss", lambda: guarded(problem.loss))
    decay = settings.objective_decay
    loss = keep.once(("loss", decay), lambda: with_decay(undecayed, decay))
    objective = Objective(
        problem.model,
        loss,
        batches,
        device=device,
        dtype=dtype,
        memory=settings.memory,
        train_mode=train_mode,
        keep=keep,
    )
    with remarks() as said, objective.borrowed(), seeded(settings.seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*RNN module weights are not part of single contiguous chunk.*")
        check_loss(objective)
        unite(objective)
        bound = _lower_bound(objective, undecayed)
        total, counts = objective.num_samples, [count for _, count in batches]
        notes.extend(_remarks(problem, objective))
        notes.extend(said)
        if halved:
            notes.append(f"{halved} weights were measured in {str(dtype).removeprefix('torch.')}")
        population = problem.population
        if population is None and len(counts) > 1:
            notes.append(
                f"sampling errors treat the {total} samples as drawn from a larger set; "
                "Problem(population=…) says when they are all of it"
            )
        notes.extend(_mode_remarks(settings, batch_norm))
        if settings.batch_size is None and training is None and len(counts) > 1:
            notes.append("the training batch size is not known: full batches are assumed; give --batch-size")
        yield Opened(
            objective=objective,
            population=population,
            batch_size=training,
            ascent_batch=_ascent_batch(settings, training, objective.num_samples),
            loss_lower_bound=problem.loss_lower_bound if problem.loss_lower_bound is not None else bound,
            notes=tuple(notes),
            loss=loss,
            batch_norm=batch_norm and not train_mode,
        )


def _mode_remarks(settings: MeasureSettings, batch_norm: bool) -> list[str]:
    if settings.mode == "train":
        return (
            ["BatchNorm was measured with each batch's own statistics; dropout stayed off"]
            if batch_norm
            else ["--mode train makes no difference: the model has no BatchNorm, and dropout stays off"]
        )
    if not batch_norm:
        return []
    return [
        "BatchNorm's curvature is measured with its running statistics; training uses the batch's own, as the "
        "trial steps do; --mode train measures with those"
    ]


def _ascent_batch(settings: MeasureSettings, training: int | None, num_samples: int) -> int | None:
    """Samples behind one ascent gradient: the micro-batch, else the training batch; None: all samples."""
    if settings.micro_batch is None:
        return training
    whole = num_samples if training is None else training
    return min(settings.micro_batch, whole) if training is not None or settings.micro_batch < whole else None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Every random generator seeded inside and restored on leaving."""
    with rng_kept():
        seed_everything(seed)
        yield


def guarded(loss: Loss) -> Loss:
    """The loss, its exceptions named as its own; memory that runs out passes, so that batches are halved."""

    def call(model: Any, batch: Any) -> Any:
        try:
            return loss(model, batch)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            for sign, (what, todo) in KNOWN_REFUSALS.items():
                if sign in str(error):
                    raise CannotDecide(what, todo) from error
            with user_code("the loss", LOSS_TODO):
                raise
        except SystemExit:
            with user_code("the loss", LOSS_TODO):
                raise

    return call


def choose_device(name: str) -> torch.device:
    """The device that "auto" or a name stands for.

    Raises:
        UsageError: a name torch does not know, or CUDA asked for without a usable GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"no such device: {name}", "use cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {name} was asked for, but torch sees no GPU", "use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name} is not supported", "use cpu or cuda")
    return device


def choose_dtype(problem: Problem, name: str) -> torch.dtype:
    """float64 when asked for or when the weights are float64; float32 otherwise (half precision is upcast)."""
    if name == "auto":
        wide = any(p.dtype == torch.float64 for p in problem.model.parameters())
        return torch.float64 if wide else torch.float32
    known = {"float32": torch.float32, "float64": torch.float64}
    if name not in known:
        raise UsageError(f"dtype {name!r} is not supported", "use auto, float32 or float64")
    return known[name]


def _check_problem(problem: Problem) -> None:
    """The three parts are what they should be.

    Raises:
        UsageError: one of them is of another type.
    """
    if not isinstance(problem.model, torch.nn.Module):
        raise UsageError(f"Problem.model is a {type(problem.model).__name__}", "give a torch.nn.Module")
    if not callable(problem.loss):
        raise UsageError(f"Problem.loss is a {type(problem.loss).__name__}", "give a function loss(model, batch)")
    if not hasattr(problem.batches, "__iter__") and not hasattr(problem.batches, "__getitem__"):
        raise UsageError(f"Problem.batches is a {type(problem.batches).__name__}", DATA_TODO)


def _check_parameters(problem: Problem) -> None:
    """Parameters that can be measured: initialised, trainable, real, finite, not quantised.

    Raises:
        UsageError, CannotDecide: the first that cannot, by name.
    """
    for name in scripted(problem.model):
        raise UsageError(
            f"{name} is a TorchScript module, whose kernels have no second derivative",
            "give the Python module that it was scripted or traced from, with the same weights",
        )
    for name, kind in quantised(problem.model):
        raise UsageError(
            f"{name} is quantised ({kind}): its weights are integers and have no derivative",
            "measure the model as it was before quantisation, in float32, bfloat16 or float16",
        )
    lazy = [n for n, p in problem.model.named_parameters() if torch.nn.parameter.is_lazy(p)]
    if lazy:
        raise UsageError(
            f"parameter {lazy[0]} has no shape yet", "run the model once on a batch before giving it to samdiag"
        )
    trainable = [(n, p) for n, p in problem.model.named_parameters() if p.requires_grad and p.numel()]
    if not trainable:
        raise UsageError(
            "the model has no trainable parameters", "leave requires_grad=True on what the training changed"
        )
    for name, p in trainable:
        if p.is_complex():
            raise UsageError(f"parameter {name} is complex", "only real parameters are supported")
        if not torch.isfinite(p.detach()).all():
            bad = int((~torch.isfinite(p.detach())).sum())
            raise CannotDecide(
                f"the weights are not finite: {name} has {bad} NaN or infinite value(s) of {p.numel()}",
                "this checkpoint diverged or is damaged; take an earlier one",
            )


def _read(
    problem: Problem, settings: MeasureSettings, device: torch.device, dtype: torch.dtype
) -> list[tuple[Any, int]]:
    with seeded(settings.seed):
        return _materialise(problem, settings, device, dtype)


def _materialise(
    problem: Problem, settings: MeasureSettings, device: torch.device, dtype: torch.dtype
) -> list[tuple[Any, int]]:
    """Whole batches until `samples` are reached, copied; the first is asked for twice to see that the loader repeats
    itself.
    """
    with user_code("the data", DATA_TODO):
        seed_everything(settings.seed)
        generators = _own_generators(problem.batches)
        states = [g.get_state() for g in generators]
        batches: list[tuple[Any, int]] = []
        total = 0
        for batch in map(plain, problem.batches):
            count = (problem.num_samples or count_samples)(batch)
            if count < 1:
                raise UsageError("a batch has no samples", "drop empty batches, or say num_samples in the Problem")
            batches.append((move(batch, device, dtype), int(count)))
            total += count
            if settings.samples is not None and total >= settings.samples:
                break
        if not batches:
            raise UsageError(
                "the data is empty: no batch came out of it", "check the path and the split of the data set"
            )
        seed_everything(settings.seed)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        again = [plain(batch) for batch in itertools.islice(iter(problem.batches), 1)]
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
    if not again:
        raise UsageError(
            "the data can be read only once: a second pass over it is empty",
            "give a list or a DataLoader as batches, not a generator",
        )
    if not same(batches[0][0], move(again[0], device, dtype)):
        raise CannotDecide(
            "the data loader is not deterministic: its first batch differs between two passes under the same seed",
            "make the loader repeatable (no time- or counter-based randomness), or materialise it: "
            "batches=list(loader)",
        )
    return batches


def _own_generators(batches: Any) -> list[torch.Generator]:
    """The generators that a DataLoader and its samplers were given: their states move with every pass."""
    holders = [batches, getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None)]
    holders.append(getattr(holders[2], "sampler", None))
    found = [getattr(holder, "generator", None) for holder in holders]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def _remarks(problem: Problem, objective: Objective) -> list[str]:
    """What a reader should know about the parameters: frozen, unused, or stored in half precision."""
    named = list(problem.model.named_parameters())
    trainable = [n for n, p in named if p.requires_grad]
    frozen = [n for n, p in named if not p.requires_grad]
    unused = [n for i, n in enumerate(trainable) if i not in objective.used]
    remarks = []
    if frozen:
        remarks.append(f"{len(frozen)} frozen parameter(s) are left out: {listed(frozen, 3)}")
    if unused:
        remarks.append(f"{len(unused)} parameter(s) that the loss does not use count as flat: {listed(unused, 3)}")
    return remarks


def _lower_bound(objective: Objective, loss: Loss) -> float | None:
    """0 where the loss's last graph node is a loss that cannot be negative; None where that is not certain."""
    with torch.enable_grad():
        value = loss(objective.model, objective.batches[0])
    if getattr(value, NONNEGATIVE, False):
        return 0.0
    node = value.grad_fn
    name = type(node).__name__
    if name in NEGATIVE_LOG_LIKELIHOODS:
        return 0.0 if type(node.next_functions[0][0]).__name__ == "LogSoftmaxBackward0" else None
    return 0.0 if name in NONNEGATIVE_LOSSES else None


def _training_batch(
    problem: Problem, settings: MeasureSettings, counts: list[int], population: int | None
) -> int | None:
    """The training batch size: as said; else that of the problem's own batches; None (full batch) where there is only
    one.
    """
    said = settings.batch_size
    if said is None:
        said = max(counts) if problem.batch_size_is_training and len(counts) > 1 else None
    return None if said is not None and population is not None and said >= population else said
