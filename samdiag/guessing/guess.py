"""From a checkpoint and a folder to a proposal for its samdiag.toml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import SamdiagError
from samdiag.formats import Checkpoint
from samdiag.guessing import folders, parts
from samdiag.guessing.catalogs import Build
from samdiag.guessing.data_files import DataGuess, files_below, tensor_files
from samdiag.guessing.outline import Outline, times
from samdiag.guessing.packages import Package
from samdiag.guessing.parts import Evidence
from samdiag.guessing.proposal import RHO, Part, Proposal
from samdiag.guessing.sources import read_folder
from samdiag.quoting import listed, quoted, shown
from samdiag.spec.discover import said_by
from samdiag.types import Setting, Trust

if TYPE_CHECKING:
    from torch import nn

HYPERPARAMETERS = (
    *("sam.rho", "sam.variant", "sam.lr", "sam.momentum", "sam.nesterov", "sam.dampening"),
    *("sam.weight_decay", "sam.batch_size"),
)


def propose(
    checkpoint: Checkpoint,
    *,
    path: str,
    folder: Path,
    said: Mapping[str, Any],
    rho: float | None = None,
    packages: tuple[Package, ...] = (),
) -> Proposal:
    """The proposal for `checkpoint`; nothing of the user's own is imported or run.

    Args:
        checkpoint: opened; of its tensors only names and shapes are read.
        path: the checkpoint as the user named it.
        folder: the working folder, which the file is for.
        said: problem, model, data and loss of the command line, under the keys of a samdiag.toml.
        rho: of the command line.
        packages: whose sources are searched.

    Raises:
        CannotDecide: the tensors cannot be read.
    """
    outline, weights = outline_of(checkpoint)
    known = said_by(checkpoint)
    evidence = Evidence(
        said=said,
        known=known,
        own=read_folder(folder),
        packages=[source for package in packages for source in package.sources],
        config=checkpoint.config,
        stem=checkpoint.path.stem,
        folder=folder,
        checkpoint=checkpoint.path,
        files=list(files_below(folder)),
        outline=outline,
        build=_builder(checkpoint, folder),
        recorded=checkpoint.hyper_parameters,
    )
    chosen = _parts(evidence)
    written_rho, rho_why = _rho(rho, known)
    return Proposal(
        checkpoint=shown(path),
        described=tuple(_described(checkpoint, outline)),
        parts=chosen,
        rho=written_rho,
        rho_why=rho_why,
        rho_unknown=rho is None and written_rho is not None,
        hyperparameters={
            name: (known[name].value, known[name].source)
            for name in HYPERPARAMETERS
            if name in known and known[name].trust is Trust.ARTIFACT
        },
        weights=weights,
        pythonpath=tuple(_pythonpath(chosen, packages)),
        remarks=tuple(_beside(checkpoint, folder, chosen)),
        layers=tuple(outline.layers()) if any(part.name == "model" and part.chosen is None for part in chosen) else (),
    )


def outline_of(checkpoint: Checkpoint) -> tuple[Outline, str | None]:
    """Names and shapes of the raw weights, else of the averaged ones; and "ema" for those."""
    if checkpoint.load_infos is not None:  # from headers alone
        try:
            infos = checkpoint.tensor_infos()
        except SamdiagError:  # e.g. averaged weights alone
            infos = {}
        if infos:
            return Outline(shapes={name: info.shape for name, info in infos.items()}), None
    try:
        tensors, weights = checkpoint.weights("raw"), None
    except SamdiagError as error:
        try:
            tensors, weights = checkpoint.weights("ema"), "ema"
        except SamdiagError:
            raise error from None
    return Outline(shapes={name: tuple(value.shape) for name, value in tensors.items()}), weights


def _parts(evidence: Evidence) -> tuple[Part, ...]:
    whole = parts.problem(evidence)
    if whole is not None:
        return (whole,)
    model = parts.model(evidence)
    guesses = _data_guesses(evidence, model)
    data = parts.data(evidence, model, guesses)
    return model, data, parts.loss(evidence, model, data, guesses)


def _data_guesses(evidence: Evidence, model: Part) -> list[DataGuess]:
    """What lies in the working folder and may be the data; what fits first, in the order of the kinds."""
    value = model.chosen.value if model.chosen is not None and isinstance(model.chosen.value, Mapping) else {}
    side = (value.get("args") or {}).get("img_size")
    found = [
        *tensor_files(evidence.files, evidence.folder, evidence.outline, evidence.checkpoint),
        *folders.texts(evidence.files, evidence.folder, evidence.checkpoint, value),
    ]
    if "transformers" not in value:
        found += folders.torchvision_sets(evidence.files, evidence.folder, evidence.outline)
        found += folders.image_folders(evidence.files, evidence.folder, evidence.outline, side)
    return sorted(found, key=lambda guess: not guess.fits)


def _beside(checkpoint: Checkpoint, folder: Path, chosen: tuple[Part, ...]) -> Iterator[str]:
    """What to say where code lies in one folder with the checkpoint: whoever made the one may have made the other."""
    path = checkpoint.path.resolve()
    if (path if path.is_dir() else path.parent) != folder.resolve():
        return
    files = dict.fromkeys(parts.file_of(part.chosen.value) for part in chosen if part.chosen is not None)
    named = [name for name in files if name.endswith(".py")]
    if named:
        yield f"{listed(named)} lies beside the checkpoint, and `samdiag inspect` will run it: be sure that it is yours"


def _builder(checkpoint: Checkpoint, folder: Path) -> Build:
    def build(library: str, name: str, args: Mapping[str, Any]) -> nn.Module:
        from samdiag.spec.catalog import build_model
        from samdiag.spec.requests import ModelRequest

        request = ModelRequest(
            library=library,
            name=name,
            args=args,
            source="samdiag init",
            trust=Trust.ARTIFACT,  # whatever it asks for, no path and no network
            folder=folder,
            checkpoint=checkpoint,
        )
        return build_model(request).module

    return build


def _rho(rho: float | None, known: Mapping[str, Setting]) -> tuple[float | None, str]:
    """(what is written, why); None where the checkpoint says it itself."""
    if rho is not None:
        return rho, parts.SAID
    if "sam.rho" in known:
        return None, f"{known['sam.rho'].source} says rho = {known['sam.rho'].value}"
    return RHO, "rho is not known: this is the most usual value, put in the one of your training run"


def _described(checkpoint: Checkpoint, outline: Outline) -> Iterator[str]:
    yield f"{checkpoint.format}: {len(outline.shapes)} tensors, {outline.num_parameters} numbers"
    if checkpoint.hyper_parameters:
        recorded = listed((f"{name} = {quoted(value)}" for name, value in checkpoint.hyper_parameters.items()), 12)
        yield f"its training script recorded: {recorded}"
    if outline.vocabulary is not None:
        yield f"{outline.vocabulary} words or tokens in its embedding"
    if outline.input_shapes:
        several = " or ".join(map(times, outline.input_shapes))
        yield f"a sample of its input is {several} ({outline.first} comes first)"
    if outline.num_outputs is not None:
        yield f"{outline.num_outputs} outputs ({outline.head})"


def _pythonpath(chosen: tuple[Part, ...], packages: tuple[Package, ...]) -> Iterator[str]:
    """The folders of the packages that a chosen part comes from, where they are not on the path already."""
    for package in packages:
        for part in chosen:
            value = part.chosen.value if part.chosen is not None else None
            reference = value.get("python", "") if isinstance(value, Mapping) else ""
            if package.pythonpath is not None and str(reference).split(":")[0].split(".")[0] == package.name:
                yield package.pythonpath
                break
