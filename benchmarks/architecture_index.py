"""Writes samdiag/guessing/architectures.json: every timm and torchvision model by the names and shapes of its tensors.

`python benchmarks/architecture_index.py` builds each on the meta device (no memory, no weights, no network) and takes
about ten minutes on one core. Run it again when the libraries gain models; the versions are recorded in the file.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from samdiag.guessing.fingerprints import body_hash, name_hash
from samdiag.guessing.hollow import hollow, shapes_of
from tests.torchvision_ops import declare

TARGET = Path(__file__).parents[1] / "samdiag" / "guessing" / "architectures.json"
WITHOUT_AUXILIARY = ("googlenet", "inception_v3")  # saved with and without the heads that only training uses


def main() -> None:
    """Builds every model and writes the index."""
    declare()
    write(map(_row, itertools.chain(_torchvision(), _timm())))  # one model in memory at a time


def write(rows: Iterable[tuple[str, list[Any]]]) -> None:
    """Writes the index: one set of names a line, for readable differences."""
    found: dict[str, list[list[Any]]] = {}
    for names, row in rows:
        found.setdefault(names, []).append(row)
    head = {
        "made_by": "benchmarks/architecture_index.py",
        "versions": {library: importlib.metadata.version(library) for library in ("torchvision", "timm", "torch")},
        "architectures": {},
    }
    lines = [f"{json.dumps(names)}: {json.dumps(found[names], separators=(',', ':'))}" for names in sorted(found)]
    TARGET.write_text(json.dumps(head)[:-2] + "\n" + ",\n".join(lines) + "\n}}\n", encoding="utf-8")
    print(f"{sum(map(len, found.values()))} models, {len(found)} sets of names, {TARGET.stat().st_size} bytes")


def _row(built: tuple[str, str, dict[str, Any], nn.Module]) -> tuple[str, list[Any]]:
    """The hash of a model's names, and what is written of it."""
    library, name, arguments, model = built
    shapes = shapes_of(model)
    heads = _heads(model)
    row = [library, name, sorted(heads), body_hash(shapes, heads)]
    return name_hash(shapes), [*row, arguments] if arguments else row


def _timm() -> Iterator[tuple[str, str, dict[str, Any], nn.Module]]:
    import timm

    for name in timm.list_models():
        model = _built(name, timm.create_model, name, pretrained=False)
        if model is not None:
            yield "timm", name, {}, model


def _torchvision() -> Iterator[tuple[str, str, dict[str, Any], nn.Module]]:
    from torchvision import models

    for name in models.list_models():
        if name.startswith("quantized_"):
            continue  # quantised weights have no gradients
        builder = models.get_model_builder(name)
        more: dict[str, Any] = {"weights": None}
        if name in models.list_models(models.detection) or name in models.list_models(models.segmentation):
            more["weights_backbone"] = None
        for arguments in ({}, {"aux_logits": False}) if name in WITHOUT_AUXILIARY else ({},):
            model = _built(name, builder, **more, **arguments)
            if model is not None:
                yield "torchvision", name, dict(arguments), model


def _built(name: str, builder: Any, *args: Any, **more: Any) -> nn.Module | None:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return hollow(lambda: builder(*args, **more))
    except Exception as error:
        print(f"{name} is left out: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)
        return None


def _heads(model: nn.Module) -> set[str]:
    """The modules whose size follows the number of classes or of input channels."""
    configured: Mapping[str, Any] = getattr(model, "default_cfg", None) or {}
    heads: set[str] = set()
    for key in ("classifier", "first_conv"):
        value = configured.get(key) or ()
        heads |= {value} if isinstance(value, str) else set(value)
    if (
        not configured
    ):  # torchvision: ImageNet has 1000 classes, Kinetics 400; detection and segmentation have none here
        heads |= {name for name, module in model.named_modules() if _outputs(name, module) in {1000, 400}}
    return heads


def _outputs(name: str, module: nn.Module) -> int:
    """Outputs of a layer that may be the classifier, SqueezeNet's convolution included; 0 for what is none."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) and name.startswith("classifier") else 0


if __name__ == "__main__":
    main()
