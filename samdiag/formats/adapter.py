"""PEFT adapter directories: the adapter's own tensors and its configuration; the base model lies elsewhere."""

from __future__ import annotations

import dataclasses
from typing import Any

from samdiag.errors import CannotDecide
from samdiag.formats import huggingface, training_state
from samdiag.formats.checkpoint import Checkpoint
from samdiag.formats.content import Content
from samdiag.formats.folder import Folder, FolderFormat, fingerprint, read_object, surroundings
from samdiag.formats.recognition import open_file
from samdiag.formats.training_state import TrainingState

CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 1_000_000  # a LoRA's has some 1000; lists of modules make it longer
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def recognises(folder: Folder) -> bool:
    """Whether it is what `PeftModel.save_pretrained` writes."""
    return CONFIG in folder and (any(name in folder for name in WEIGHTS) or not huggingface.recognises(folder))


def open_folder(folder: Folder) -> Checkpoint:
    """The Checkpoint of the adapter alone."""
    config = folder.file(CONFIG)
    adapter = _read_config(config)
    name = next((name for name in WEIGHTS if name in folder), None)
    if name is None:
        raise CannotDecide(f"{folder.name} lacks the adapter's weights, {' or '.join(WEIGHTS)}", "save it again")
    checkpoint = open_file(folder.file(name))
    state = training_state.read(folder)
    files = {CONFIG: config.fingerprint(), name: checkpoint.fingerprint, **state.files}
    found = dataclasses.replace(
        checkpoint, path=folder.path, format="peft-adapter", fingerprint=fingerprint(files), adapter=adapter
    )
    return _with_state(found, state)


def open_beside(checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint`, a file, with the adapter's configuration where it is the weights of one."""
    if checkpoint.path.name not in WEIGHTS:
        return checkpoint
    around = surroundings(checkpoint.path, (CONFIG, *training_state.FILES))
    if CONFIG not in around:
        return checkpoint
    state = training_state.read(around)
    return _with_state(dataclasses.replace(checkpoint, adapter=_read_config(around.file(CONFIG))), state)


def _read_config(content: Content) -> dict[str, Any]:
    adapter = read_object(content, MAX_CONFIG_BYTES)
    if not isinstance(adapter.get("peft_type"), str):
        raise CannotDecide(f"{content.name} has no peft_type", "save the adapter with PEFT's save_pretrained")
    return adapter


def _with_state(checkpoint: Checkpoint, state: TrainingState) -> Checkpoint:
    return dataclasses.replace(
        checkpoint,
        hints={**state.hints, **checkpoint.hints},
        notes=(*checkpoint.notes, *state.notes),
        adam=state.adam,
        step=checkpoint.step if state.step is None else state.step,
        load_velocity=state.load_velocity,
    )


FORMAT = FolderFormat(recognises=recognises, open=open_folder)
