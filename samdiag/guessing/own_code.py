"""Which of the functions and classes in a set of source files the checkpoint may belong to."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from samdiag.guessing.outline import Outline
from samdiag.guessing.sources import Class, Computed, Function, Parameter, Size, Source, modules

PROBLEM_NAMES = ("problem", "samdiag_problem")
MODEL_NAMES = ("model", "make_model", "build_model", "get_model", "create_model", "net", "make_net", "network")
DATA_NAMES = (
    *("train_data", "training_data", "train_dataset", "train_set", "trainset", "get_train_data", "get_train_dataset"),
    *("train_loader", "get_train_loader", "train_dataloader", "get_train_dataloader", "train_batches"),
    *(
        "data",
        "dataset",
        "batches",
        "make_data",
        "make_dataset",
        "get_data",
        "get_dataset",
        "load_data",
        "build_dataset",
    ),
)
LOSS_NAMES = ("loss", "loss_fn", "loss_function", "criterion")
DATA_TYPES = re.compile(r"\b(Dataset|DataLoader|TensorDataset|Subset|\w*Batches)\b")
MODEL_TYPES = re.compile(r"\b(Module|Sequential)\b")
CLASS_COUNTS = (
    *("num_classes", "n_classes", "nclass", "nb_classes", "n_class", "num_class", "num_labels", "num_outputs"),
    *("n_outputs", "out_features", "output_dim", "out_dim", "num_targets", "classes"),
)
CHANNEL_COUNTS = ("in_channels", "in_chans", "input_channels", "num_channels", "n_channels", "channels")
INPUT_COUNTS = ("input_dim", "in_features", "in_dim", "num_inputs", "n_inputs", "input_size", "num_features")
WORD_COUNTS = ("vocab_size", "num_tokens", "n_tokens", "num_embeddings", "vocabulary_size")
LOSSES_CALLED: Mapping[str, tuple[str, ...]] = {
    "cross_entropy": ("CrossEntropyLoss", "cross_entropy", "NLLLoss", "nll_loss"),
    "bce_with_logits": ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits"),
    "mse": ("MSELoss", "mse_loss"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A function or class that may be what is looked for.

    Attributes:
        reference: `train.py:Net`.
        args: the arguments that the tensors tell.
        unknown: required arguments that they do not tell.
        compared: how its layers were compared with the tensors; empty where they could not be.
        extra: attributes that no tensor's name begins with: the fewer, the better the match.
        source: the file that it stands in.
    """

    reference: str
    source: Source
    args: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    compared: str = ""
    extra: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What the arguments of a network are read off: the tensors, the file's name, the settings recorded in it."""

    outline: Outline
    stem: str
    recorded: Mapping[str, Any]


def problems(sources: list[Source]) -> list[Named]:
    """Functions that return a samdiag.Problem and take no argument."""
    return [
        Named(reference=f"{source.reference}:{function.name}", source=source)
        for source, function in _functions(sources)
        if function.callable_without and (function.name in PROBLEM_NAMES or function.returns.endswith("Problem"))
    ]


def networks(
    sources: list[Source], outline: Outline, stem: str, recorded: Mapping[str, Any] | None = None
) -> list[Named]:
    """Classes whose layers have the tensors' names, then functions that make such; the best match first.

    Args:
        sources: where to look.
        outline: of the checkpoint.
        stem: of the checkpoint's file name, which may say which of several sizes it is ("tiny").
        recorded: what the training script saved of its own arguments.
    """
    known = modules(sources)
    hints = Hints(outline=outline, stem=stem, recorded=recorded or {})
    found = []
    for name, (source, item) in known.items():
        compared, extra = _compare(item, known, outline)
        if compared:
            made = _filled(item.parameters, hints, item.layers)
            found.append(
                Named(reference=f"{source.reference}:{name}", source=source, compared=compared, extra=extra, **made)
            )
    matching = {
        named.reference.rpartition(":")[2]: bool(named.unknown or set(named.args) - {"pretrained"}) for named in found
    }
    makers = list(_makers(sources, known, matching, hints))
    verified = [maker for maker in makers if maker.compared]
    ordered = sorted([*verified, *found], key=lambda named: (bool(named.unknown), named.extra))
    return ordered or makers


def derived(sources: list[Source], base: str) -> list[Named]:
    """Classes that derive from the class called `base`, which is not among the sources, and need no argument."""
    return [
        Named(reference=f"{source.reference}:{item.name}", source=source, compared=f"it derives from {base}")
        for source in sources
        for item in source.classes
        if base in item.bases and not any(parameter.required for parameter in item.parameters)
    ]


def data(sources: list[Source]) -> list[Named]:
    """Functions named or annotated as data that take no argument; those for training first."""
    found = [
        (DATA_NAMES.index(function.name) if function.name in DATA_NAMES else len(DATA_NAMES), source, function.name)
        for source, function in _functions(sources)
        if function.callable_without and (function.name in DATA_NAMES or DATA_TYPES.search(function.returns))
    ]
    found += [
        (len(DATA_NAMES), source, item.name)
        for source in sources
        for item in source.classes
        if any(base.endswith("Dataset") for base in item.bases)
        and not any(parameter.required for parameter in item.parameters)
    ]
    return [
        Named(reference=f"{source.reference}:{name}", source=source)
        for _, source, name in sorted(found, key=lambda entry: entry[0])
    ]


def losses(sources: list[Source]) -> list[Named]:
    """Functions `loss(model, batch)`."""
    return [
        Named(reference=f"{source.reference}:{function.name}", source=source)
        for source, function in _functions(sources)
        if _takes_model_and_batch(function)
    ]


def model_functions(sources: list[Source]) -> list[str]:
    """Functions named or annotated as makers of a network, whatever they make."""
    return [
        f"{source.reference}:{function.name}"
        for source, function in _functions(sources)
        if function.name in MODEL_NAMES or MODEL_TYPES.search(function.returns)
    ]


def losses_called(sources: list[Source]) -> list[str]:
    """The named losses that the files call."""
    called = {name for source in sources for name in source.called}
    return [loss for loss, names in LOSSES_CALLED.items() if called & set(names)]


def _functions(sources: list[Source]) -> Iterator[tuple[Source, Function]]:
    yield from ((source, function) for source in sources for function in source.functions)


def _takes_model_and_batch(function: Function) -> bool:
    required = [parameter for parameter in function.parameters if parameter.required]
    if len(required) != 2 or required[0].name not in {"model", "net", "network", "module"}:
        return False
    return function.name in LOSS_NAMES or required[1].name == "batch"


def _makers(
    sources: list[Source],
    known: Mapping[str, tuple[Source, Class]],
    matching: Mapping[str, bool],
    hints: Hints,
) -> Iterator[Named]:
    """Functions that make a network: of a class that matches, a Sequential, or of what only running would tell.

    Args:
        matching: the classes that match, and whether they do so with arguments only.
    """
    for source, function in _functions(sources):
        named = function.name in MODEL_NAMES or MODEL_TYPES.search(function.returns)
        compared = ""
        if any(matching.get(name) for name in function.plain):
            continue  # it makes a network of other sizes
        if set(function.built) & set(matching):
            compared = f"it returns {next(name for name in function.built if name in matching)}, whose layers fit"
        elif function.children is not None:
            inner = _numbered(hints.outline)
            if inner is None or inner >= function.children:
                continue
            if not all(_agrees(hints.outline, name, sizes) for name, sizes in function.layers.items()):
                continue
            compared = (
                f"it returns a Sequential of {function.children} layers, and the tensors' names are their numbers"
            )
        elif set(function.built) & set(known) or not named:
            continue  # of a class that does not match, or no network at all
        made = _filled(function.parameters, hints, function.layers)
        yield Named(reference=f"{source.reference}:{function.name}", source=source, compared=compared, **made)


def _numbered(outline: Outline) -> int | None:
    """The largest first component where all are numbers, as in a Sequential."""
    for candidate in (outline, outline.without_first()):
        if candidate is not None and all(name.isdecimal() for name in candidate.components):
            return max(int(name) for name in candidate.components)
    return None


def _compare(item: Class, known: Mapping[str, tuple[Source, Class]], outline: Outline) -> tuple[str, int]:
    """How the class's layers fit the tensors, and how many of its attributes have none; empty where they do not fit."""
    attributes, layers = _inherited(item, known)
    inner = outline.without_first()
    if inner is not None and len(inner.components) < 2:
        inner = None  # a single name says too little
    for candidate in (inner, outline):
        if candidate is None or not all(_is_among(name, attributes) for name in candidate.components):
            continue
        if all(_agrees(candidate, name, sizes) for name, sizes in layers.items()):
            count = len(candidate.components)
            return f"{count} of {count} names that the tensors begin with are its layers", max(
                len(attributes) - count, 0
            )
    return "", 0


def _is_among(name: str, attributes: frozenset[str]) -> bool:
    """Whether a layer of that name is assigned; `conv*` stands for every number or word in its place."""
    return name in attributes or any("*" in other and fnmatch.fnmatchcase(name, other) for other in attributes)


def _inherited(
    item: Class, known: Mapping[str, tuple[Source, Class]]
) -> tuple[frozenset[str], dict[str, tuple[Size, Size]]]:
    attributes: set[str] = set()
    layers: dict[str, tuple[Size, Size]] = {}
    waiting, seen = [item], set()
    while waiting:
        current = waiting.pop()
        if current.name in seen:
            continue
        seen.add(current.name)
        attributes |= current.attributes
        layers = {**current.layers, **layers}
        waiting += [known[base][1] for base in current.bases if base in known]
    return frozenset(attributes), layers


def _agrees(outline: Outline, name: str, sizes: tuple[Size, Size]) -> bool:
    """Whether the tensor of a layer has the constant sizes that the class gives it."""
    shape = outline.shapes.get(f"{name}.weight")
    if shape is None or len(shape) < 2:
        return shape is None
    return all(type(said) is not int or said == own for said, own in zip(sizes, shape[:2], strict=True))


def _filled(parameters: tuple[Parameter, ...], hints: Hints, layers: Mapping[str, tuple[Size, Size]]) -> dict[str, Any]:
    """The arguments that tensors, recorded settings or the file's name tell, and those that must be told otherwise.

    The latter are the required ones that nothing tells, and those whose value contradicts the tensors' shapes.
    """
    outline = hints.outline
    counts = {
        CLASS_COUNTS: outline.num_outputs,
        CHANNEL_COUNTS: outline.input_channels,
        INPUT_COUNTS: outline.num_inputs,
        WORD_COUNTS: outline.vocabulary,
    }
    words = [word for word in re.split(r"[^a-z0-9]+", hints.stem.lower()) if word]
    computed = [
        (size, own)
        for name, sizes in layers.items()
        for size, own in zip(sizes, outline.shapes.get(f"{name}.weight", ())[:2], strict=False)
        if isinstance(size, Computed)
    ]
    args: dict[str, Any] = {}
    unknown = []
    for parameter in parameters:
        exact = {
            own for size, own in computed if isinstance(size.expression, ast.Name) and parameter.name in size.names
        }
        count = next((value for names, value in counts.items() if parameter.name in names), None)
        count = next(iter(exact)) if len(exact) == 1 else count
        chosen = [word for word in parameter.words if word.lower() in {*words, hints.stem.lower()}]
        recorded = hints.recorded.get(parameter.name)
        if count is not None and (exact or parameter.required or type(parameter.default) is int):
            value: Any = count
        elif isinstance(recorded, (bool, int, float, str)):
            value = recorded
        elif chosen:
            value = chosen[0]
        elif parameter.name == "pretrained" and parameter.default is True:
            value = False  # the weights come from the checkpoint
        elif parameter.required:
            unknown.append(parameter.name)
            continue
        else:
            continue
        if value != parameter.default or type(value) is not type(parameter.default):
            args[parameter.name] = value
    values = {parameter.name: parameter.default for parameter in parameters} | args
    wrong = {name for size, own in computed if size.value(values) not in {None, own} for name in size.names}
    unknown += [parameter.name for parameter in parameters if parameter.name in wrong - set(unknown)]
    return {"args": {name: value for name, value in args.items() if name not in wrong}, "unknown": tuple(unknown)}
