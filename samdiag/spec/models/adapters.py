"""A PEFT adapter over its base model: the base frozen with its own weights, all of the adapter in and trainable."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from samdiag.errors import UsageError
from samdiag.formats import Checkpoint
from samdiag.quoting import listed, shown
from samdiag.spec.libraries import library
from samdiag.spec.models.lora_config import lora_arguments
from samdiag.spec.models.renaming import in_own_names
from samdiag.spec.proportion import in_proportion
from samdiag.user_errors import user_code

if TYPE_CHECKING:
    from torch import Tensor, nn

KEY = "the adapter"
SAME_BASE = "name the model that the adapter was trained on"


def load_base(model: nn.Module, base: Checkpoint, adapter: Mapping[str, Any], which: str = "raw") -> tuple[str, ...]:
    """Notes about the loading; `model` then holds the base checkpoint's weights.

    What the adapter brings itself (`modules_to_save`: a new head) may be missing in the base; what the base has beyond
    the model (the head of its pretraining) is left out and said.

    Raises:
        UsageError: the weights do not fit.
    """
    from samdiag.spec.loading import load_weights

    own = {name: value for name, value in model.state_dict().items() if hasattr(value, "shape")}
    given = in_own_names(model, base.weights(which), shown(base.path))
    extra = [name for name in given if name not in own]
    brought = adapter.get("modules_to_save") or ()
    fresh = {name: value for name, value in own.items() if name not in given and _is_in(name, brought)}
    notes = load_weights(model, {**{n: v for n, v in given.items() if n in own}, **fresh}, shown(base.path))
    if extra:
        notes = (*notes, f"{len(extra)} tensor(s) of the base that the model does not have: {listed(extra, 3)}")
    return notes


def with_adapter(model: nn.Module, checkpoint: Checkpoint, weights: Mapping[str, Tensor]) -> nn.Module:
    """The model with the adapter's weights on it; only they are trainable.

    Args:
        model: the base with its weights, or a PeftModel of the user's own making.

    Raises:
        UsageError: the adapter is of a kind that is not supported, or does not fit the base completely.
    """
    peft = library("peft", key=KEY, extra="peft")
    arguments = lora_arguments(checkpoint.adapter or {})
    with _quiet(), user_code(KEY, SAME_BASE), in_proportion(checkpoint.path, "the adapter of its configuration"):
        if not isinstance(model, peft.PeftModel):
            model = peft.get_peft_model(model, peft.LoraConfig(**arguments, lora_dropout=0.0))
        expected = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        _check_fit(expected, weights, shown(checkpoint.path))
        found = peft.set_peft_model_state_dict(model, dict(weights))
        unknown = list(found.unexpected_keys)
    if unknown:
        raise _misfit(shown(checkpoint.path), f"not in the model: {listed(unknown)}")
    return model


def _check_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], file: str) -> None:
    missing = [name for name in expected if name not in weights]
    if missing:
        unknown = [name for name in weights if name not in expected]
        raise _misfit(
            file, f"missing: {listed(missing)}" + (f"; not in the model: {listed(unknown)}" if unknown else "")
        )
    wrong = [
        f"{name} {tuple(weights[name].shape)} against {tuple(value.shape)}"
        for name, value in expected.items()
        if weights[name].shape != value.shape
    ]
    if wrong:
        raise _misfit(file, f"of another shape: {listed(wrong)}")


def _misfit(file: str, reason: str) -> UsageError:
    return UsageError(f"the adapter's tensors in {file} do not fit the base model: {reason}", SAME_BASE)


def _is_in(name: str, modules: Any) -> bool:
    parts = name.split(".")
    return any(module in parts for module in modules)


@contextlib.contextmanager
def _quiet() -> Any:
    """PEFT's own warnings and prints off the report: what matters is checked here and said as an error."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
