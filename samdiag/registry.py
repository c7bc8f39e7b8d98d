"""Names and where what they stand for is found: explicit, greppable, loaded only when used."""

from __future__ import annotations

import importlib
from typing import Any

VARIANTS: dict[str, str] = {
    "sam": "samdiag.measure.ascent:sam",
    "usam": "samdiag.measure.ascent:usam",
    "asam": "samdiag.measure.ascent:asam",
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
}

# library → name → factory: the closed catalog that a checkpoint's own stamp may name
CATALOG_MODELS: dict[str, dict[str, str]] = {
    "gallery": {
        "digits-mlp": "samdiag.gallery.digits:mlp",
    },
}
CATALOG_DATA: dict[str, dict[str, str]] = {
    "gallery": {
        "digits": "samdiag.gallery.digits:dataset",
    },
}

# name → NamedLoss
LOSSES: dict[str, str] = {
    "cross_entropy": "samdiag.spec.losses:CROSS_ENTROPY",
    "mse": "samdiag.spec.losses:MSE",
    "bce_with_logits": "samdiag.spec.losses:BCE_WITH_LOGITS",
    "model": "samdiag.spec.losses:MODEL",
}
