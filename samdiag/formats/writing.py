"""A checkpoint written beside another: weights under the model's names, an optimizer state, and never over a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats.safetensors_file import STAMP_KEY
from samdiag.formats.state_dict import strip_prefixes
from samdiag.quoting import shown
from samdiag.whole_file import replacing

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from samdiag.formats.checkpoint import Checkpoint

SAFETENSORS = ".safetensors"
TORCH = (".pt", ".pth")
MARK = "treated"
MOST_NAMES = 10_000  # tried before giving up: nobody treats a checkpoint more often
LONGEST_NAME = 200  # bytes of a new file's name; file systems allow 255, and a temporary file's is longer
FILE_MODE = 0o666  # the old one may be a folder, which is searched and not run
NO_ROOM = "make room, or name a file on another disk with --out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The files that are to be written; `optimizer` is None where one file holds everything."""

    checkpoint: Path
    optimizer: Path | None
    log: Path

    @property
    def all(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.checkpoint, self.optimizer, self.log) if path is not None)


def choose_targets(
    source: Path, out: Path | None = None, log: Path | None = None, *, own: Path | None = None
) -> Targets:
    """Names that are free: `out`, or NAME.treated.safetensors (NAME.treated-2 …) beside `source`.

    The optimizer state is NAME.optimizer.pt and the log NAME.jsonl; a .pt file holds weights and optimizer state. `own`
    is a file that may exist: this treatment wrote it.

    Raises:
        UsageError: `out` or `log` exists, has no folder, or `out` ends in something else.
    """
    if out is not None:
        if out.suffix not in (SAFETENSORS, *TORCH):
            raise UsageError(f"--out {shown(out)} is no kind of checkpoint", "end its name in .safetensors or .pt")
        found = _targets(out, log)
        _check_free(found, own)
        return found
    stem = source.name.removesuffix(source.suffix)
    room = LONGEST_NAME - len(MARK)
    if len(os.fsencode(stem)) > room:
        stem = os.fsencode(stem)[:room].decode(errors="ignore")
    for number in range(1, MOST_NAMES):
        ending = MARK if number == 1 else f"{MARK}-{number}"
        found = _targets(source.with_name(f"{stem}.{ending}{SAFETENSORS}"), log)
        if not any(_exists(path) for path in found.all if path not in (log, own)):
            _check_free(found, own)
            return found
    raise UsageError(f"{shown(source)} has been treated {MOST_NAMES} times", "name the new file with --out")


def _targets(out: Path, log: Path | None) -> Targets:
    stem = out.name.removesuffix(out.suffix)
    optimizer = out.with_name(f"{stem}.optimizer.pt") if out.suffix == SAFETENSORS else None
    return Targets(checkpoint=out, optimizer=optimizer, log=log or out.with_name(f"{stem}.jsonl"))


def _check_free(targets: Targets, own: Path | None) -> None:
    for path in targets.all:
        if path != own and _exists(path):
            flag = "--log" if path == targets.log else "--out"
            raise UsageError(f"{shown(path)} exists already", f"name a new file with {flag}: nothing is written over")
        folder = path.absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UsageError(
                f"cannot write {shown(path)}", "name a file in a folder that exists and is writable: --out"
            )
    if len(set(targets.all)) < len(targets.all):
        raise UsageError(f"{shown(targets.log)} is to be both checkpoint and log", "give --log a name of its own")


def _exists(path: Path) -> bool:
    """Whether something is there, a dangling link included."""
    if "\0" in str(path):
        raise UsageError(f"{shown(path)} is not a file name", "name a file with --out")
    return os.path.lexists(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a new checkpoint takes over from the old one, known before anything is computed: the old one may be gone
    when the new one is written.

    Attributes:
        dtypes: of every tensor, by the name that the new file has for it.
        extra: the tensors that the model does not have.
        metadata: without the stamp.
        mode: permissions.
        stamp: the old one's; None: it has none.
        fingerprint: of the old file.
    """

    dtypes: Mapping[str, torch.dtype]
    extra: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    mode: int
    stamp: Mapping[str, Any] | None
    fingerprint: str

    @classmethod
    def of(cls, old: Checkpoint, model: nn.Module, which: str = "raw") -> Outline:
        """The outline of `old`, whose weights are in `model`."""
        own, stored = _own_tensors(model), old.weights(which)
        names = {name: _own_name(name, own, stored) for name in stored}
        return cls(
            dtypes={names[name]: value.dtype for name, value in stored.items()},
            extra={names[name]: value.clone() for name, value in stored.items() if names[name] not in own},
            metadata=dict(old.metadata) or {"format": "pt"},  # what libraries look for in a file that has none
            mode=stat.S_IMODE(old.path.stat().st_mode) & FILE_MODE | stat.S_IRUSR | stat.S_IWUSR,
            stamp=old.stamp,
            fingerprint=old.fingerprint,
        )


def tensors_to_store(
    model: nn.Module, outline: Outline, stored: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The model's present values of all that the old checkpoint held: by the model's own names, in the old dtypes.

    Tied weights are written under as many names as the old file had for them.

    Args:
        model: with the new weights.
        outline: of the old checkpoint.
        stored: its tensors where it is still there: what has not changed then keeps every bit, whatever the model's
            dtype.
    """
    import torch

    own = _own_tensors(model)
    kept = {} if stored is None else {_own_name(name, own, stored): value for name, value in stored.items()}
    found: dict[str, Tensor] = {}
    for name, dtype in outline.dtypes.items():
        new = own[name].detach().cpu() if name in own else outline.extra[name]
        old = kept.get(name)
        if old is not None and torch.equal(new, old.to(new.dtype)):
            new = old
        found[name] = new.to(dtype).clone(memory_format=torch.contiguous_format)
    return found


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    import torch

    return strip_prefixes({name: t for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)})


def _own_name(name: str, own: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """The model's name of a stored tensor: without a first component that all share (a LightningModule's `model.`)."""
    inner = name.partition(".")[2]
    return name if name in own or inner not in own or set(stored) & set(own) else inner


def optimizer_state(
    model: nn.Module,
    velocity: Tensor | None,
    *,
    lr: float,
    momentum: float,
    rho: float,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    adaptive: bool | None = None,
) -> dict[str, Any]:
    """The state dict of `torch.optim.SGD(model.parameters(), …)` with this momentum buffer, and rho beside lr.

    Args:
        model: whose parameters' order counts.
        velocity: [num_params] of the trainable parameters; None, or no momentum: no buffers.
        lr, momentum, weight_decay, dampening, nesterov: as in torch.optim.SGD.
        rho, adaptive: of SAM, where davda54's SAM keeps them; adaptive None: neither SAM nor ASAM.
    """
    import torch

    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(
        parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, dampening=dampening, nesterov=nesterov
    )
    offset = 0
    for p in parameters:
        if not p.requires_grad:
            continue
        if velocity is not None and momentum > 0:
            buffer = velocity[offset : offset + p.numel()].view(p.shape).to(device="cpu", dtype=p.dtype, copy=True)
            optimizer.state[p] = {"momentum_buffer": buffer}
        offset += p.numel()
    state: dict[str, Any] = optimizer.state_dict()
    group = state["param_groups"][0]
    group["rho"] = rho
    if adaptive is not None:
        group["adaptive"] = adaptive
    return state


def save_tensors(path: Path, tensors: Mapping[str, Tensor], outline: Outline, *, stamp: str | None) -> None:
    """A safetensors file with the old one's metadata and a new stamp, put in place in one step; never over a file.

    Args:
        path: the new file.
        tensors: by name.
        outline: of the old checkpoint.
        stamp: the spec as JSON; None: no stamp.

    Raises:
        Taken: there is such a file by now.
        CannotDecide: it cannot be written.
    """
    from safetensors.torch import save_file

    metadata = {**outline.metadata, **({STAMP_KEY: stamp} if stamp is not None else {})}
    _write(path, lambda file: save_file(dict(tensors), file, metadata=metadata or None), outline.mode)


def save_object(path: Path, content: Mapping[str, Any], outline: Outline) -> None:
    """A file of torch.save, put in place in one step; never over a file.

    Raises:
        Taken: there is such a file by now.
        CannotDecide: it cannot be written.
    """
    import torch

    def fill(file: str) -> None:
        with open(file, "wb") as stream:  # a stream: torch's own writer does not say why it cannot write
            torch.save(dict(content), stream)

    _write(path, fill, outline.mode)


class Taken(CannotDecide):
    """A name that was free is not free any more."""


def _write(path: Path, fill: Callable[[str], object], mode: int) -> None:
    from safetensors import SafetensorError

    try:
        with replacing(path, mode=mode) as beside:
            fill(beside)
            if _exists(path):
                raise Taken(f"{shown(path)} was written by something else meanwhile", "name another with --out")
    except (OSError, RuntimeError, SafetensorError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch's writer hides the system's error
        reason = (cause.strerror if isinstance(cause, OSError) else None) or str(error).split("\n")[0]
        raise CannotDecide(f"{shown(path)} cannot be written: {shown(reason)}", NO_ROOM) from error
