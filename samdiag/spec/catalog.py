"""The closed catalogs: what may be named without naming an import, and so by a checkpoint too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from samdiag import registry
from samdiag.errors import UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.parsing import did_you_mean
from samdiag.spec.proportion import in_proportion
from samdiag.spec.requests import Data, DataRequest, Model, ModelRequest
from samdiag.spec.user_code import call


def build_model(request: ModelRequest) -> Model:
    """The model of a closed library.

    Raises:
        UsageError: the library has no such model, is not installed, or refuses the arguments; or the model is out of
            all proportion to the checkpoint.
    """
    build: Callable[[ModelRequest], Model] = registry.load(registry.MODEL_LIBRARIES[request.library])
    if request.checkpoint.adapter is not None:  # it says nothing about the size of its base
        return build(request)
    with in_proportion(request.checkpoint.path, f"model ({request.library} {shown(request.name)})"):
        return build(request)


def build_data(request: DataRequest) -> Data:
    """The data of a closed library, or of files that the user named.

    Raises:
        UsageError: there is no such data, or its library is not installed.
    """
    build: Callable[[DataRequest], Data] = registry.load(registry.DATA_LIBRARIES[request.library])
    return build(request)


def gallery_model(request: ModelRequest) -> Model:
    """A model of the papers' own problems."""
    factory = _gallery("model", request.name, registry.CATALOG_MODELS["gallery"])
    return Model(module=call(factory, f"model (gallery {shown(request.name)})", **request.args))


def gallery_data(request: DataRequest) -> Data:
    """Data of the papers' own problems."""
    factory = _gallery("data", request.name, registry.CATALOG_DATA["gallery"])
    arguments = dict(request.args)
    if request.split is not None:
        arguments["split"] = request.split
    return Data(returned=call(factory, f"data (gallery {shown(request.name)})", **arguments))


def _gallery(kind: str, name: str, entries: Mapping[str, str]) -> Callable[..., Any]:
    if name not in entries:
        known = ", ".join(sorted(entries))
        todo = f'choose one of: {known}; or name a function of your own: {kind} = "module:factory"'
        raise UsageError(f"the gallery has no {kind} named {quoted(name)}{did_you_mean(name, entries)}", todo)
    factory: Callable[..., Any] = registry.load(entries[name])
    return factory
