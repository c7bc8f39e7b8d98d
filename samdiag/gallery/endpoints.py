"""Where a run of an experiment ended, as a stamped checkpoint, and whether samdiag's verdict on it is the right one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from samdiag.errors import UsageError
from samdiag.gallery.experiment import Row
from samdiag.pipeline import inspect
from samdiag.spec.stamp import stamp
from samdiag.types import Diagnosis


def save_weights(path: Path, weights: Mapping[str, Tensor | NDArray[np.float64]], **stamped: Any) -> Path:
    """`path`, a .safetensors file of `weights` that says what it belongs to; an older file is replaced.

    Args:
        path: in a folder that exists.
        weights: by parameter name.
        **stamped: as for `samdiag.stamp`: model, data, loss, rho, variant, lr, momentum, batch_size.

    Raises:
        UsageError: `path` is a folder.
        OSError: it cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", "give another folder with --out")
    tensors = {name: torch.as_tensor(value).detach().clone().contiguous() for name, value in weights.items()}
    path.write_bytes(save(tensors))
    stamp(path, **stamped)
    return path


def save_point(
    path: Path, point: np.ndarray, problem: str, *, args: Mapping[str, Any] | None = None, **sam: Any
) -> Path:
    """A checkpoint of a function of a point: `w` = `point` [d], stamped with the catalog's `problem` and the settings.

    Args:
        path: in a folder that exists.
        point: where the run ended.
        problem: a name of the catalog, e.g. "beale".
        args: of the model's factory.
        **sam: rho, variant, lr, momentum.
    """
    model = {"gallery": problem, "args": dict(args)} if args else problem
    weights = {"w": np.asarray(point, dtype=np.float64)}
    return save_weights(path, weights, model=model, data=problem, loss="model", **sam)


def inspected(path: Path) -> Diagnosis:
    """What `samdiag inspect` says about a stamped checkpoint, whatever project file lies around."""
    return inspect(path, cwd=Path(path.absolute().anchor))


def verdict_row(path: Path, *expected: str, diagnosis: Diagnosis | None = None) -> Row:
    """The verdict on `path`; it agrees if it is among `expected`.

    Args:
        path: a stamped checkpoint.
        expected: the verdicts that are right.
        diagnosis: of `path`, where there is one already.
    """
    found = diagnosis or inspected(path)
    measured = found.verdict if found.failure is None else f"not examined: {found.failure.what}"
    return Row(
        quantity=f"verdict on {path.name}",
        expected=" or ".join(expected),
        measured=measured,
        agrees=found.failure is None and found.verdict in expected,
        tolerance="the same verdict",
    )
