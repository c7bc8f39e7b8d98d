"""Classifiers of torchvision by the library's own names: the architecture alone, never its pretrained weights."""

from __future__ import annotations

import functools

from samdiag.errors import UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.libraries import library
from samdiag.spec.models.arguments import check_arguments
from samdiag.spec.requests import Model, ModelRequest
from samdiag.spec.user_code import call
from samdiag.suggesting import did_you_mean

KEY = "model.torchvision"


def build(request: ModelRequest) -> Model:
    """The model `torchvision.models.get_model(name, weights=None, **args)`.

    Raises:
        UsageError: torchvision has no such classifier, or an argument would load something.
    """
    models = library("torchvision.models", key=KEY, extra="torchvision")
    known = models.list_models(module=models)
    if request.name not in known:
        if request.name in models.list_models():
            what = f"torchvision's {shown(request.name)} is no image classifier, and its loss is not a named one"
            raise UsageError(what, 'build it by a factory of your own: model = "module:factory"')
        what = f"torchvision has no model {quoted(request.name)}{did_you_mean(request.name, known)}"
        raise UsageError(what, f"choose one of its classifiers: {', '.join(known[:4])}, …, resnet18, …")
    arguments = check_arguments(request, key="model")
    make = functools.partial(models.get_model, request.name)
    if request.name in {"googlenet", "inception_v3"}:
        # their default initialisation draws from a truncated normal distribution for a minute; the weights are loaded
        arguments.setdefault("init_weights", False)
    return Model(module=call(make, f"model (torchvision {shown(request.name)})", weights=None, **arguments))
