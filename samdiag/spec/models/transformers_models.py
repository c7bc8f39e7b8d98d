"""Models of Hugging Face transformers: a class of the library's own, built from a configuration that is only data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samdiag.errors import UsageError
from samdiag.formats.json_text import parse_json
from samdiag.quoting import quoted, shown
from samdiag.spec.libraries import library
from samdiag.spec.models.arguments import check_arguments
from samdiag.spec.requests import Model, ModelRequest
from samdiag.spec.user_code import call
from samdiag.suggesting import did_you_mean
from samdiag.user_errors import summary

KEY = "model.transformers"
MAX_CONFIG_BYTES = 10_000_000  # the largest have some 100 kB, mostly label names
OUTSIDE = {  # model types that build a network by a name which may be an address
    "timm_wrapper": 'name it as timm: model = { timm = "resnet18" }',
    "timm_backbone": 'name it as timm: model = { timm = "resnet18" }',
}
DROPPED = frozenset(  # says nothing about the function, or is decided here: float32 and eager attention
    {"transformers_version", "torch_dtype", "dtype", "attn_implementation", "experts_implementation", "name_or_path"}
    | {"tokenizer_class", "custom_pipelines", "adapter_path"}
)


def build(request: ModelRequest) -> Model:
    """The model, in float32, with eager attention, without a cache of keys and values.

    Raises:
        UsageError: the class or its configuration is not known, is refused, or does not fit the other.
    """
    transformers = library("transformers", key=KEY, extra="transformers")
    own, notes = _configuration(request)
    kind = _class(transformers, request, own)
    if "auto_map" in own:
        if request.name == "auto" or request.from_artifact:
            what = "the checkpoint's config.json has auto_map: its class is code beside the weights, which is not run"
            raise UsageError(what, f"name a class of transformers: {KEY} = 'BertForMaskedLM', or your own factory")
        notes = (*notes, "auto_map in config.json was not heard: it names code")
    config = _config_object(transformers, kind, own, request)
    return Model(module=call(kind, f"model (transformers {shown(kind.__name__)})", config=config), notes=notes)


def _configuration(request: ModelRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The configuration as plain data: of the named file or the checkpoint, with `args` in place of single keys."""
    args = check_arguments(request, key="model")
    base: Mapping[str, Any] = request.checkpoint.config or {}
    if request.config is not None:
        base = read_config_json(request)
    if "model_type" in args and args["model_type"] != base.get("model_type"):
        base = {}  # args say the whole of another model
    own = {**base, **args}
    if not own:
        what = f"{KEY} = {quoted(request.name)} needs a configuration, and there is no config.json with the checkpoint"
        raise UsageError(what, 'name one: config = "path/to/config.json", or say it: args = { hidden_size = 64, … }')
    return own, ()


def read_config_json(request: ModelRequest) -> Mapping[str, Any]:
    """The table in the config.json that the user named."""
    said = str(request.config)
    path = request.path(said, "model.config")
    if path.is_dir():
        path = path / "config.json"
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{shown(path)} cannot be read: {error.strerror}", "check model.config") from None
    try:
        if len(text) > MAX_CONFIG_BYTES:
            raise ValueError(f"it is larger than {MAX_CONFIG_BYTES} bytes")
        found = parse_json(text)
    except ValueError as error:
        raise UsageError(f"{shown(path)} is no configuration: {shown(error)}", "name a config.json") from None
    if not isinstance(found, dict):
        raise UsageError(f"{shown(path)} is no configuration: it is no JSON object", "name a config.json")
    return found


def _class(transformers: Any, request: ModelRequest, own: Mapping[str, Any]) -> Any:
    """The class that the name, or for "auto" the configuration, stands for."""
    name = request.name
    if name == "auto":
        said = own.get("architectures")
        if not isinstance(said, list) or len(said) != 1 or not isinstance(said[0], str):
            found = "no architectures" if not said else f"architectures = {quoted(said)}"
            what = f"{KEY} = 'auto' takes the class from the configuration, which has {found}"
            raise UsageError(what, f"name the class: {KEY} = 'BertForSequenceClassification'")
        name = said[0]
    kind = _exported(transformers, name)
    base = transformers.PreTrainedModel
    ours = isinstance(kind, type) and issubclass(kind, base) and kind is not base and kind.__name__ == name
    if not ours or not kind.__module__.startswith("transformers.") or getattr(kind, "config_class", None) is None:
        near = did_you_mean(name, (known for known in dir(transformers) if "For" in known or known.endswith("Model")))
        what = f"transformers has no model class {quoted(name)}{near}"
        raise UsageError(what, "name a class that transformers exports, such as GPT2LMHeadModel; or your own factory")
    return kind


def _exported(transformers: Any, name: str) -> Any:
    """What the library exports under that name, which it imports now; None where it exports no such thing."""
    if name.startswith("_") or name not in dir(transformers):
        return None
    try:
        return getattr(transformers, name, None)
    except Exception as error:  # its own import fails, e.g. on a torchvision of another torch
        cause = error.__cause__ or error
        what = f"{KEY}: transformers cannot import {shown(name)}: {summary(cause)}"
        raise UsageError(what, "repair that library, or uninstall it where the model does not need it") from None


def _config_object(transformers: Any, kind: Any, own: Mapping[str, Any], request: ModelRequest) -> Any:
    """The library's own configuration of `kind`, from data that was looked through."""
    data = _cleaned(own, request)
    config_class = kind.config_class
    said = data.pop("model_type", None)
    if said is not None and said != config_class.model_type:
        known = isinstance(said, str) and said in transformers.CONFIG_MAPPING
        near = "" if known else did_you_mean(str(said), transformers.CONFIG_MAPPING.keys())
        wanted = f"{kind.__name__} takes a configuration of model_type {config_class.model_type!r}"
        what = f"{wanted}, and this is {quoted(said)}{near}"
        raise UsageError(what, "name the class that belongs to the configuration, or another configuration")
    data.pop("auto_map", None)
    config = call(config_class.from_dict, f"the configuration of {kind.__name__}", config_dict=data)
    config._attn_implementation = "eager"
    for name, value in {
        "use_cache": False,
        "return_dict": True,
        "output_attentions": False,
        "output_hidden_states": False,
    }.items():
        if hasattr(config, name):
            setattr(config, name, value)
    return config


def _cleaned(value: Mapping[str, Any], request: ModelRequest, name: str = "") -> dict[str, Any]:
    """A copy without what has no say here; UsageError for what may not be there, at any depth."""
    kept: dict[str, Any] = {}
    for key, item in value.items():
        dotted = f"{name}.{key}" if name else str(key)
        _check_entry(dotted, str(key), item)
        if str(key).startswith("_") or key in DROPPED:
            continue
        kept[str(key)] = _cleaned(item, request, dotted) if isinstance(item, Mapping) else item
    return kept


def _check_entry(dotted: str, key: str, item: Any) -> None:
    if key == "quantization_config" and item is not None:
        what = "the configuration has quantization_config: quantised weights are integers and have no derivative"
        raise UsageError(what, "measure the model as it was before quantisation")
    if key == "use_pretrained_backbone" and item:
        raise UsageError(f"the configuration's {shown(dotted)} loads weights from elsewhere", "set it to false")
    if key == "backbone" and isinstance(item, str):
        what = f"the configuration's {shown(dotted)} = {quoted(item)} is looked up outside the checkpoint"
        raise UsageError(what, "build the model by a factory of your own: model = 'module:factory'")
    if key == "model_type" and item in OUTSIDE:
        raise UsageError(f"model_type {quoted(item)} wraps another library's model", OUTSIDE[str(item)])
