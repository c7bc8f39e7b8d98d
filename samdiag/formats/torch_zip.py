"""Files of `torch.save` (zip layout), always read with `weights_only=True`: nothing in them is ever run."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from samdiag.errors import CannotDecide
from samdiag.formats.checkpoint import Checkpoint, Hint
from samdiag.formats.content import Content, reading
from samdiag.formats.inert import safe_globals
from samdiag.formats.momentum import find_buffers
from samdiag.formats.optimizer_state import find_optimizer, first_group, is_adam, read_hints
from samdiag.formats.perturbed import restore_old_weights
from samdiag.formats.recognition import Format
from samdiag.formats.refused import SAVE_WEIGHTS
from samdiag.formats.state_dict import find_weights, has_ema, has_raw
from samdiag.quoting import shown

if TYPE_CHECKING:
    from torch import Tensor

MAX_INFLATION = (
    2  # torch.save stores without compression, so that an honest archive is never larger inside than outside
)
MAX_ENTRIES = 2_000_000  # one per tensor, and a margin
REFUSED_GLOBAL = re.compile(r"[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) (\S+)")
ZERO_FILE = re.compile(r"zero_pp_rank_\d+_.*|mp_rank_\d+_model_states\.pt|.*_optim_states\.pt")
DEEPSPEED_KEYS = {"ds_version", "ds_config", "zero_stage"}


def recognises(content: Content) -> bool:
    """Whether it is a zip archive; which kind is decided when it is opened."""
    return content.prefix.startswith(b"PK\x03\x04")


def open_content(content: Content) -> Checkpoint:
    """The Checkpoint: memory-mapped, with the hints of its optimizer state."""
    _check_archive(content)
    saved = _load(content)
    if isinstance(saved, Mapping) and DEEPSPEED_KEYS & set(saved):
        raise _deepspeed(content)
    averaged = has_ema(saved)
    raw = {} if averaged and not has_raw(content.name, saved) else find_weights(content.name, saved, "raw")
    hints, notes, raw = _read_optimizer(saved, raw)
    if averaged:
        notes = (*notes, "the file also holds EMA weights: they are used with weights = ema only")

    def load(which: str) -> dict[str, Tensor]:
        return dict(raw) if which == "raw" and raw else find_weights(content.name, saved, which)

    state, _ = find_optimizer(saved)
    return Checkpoint(
        path=content.path,
        format="torch-zip",
        fingerprint=content.fingerprint(),
        hints=hints,
        notes=notes,
        adam=state is not None and is_adam(first_group(state)),
        load=load,
        load_velocity=lambda: find_buffers(saved),
    )


def _read_optimizer(
    saved: object, raw: dict[str, Tensor]
) -> tuple[dict[str, Hint], tuple[str, ...], dict[str, Tensor]]:
    """Hints and notes of the optimizer state, and the weights, taken back to before the SAM ascent where needed."""
    state, notes = find_optimizer(saved)
    if state is None:
        return {}, notes, raw
    hints, hint_notes = read_hints(state)
    weights, perturbed_notes = restore_old_weights(raw, state, hints)
    return hints, (*notes, *hint_notes, *perturbed_notes), weights


def _check_archive(content: Content) -> None:
    """Nothing, or CannotDecide where the zip archive is damaged or not one of `torch.save`."""
    name = content.name
    if ZERO_FILE.fullmatch(content.path.name):
        raise _deepspeed(content)
    try:
        with reading(content.path), zipfile.ZipFile(content.path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise CannotDecide(f"{name} is a truncated or damaged zip archive", "copy or save the file again") from None
    inside = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or inside > MAX_INFLATION * content.size:
        reason = f"its {len(entries)} entries unpack to {inside} bytes from {content.size}"
        raise CannotDecide(f"{name} is not a file of torch.save: {reason}", f"save the weights again: {SAVE_WEIGHTS}")
    names = {"/".join(entry.filename.split("/")[1:]) or entry.filename for entry in entries}
    if "constants.pkl" in names or any(entry.startswith("code/") for entry in names):
        todo = (
            f"archives of code are never run here; where you trust it: `model = torch.jit.load(path)`, {SAVE_WEIGHTS}"
        )
        raise CannotDecide(f"{name} is a TorchScript archive", todo)
    if "data.pkl" not in names:
        raise CannotDecide(f"{name} is {_zip_kind(names)}", f"save the weights with {SAVE_WEIGHTS}")


def _zip_kind(names: set[str]) -> str:
    if any(name.endswith(".npy") for name in names):
        return "a NumPy .npz archive, not a torch checkpoint"
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        return "a torch.export archive (.pt2), not a checkpoint"
    return "a zip archive but not one of torch.save: it has no data.pkl"


def _deepspeed(content: Content) -> CannotDecide:
    todo = "merge the run's checkpoint with the zero_to_fp32.py that DeepSpeed wrote beside it, then inspect its output"
    return CannotDecide(f"{content.name} is one part of a DeepSpeed checkpoint", todo)


def _load(content: Content) -> object:
    try:
        return _torch_load(content.path)
    except MemoryError:
        raise
    except Exception as error:  # the unpickler raises whatever a malformed stream makes it raise
        _explain(content, error)


def _torch_load(path: Path) -> Any:
    """What torch reads with weights_only=True; without memory mapping only where the file system has none."""
    import torch

    with warnings.catch_warnings(), torch.serialization.safe_globals(safe_globals()):  # type: ignore[arg-type]
        warnings.simplefilter("ignore")  # about deprecated storages and the like: nothing that a reader could act on
        try:
            return torch.load(path, weights_only=True, mmap=True, map_location="cpu")
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, weights_only=True, map_location="cpu")


def _explain(content: Content, error: Exception) -> NoReturn:
    """Raises CannotDecide: which import the pickle asked for, or that the archive is damaged."""
    refused = REFUSED_GLOBAL.search(str(error))
    if refused is not None:
        wanted = refused[1].rstrip(".,:")
        what = f"{content.name} is a pickle that wants to run {shown(wanted)}; only tensors and plain values are read"
        raise CannotDecide(what, _todo_refused(wanted)) from None
    if "Weights only load failed" in str(error):
        what = f"{content.name} is a pickle that does more than hold tensors and plain values"
        raise CannotDecide(what, _todo_refused("")) from None
    reason = shown(str(error).split(".")[0].splitlines()[0] if str(error) else type(error).__name__)
    raise CannotDecide(f"{content.name} is damaged: {reason}", "copy or save the file again") from None


def _todo_refused(wanted: str) -> str:
    if wanted.startswith("torch.distributed"):
        return (
            "gather the full weights before saving (`get_model_state_dict` with full_state_dict=True), then save those"
        )
    return f"in your own training environment, where you trust the file, save the weights alone: {SAVE_WEIGHTS}"


FORMAT = Format(recognises=recognises, open=open_content)
