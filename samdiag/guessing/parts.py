"""Model, data and loss, each from its sources in order of how much they can be relied on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samdiag.guessing import catalogs, configured, own_code
from samdiag.guessing.catalogs import Build, Match
from samdiag.guessing.data_files import DataGuess
from samdiag.guessing.hollow import real
from samdiag.guessing.outline import Outline, times
from samdiag.guessing.own_code import Named
from samdiag.guessing.proposal import Candidate, Part
from samdiag.guessing.sources import Source
from samdiag.guessing.writing import short
from samdiag.quoting import listed, shown
from samdiag.types import Setting

SAID = "said on the command line"
GALLERY_DATA = {"digits-mlp": "digits", "tanh-network": "tanh-network"}
NO_CLASSIFIERS = ("rcnn", "retinanet", "fcos", "ssd", "fcn_", "deeplab", "lraspp", "raft")
CAUSAL = ("ForCausalLM", "LMHeadModel")  # ends of the class names of transformers' language models
EXAMPLES = {"problem": "train.py:problem", "model": "train.py:model", "data": "train.py:data", "loss": "cross_entropy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the parts are guessed from.

    Attributes:
        said: what the command line says, as a spec's values.
        known: what the checkpoint itself says.
        own: the working folder's source files.
        packages: source files of what --search named.
        config: the checkpoint's config.json.
        stem: of the checkpoint's file name.
        folder: the working folder.
        files: what lies in it.
        outline: of the checkpoint's tensors.
        build: makes a model of a catalog.
        recorded: what the training script saved of its own arguments.
    """

    said: Mapping[str, Any]
    known: Mapping[str, Setting]
    own: list[Source]
    packages: list[Source]
    config: Mapping[str, Any] | None
    stem: str
    folder: Path
    checkpoint: Path
    files: list[Path] = field(repr=False)
    outline: Outline
    build: Build
    recorded: Mapping[str, Any] = field(default_factory=dict)


def problem(evidence: Evidence) -> Part | None:
    """A function of the working folder that returns a whole problem; None where there is none, or parts are said."""
    if "problem" in evidence.said:
        return Part(name="problem", chosen=Candidate(value=evidence.said["problem"], why=SAID))
    found = [] if evidence.said else own_code.problems(evidence.own)
    if not found:
        return None
    why = f"{found[0].source.reference} defines it; whether its model has these tensors shows when it is run"
    return Part(name="problem", chosen=Candidate(value=found[0].reference, why=why), others=_named(found[1:]))


def model(evidence: Evidence) -> Part:
    """The model: as said, as the checkpoint's configuration says, or the one whose tensors these are."""
    if "model" in evidence.said:
        return Part(name="model", chosen=Candidate(value=evidence.said["model"], why=SAID))
    said = [*_known("model", evidence), *_unsaid_class(evidence)]
    found = [candidate for one in said for candidate in _compared(one, evidence)]
    searched = own_code.networks(evidence.packages, evidence.outline, evidence.stem, evidence.recorded)
    own = own_code.networks(evidence.own, evidence.outline, evidence.stem, evidence.recorded)
    found += _network_candidates(searched)
    matches = catalogs.find_gallery(evidence.outline) or catalogs.find(evidence.outline, evidence.build)
    found += _confirmed(matches)
    found += _network_candidates(own)
    found += [_match_candidate(match) for match in matches if not match.confirmed]
    others = [*found[1:], *_unfinished([*searched, *own])]
    if found:
        return Part(name="model", chosen=found[0], others=_distinct(found[0], others))
    return Part(name="model", others=tuple(others), missing=_why_no_model(evidence), example=EXAMPLES["model"])


def data(evidence: Evidence, chosen: Part, guesses: list[DataGuess]) -> Part:
    """The data: as said, the gallery's own, files that fit, or a function of the working folder.

    Args:
        chosen: the model.
        guesses: what lies in the working folder.
    """
    if "data" in evidence.said:
        return Part(name="data", chosen=Candidate(value=evidence.said["data"], why=SAID))
    found = [*_known("data", evidence)]
    value = chosen.chosen.value if chosen.chosen is not None else None
    if isinstance(value, Mapping) and value.get("gallery") in GALLERY_DATA:
        found.append(
            Candidate(value=GALLERY_DATA[value["gallery"]], why="the data that the gallery's model was made for")
        )
    model_file = file_of(value)
    functions = own_code.data(evidence.own)
    fitting = [Candidate(value=guess.value, why=guess.why) for guess in guesses if guess.fits]
    possible = [guess for guess in guesses if guess.possible and not guess.fits] if model_file else []
    found += [_of_function(named) for named in functions if named.source.reference == model_file]
    found += [*fitting, *(_of_function(named) for named in functions)]
    if len(possible) == 1:  # a network of one's own may reshape what it is given
        found.append(Candidate(value=possible[0].value, why=f"the only such file, not certain: {possible[0].why}"))
    unfit = [Candidate(value=guess.value, why=f"does not fit: {guess.why}") for guess in guesses if not guess.fits]
    if found:
        return Part(name="data", chosen=found[0], others=_distinct(found[0], [*found[1:], *unfit]))
    return Part(name="data", others=tuple(unfit), missing=_why_no_data(evidence), example=EXAMPLES["data"])


def loss(evidence: Evidence, chosen: Part, data_part: Part, guesses: list[DataGuess]) -> Part:
    """The loss: as said, the model's own, what the targets ask for, or what the working folder's code calls."""
    if "loss" in evidence.said:
        return Part(name="loss", chosen=Candidate(value=evidence.said["loss"], why=SAID))
    found = [
        Candidate(value=named.reference, why=f"{named.source.reference} defines it")
        for named in own_code.losses(evidence.own)
    ]
    said = [*_known("loss", evidence)]
    value = chosen.chosen.value if chosen.chosen is not None else {}
    used = data_part.chosen.value if data_part.chosen is not None else None
    guess = next((guess for guess in guesses if guess.value == used), None)
    if isinstance(value, Mapping) and "transformers" in value:
        said = [*_of_transformers(str(value["transformers"]), guess), *said]
    found += said
    if not said and guess is not None and guess.loss is not None:
        found.append(Candidate(value=guess.loss, why=f"the targets of the data: {guess.targets}"))
        found += [Candidate(value=guess.other_loss, why="it takes the same targets")] if guess.other_loss else []
    if isinstance(value, Mapping) and value.get("gallery") in GALLERY_DATA:
        found.append(
            Candidate(value="cross_entropy" if value["gallery"] == "digits-mlp" else "mse", why="of the gallery")
        )
    if isinstance(value, Mapping) and _is_classifier(value):
        found.append(Candidate(value="cross_entropy", why="what a classifier is usually trained with"))
    called = own_code.losses_called(evidence.own)
    found += [Candidate(value=name, why="the working folder's code calls it") for name in called]
    if found:
        return Part(name="loss", chosen=found[0], others=_distinct(found[0], found[1:]))
    return Part(name="loss", missing="neither the tensors nor the data say it", example=EXAMPLES["loss"])


def _distinct(chosen: Candidate, others: list[Candidate]) -> tuple[Candidate, ...]:
    """The others that say something else, each once."""
    kept: list[Candidate] = []
    for other in others:
        if all(short(other.value) != short(item.value) for item in (chosen, *kept)):
            kept.append(other)
    return tuple(kept)


def _unsaid_class(evidence: Evidence) -> Iterable[Candidate]:
    """The class of transformers for a config.json that names none."""
    if evidence.config is None or "model" in evidence.known:
        return
    name = configured.find_class(evidence.config, evidence.outline)
    if name is not None:
        yield Candidate(
            value={"transformers": name}, why="config.json names no class; the tensors have this one's head"
        )


def _compared(candidate: Candidate, evidence: Evidence) -> list[Candidate]:
    """A model of transformers after a look whether it has the checkpoint's tensors; another as it is.

    Where it has not, a class of the working folder that derives from it comes first.
    """
    value = candidate.value
    name = value.get("transformers") if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        return [candidate]
    fit = configured.compare(name, evidence.outline, evidence.build)
    args = {**(value.get("args") or {}), **fit.args}
    why = f"{candidate.why}; {fit.why}"
    compared = Candidate(value={"transformers": name, "args": args}, why=why, unbuilt=fit.unbuilt)
    derived = [] if fit.fits else own_code.derived(evidence.own, name)
    return [*_network_candidates(derived), compared]


def file_of(value: Any) -> str:
    """The file or module that a model of one's own comes from; empty for a catalog's."""
    reference = value.get("python", "") if isinstance(value, Mapping) else value or ""
    return str(reference).rpartition(":")[0]


def _of_function(named: Named) -> Candidate:
    why = f"{named.source.reference} defines it; what it returns is not known"
    return Candidate(value=named.reference, why=why)


def _known(name: str, evidence: Evidence) -> Iterable[Candidate]:
    setting = evidence.known.get(name)
    if setting is not None:
        yield Candidate(value=setting.value, why=f"{setting.source} says so")


def _named(found: list[Named]) -> tuple[Candidate, ...]:
    return tuple(Candidate(value=named.reference, why=named.source.reference) for named in found)


def _network_candidates(found: list[Named]) -> list[Candidate]:
    return [
        Candidate(
            value={"python": named.reference} | ({"args": dict(named.args)} if named.args else {}),
            why=named.compared or "its layers could not be compared with the tensors without running it",
        )
        for named in found
        if not named.unknown
    ]


def _unfinished(found: list[Named]) -> list[Candidate]:
    return [
        Candidate(
            value={"python": named.reference, "args": {**named.args, **dict.fromkeys(named.unknown, "?")}},
            why=f"{named.compared or 'by its name'}; it takes {listed(named.unknown)}, which the tensors do not tell",
        )
        for named in found
        if named.unknown
    ]


def _confirmed(matches: list[Match]) -> list[Candidate]:
    """The models that were built and have every tensor; where there are several, the weights do not tell which."""
    names = [match.name for match in matches if match.confirmed]
    why = "every tensor's name and shape is that of this model"
    if len(names) > 1:
        why += f", and of {listed(names[1:], 2)}: the weights do not tell which of them it was"
    return [
        Candidate(value=match.value, why=why if match.name == names[0] else "has the same tensors")
        for match in matches
        if match.confirmed
    ]


def _match_candidate(match: Match) -> Candidate:
    return Candidate(
        value=match.value,
        why=f"the tensors' names are those of this model, which could not be built here: {match.reason}",
        unbuilt=real(match.reason),
    )


def _is_classifier(value: Mapping[str, Any]) -> bool:
    """Whether it is a model of timm or torchvision with classes, and none that finds objects or outlines."""
    name = str(next((value[library] for library in catalogs.LIBRARIES if library in value), ""))
    return "num_classes" in (value.get("args") or {}) and not any(word in name for word in NO_CLASSIFIERS)


def _of_transformers(name: str, guess: DataGuess | None) -> Iterable[Candidate]:
    if name.endswith(CAUSAL) and (guess is None or guess.loss != "model"):
        yield Candidate(value="causal_lm", why=f"{shown(name)} predicts the next word")
    elif name.partition("For")[2]:
        yield Candidate(value="model", why=f"{shown(name)} computes its own loss")


def _why_no_model(evidence: Evidence) -> str:
    outline = evidence.outline
    looked = "no model of timm, torchvision or the gallery has these tensors"
    begin = listed(sorted(outline.components), 6)
    return f"{looked}, nor a class in the working folder; their names begin with {begin}"


def _why_no_data(evidence: Evidence) -> str:
    shapes, outputs = evidence.outline.input_shapes, evidence.outline.num_outputs
    wanted = [f"samples of {times(shapes[0])}"] if shapes else []
    wanted += [f"{evidence.outline.vocabulary} words"] if evidence.outline.vocabulary is not None else []
    wanted += [f"{outputs} classes or outputs"] if outputs is not None else []
    return f"nothing that fits was found in the working folder{': ' * bool(wanted)}{' and '.join(wanted)}"
