"""What accelerate and the Trainer write for FSDP: the model and the optimizer as folders of their own.

`pytorch_model_fsdp_0` and `optimizer_0` are folders of torch.distributed.checkpoint (`SHARDED_STATE_DICT`).
"""

from __future__ import annotations

import dataclasses
import re

from samdiag.errors import UsageError
from samdiag.formats import distributed, distributed_optimizer, huggingface
from samdiag.formats.checkpoint import Checkpoint
from samdiag.formats.distributed_metadata import METADATA, read_layout
from samdiag.formats.folder import Folder, FolderFormat, fingerprint
from samdiag.quoting import listed

MODEL = re.compile(r"pytorch_model_fsdp_\d+")


def recognises(folder: Folder) -> bool:
    """Whether a model's folder of shards lies in it, and no weights that are whole."""
    return bool(_models(folder)) and not huggingface.recognises(folder)


def _models(folder: Folder) -> list[str]:
    return sorted(name for name in folder.names if MODEL.fullmatch(name))


def open_folder(folder: Folder) -> Checkpoint:
    """The Checkpoint of the model, with the hints of the optimizer beside it."""
    models = _models(folder)
    if len(models) > 1:
        raise UsageError(f"{folder.name} holds several models: {listed(models)}", "name the folder of one of them")
    model = distributed.open_folder(folder.folder(models[0]))
    name = f"optimizer_{models[0].rpartition('_')[2]}"
    files = {models[0]: model.fingerprint}
    if name in folder:
        inner = folder.folder(name)
        metadata = inner.file(METADATA)
        layout = read_layout(inner, metadata)
        optimizer = distributed_optimizer.read(layout)
        own = {file: content.fingerprint() for file, content in layout.files.items()}
        files[name] = fingerprint({METADATA: metadata.fingerprint(), **own})
        model = dataclasses.replace(
            model,
            hints={**optimizer.hints, **model.hints},
            notes=(*model.notes, *optimizer.notes),
            adam=optimizer.adam,
            load_velocity=lambda: distributed_optimizer.read_velocity(layout, optimizer),
        )
    whole = dataclasses.replace(model, path=folder.path, fingerprint=fingerprint(files))
    return huggingface.accompany(whole, folder)


FORMAT = FolderFormat(recognises=recognises, open=open_folder)
