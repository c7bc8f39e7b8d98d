"""What a checkpoint says about itself: imports, paths, downloads, and a say in how it is judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.attack import ALONE, CKPT, EXAMINED, USAGE, Attack, Ground, write
from tests.hostile.documents import (
    Document,
    folder_sidecar,
    sidecar,
    stamp,
)

CATALOG: dict[str, Any] = {"model": {"gallery": "saddle"}, "data": {"gallery": "saddle"}, "loss": "model"}
NAMES = "names code or paths"
CHANNELS = {"stamp": stamp, "sidecar": sidecar, "folder's sidecar": folder_sidecar}


def _code(ground: Ground) -> str:
    """A file beside the checkpoint that would create the marker."""
    source = (
        f"open({str(ground.marker)!r}, 'w').close()\ndef problem():\n    open({str(ground.marker)!r}, 'w').close()\n"
    )
    write(ground.download / "evil.py", source)
    return "evil"


def _beside(change: Callable[[str, Ground], dict[str, Any]]) -> Document:
    return lambda ground: {**CATALOG, **change(_code(ground), ground)}


def _only(change: Callable[[str, Ground], dict[str, Any]]) -> Document:
    return lambda ground: change(_code(ground), ground)


IMPORTS: dict[str, Document] = {
    "problem": _only(lambda module, _: {"problem": f"{module}:problem"}),
    "problem as a file": _only(lambda _, ground: {"problem": f"{ground.download}/evil.py:problem"}),
    "problem of the user's own": _only(lambda *_: {"problem": "problems.py:problem"}),
    "pythonpath": _beside(lambda _, ground: {"pythonpath": [str(ground.download)]}),
    "empty pythonpath": _beside(lambda *_: {"pythonpath": []}),
    "model": _beside(lambda module, _: {"model": f"{module}:problem"}),
    "model.python": _beside(lambda module, _: {"model": {"python": f"{module}:problem"}}),
    "model.python of the standard library": _beside(
        lambda _, ground: {"model": {"python": "os:system", "args": {"command": f"touch {ground.marker}"}}}
    ),
    "model.python beside a catalog": _beside(
        lambda module, _: {"model": {"gallery": "saddle", "python": f"{module}:x"}}
    ),
    "data": _beside(lambda module, _: {"data": f"{module}.py:problem"}),
    "data.python": _beside(lambda module, _: {"data": {"python": f"{module}:problem"}}),
    "loss": _beside(lambda module, _: {"loss": f"{module}:problem"}),
    "loss.python": _beside(lambda module, _: {"loss": {"python": f"{module}:problem"}}),
    "loss.name python": _beside(lambda module, _: {"loss": {"name": "python", "python": f"{module}:problem"}}),
}
PATHS: dict[str, Document] = {
    "data.folder": _beside(lambda _, ground: {"data": {"folder": str(ground.outside)}}),
    "data.tensors": _beside(lambda _, ground: {"data": {"tensors": str(ground.secret)}}),
    "data.tensors, bare": _beside(lambda *_: {"data": {"tensors": "train.safetensors"}}),
    "data.webdataset": _beside(lambda *_: {"data": {"webdataset": "pipe:touch marker"}}),
    "data.root": _beside(lambda _, ground: {"data": {"torchvision": "CIFAR10", "root": str(ground.outside)}}),
    "data.args.root": _beside(
        lambda _, ground: {"data": {"torchvision": "CIFAR10", "args": {"root": str(ground.outside)}}}
    ),
    "data.data_files": _beside(lambda *_: {"data": {"datasets": "text", "data_files": "/etc/passwd"}}),
    "data.datasets as a folder": _beside(lambda _, ground: {"data": {"datasets": str(ground.outside)}}),
    "data.datasets as a parent": _beside(lambda *_: {"data": {"datasets": "../outside"}}),
    "data.args.data_files": _beside(lambda *_: {"data": {"datasets": "text", "args": {"data_files": "/etc/passwd"}}}),
    "data.args in depth": _beside(
        lambda *_: {"data": {"datasets": "text", "args": {"a": [{"b": ["https://example.invalid/x"]}]}}}
    ),
    "tokenizer": _beside(lambda *_: {"data": {"datasets": "text", "tokenizer": "../tokenizer"}}),
    "tokenizer of the hub": _beside(lambda *_: {"data": {"datasets": "text", "tokenizer": "evil/tokenizer"}}),
    "model.config": _beside(lambda *_: {"model": {"transformers": "auto", "config": "/etc/passwd"}}),
    "model.base": _beside(lambda _, ground: {"model": {"transformers": "auto", "base": str(ground.secret)}}),
    "model.args path": _beside(lambda *_: {"model": {"timm": "resnet18", "args": {"checkpoint_path": "/etc/passwd"}}}),
}
LOADS: dict[str, tuple[Document, str]] = {
    "timm pretrained": (
        _beside(lambda *_: {"model": {"timm": "resnet18", "args": {"pretrained": True}}}),
        "is refused",
    ),
    "timm pretrained_cfg": (
        _beside(lambda *_: {"model": {"timm": "resnet18", "args": {"pretrained_cfg": {"file": "x"}}}}),
        "is refused",
    ),
    "timm cache_dir": (
        _beside(lambda *_: {"model": {"timm": "resnet18", "args": {"cache_dir": "x"}}}),
        "is refused",
    ),
    "timm checkpoint_path": (
        _beside(lambda *_: {"model": {"timm": "resnet18", "args": {"checkpoint_path": "weights.pt"}}}),
        "is refused",
    ),
    "timm of no such name": (_beside(lambda *_: {"model": {"timm": "__import__('os')"}}), "no model"),
    "transformers function": (
        _beside(lambda *_: {"model": {"transformers": "set_seed", "args": {"model_type": "bert"}}}),
        "no model class",
    ),
    "transformers configuration": (
        _beside(lambda *_: {"model": {"transformers": "BertConfig", "args": {"model_type": "bert"}}}),
        "no model class",
    ),
    "transformers AutoModel": (
        _beside(lambda *_: {"model": {"transformers": "AutoModel", "args": {"model_type": "bert"}}}),
        "no model class",
    ),
    "transformers dunder": (
        _beside(lambda *_: {"model": {"transformers": "__class__", "args": {"model_type": "bert"}}}),
        "no model class",
    ),
    "transformers module": (
        _beside(lambda *_: {"model": {"transformers": "utils", "args": {"model_type": "bert"}}}),
        "no model class",
    ),
    "transformers dotted": (
        _beside(lambda *_: {"model": {"transformers": "utils.hub.cached_file", "args": {"model_type": "bert"}}}),
        "no model class",
    ),
    "transformers trust_remote_code": (
        _beside(
            lambda *_: {
                "model": {"transformers": "BertModel", "args": {"model_type": "bert", "trust_remote_code": True}}
            }
        ),
        "is refused",
    ),
    "transformers auto_map": (
        _beside(
            lambda *_: {
                "model": {
                    "transformers": "BertModel",
                    "args": {"model_type": "bert", "auto_map": {"AutoModel": "evil.X"}},
                }
            }
        ),
        "is refused",
    ),
    "transformers name_or_path": (
        _beside(
            lambda *_: {"model": {"transformers": "BertModel", "args": {"model_type": "bert", "_name_or_path": "evil"}}}
        ),
        "is refused",
    ),
    "transformers backbone": (
        _beside(
            lambda *_: {
                "model": {"transformers": "DetrForObjectDetection", "args": {"model_type": "detr", "backbone": "evil"}}
            }
        ),
        "",
    ),
    "timm from the hub": (_beside(lambda *_: {"model": {"timm": "hf-hub:evil/model"}}), "no model"),
    "timm from a folder": (_beside(lambda *_: {"model": {"timm": "local-dir:/tmp/evil"}}), "no model"),
    "transformers by path": (
        _beside(lambda *_: {"model": {"transformers": "/tmp/evil", "args": {"model_type": "bert"}}}),
        "no model",
    ),
    "gallery of no such name": (_beside(lambda *_: {"model": {"gallery": "os.system"}}), "no model named"),
    "gallery by a dunder": (_beside(lambda *_: {"model": {"gallery": "__init__"}}), "no model named"),
    "gallery args of wrong types": (
        _beside(lambda *_: {"model": {"gallery": "digits-mlp", "args": {"hidden": "x" * 300}}}),
        "",
    ),
    "gallery args of wrong names": (
        _beside(lambda *_: {"model": {"gallery": "digits-mlp", "args": {"__class__": 1, "self": 2}}}),
        "",
    ),
    "gallery args that are negative": (
        _beside(lambda *_: {"model": {"gallery": "digits-mlp", "args": {"hidden": -3}}}),
        "",
    ),
    "a gallery network of ten gigabytes": (
        _beside(lambda *_: {"model": {"gallery": "digits-mlp", "args": {"hidden": 4 * 10**7}}}),
        "cannot have hidden",
    ),
    "a network of 10^12 classes": (
        _beside(lambda *_: {"model": {"timm": "resnet18", "args": {"num_classes": 10**12}}}),
        "far larger than",
    ),
    "a network of ten gigabytes": (
        _beside(lambda *_: {"model": {"timm": "resnet18", "args": {"num_classes": 5 * 10**6}}}),
        "far larger than",
    ),
    "a network of a terabyte, by its configuration": (
        _beside(
            lambda *_: {"model": {"transformers": "BertModel", "args": {"model_type": "bert", "vocab_size": 10**9}}}
        ),
        "far larger than",
    ),
    "torchvision data of a function": (_beside(lambda *_: {"data": {"torchvision": "utils"}}), ""),
    "datasets of the hub": (_beside(lambda *_: {"data": {"datasets": "evil/data"}}), ""),
    "download": (lambda _: {**CATALOG, "download": True}, ""),
    "two catalogs": (_beside(lambda *_: {"model": {"gallery": "saddle", "timm": "resnet18"}}), "exactly one"),
    "problem and model": (lambda _: {**CATALOG, "problem": "x:y"}, NAMES),
    "a future key": (lambda _: {**CATALOG, "future": 1}, "unknown"),
    "a list for a model": (lambda _: {**CATALOG, "model": ["saddle"]}, ""),
    "a number for a model": (lambda _: {**CATALOG, "model": 7}, ""),
    "keys with dots": (lambda _: {**CATALOG, "gate.fail_on": "never"}, "unknown"),
    "deep arguments": (
        lambda _: {**CATALOG, "model": {"gallery": "saddle", "args": _deep(12)}},
        "",
    ),
}
SADDLE = ("inspect", CKPT, "--rho", "0.6", "--variant", "usam", "--problem", "problems.py:saddle", "--quiet")


def _deep(depth: int) -> dict[str, Any]:
    return {"a": _deep(depth - 1)} if depth else {}


def _saddle(channel: str, document: dict[str, Any]) -> Callable[[Ground], Path]:
    """Weights at a saddle that holds SAM: a finding of severity error, and a document that would talk it away."""
    import json

    import tomli_w
    import torch
    from safetensors.torch import save_file

    def make(ground: Ground) -> Path:
        path = ground.download / "model.safetensors"
        tensors = {"w": torch.zeros(2, dtype=torch.float64)}
        metadata = {"samdiag": json.dumps(document)} if channel == "stamp" else None
        save_file(tensors, path, metadata=metadata)
        if channel == "sidecar":
            write(ground.download / "model.safetensors.samdiag.toml", tomli_w.dumps(document))
        return path

    return make


SOFTENING: dict[str, dict[str, Any]] = {
    "gate.fail_on never": {"gate": {"fail_on": ["never"]}},
    "gate.fail_on another": {"gate": {"fail_on": "convergence-floor"}},
    "gate of another type": {"gate": "never"},
    "measure.tol": {"measure": {"tol": 0.99}},
    "measure.samples": {"measure": {"samples": 1, "num_eigenvalues": 1, "max_products": 1}},
    "measure.seed": {"measure": {"seed": 7}},
    "measure.device": {"measure": {"device": "cuda:7", "dtype": "float32"}},
    "measure.mode": {"measure": {"mode": "train"}},
    "weights": {"weights": "ema"},
    "rho": {"sam": {"rho": 1e-9, "variant": "sam"}},
    "data.num_samples": {"data": {"gallery": "saddle", "num_samples": 1, "batch_size": 1}},
}
FINDING = 1

ATTACKS = [
    *(
        Attack(name=f"{channel}: {key}", make=put(document), says=NAMES, code=USAGE, command=ALONE)
        for channel, put in CHANNELS.items()
        for key, document in (IMPORTS | PATHS).items()
    ),
    *(
        Attack(name=f"{channel}: {key}, beside the user's own", make=put(document), says="", code=EXAMINED)
        for channel, put in CHANNELS.items()
        for key, document in IMPORTS.items()
    ),
    *(
        Attack(name=f"{channel}: {key}", make=put(document), says=says, code=USAGE, command=ALONE)
        for channel, put in (("stamp", stamp), ("sidecar", sidecar))
        for key, (document, says) in LOADS.items()
    ),
    *(
        Attack(name=f"{channel}: softens {key}", make=_saddle(channel, document), says="", code=FINDING, command=SADDLE)
        for channel in ("stamp", "sidecar")
        for key, document in SOFTENING.items()
    ),
]
