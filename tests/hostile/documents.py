"""Ways in which a checkpoint can say something about itself, each with room for any document."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from safetensors.torch import save_file

from tests.hostile.attack import Ground, write
from tests.hostile.containers import state, torch_bytes

Document = Callable[[Ground], Mapping[str, Any]]


def stamp(document: Document) -> Callable[[Ground], Path]:
    """The metadata of a safetensors file with honest weights."""

    def make(ground: Ground) -> Path:
        path = ground.download / "model.safetensors"
        save_file(state(), path, metadata={"samdiag": json.dumps(document(ground))})
        return path

    return make


def sidecar(document: Document) -> Callable[[Ground], Path]:
    """A file of settings beside an honest torch file."""

    def make(ground: Ground) -> Path:
        path = write(ground.download / "model.pt", torch_bytes(state()))
        write(ground.download / "model.pt.samdiag.toml", tomli_w.dumps(dict(document(ground))))
        return path

    return make


def folder_sidecar(document: Document) -> Callable[[Ground], Path]:
    """A file of settings beside an honest folder."""

    def make(ground: Ground) -> Path:
        folder = ground.download / "run"
        folder.mkdir()
        save_file(state(), folder / "model.safetensors")
        write(ground.download / "run.samdiag.toml", tomli_w.dumps(dict(document(ground))))
        return folder

    return make


def hugging_face(document: Document, **files: bytes) -> Callable[[Ground], Path]:
    """The config.json of a folder with honest weights; and more files by name."""

    def make(ground: Ground) -> Path:
        folder = ground.download / "run"
        folder.mkdir()
        save_file(state(), folder / "model.safetensors")
        write(folder / "config.json", json.dumps(document(ground)))
        for name, content in files.items():
            write(folder / name, content)
        return folder

    return make


def lightning(document: Document) -> Callable[[Ground], Path]:
    """The hyper-parameters of a Lightning file."""

    def make(ground: Ground) -> Path:
        saved = {
            "state_dict": state(),
            "pytorch-lightning_version": "2.6.0",
            "epoch": 1,
            "global_step": 2,
            "hparams_name": "kwargs",
            "hyper_parameters": dict(document(ground)),
        }
        return write(ground.download / "last.ckpt", torch_bytes(saved))

    return make


def timm(document: Document) -> Callable[[Ground], Path]:
    """The arguments in a file of timm's saver."""

    def make(ground: Ground) -> Path:
        import argparse

        said = dict(document(ground))
        saved = {"epoch": 3, "arch": said.get("model", "resnet18"), "state_dict": state(), "version": 2}
        saved["args"] = argparse.Namespace(**said)
        return write(ground.download / "model_best.pth.tar", torch_bytes(saved))

    return make


def optimizer(document: Document) -> Callable[[Ground], Path]:
    """The first parameter group of an optimizer."""

    def make(ground: Ground) -> Path:
        group = {"params": [0, 1, 2, 3], **document(ground)}
        saved = {"model": state(), "optimizer": {"state": {}, "param_groups": [group]}}
        return write(ground.download / "last.pt", torch_bytes(saved))

    return make
