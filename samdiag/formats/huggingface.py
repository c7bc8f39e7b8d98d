"""Hugging Face directories: the weights, `config.json` as data, and what the training run left beside them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from samdiag.errors import SamdiagError, UsageError
from samdiag.formats import sharded, training_state
from samdiag.formats.checkpoint import Checkpoint, Embedded
from samdiag.formats.folder import Folder, FolderFormat, fingerprint, read_object, surroundings
from samdiag.formats.recognition import open_file
from samdiag.quoting import listed, shown

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
MODULES = "modules.json"  # of sentence-transformers
MAX_CONFIG_BYTES = 16_000_000  # 21 000 class names take one million
WEIGHTS = (  # in the order in which transformers looks, then diffusers
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
)
MARKS = {"architectures", "model_type", "transformers_version"}  # keys that tell a configuration of transformers
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.safetensors|\.bin)")
TRANSFORMER = re.compile(r"0_[A-Za-z]+")  # 0_Transformer, 0_BERT
CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
TIMM_NAME = re.compile(r"[a-z0-9_]{1,100}")
TASK_HEAD = re.compile(r"For[A-Z]\w+|LMHead\w*")  # …ForCausalLM, …LMHeadModel: these return a loss, given labels


def recognises(folder: Folder) -> bool:
    """Whether weights lie there under the names that `save_pretrained` gives them, or one index of shards."""
    return (
        any(name in folder for name in WEIGHTS)
        or len(folder.ending(*sharded.SUFFIXES)) == 1
        or bool(_transformers(folder))
    )


def _transformers(folder: Folder) -> list[str]:
    """The folder in which an older sentence-transformers keeps its transformer."""
    return [name for name in folder.names if TRANSFORMER.fullmatch(name)] if MODULES in folder else []


def open_folder(folder: Folder) -> Checkpoint:
    """The Checkpoint of the folder's weights, with what lies beside them."""
    found = [name for name in WEIGHTS if name in folder] or folder.ending(*sharded.SUFFIXES)
    if not found:
        return open_folder(folder.folder(_transformers(folder)[0]))
    notes = [f"{shown(found[0])} is read, and not {listed(found[1:])} beside it"] if found[1:] else []
    steps = folder.steps()
    if steps:
        notes.append(f"the checkpoints of the run lie inside ({listed(steps)}): name one for the optimizer's settings")
    checkpoint = open_file(folder.file(found[0]))
    return accompany(
        dataclasses.replace(
            checkpoint,
            path=folder.path,
            format="huggingface",
            notes=(*checkpoint.notes, *notes),
        ),
        folder,
    )


def open_beside(checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint`, a file, with what lies beside it where that is of transformers."""
    path = checkpoint.path
    checkpoint = _refusing_one_shard(checkpoint)
    around = surroundings(path, (CONFIG, *training_state.FILES))
    config, _ = _read_config(around)
    if path.name not in WEIGHTS and not (config or {}).keys() & MARKS:
        return checkpoint  # somebody's own config.json
    found = accompany(checkpoint, around)
    notes = _one_of_many(path.name, surroundings(path, WEIGHTS))
    return dataclasses.replace(found, fingerprint=checkpoint.fingerprint, notes=(*found.notes, *notes))


def _refusing_one_shard(checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint`, whose weights are refused where the index beside it says that they are a part; `info` shows it."""
    path = checkpoint.path
    shard = SHARD.fullmatch(path.name)
    index = "" if shard is None else shard[1] + shard[2] + sharded.SUFFIX
    folder = surroundings(path, [index] if index else [])
    if index not in folder:
        return checkpoint

    def load(which: str) -> dict[str, Tensor]:
        files = set(sharded.read_index(folder.file(index)).values())
        if path.name in files:
            what = f"{shown(path)} is one shard of {len(files)} and holds part of the weights"
            raise UsageError(what, f"name the folder or its index: {shown(path.parent)}, {shown(path.parent / index)}")
        return checkpoint.load(which)

    return dataclasses.replace(checkpoint, load=load, load_infos=checkpoint.tensor_infos)


def _one_of_many(name: str, folder: Folder) -> tuple[str, ...]:
    shard = SHARD.fullmatch(name)
    if shard is None or shard[1] + shard[2] + sharded.SUFFIX not in folder:
        return ()
    return ("this is one shard of several and holds part of the weights: name its folder to read them all",)


def accompany(checkpoint: Checkpoint, folder: Folder) -> Checkpoint:
    """`checkpoint` with what the files beside its weights say: config.json, optimizer.pt, trainer_state.json."""
    config, notes = _read_config(folder)
    embedded = embed(config) if config is not None else None
    state = training_state.read(folder)
    files = {"": checkpoint.fingerprint, **state.files}
    if config is not None:
        files[CONFIG] = folder.file(CONFIG).fingerprint()
    return dataclasses.replace(
        checkpoint,
        fingerprint=fingerprint(files),
        embedded=(*checkpoint.embedded, embedded) if embedded is not None else checkpoint.embedded,
        config=config,
        hints={**state.hints, **checkpoint.hints},
        notes=(*checkpoint.notes, *notes, *state.notes),
        adam=checkpoint.adam or state.adam,
        step=checkpoint.step if state.step is None else state.step,
        load_velocity=checkpoint.load_velocity if state.load_velocity is None else state.load_velocity,
    )


def _read_config(folder: Folder) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The folder's config.json; None, and a note, where it is not what it should be."""
    if CONFIG not in folder:
        return None, ()
    try:
        config = read_object(folder.file(CONFIG), MAX_CONFIG_BYTES)
    except SamdiagError as error:
        return None, (f"{CONFIG} is ignored: {error.what}",)
    notes = (f"{CONFIG} names code of its own (auto_map): it is never run",) if "auto_map" in config else ()
    return config, notes


def embed(config: Mapping[str, Any]) -> Embedded | None:
    """The model that a configuration names, as a spec document; None where it names none."""
    timm = config.get("architecture")
    if isinstance(timm, str) and "pretrained_cfg" in config and TIMM_NAME.fullmatch(timm):
        return Embedded(source=CONFIG, document={"model": {"timm": timm, "args": _timm_arguments(config)}})
    classes = config.get("architectures")
    named = classes[0] if isinstance(classes, list) and classes else None
    if not isinstance(named, str) or CLASS_NAME.fullmatch(named) is None:
        return None
    document: dict[str, Any] = {"model": {"transformers": named}}
    if TASK_HEAD.search(named):
        document["loss"] = "model"
    return Embedded(source=CONFIG, document=document)


def _timm_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's create_model needs beside the name."""
    said, classes = config.get("model_args"), config.get("num_classes")
    arguments = dict(said) if isinstance(said, Mapping) else {}
    return {"num_classes": classes, **arguments} if type(classes) is int else arguments


FORMAT = FolderFormat(recognises=recognises, open=open_folder)
