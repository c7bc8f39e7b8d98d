"""The closed catalogs' models that have the checkpoint's tensors: looked up by name, confirmed on the meta device."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from samdiag import registry
from samdiag.errors import SamdiagError
from samdiag.guessing.architectures import read_index
from samdiag.guessing.fingerprints import COUNTER, RESIZED, Shapes, body_hash, name_hash
from samdiag.guessing.hollow import hollow, shapes_of
from samdiag.guessing.outline import Outline
from samdiag.user_errors import summary

if TYPE_CHECKING:
    from torch import nn

MAX_CONFIRMED = 6  # candidates built one after the other: some tenths of a second each
LIBRARIES = ("timm", "torchvision")  # in this order: timm's factories also take the number of input channels
CHANNELS = {"timm": "in_chans"}  # what the factory calls its input channels; torchvision's take none

Build = Callable[[str, str, Mapping[str, Any]], "nn.Module"]  # library, name, arguments → model


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A catalog's model with the tensors' names.

    Attributes:
        args: the arguments that make its shapes those of the checkpoint.
        confirmed: it was built, and every name and shape agrees.
        reason: where it could not be built: why.
    """

    library: str
    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    confirmed: bool = False
    reason: str = ""

    @property
    def value(self) -> dict[str, Any]:
        """As a spec says it."""
        return {self.library: self.name} | ({"args": dict(self.args)} if self.args else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of the index.

    Attributes:
        heads: its classifier and its first convolution.
        body: the hash of all other shapes.
        args: what it was built with beside the defaults.
    """

    library: str
    name: str
    heads: tuple[str, ...]
    body: str
    args: Mapping[str, Any]


def find(outline: Outline, build: Build) -> list[Match]:
    """The catalogs' models with these tensors, confirmed ones first; one library's namesakes in the index's order.

    Args:
        outline: of the checkpoint.
        build: makes a catalog's model; called under the meta device.
    """
    entries = [entry for entry in _entries(name_hash(outline.shapes)) if _same_body(entry, outline.shapes)]
    entries.sort(key=lambda entry: LIBRARIES.index(entry.library))
    matches = [_confirm(entry, outline, build) for entry in entries[:MAX_CONFIRMED]]
    matches += [
        Match(library=entry.library, name=entry.name, args=_args(entry, outline.shapes)) for entry in entries[6:]
    ]
    possible = [match for match in matches if match.confirmed or match.reason]
    return sorted(possible, key=lambda match: not match.confirmed)


def find_gallery(outline: Outline) -> list[Match]:
    """The gallery's model with exactly these tensors: the digits' network of any width and depth, or a paper's.

    Several of the papers' functions have the same one tensor: those are no answer.
    """
    own = _plain(outline.shapes)
    found = []
    for name, reference in registry.CATALOG_MODELS["gallery"].items():
        args = _digits_args(outline) if name == "digits-mlp" else {}
        if _plain(shapes_of(registry.load(reference)(**args))) == own:  # small: no need for the meta device
            found.append(Match(library="gallery", name=name, args=args, confirmed=True))
    return found if len(found) == 1 else []


def _digits_args(outline: Outline) -> dict[str, Any]:
    """Width and number of hidden layers, where the first and last matrix are those of the digits."""
    from samdiag.gallery.digits import DEEPEST, MOST_HIDDEN, NUM_INPUTS

    sizes = [shape for shape in outline.weights.values() if len(shape) == 2]
    if len(sizes) < 2 or sizes[0][1] != NUM_INPUTS or not 1 <= sizes[0][0] <= MOST_HIDDEN or len(sizes) - 1 > DEEPEST:
        return {}
    return {"hidden": sizes[0][0], "depth": len(sizes) - 1}


def _entries(key: str) -> list[Entry]:
    rows = read_index()["architectures"].get(key, [])
    return [
        Entry(library=row[0], name=row[1], heads=tuple(row[2]), body=row[3], args=row[4] if len(row) > 4 else {})
        for row in rows
    ]


def _same_body(entry: Entry, shapes: Shapes) -> bool:
    return body_hash(shapes, entry.heads) == entry.body


def _args(entry: Entry, shapes: Shapes) -> dict[str, Any]:
    """The number of classes off the classifier and, where it is not 3, that of input channels off the first layer."""
    args = dict(entry.args)
    for head in entry.heads:
        shape = shapes.get(f"{head}.weight", ())
        if len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1) and shape[1] > 4):
            args["num_classes"] = shape[0]
        elif len(shape) >= 3 and shape[1] != 3 and entry.library in CHANNELS:
            args[CHANNELS[entry.library]] = shape[1]
    return args


def _confirm(entry: Entry, outline: Outline, build: Build) -> Match:
    """The match, confirmed where the built model has every name and shape; a position table tells the image size."""
    args = _args(entry, outline.shapes)
    for _ in range(2):
        try:
            made = _plain(shapes_of(hollow(functools.partial(build, entry.library, entry.name, args))))
        except SamdiagError as error:
            return Match(library=entry.library, name=entry.name, args=args, reason=error.what)
        except Exception as error:  # a library's constructor may raise anything
            return Match(library=entry.library, name=entry.name, args=args, reason=summary(error))
        wanted = _plain(outline.shapes)
        if made == wanted:
            return Match(library=entry.library, name=entry.name, args=args, confirmed=True)
        size = _image_size(made, wanted, outline)
        if size is None or "img_size" in args:
            break
        args = {**args, "img_size": size}
    return Match(library=entry.library, name=entry.name, args=args)


def _plain(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if name.rpartition(".")[2] != COUNTER}


def _image_size(made: Shapes, wanted: Shapes, outline: Outline) -> int | None:
    """The side of square images for which a vision transformer's position table has the checkpoint's length."""
    if set(made) != set(wanted):
        return None
    wrong = [name for name in made if made[name] != wanted[name]]
    if not wrong or not all(any(part in name for part in RESIZED) for name in wrong) or outline.first is None:
        return None
    kernel = wanted[f"{outline.first}.weight"]
    tokens = wanted[wrong[0]][-2] if len(wanted[wrong[0]]) >= 2 else 0
    extra = next((count for count in (1, 0, 2) if math.isqrt(max(tokens - count, 0)) ** 2 == tokens - count), None)
    if len(kernel) != 4 or extra is None:
        return None
    return math.isqrt(tokens - extra) * kernel[-1]
