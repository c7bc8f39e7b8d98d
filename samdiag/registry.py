"""Names and where what they stand for is found: explicit, greppable, loaded only when used."""

from __future__ import annotations

import importlib
from typing import Any

VARIANTS: dict[str, str] = {
    "sam": "samdiag.measure.ascent:sam",
    "usam": "samdiag.measure.ascent:usam",
    "asam": "samdiag.measure.ascent:asam",
    "asam-samsung": "samdiag.measure.ascent:asam_samsung",
    "gsam": "samdiag.measure.ascent:gsam",
}

VERDICTS: dict[str, str] = {
    "unstable": "samdiag.verdicts.unstable:judge",
    "hallucinated-minimizer": "samdiag.verdicts.hallucinated_minimizer:judge",
    "saddle-attraction": "samdiag.verdicts.saddle_attraction:judge",
    "saddle-slowdown": "samdiag.verdicts.saddle_slowdown:judge",
    "hallucinated-point": "samdiag.verdicts.hallucinated_point:judge",
    "convergence-floor": "samdiag.verdicts.convergence_floor:judge",
    "bounce": "samdiag.verdicts.bounce:judge",
    "saddle-escaping": "samdiag.verdicts.saddle_escaping:judge",
    "undecided": "samdiag.verdicts.undecided:judge",
    "descending": "samdiag.verdicts.descending:judge",
    "minimum": "samdiag.verdicts.minimum:judge",
}

REPORTS: dict[str, str] = {
    "text": "samdiag.reports.text:render",
    "json": "samdiag.reports.json_lines:render",
}


def load(reference: str) -> Any:
    """The object that a `module:name` reference of this package stands for."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


# opened in this order: a Format, recognised by content
FORMATS: dict[str, str] = {
    "safetensors": "samdiag.formats.safetensors_file:FORMAT",
    "torch-zip": "samdiag.formats.torch_zip:FORMAT",
    "torch-legacy": "samdiag.formats.torch_legacy:FORMAT",
    "sharded": "samdiag.formats.sharded:FORMAT",
}

# opened in this order: a FolderFormat, recognised by the names in the folder
FOLDERS: dict[str, str] = {
    "torch-distributed": "samdiag.formats.distributed:FORMAT",
    "fsdp": "samdiag.formats.fsdp_folder:FORMAT",
    "peft-adapter": "samdiag.formats.adapter:FORMAT",
    "huggingface": "samdiag.formats.huggingface:FORMAT",
}

# key of [model] → function from a ModelRequest to a Model; every library's names are its own closed list
MODEL_LIBRARIES: dict[str, str] = {
    "gallery": "samdiag.spec.catalog:gallery_model",
    "timm": "samdiag.spec.models.timm_models:build",
    "torchvision": "samdiag.spec.models.torchvision_models:build",
    "transformers": "samdiag.spec.models.transformers_models:build",
}
# key of [data] → function from a DataRequest to Data
DATA_LIBRARIES: dict[str, str] = {
    "gallery": "samdiag.spec.catalog:gallery_data",
    "torchvision": "samdiag.spec.data.torchvision_sets:build",
    "datasets": "samdiag.spec.data.datasets_library:build",
    "folder": "samdiag.spec.data.image_folder:build",
    "tensors": "samdiag.spec.data.tensor_files:build",
    "webdataset": "samdiag.spec.data.shards:build",
}

# library → name → factory: samdiag's own part of the catalog
CATALOG_MODELS: dict[str, dict[str, str]] = {
    "gallery": {
        "digits-mlp": "samdiag.gallery.digits:mlp",
        "beale": "samdiag.gallery.functions:beale_model",
        "saddle": "samdiag.gallery.functions:saddle_model",
        "edge": "samdiag.gallery.functions:edge_model",
        "toy-network": "samdiag.gallery.toy:ToyNetwork",
        "cosine": "samdiag.gallery.hallucination:cosine_model",
        "double-well": "samdiag.gallery.hallucination:double_well_model",
        "ring": "samdiag.gallery.hallucination:ring_model",
        "sine": "samdiag.gallery.hallucination:sine_model",
        "two-wells": "samdiag.gallery.hallucination:two_wells_model",
        "tanh-network": "samdiag.gallery.tanh_network_model:network",
    },
}
CATALOG_DATA: dict[str, dict[str, str]] = {
    "gallery": {
        "digits": "samdiag.gallery.digits:dataset",
        "beale": "samdiag.gallery.functions:no_data",
        "saddle": "samdiag.gallery.functions:no_data",
        "edge": "samdiag.gallery.functions:no_data",
        "toy-network": "samdiag.gallery.toy:dataset",
        "cosine": "samdiag.gallery.functions:no_data",
        "double-well": "samdiag.gallery.functions:no_data",
        "ring": "samdiag.gallery.functions:no_data",
        "sine": "samdiag.gallery.functions:no_data",
        "two-wells": "samdiag.gallery.functions:no_data",
        "tanh-network": "samdiag.gallery.tanh_network_model:dataset",
    },
}

# attribute of samdiag.gallery → function without arguments that returns a Problem
PROBLEMS: dict[str, str] = {
    "beale": "samdiag.gallery.functions:beale",
    "saddle": "samdiag.gallery.functions:saddle",
    "edge": "samdiag.gallery.functions:edge",
    "toy_network": "samdiag.gallery.toy:toy_network",
    "cosine": "samdiag.gallery.hallucination:cosine",
    "double_well": "samdiag.gallery.hallucination:double_well",
    "ring": "samdiag.gallery.hallucination:ring",
    "sine": "samdiag.gallery.hallucination:sine",
    "two_wells": "samdiag.gallery.hallucination:two_wells",
    "tanh_network": "samdiag.gallery.tanh_network:tanh_network",
    "digits": "samdiag.gallery.digits_runs:digits",
}

# name → Experiment, in the order in which `samdiag demo` lists them
DEMOS: dict[str, str] = {
    "beale": "samdiag.gallery.beale_experiment:EXPERIMENT",
    "saddle": "samdiag.gallery.saddle_experiment:EXPERIMENT",
    "toy-network": "samdiag.gallery.toy_experiment:EXPERIMENT",
    "hallucination": "samdiag.gallery.hallucination:EXPERIMENT",
    "tanh-network": "samdiag.gallery.tanh_network:EXPERIMENT",
    "digits": "samdiag.gallery.digits_experiment:EXPERIMENT",
    "edge": "samdiag.gallery.edge_experiment:EXPERIMENT",
}

# name → NamedLoss
LOSSES: dict[str, str] = {
    "cross_entropy": "samdiag.spec.losses:CROSS_ENTROPY",
    "mse": "samdiag.spec.losses:MSE",
    "bce_with_logits": "samdiag.spec.losses:BCE_WITH_LOGITS",
    "causal_lm": "samdiag.spec.losses:CAUSAL_LM",
    "model": "samdiag.spec.losses:MODEL",
}
