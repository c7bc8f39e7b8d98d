"""What a folder's .py files define, read as text: problems, networks, data and losses. Nothing of it is run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_FILES = 2000  # a large package has some thousand
MAX_BYTES = 2_000_000  # of one file; generated tables are larger, networks are not
MODULE_BASES = ("Module", "LightningModule")
GROUPS_POSITION = 6  # of a convolution's arguments; with groups the kernel has fewer inputs than it is told
FILLERS = ("register_buffer", "register_parameter", "add_module", "register_module")  # self.…("name", …)


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """A layer's size that is an expression of arguments: `width`, `2 * width`.

    Attributes:
        names: of the arguments in it.
    """

    expression: ast.expr
    names: frozenset[str]

    def value(self, known: Mapping[str, Any]) -> int | None:
        """The size for these arguments; None where they do not tell it."""
        return _computed(self.expression, known)


Size = int | Computed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """An argument of a function or of a class's __init__.

    Attributes:
        required: it has no default.
        default: where that is a constant.
        words: the texts that the body compares it with: the choices it offers.
    """

    name: str
    required: bool
    default: Any = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function at the top of a file.

    Attributes:
        returns: its annotation as written; empty where there is none.
        built: the classes that its return statements call, by their last name.
        children: the number of layers of a Sequential that it returns; None where it returns none, or unpacks a list.
        layers: the sizes of those layers.
        plain: the classes that it returns as `Name()`, without an argument.
    """

    name: str
    parameters: tuple[Parameter, ...]
    returns: str = ""
    built: tuple[str, ...] = ()
    children: int | None = None
    layers: Mapping[str, tuple[Size, Size]] = field(default_factory=dict)
    plain: frozenset[str] = frozenset()

    @property
    def callable_without(self) -> bool:
        """Whether it may be called with no argument."""
        return not any(parameter.required for parameter in self.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Class:
    """A class at the top of a file.

    Attributes:
        bases: their last names.
        attributes: what __init__ and the like assign to self; `conv*` for names that a loop counts up.
        layers: sizes of `self.name = nn.Linear(2, 3)`: name → (outputs, inputs), None for what cannot be told.
    """

    name: str
    bases: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    attributes: frozenset[str]
    layers: Mapping[str, tuple[Size, Size]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A .py file and what stands at its top.

    Attributes:
        reference: what to write before the colon: `train.py`, or `package.module`.
        called: the last names of all functions that the file calls: which losses it uses.
    """

    path: Path
    reference: str
    functions: tuple[Function, ...]
    classes: tuple[Class, ...]
    called: frozenset[str]


def read_folder(folder: Path) -> list[Source]:
    """The .py files directly in `folder`, as `file.py`; those that cannot be parsed are passed over."""
    paths = sorted(path for path in folder.glob("*.py") if path.is_file())[:MAX_FILES]
    return [source for path in paths if (source := read_source(path, path.name)) is not None]


def read_package(folder: Path, name: str) -> list[Source]:
    """The .py files of a package's folder, as `name.module`."""
    found = []
    for path in sorted(folder.rglob("*.py"))[:MAX_FILES]:
        parts = path.relative_to(folder).with_suffix("").parts
        inner = parts[:-1] if parts[-1] == "__init__" else parts
        if all(part.isidentifier() for part in inner) and path.is_file():
            source = read_source(path, ".".join((name, *inner)))
            found += [source] if source is not None else []
    return found


def read_source(path: Path, reference: str) -> Source | None:
    """What stands at the top of one file; None where it is no Python, or too large."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in its strings
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return Source(
        path=path,
        reference=reference,
        functions=tuple(_function(node) for node in _top(tree) if isinstance(node, ast.FunctionDef)),
        classes=tuple(_class(node) for node in _top(tree) if isinstance(node, ast.ClassDef)),
        called=frozenset(_last(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)),
    )


def modules(sources: list[Source]) -> dict[str, tuple[Source, Class]]:
    """The classes that are networks, by name: they derive from nn.Module, if need be through one another."""
    found: dict[str, tuple[Source, Class]] = {}
    classes = [(source, item) for source in sources for item in source.classes]
    for _ in range(len(classes)):
        more = {
            item.name: (source, item)
            for source, item in classes
            if item.name not in found and any(base in MODULE_BASES or base in found for base in item.bases)
        }
        if not more:
            break
        found |= more
    return found


def _top(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of the file, those inside `if` and `try` at its top included."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            waiting = [*node.body, *node.orelse, *waiting]


def _function(node: ast.FunctionDef) -> Function:
    returned = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value is not None]
    calls = [value for value in returned if isinstance(value, ast.Call)]
    sequences = [call for call in calls if _last(call.func) == "Sequential"]
    plain = [call for call in sequences if call.args and not any(isinstance(arg, ast.Starred) for arg in call.args)]
    return Function(
        name=node.name,
        parameters=_parameters(node),
        returns=ast.unparse(node.returns) if node.returns is not None else "",
        built=tuple(_last(call.func) for call in calls),
        children=len(plain[-1].args) if plain else None,
        layers=dict(_layers("", plain[-1], _arguments(node))) if plain else {},
        plain=frozenset(_last(call.func) for call in calls if not call.args and not call.keywords),
    )


def _class(node: ast.ClassDef) -> Class:
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    start = next((item for item in methods if item.name == "__init__"), None)
    assigned = [pair for method in methods for pair in _assigned(method)]
    told = _arguments(start) if start is not None else frozenset()
    layers = {inner: sizes for name, value in assigned for inner, sizes in _layers(name, value, told)}
    return Class(
        name=node.name,
        bases=tuple(_last(base) for base in node.bases),
        parameters=_parameters(start)[1:] if start is not None else (),
        attributes=frozenset(name for name, _ in assigned),
        layers=layers,
    )


def _assigned(method: ast.FunctionDef) -> Iterator[tuple[str, ast.expr | None]]:
    """Each `self.name = value`, and `self.add_module("name", value)` and its like."""
    for node in ast.walk(method):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            for item in target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]:
                if isinstance(item, ast.Attribute) and _is_self(item.value):
                    yield item.attr, getattr(node, "value", None) if item is target else None
        if isinstance(node, ast.Call) and len(node.args) >= 2:
            first, second = node.args[:2]
            if isinstance(node.func, ast.Attribute) and _is_self(node.func.value) and node.func.attr in FILLERS:
                yield from ((name, second) for name in _spelled(first))
            elif _last(node.func) == "setattr" and _is_self(first):
                yield from ((name, None) for name in _spelled(second))


def _spelled(node: ast.expr) -> list[str]:
    """The text that an expression is, `conv*` for f"conv{number}"; none where it is computed otherwise."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        parts = [item.value if isinstance(item, ast.Constant) else "*" for item in node.values]
        return ["".join(map(str, parts))] if any(part != "*" for part in parts) else []
    return []


def _arguments(node: ast.FunctionDef) -> frozenset[str]:
    """The arguments that the body never assigns to."""
    names = {parameter.name for parameter in _parameters(node)}
    stored = {item.id for item in ast.walk(node) if isinstance(item, ast.Name) and not isinstance(item.ctx, ast.Load)}
    return frozenset(names - stored)


def _layers(name: str, value: ast.expr | None, told: frozenset[str]) -> Iterator[tuple[str, tuple[Size, Size]]]:
    """The layer, or those of a Sequential under their numbers, with their sizes."""
    if isinstance(value, ast.Call) and _last(value.func) == "Sequential":
        if not any(isinstance(arg, ast.Starred) for arg in value.args):
            for number, inner in enumerate(value.args):
                yield from _layers(f"{name}.{number}".lstrip("."), inner, told)
    elif (sizes := _sizes(value, told)) is not None:
        yield name, sizes


def _sizes(value: ast.expr | None, told: frozenset[str]) -> tuple[Size, Size] | None:
    """(outputs, inputs) of a layer made with constants and arguments; None for what is no such layer."""
    if not isinstance(value, ast.Call):
        return None
    names = {"Linear": ("in_features", "out_features"), "Embedding": ("embedding_dim", "num_embeddings")}
    kind = _last(value.func)
    if kind.startswith("Conv") and kind[4:] in {"1d", "2d", "3d"}:
        inputs, outputs = "in_channels", "out_channels"
    elif kind in names:
        inputs, outputs = names[kind]
    else:
        return None
    given = dict(zip((inputs, outputs) if kind != "Embedding" else (outputs, inputs), value.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
    grouped = "groups" in given or len(value.args) > GROUPS_POSITION
    return _size(given.get(outputs), told), None if grouped else _size(given.get(inputs), told)


def _size(node: ast.expr | None, told: frozenset[str]) -> Size:
    if node is None:
        return None
    names = frozenset(item.id for item in ast.walk(node) if isinstance(item, ast.Name))
    return Computed(expression=node, names=names) if names and names <= told else _computed(node, {})


def _computed(node: ast.expr, known: Mapping[str, Any]) -> int | None:
    """The whole number that +, −, · and // make of constants and known names; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.Name):
        value = known.get(node.id)
        return value if type(value) is int else None
    if not isinstance(node, ast.BinOp):
        return None
    left, right = _computed(node.left, known), _computed(node.right, known)
    if left is None or right is None:
        return None
    match node.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.FloorDiv():
            return left // right if right else None
    return None


def _parameters(node: ast.FunctionDef) -> tuple[Parameter, ...]:
    """The arguments by position and by keyword; `*args` and `**more` are none."""
    spoken = node.args
    positional = [*spoken.posonlyargs, *spoken.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(spoken.defaults)) + list(spoken.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(spoken.kwonlyargs, spoken.kw_defaults, strict=True)]
    words = _compared(node)
    return tuple(
        Parameter(
            name=argument.arg,
            required=default is None,
            default=default.value if isinstance(default, ast.Constant) else None,
            words=tuple(words.get(argument.arg, ())),
        )
        for argument, default in pairs
    )


def _compared(node: ast.FunctionDef) -> dict[str, list[str]]:
    """For each name that the body compares with texts, those texts: `if size == "tiny"`."""
    found: dict[str, list[str]] = {}
    for inner in ast.walk(node):
        if not isinstance(inner, ast.Compare) or not isinstance(inner.left, ast.Name):
            continue
        for other in inner.comparators:
            items = other.elts if isinstance(other, (ast.Tuple, ast.List, ast.Set)) else [other]
            texts = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
            found.setdefault(inner.left.id, []).extend(texts)
    return found


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _last(node: ast.expr) -> str:
    """The last name of `a.b.c`; empty for what is no name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript):
        return _last(node.value)
    return node.id if isinstance(node, ast.Name) else ""
