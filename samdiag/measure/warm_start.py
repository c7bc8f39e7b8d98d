"""Approximate eigenvectors to start from: those of a part of the data, or of a neighbouring checkpoint in a file."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samdiag.curvature.batches import cut_into
from samdiag.curvature.finite import require_finite
from samdiag.curvature.lanczos import DENSE_LIMIT, extremal_eigenpairs, fewest_vectors
from samdiag.curvature.memory import affordable_vectors
from samdiag.curvature.objective import Objective
from samdiag.errors import CannotDecide, UsageError
from samdiag.whole_file import replacing

SUBSAMPLE = "subsample"
NEIGHBOUR = "neighbour"  # the checkpoint that was measured before in this process
SHARE = 8  # one sample of eight: a product there costs an eighth
FEWEST = 64  # samples below which a part of the data says nothing about the ends of all of it
ROUGH = 0.1  # residual asked of the part's eigenvectors: finer ones describe the part, not the whole
BESIDE = 8  # vectors beside the basis: the two reported ones, and what a step and orthogonalising need
NAME = "ritz_vectors"
FORMAT = "samdiag-ritz-vectors-1"
UNIT = 0.01  # how far from 1 the length of a row may be: far above float32 rounding, far below a wrong file's
LAST_GENERATION = 2**31  # times a stride of seeds it is still a 64-bit seed
ANOTHER = "name a file that an earlier --warm-start wrote, or one that does not exist yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """Start vectors and where they come from.

    Attributes:
        vectors: [s, num_params].
        source: in words.
        generation: how many runs in a row the vectors have come through: the random part of every run must be new.
    """

    vectors: Tensor
    source: str
    generation: int


def from_subsample(
    objective: Objective, *, seed: int, max_products: int, stop: Callable[[], str | None] | None = None
) -> WarmStart | None:
    """The ends' eigenvectors on one of SHARE parts of the data; None where that would save nothing.

    Args:
        objective: all the data.
        seed: of the start vector.
        max_products: bound on the products with the part.
        stop: asked between two products; a reason ends the run with what is known.

    Raises:
        CannotDecide: a product is not a number.
    """
    if objective.num_params <= DENSE_LIMIT or objective.num_samples // SHARE < FEWEST:
        return None  # solved completely from any start, or too few data to be divided
    dim, budget = objective.num_params, objective.memory_for_basis
    affordable = affordable_vectors(objective.device, dim, objective.dtype, budget=budget)
    pieces = _part_of(objective)
    if sum(count for _, count in pieces) > objective.num_samples // 2:
        return None  # batches that cannot be cut
    with objective.on(pieces) as part:
        found = extremal_eigenpairs(
            lambda vector: _finite_product(part, vector),
            dim,
            num_eigenvalues=1,
            tol=ROUGH,
            max_products=max_products,
            generator=torch.Generator().manual_seed(seed),
            device=part.device,
            dtype=part.dtype,
            capacity=max(affordable - BESIDE, fewest_vectors(1)),
            stop=stop,
        )
        products = "1 product" if found.steps == 1 else f"{found.steps} products"
        source = f"{part.num_samples} of {objective.num_samples} samples, {products} of them"
    return WarmStart(vectors=torch.cat([found.top_vectors, found.bottom_vectors]), source=source, generation=1)


def _part_of(objective: Objective) -> list[tuple[Any, int]]:
    """The first of SHARE pieces of every batch; every SHARE-th batch where BatchNorm uses the batch's statistics."""
    batches = list(zip(objective.batches, objective.counts, strict=True))
    if objective.train_mode:
        return batches[::SHARE]
    return [cut_into(data, count, max(1, -(-count // SHARE)))[0] for data, count in batches]


def _finite_product(part: Objective, vector: Tensor) -> Tensor:
    product = part.product(vector)
    if not bool(torch.isfinite(product.sum())):
        require_finite(part.model, part.parameters, product)
    return product


def load(path: Path, num_params: int) -> WarmStart | None:
    """The vectors that `save` wrote; None where there is no such file yet.

    Raises:
        UsageError: the file cannot be read, is something else, or belongs to another model.
    """
    read = _read(path)
    if read is None:
        return None
    vectors, generation = read
    if vectors.dim() != 2 or not len(vectors):
        raise UsageError(
            f"--warm-start {path} holds a tensor of shape {list(vectors.shape)} where vectors are expected", ANOTHER
        )
    if vectors.shape[1] != num_params:
        raise UsageError(
            f"--warm-start {path} holds vectors of {vectors.shape[1]} parameters, this model has {num_params}",
            "warm-start only checkpoints of one model from one file",
        )
    if not bool(torch.isfinite(vectors).all()):
        raise UsageError(f"--warm-start {path} holds vectors that are not numbers", ANOTHER)
    lengths = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
    odd = lengths[(lengths - 1.0).abs() > UNIT].tolist()
    if odd:
        raise UsageError(f"--warm-start {path} holds a vector of length {odd[0]:.3g} where 1 is expected", ANOTHER)
    if not (generation.isascii() and generation.isdecimal() and len(generation) <= len(str(LAST_GENERATION))):
        generation = "0"
    if not 1 <= int(generation) <= LAST_GENERATION:
        raise UsageError(f"--warm-start {path} does not say how many runs its vectors have come through", ANOTHER)
    return WarmStart(vectors=vectors, source=str(path), generation=int(generation))


def _read(path: Path) -> tuple[Tensor, str] | None:
    """The tensor and what is said of its generation; None where there is no file."""
    from safetensors import SafetensorError, safe_open

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"--warm-start {path} is no regular file", ANOTHER)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            ours = metadata.get("format") == FORMAT and NAME in file.keys()  # noqa: SIM118 (not a dict)
            if not ours or file.get_slice(NAME).get_dtype() != "F32":
                raise UsageError(f"--warm-start {path} holds no eigenvectors", ANOTHER)
            return file.get_tensor(NAME), metadata.get("generation", "")
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError) as error:  # ValueError: a path that no system call takes
        raise UsageError(f"--warm-start {path} cannot be read: {_reason(error)}", ANOTHER) from error


def save(path: Path, vectors: Tensor, generation: int) -> None:
    """Writes the unit rows `vectors` [s, num_params] for the next checkpoint, all or nothing.

    Raises:
        CannotDecide: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with replacing(path) as beside:
            save_file(
                {NAME: vectors.to(device="cpu", dtype=torch.float32).contiguous()},
                beside,
                metadata={"format": FORMAT, "generation": str(generation)},
            )
    except (OSError, SafetensorError) as error:
        raise CannotDecide(
            f"--warm-start {path} cannot be written: {_reason(error)}", "name a file in a writable folder"
        ) from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[:100]
