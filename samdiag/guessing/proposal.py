"""What is proposed for a samdiag.toml: each part with why, what else it might be, and what could not be known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RHO = 0.05  # the radius of the SAM paper's CIFAR runs and the default of most implementations

IMAGE_DATA = ("folder", "torchvision")  # data of pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to say a part.

    Attributes:
        value: under the keys of a samdiag.toml.
        why: one line; may quote the checkpoint.
        unbuilt: of a catalog's model, the reason why the library here cannot build it; empty where it can.
    """

    value: Any
    why: str
    unbuilt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of problem, model, data and loss.

    Attributes:
        chosen: what is written; None where it could not be known.
        others: written as comments.
        missing: where nothing was chosen: why, in one line.
        example: where nothing was chosen: what a line could look like.
    """

    name: str
    chosen: Candidate | None = None
    others: tuple[Candidate, ...] = ()
    missing: str = ""
    example: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The whole file.

    Attributes:
        checkpoint: its path, as the user named it.
        described: lines about the checkpoint that head the file.
        parts: problem alone, or model, data and loss.
        rho: None where the checkpoint itself says it.
        rho_why: who said the rho that is written, or that is found.
        rho_unknown: nobody said it, and what is written is a usual value.
        hyperparameters: what the checkpoint says of its training: setting → (value, who says it).
        weights: "ema" where the file holds no other weights.
        pythonpath: folders in which the code's modules lie.
        layers: the network's modules, where its architecture is not known.
        kept: of [sam], what the file said that this one replaces.
        remarks: what could not be told for certain although something was written, one line each.
    """

    checkpoint: str
    described: tuple[str, ...]
    parts: tuple[Part, ...]
    rho: float | None
    rho_why: str
    rho_unknown: bool = False
    hyperparameters: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    weights: str | None = None
    pythonpath: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """What could not be known, one line each."""
        return tuple(f"{part.name}: {part.missing}" for part in self.parts if part.chosen is None)

    @property
    def unbuilt(self) -> tuple[str, ...]:
        """Why what is written cannot be built here, one line each."""
        return tuple(part.chosen.unbuilt for part in self.parts if part.chosen is not None and part.chosen.unbuilt)

    @property
    def unnormalised(self) -> Mapping[str, Any] | None:
        """Data of images with an example of a normalisation, where that is not known; None for other data."""
        value = next((part.chosen.value for part in self.parts if part.name == "data" and part.chosen), None)
        if not isinstance(value, Mapping) or not any(value.get(kind) for kind in IMAGE_DATA):
            return None
        args = value.get("args") or {}
        if {"normalize", "mean", "std"} & set(args):
            return None
        return {**value, "args": {**args, "normalize": "imagenet"}}
