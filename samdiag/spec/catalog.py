"""The closed catalogs: what may be named without naming an import, and so by a checkpoint too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from samdiag import registry
from samdiag.errors import UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.proportion import in_proportion
from samdiag.spec.requests import Data, DataRequest, Model, ModelRequest
from samdiag.spec.user_code import call
from samdiag.suggesting import did_you_mean


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
    factory = _gallery("model", request.name)
    return Model(module=call(factory, f"model (gallery {shown(request.name)})", **request.args))


def gallery_data(request: DataRequest) -> Data:
    """Data of the papers' own problems."""
    factory = _gallery("data", request.name)
    arguments = dict(request.args)
    if request.split is not None:
        arguments["split"] = request.split
    return Data(returned=call(factory, f"data (gallery {shown(request.name)})", **arguments))


def find_in_gallery(kind: Literal["model", "data"], name: str, *, otherwise: str = "") -> str:
    """The "module:name" behind a name of the gallery.

    Args:
        kind: of what.
        name: the entry.
        otherwise: what else may be done where there is none, as the end of a sentence.

    Raises:
        UsageError: there is no such entry.
    """
    entries = (registry.CATALOG_MODELS if kind == "model" else registry.CATALOG_DATA)["gallery"]
    if name not in entries:
        what = f"the gallery has no {kind} named {quoted(name)}{did_you_mean(name, entries)}"
        raise UsageError(what, f"choose one of: {', '.join(sorted(entries))}{otherwise}")
    return entries[name]


def _gallery(kind: Literal["model", "data"], name: str) -> Callable[..., Any]:
    own = f'; or name a function of your own: {kind} = "module:factory"'
    factory: Callable[..., Any] = registry.load(find_in_gallery(kind, name, otherwise=own))
    return factory
