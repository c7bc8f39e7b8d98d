"""adapter_config.json of a LoRA as data: what shapes the adapter is used, the rest is refused by name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from samdiag.errors import UsageError
from samdiag.quoting import quoted, shown

USED = frozenset(
    {"r", "lora_alpha", "target_modules", "exclude_modules", "bias", "use_rslora", "use_dora", "fan_in_fan_out"}
    | {"modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern", "task_type"}
    | {"lora_bias"}
)
WITHOUT_EFFECT = frozenset(  # on the function, once the weights are loaded and dropout is off
    {"peft_type", "peft_version", "base_model_name_or_path", "revision", "auto_mapping", "inference_mode"}
    | {"lora_dropout", "megatron_core", "qalora_group_size", "runtime_config", "ensure_weight_tying"}
)
PLAIN_INIT = (None, True, False, "gaussian", "eva", "orthogonal")  # the others change the base model's weights
MAX_PATTERN = 1000  # characters; a list of modules is the way to say more
MAX_OPEN_REPEATS = 4  # of `*` and `+`: with more, matching one name can take for ever
PATTERN_KEYS = ("target_modules", "exclude_modules")
SAVE_PLAIN = "save the adapter as a plain LoRA, or merge it (merge_and_unload) and inspect the merged model"


def lora_arguments(adapter: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of peft.LoraConfig that the configuration says.

    Raises:
        UsageError: it is no LoRA, or has a feature that is not supported, named.
    """
    kind = adapter.get("peft_type")
    if kind != "LORA":
        what = f"the adapter is of the type {quoted(kind)}, and only LORA is supported"
        raise UsageError(what, SAVE_PLAIN if kind in {"ADALORA", "LOHA", "LOKR", "IA3"} else "train a LoRA")
    if adapter.get("init_lora_weights") not in PLAIN_INIT:
        what = (
            f"init_lora_weights = {quoted(adapter['init_lora_weights'])} changed the base model's weights in training"
        )
        raise UsageError(what, SAVE_PLAIN)
    for key, value in adapter.items():
        if key not in USED | WITHOUT_EFFECT | {"init_lora_weights"} and value not in (None, False, {}, [], ""):
            raise UsageError(f"adapter_config.json has {shown(key)}, which is not supported", SAVE_PLAIN)
    used = {key: value for key, value in adapter.items() if key in USED}
    for key, pattern in _patterns(used):
        _check_pattern(key, pattern)
    return used


def _patterns(used: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What PEFT takes for regular expressions over module names."""
    for key in PATTERN_KEYS:
        if isinstance(used.get(key), str):
            yield key, used[key]
    layers = used.get("layers_pattern")
    yield from (("layers_pattern", item) for item in (layers if isinstance(layers, list) else [layers]) if item)
    for key in ("rank_pattern", "alpha_pattern"):
        yield from ((key, pattern) for pattern in used.get(key) or {})


def _check_pattern(key: str, pattern: Any) -> None:
    """Nothing, or UsageError where matching could take for ever."""
    reason = ""
    if not isinstance(pattern, str):
        reason = "it is no text"
    elif len(pattern) > MAX_PATTERN:
        reason = f"it has {len(pattern)} characters, more than {MAX_PATTERN}"
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a FutureWarning about odd sets is the author's
            try:
                reason = _slow(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                reason = f"it is no regular expression ({shown(error)})"
    if reason:
        what = f"adapter_config.json: {key} = {quoted(pattern)} is refused: {reason}"
        raise UsageError(what, f'give {key} as a list of module names: ["q_proj", "v_proj"]')


def _slow(pattern: str) -> str:
    """Why matching `pattern` may take exponential time; "" where it cannot."""
    re.compile(pattern)
    unescaped = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", pattern)  # escapes and sets as one plain character each
    if len(re.findall(r"[*+]|\{\d*,\}", unescaped)) > MAX_OPEN_REPEATS:
        return f"it repeats more than {MAX_OPEN_REPEATS} times without a limit"
    if re.search(r"\)\s*(?:[*+]|\{\d*,?\d*\})", unescaped):
        return "it repeats a group"
    return ""
