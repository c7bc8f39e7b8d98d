"""Approximate eigenvectors to start from: those of a part of the data, or of a neighbouring checkpoint in a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from samdiag.curvature.batches import cut_into
from samdiag.curvature.lanczos import extremal_eigenpairs
from samdiag.curvature.objective import Objective
from samdiag.errors import CannotDecide, UsageError

SUBSAMPLE = "subsample"
SHARE = 8  # one sample of eight: a product there costs an eighth
FEWEST = 64  # samples below which a part of the data says nothing about the ends of all of it
ROUGH = 0.1  # residual asked of the part's eigenvectors: finer ones describe the part, not the whole
NAME = "ritz_vectors"
FORMAT = "samdiag-ritz-vectors-1"


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


def from_subsample(objective: Objective, *, seed: int, max_products: int) -> WarmStart | None:
    """The ends' eigenvectors on every SHARE-th piece of the data; None where the data are too few to be divided."""
    size = max(1, objective.num_samples // SHARE)
    if size < FEWEST:
        return None
    pieces = [
        piece
        for data, count in zip(objective.batches, objective.counts, strict=True)
        for piece in cut_into(data, count, max(1, -(-count // SHARE)))[:1]
    ]
    with objective.on(pieces) as part:
        if part.num_samples > objective.num_samples // 2:
            return None  # batches that cannot be cut: nothing would be saved
        found = extremal_eigenpairs(
            part.product,
            part.num_params,
            num_eigenvalues=1,
            tol=ROUGH,
            max_products=max_products,
            generator=torch.Generator().manual_seed(seed),
            device=part.device,
            dtype=part.dtype,
        )
        source = f"{part.num_samples} of {objective.num_samples} samples, {found.steps} products of them"
    return WarmStart(vectors=torch.cat([found.top_vectors, found.bottom_vectors]), source=source, generation=1)


def load(path: Path, num_params: int) -> WarmStart | None:
    """The vectors that `save` wrote; None where there is no such file yet.

    Raises:
        UsageError: the file is something else, or belongs to another model.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or NAME not in file.keys():  # noqa: SIM118 (not a dict)
                raise UsageError(
                    f"--warm-start {path} holds no eigenvectors", "name a file that an earlier --warm-start wrote"
                )
            vectors = file.get_tensor(NAME)
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"--warm-start {path} cannot be read: {' '.join(str(error).split())[:100]}",
            "name a file that an earlier --warm-start wrote, or one that does not exist yet",
        ) from error
    if vectors.dim() != 2 or vectors.shape[1] != num_params or not bool(torch.isfinite(vectors).all()):
        raise UsageError(
            f"--warm-start {path} holds vectors of {vectors.shape[-1]} parameters, this model has {num_params}",
            "warm-start only checkpoints of one model from one file",
        )
    generation = metadata.get("generation", "1")
    return WarmStart(vectors=vectors, source=str(path), generation=int(generation) if generation.isdecimal() else 1)


def save(path: Path, vectors: Tensor, generation: int) -> None:
    """Writes `vectors` [s, num_params] for the next checkpoint, all or nothing.

    Raises:
        CannotDecide: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(
            {NAME: vectors.to(device="cpu", dtype=torch.float32).contiguous()},
            beside,
            metadata={"format": FORMAT, "generation": str(generation)},
        )
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        why = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[:100]
        raise CannotDecide(
            f"--warm-start {path} cannot be written: {why}", "name a file in a writable folder"
        ) from error
