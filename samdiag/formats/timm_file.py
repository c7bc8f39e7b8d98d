"""Files of timm's and torchvision's training scripts: weights beside the script's own arguments, an inert Namespace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from samdiag.formats.checkpoint import Embedded
from samdiag.formats.inert import Record
from samdiag.formats.plain_data import as_table
from samdiag.formats.run_settings import read_settings

MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # no path, no hub address
HEADS = (
    "fc",
    "head",
    "classifier",
    "head.fc",
    "heads.head",
    "last_linear",
    "classifier",
)  # of the catalogs' classifiers
TIMM_MARKS = {"smoothing", "mixup"}  # arguments of timm's train.py that are always there
TORCHVISION_MARKS = {"data_path", "lr_step_size", "test_only"}  # of torchvision's references/classification/train.py
SGD = ("sgd", "momentum", "nesterov", "sgd_nesterov", "sgdw", "nesterovw")


def recognises(saved: object) -> bool:
    """Whether timm's CheckpointSaver wrote it: weights with `arch`, `optimizer` and its own `version`."""
    keys = {"arch", "state_dict", "optimizer", "version"}
    return isinstance(saved, Mapping) and keys <= set(saved)


def hyper_parameters(saved: object) -> dict[str, Any]:
    """The script's arguments as plain data."""
    found = saved.get("args") if isinstance(saved, Mapping) else None
    return as_table(found) if isinstance(found, (Record, Mapping)) else {}


def embed(saved: object, num_classes: int | None) -> Embedded | None:
    """What the arguments say about model, loss and training, as a spec document; None where they say nothing.

    Args:
        saved: what the file holds.
        num_classes: of the classifier in the weights, where there is one.
    """
    if not isinstance(saved, Mapping):
        return None
    args = hyper_parameters(saved)
    if args.keys() >= TIMM_MARKS:
        return _document("timm args", {**_timm(args), "sam": _training(args, per_device=True)})
    if args.keys() >= TORCHVISION_MARKS:
        return _document("torchvision args", {**_torchvision(args, num_classes), "sam": _training(args)})
    if args:
        return _document("args", {"sam": read_settings(args)})
    if "best_acc1" in saved and isinstance(saved.get("arch"), str):  # PyTorch's own ImageNet example
        return _document("arch", _torchvision({"model": saved["arch"]}, num_classes))
    return None


def find_num_classes(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The number of classes: the outputs of the last layer of a usual classifier; None where none is found."""
    for name, shape in reversed(list(shapes.items())):
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and len(shape) == 2:
            outer = layer.rpartition(".")[0] if layer.rpartition(".")[2].isdecimal() else layer
            return shape[0] if outer in HEADS else None
    return None


def _document(source: str, document: Mapping[str, Any]) -> Embedded | None:
    said = {key: value for key, value in document.items() if value}
    return Embedded(source=source, document=said) if said else None


def _timm(args: Mapping[str, Any]) -> dict[str, Any]:
    """Model and loss of timm's train.py."""
    name = args.get("model")
    if not isinstance(name, str) or MODEL_NAME.fullmatch(name) is None:
        return {}
    wanted = {"num_classes": args.get("num_classes"), "in_chans": args.get("in_chans"), "global_pool": args.get("gp")}
    chosen = {key: value for key, value in wanted.items() if value is not None}
    extra = args.get("model_kwargs")
    chosen |= extra if isinstance(extra, dict) else {}
    found: dict[str, Any] = {"model": {"timm": name, "args": chosen}}
    if not args.get("bce_loss") and not args.get("jsd_loss"):
        found["loss"] = _cross_entropy(args.get("smoothing"))
    return found


def _torchvision(args: Mapping[str, Any], num_classes: int | None) -> dict[str, Any]:
    """Model and loss of torchvision's reference script."""
    name = args.get("model")
    if not isinstance(name, str) or MODEL_NAME.fullmatch(name) is None:
        return {}
    model: dict[str, Any] = {"torchvision": name}
    if num_classes is not None:
        model["args"] = {"num_classes": num_classes}
    return {"model": model, "loss": _cross_entropy(args.get("label_smoothing"))}


def _cross_entropy(smoothing: Any) -> dict[str, Any]:
    plain = isinstance(smoothing, float) and 0 < smoothing < 1
    return {"name": "cross_entropy", "args": {"label_smoothing": smoothing}} if plain else {"name": "cross_entropy"}


def _training(args: Mapping[str, Any], *, per_device: bool = False) -> dict[str, Any]:
    """The `[sam]` table; the batch size of the script is that of one process, and momentum is SGD's alone."""
    found = read_settings(args)
    name = str(args.get("opt", "")).lower()
    if name not in SGD:
        found.pop("momentum", None)
    size = found.pop("batch_size", None)
    processes = args.get("world_size", 1)
    steps = args.get("grad_accum_steps", 1) if per_device else 1
    if size is not None and type(processes) is int and type(steps) is int and processes > 0 and steps > 0:
        found["batch_size"] = size * processes * steps
    return found
