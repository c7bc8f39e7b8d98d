"""PEFT adapter directories: the adapter's own tensors and its configuration; the base model lies elsewhere."""

from __future__ import annotations

import dataclasses

from samdiag.errors import CannotDecide
from samdiag.formats import training_state
from samdiag.formats.checkpoint import Checkpoint
from samdiag.formats.folder import Folder, FolderFormat, fingerprint, read_object
from samdiag.formats.recognition import open_file

CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 1_000_000  # a LoRA's has some 1000; lists of modules make it longer
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def recognises(folder: Folder) -> bool:
    """Whether it is what `PeftModel.save_pretrained` writes."""
    return CONFIG in folder


def open_folder(folder: Folder) -> Checkpoint:
    """The Checkpoint of the adapter alone."""
    config = folder.file(CONFIG)
    adapter = read_object(config, MAX_CONFIG_BYTES)
    if "peft_type" not in adapter:
        raise CannotDecide(f"{config.name} has no peft_type", "save the adapter with PEFT's save_pretrained")
    name = next((name for name in WEIGHTS if name in folder), None)
    if name is None:
        raise CannotDecide(f"{folder.name} lacks the adapter's weights, {' or '.join(WEIGHTS)}", "save it again")
    checkpoint = open_file(folder.file(name))
    state = training_state.read(folder)
    files = {CONFIG: config.fingerprint(), name: checkpoint.fingerprint, **state.files}
    return dataclasses.replace(
        checkpoint,
        path=folder.path,
        format="peft-adapter",
        fingerprint=fingerprint(files),
        adapter=adapter,
        hints={**state.hints, **checkpoint.hints},
        notes=(*checkpoint.notes, *state.notes),
        adam=state.adam,
        load_velocity=state.load_velocity,
    )


FORMAT = FolderFormat(recognises=recognises, open=open_folder)
