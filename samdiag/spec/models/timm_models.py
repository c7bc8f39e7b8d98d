"""Models of timm by the library's own names: the architecture alone, never its pretrained weights."""

from __future__ import annotations

from samdiag.errors import UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.libraries import library
from samdiag.spec.models.arguments import check_arguments
from samdiag.spec.requests import Model, ModelRequest
from samdiag.spec.user_code import call
from samdiag.suggesting import did_you_mean

KEY = "model.timm"


def build(request: ModelRequest) -> Model:
    """The model `timm.create_model(name, pretrained=False, **args)`.

    A name may have the tag of pretrained weights ("resnet18.a1_in1k"): it says the number of classes.

    Raises:
        UsageError: timm has no such model, or an argument would load something.
    """
    timm = library("timm", key=KEY, extra="timm")
    name, _, tag = request.name.partition(".")
    known = timm.list_models()
    if name not in known:
        what = f"timm has no model {quoted(request.name)}{did_you_mean(name, known)}"
        raise UsageError(what, "`python -c 'import timm; print(timm.list_models())'` lists the names")
    tags = [entry.partition(".")[2] for entry in timm.list_pretrained(name)] if tag else []
    if tag and tag not in tags:
        what = f"timm's {name} has no weights tagged {quoted(tag)}{did_you_mean(tag, tags)}"
        raise UsageError(what, f"leave the tag out: {KEY} = {name!r}")
    arguments = check_arguments(request, key="model")
    described = f"model (timm {shown(request.name)})"
    return Model(module=call(timm.create_model, described, model_name=request.name, pretrained=False, **arguments))
