"""Hugging Face weights under the names of the installed transformers, which converts older files on loading."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from samdiag.errors import UsageError
from samdiag.quoting import listed, shown
from samdiag.user_errors import user_code


def in_own_names(model: nn.Module, weights: Mapping[str, Tensor], file: str) -> Mapping[str, Tensor]:
    """The weights as the library itself would put them into `model`; as they are where the names fit, or it is not its.

    A file keeps the names of the time it was written for (`encoder.layer.0.attention.attention.key`), and the library
    has its own rules for each architecture that lead to today's (`layers.0.attention.k_proj`). They are applied by its
    own loader, to these tensors alone: no file is looked for and nothing fetched. What it could not place keeps its
    name, what it missed is left out, so that `load_weights` complains of both.

    Raises:
        UsageError: a tensor has another shape than in the model.
    """
    kind: Any = type(model)
    transformers = sys.modules.get("transformers")
    if transformers is None or not kind.__module__.startswith("transformers."):  # nothing of it is imported for others
        return weights
    if not isinstance(model, transformers.PreTrainedModel) or set(weights) <= set(model.state_dict()):
        return weights
    dtypes = {value.dtype for value in weights.values() if value.is_floating_point()}
    with _quiet(transformers), user_code(f"loading {file} by transformers", "check that the file fits the model"):
        loaded, found = kind.from_pretrained(
            None,
            config=copy.deepcopy(model.config),
            state_dict=dict(weights),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            attn_implementation="eager",
            local_files_only=True,
            dtype=dtypes.pop() if len(dtypes) == 1 else torch.float32,
        )
    _check_shapes(found["mismatched_keys"], file)
    placed = {name: value for name, value in loaded.state_dict().items() if name not in found["missing_keys"]}
    unplaced = {name: weights[name] for name in weights if name in found["unexpected_keys"]}
    return placed | unplaced


def _check_shapes(mismatched: Any, file: str) -> None:
    wrong = [f"{name} {tuple(given)} against {tuple(own)}" for name, given, own in sorted(mismatched)]
    if wrong:
        what = f"tensors of {shown(file)} have another shape than in the model: {listed(wrong)}"
        raise UsageError(what, "build the model as it was in training: check its configuration")


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """The library's own report and progress bar off: what matters is checked here."""
    logging = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
