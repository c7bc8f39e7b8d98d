"""What the names and shapes of a checkpoint's tensors say about its network: layers, inputs, outputs, classes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from samdiag.guessing.fingerprints import COUNTER, Shapes

HEADS = ("fc", "head", "heads", "classifier", "out", "output", "logits", "score", "linear", "last_linear", "fc_out")
IMAGE_SIDES = {1: (28, 32, 8, 64), 3: (32, 28, 64, 224)}  # of the usual data sets, the most frequent first
EMBEDDING = re.compile(r"(^|\.)(wte|wpe|tok|\w*emb|\w*embed\w*)\.weight$")
POSITIONS = re.compile(r"pos|wpe|type|segment")  # embeddings of something else than words
COLOURS = (3, 1, 4)  # channels of an image: colour, grey, with transparency


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The tensors of a state dict without their values.

    Attributes:
        shapes: name → shape, in the file's order.
    """

    shapes: Shapes

    @property
    def components(self) -> frozenset[str]:
        """The first parts of all names: what a network calls its layers."""
        return frozenset(name.partition(".")[0] for name in self.shapes)

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """The matrices and kernels of layers, in natural order of their names; no embeddings."""
        found = {name: shape for name, shape in self.shapes.items() if name.endswith(".weight") and len(shape) >= 2}
        return {name: found[name] for name in sorted(found, key=natural) if not EMBEDDING.search(name)}

    @property
    def vocabulary(self) -> int | None:
        """Rows of the largest embedding of words; None where there is none."""
        tables = [name for name in self.shapes if EMBEDDING.search(name) and not POSITIONS.search(name)]
        return max((self.shapes[name][0] for name in tables if len(self.shapes[name]) == 2), default=None)

    @property
    def head(self) -> str | None:
        """The module that makes the outputs: one of the usual names, else the layer that nothing follows."""
        found = {name: shape for name, shape in self.weights.items() if math.prod(shape[2:]) == 1 and "." in name}
        named = [name for name in found if {name.split(".")[0], name.split(".")[-2]} & set(HEADS)]
        following = {shape[1] for shape in self.weights.values()}
        last = [name for name in found if found[name][0] not in following]
        chosen = [name for name in named if name in last] or named or last or list(found)
        return chosen[-1].rpartition(".")[0] if chosen else None

    @property
    def num_outputs(self) -> int | None:
        """Outputs of the head: the number of classes of a classifier."""
        return self.shapes[f"{self.head}.weight"][0] if self.head is not None else None

    @property
    def first(self) -> str | None:
        """The layer that sees the input: the first convolution, else the first matrix."""
        kernels = [name for name, shape in self.weights.items() if len(shape) >= 3]
        images = [name for name in kernels if self.shapes[name][1] in COLOURS and not self._is_depthwise(name)]
        if images:
            colours = {self.shapes[name][1] for name in images}
            channels = next(number for number in COLOURS if number in colours)
            return next(name for name in images if self.shapes[name][1] == channels).rpartition(".")[0]
        made = {shape[0] for shape in self.weights.values()}
        unmade = [name for name, shape in self.weights.items() if shape[1] not in made]
        chosen = unmade or list(self.weights)
        return chosen[0].rpartition(".")[0] if chosen else None

    def _is_depthwise(self, name: str) -> bool:
        """Whether each channel has a kernel of its own: then 1 is no number of input channels."""
        outputs, inputs = self.shapes[name][:2]
        before = any(shape[0] == outputs and other != name for other, shape in self.weights.items())
        return inputs == 1 and before and outputs > 1 and len(self.weights) > 1 and next(iter(self.weights)) != name

    @property
    def input_channels(self) -> int | None:
        """Of the first convolution; None where the first layer is none."""
        shape = self.shapes[f"{self.first}.weight"] if self.first is not None else ()
        return shape[1] if len(shape) >= 3 else None

    @property
    def num_inputs(self) -> int | None:
        """Of the first matrix; None where the first layer is none."""
        shape = self.shapes[f"{self.first}.weight"] if self.first is not None else ()
        return shape[1] if len(shape) == 2 else None

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes that one sample may have, the likeliest first; -1 where any size fits; none for a model of words."""
        if self.vocabulary is not None:
            return ()
        if self.input_channels is not None:
            spatial = len(self.shapes[f"{self.first}.weight"]) - 2
            return ((self.input_channels, *(-1,) * spatial),)
        if self.num_inputs is None:
            return ()
        images = [
            (channels, side, side)
            for channels, sides in IMAGE_SIDES.items()
            for side in sides
            if channels * side * side == self.num_inputs
        ]
        return ((self.num_inputs,), *images)

    def layers(self, longest: int = 60) -> list[str]:
        """One line a module: its name and its tensors' shapes; at most `longest`, with how many more."""
        modules: dict[str, list[str]] = {}
        for name, shape in self.shapes.items():
            module, _, tensor = name.rpartition(".")
            if tensor != COUNTER:
                modules.setdefault(module, []).append(f"{tensor} {'x'.join(map(str, shape)) or 'scalar'}")
        lines = [f"{module or '(top)'}: {', '.join(tensors)}" for module, tensors in modules.items()]
        return lines if len(lines) <= longest else [*lines[:longest], f"… and {len(lines) - longest} more modules"]

    def without_first(self) -> Outline | None:
        """The same without an outermost module that all share (`model.fc.weight` → `fc.weight`); None without one."""
        if len(self.components) != 1 or any("." not in name for name in self.shapes):
            return None
        return Outline(shapes={name.partition(".")[2]: shape for name, shape in self.shapes.items()})


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts `layer2` before `layer10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def fits(sample: Iterable[int], wanted: Iterable[int]) -> bool:
    """Whether a sample of this shape can be an input of the wanted one, where -1 is any size."""
    given, asked = tuple(sample), tuple(wanted)
    return len(given) == len(asked) and all(size in {-1, other} for other, size in zip(given, asked, strict=True))


def times(shape: Iterable[int]) -> str:
    """`3×any×any` for (3, -1, -1)."""
    return "×".join("any" if size == -1 else str(size) for size in shape)
