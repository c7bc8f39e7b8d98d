"""Folders that are no checkpoint that is read: what they are, and what to name or convert instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.formats.content import CHECKPOINT_SUFFIXES
from samdiag.formats.folder import Folder
from samdiag.formats.refused import DEEPSPEED_FILE, EXPORTED, FLAX_TODO, PORTED, deepspeed_todo
from samdiag.quoting import listed, shown

MAX_LOOKED_INTO = 1000  # folders in a folder, to say which of them hold a checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedFolder:
    """A kind of folder known by a name in it."""

    known_by: Callable[[str], object]
    kind: str
    todo: str


def _named(*names: str) -> Callable[[str], object]:
    return lambda name: name in names


def _ending(*suffixes: str) -> Callable[[str], object]:
    return lambda name: name.endswith(suffixes)


KINDS = (
    RefusedFolder(
        known_by=_named("latest_checkpointed_iteration.txt", "mp_rank_00", "mp_rank_00_000"),
        kind="a Megatron-LM checkpoint folder",
        todo="convert it with Megatron-LM's tools/checkpoint/convert.py to a Hugging Face directory, then inspect that",
    ),
    RefusedFolder(known_by=_named("saved_model.pb"), kind="a TensorFlow SavedModel", todo=PORTED),
    RefusedFolder(
        known_by=re.compile(r".+\.data-\d{5}-of-\d{5}").fullmatch, kind="a TensorFlow checkpoint", todo=PORTED
    ),
    RefusedFolder(
        known_by=_named("_CHECKPOINT_METADATA", "manifest.ocdbt", "_sharding"),
        kind="a JAX checkpoint (Orbax)",
        todo="convert it: restore it with Orbax and save the tensors with `safetensors.torch.save_file`",
    ),
    RefusedFolder(
        known_by=_named("Manifest.json"),
        kind="a Core ML package, converted for inference on Apple devices",
        todo=EXPORTED,
    ),
    RefusedFolder(known_by=_ending(".h5", ".keras"), kind="a folder of Keras weights", todo=PORTED),
    RefusedFolder(
        known_by=_ending(".msgpack"),
        kind="a folder of Flax weights",
        todo=FLAX_TODO,
    ),
    RefusedFolder(
        known_by=_ending(".gguf"),
        kind="a folder of GGUF files, whose weights are quantised for inference",
        todo="inspect the PyTorch or safetensors checkpoint that they were converted from",
    ),
    RefusedFolder(known_by=_ending(".onnx"), kind="a folder of ONNX graphs", todo=EXPORTED),
    RefusedFolder(known_by=_ending(".engine", ".plan"), kind="a folder of TensorRT engines", todo=EXPORTED),
    RefusedFolder(known_by=_ending(".pte"), kind="a folder of ExecuTorch programs", todo=EXPORTED),
    RefusedFolder(known_by=_ending(".npz"), kind="a folder of NumPy archives (MLX, JAX)", todo=PORTED),
)


def folder_refusal(folder: Folder) -> SamdiagError:
    """Why a folder that no format recognises is not read, and what to name instead."""
    if _is_deepspeed(folder):
        return CannotDecide(f"{folder.name} is a DeepSpeed checkpoint folder", deepspeed_todo(folder.name))
    steps = folder.steps()
    if steps:
        what = f"{folder.name} holds the checkpoints of a training run: {listed(steps)}"
        return UsageError(what, f"name one: {shown(folder.path / steps[-1])}")
    if "model_index.json" in folder:
        parts = listed(_checkpoint_folders(folder)) or "its transformer or unet"
        return UsageError(f"{folder.name} is a diffusers pipeline of several models", f"name one of them: {parts}")
    found = folder.ending(*CHECKPOINT_SUFFIXES)
    ranks = [name for name in found if re.search(r"rank_?\d", name)]
    if ranks and len(ranks) == len(found):
        return _of_ranks(folder, ranks)
    for kind in KINDS:
        if not found and any(kind.known_by(name) for name in folder.names):
            return CannotDecide(f"{folder.name} is {kind.kind}", kind.todo)
    return _of_files(folder, found)


def _is_deepspeed(folder: Folder) -> bool:
    """Whether it is what DeepSpeed's save_checkpoint writes, or one step of it."""
    steps = any(re.fullmatch(r"global_step\d+", name) for name in folder.names)
    return (
        "zero_to_fp32.py" in folder
        or any(map(DEEPSPEED_FILE.fullmatch, folder.names))
        or (steps and "latest" in folder)
    )


def _of_ranks(folder: Folder, ranks: list[str]) -> SamdiagError:
    todo = (
        "save one checkpoint of all ranks: `torch.distributed.checkpoint.save`, or gather the full weights with "
        "`get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))`"
    )
    what = f"{folder.name} holds one file per rank ({listed(ranks)}), each a part of the weights"
    return CannotDecide(what, todo)


def _of_files(folder: Folder, found: list[str]) -> SamdiagError:
    """A folder of several checkpoints, or of none."""
    several = [*found, *_checkpoint_folders(folder)]
    if several:
        return UsageError(f"{folder.name} is a folder of checkpoints", f"name one in it: {listed(several)}")
    if "config.json" in folder:
        todo = "copy or download the weights too: model.safetensors, or its index and all shards"
        return CannotDecide(f"{folder.name} holds a config.json and no weights", todo)
    return UsageError(f"{folder.name} is a folder without a checkpoint", "give the path of a checkpoint")


def _checkpoint_folders(folder: Folder) -> list[str]:
    """The names of the folders in it that look like checkpoints, or hold files that do."""
    found = []
    for name in sorted(folder.names)[:MAX_LOOKED_INTO]:
        inner = folder.path / name
        try:
            if inner.is_dir() and any(_looks(item.name) for item in inner.iterdir()):
                found.append(name)
        except OSError:
            continue
    return found


def _looks(name: str) -> bool:
    return name in (".metadata", "config.json", "adapter_config.json") or name.endswith(CHECKPOINT_SUFFIXES)
