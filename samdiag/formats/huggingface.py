"""Hugging Face directories: the weights, `config.json` as data, and what the training run left beside them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from samdiag.errors import CannotDecide, SamdiagError
from samdiag.formats import sharded, training_state
from samdiag.formats.checkpoint import Checkpoint, Embedded
from samdiag.formats.folder import Folder, FolderFormat, fingerprint, is_bare, list_folder, read_json, surroundings
from samdiag.formats.recognition import open_file
from samdiag.quoting import shown

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
CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
TASK_HEAD = re.compile(r"For[A-Z]\w+|LMHead\w*")  # …ForCausalLM, …LMHeadModel: these return a loss, given labels


def recognises(folder: Folder) -> bool:
    """Whether weights lie there under the names that `save_pretrained` gives them, or one index of shards."""
    return any(name in folder for name in WEIGHTS) or len(folder.ending(sharded.SUFFIX)) == 1 or MODULES in folder


def open_folder(folder: Folder) -> Checkpoint:
    """The Checkpoint of the folder's weights, with what lies beside them."""
    found = [name for name in WEIGHTS if name in folder] or folder.ending(sharded.SUFFIX)
    if not found:
        return _open_transformer(folder)
    notes = (f"{found[0]} is read, and not {', '.join(found[1:])} beside it",) if found[1:] else ()
    checkpoint = open_file(folder.file(found[0]))
    return accompany(
        dataclasses.replace(
            checkpoint,
            path=folder.path,
            format="huggingface",
            fingerprint=fingerprint({found[0]: checkpoint.fingerprint}),
            notes=(*checkpoint.notes, *notes),
        ),
        folder,
    )


def _open_transformer(folder: Folder) -> Checkpoint:
    """The transformer of a sentence-transformers folder that keeps it in a folder of its own."""
    modules = read_json({"modules": None}.get("x") or folder.file(MODULES), MAX_CONFIG_BYTES)
    raise NotImplementedError(modules)
