"""Settings and a checkpoint become a Problem: the catalog's or the user's model, data and loss, with the weights in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag import registry
from samdiag.errors import UsageError
from samdiag.formats import Checkpoint, open_checkpoint
from samdiag.quoting import quoted, shown
from samdiag.spec.catalog import build_data, build_model
from samdiag.spec.discover import COMMAND_LINE, Resolution
from samdiag.spec.requests import Data, DataRequest, Model, ModelRequest
from samdiag.spec.schema import DATA_KINDS, DATA_PATHS, MODEL_KINDS
from samdiag.spec.user_code import call, extend_path, import_object
from samdiag.types import Problem, Setting, Trust

if TYPE_CHECKING:
    from torch import Tensor, nn

    from samdiag.spec.batches import Batches
    from samdiag.spec.weighting import Bound
    from samdiag.spec.workshop import Workshop

DOWNLOAD_SOURCES = (COMMAND_LINE, "SAMDIAG_DOWNLOAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A problem ready to be measured, and what the reader should know about how it was put together."""

    problem: Problem
    notes: tuple[str, ...] = ()


def build_problem(resolution: Resolution, checkpoint: Checkpoint) -> Problem:
    """The problem that the settings name, its model holding the checkpoint's weights; see `build`."""
    return build(resolution, checkpoint).problem


def build(resolution: Resolution, checkpoint: Checkpoint, workshop: Workshop | None = None) -> Built:
    """The problem that the settings name, its model holding the checkpoint's weights, and notes about the loading.

    With a `workshop` model and data are those of an earlier checkpoint where the settings are the same, and the weights
    are put in place of that one's.

    Raises:
        UsageError: something named is not found, fails, or returns another type; or the weights do not fit.
        CannotDecide: the weights cannot be read.
    """
    from samdiag.spec.loading import load_weights
    from samdiag.spec.models.renaming import in_own_names

    extend_path(resolution.pythonpath)
    maker = _Maker(resolution=resolution, checkpoint=checkpoint, base=_base(resolution, checkpoint))
    make = maker.problem if "problem" in resolution.settings else maker.from_parts
    if workshop is None or checkpoint.adapter is not None:  # an adapter changes the model that it is put on
        built = make()
    else:
        built = workshop.made(resolution, checkpoint, make)
    weights = checkpoint.weights(resolution.settings["weights"].value)
    if checkpoint.adapter is not None:
        return _adapted(built, checkpoint, maker.base, weights)
    file, setting = shown(checkpoint.path), resolution.settings.get("model")
    named = in_own_names(built.problem.model, weights, file)
    of_library = setting is not None and "transformers" in setting.value
    notes = load_weights(built.problem.model, named, file, more_allowed=of_library)
    return Built(problem=built.problem, notes=(*built.notes, *notes))


def _base(resolution: Resolution, checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint that an adapter's base model is loaded from; None where the user's own factory does that.

    Raises:
        UsageError: it is missing, is none, or is named where there is no adapter.
    """
    setting = resolution.settings.get("model")
    said = setting.value.get("base") if setting is not None else None
    if said is None:
        own = setting is None or "python" in setting.value
        if checkpoint.adapter is not None and not own:
            what = f"{shown(checkpoint.path)} is an adapter, and nothing says where its base model's weights are"
            raise UsageError(what, 'add it beside model: base = "path/to/base", or name a factory that loads them')
        return None
    assert setting is not None
    if checkpoint.adapter is None:
        what = f"model.base ({setting.source}) is for adapters, and {shown(checkpoint.path)} is none"
        raise UsageError(what, "leave it out")
    if setting.trust is Trust.ARTIFACT:
        raise UsageError(f"{setting.source} names a path: model.base", "name it in your own samdiag.toml")
    place = resolution.places.get("model")
    found = open_checkpoint((place.folder if place is not None else Path.cwd()) / Path(said).expanduser())
    if found.adapter is not None:
        raise UsageError(f"model.base = {quoted(said)} is itself an adapter", "name the base model, or merge the two")
    return found


def _adapted(built: Built, checkpoint: Checkpoint, base: Checkpoint | None, weights: Mapping[str, Tensor]) -> Built:
    """The problem of the base model with the adapter on it: only the adapter's parameters are measured."""
    from samdiag.spec.models.adapters import load_base, with_adapter

    notes = load_base(built.problem.model, base, checkpoint.adapter or {}) if base is not None else ()
    model = with_adapter(built.problem.model, checkpoint, weights)
    said = "the adapter alone is measured, over its frozen base model"
    return Built(problem=replace(built.problem, model=model), notes=(*built.notes, *notes, said))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    """Looks names up for one resolution."""

    resolution: Resolution
    checkpoint: Checkpoint
    base: Checkpoint | None = None

    def problem(self) -> Built:
        """The problem of `problem = "module:function"`."""
        setting = self.resolution.settings["problem"]
        found = self._import("problem", setting, setting.value)
        if not isinstance(found, Problem):
            _check_callable(found, "problem", setting.value)
            found = call(found, f"problem ({shown(setting.value)})")
        if not isinstance(found, Problem):
            what = f"problem ({shown(setting.value)}) returned a {type(found).__name__}"
            raise UsageError(what, "return samdiag.Problem(model=…, loss=…, batches=…)")
        _check_module(found.model, f"the model of problem ({shown(setting.value)})")
        return Built(problem=found)

    def from_parts(self) -> Built:
        """The problem of model, data and loss."""
        from samdiag.spec.batches import check_pairs, first_batch

        model = self._model()
        batches = self._data()
        first = first_batch(batches.items)
        loss = self._loss(model.module, batches.items, lambda name: check_pairs(first, name))
        problem = Problem(
            model=model.module,
            loss=loss.function,
            batches=batches.items,
            population=batches.population,
            loss_lower_bound=loss.lower_bound,
            batch_size_is_training=batches.as_in_training,
        )
        return Built(problem=problem, notes=(*model.notes, *batches.notes, *loss.notes))

    def _model(self) -> Model:
        setting = self.resolution.settings["model"]
        value: Mapping[str, Any] = setting.value
        if "python" in value:
            from torch import nn

            found, described = self._own_factory("model")
            if not isinstance(found, nn.Module):
                found = call(found, described, **value.get("args", {}))
            return Model(module=_check_module(found, described))
        request = ModelRequest(**self._request("model", MODEL_KINDS), config=value.get("config"))
        return build_model(request)

    def _data(self) -> Batches:
        from samdiag.spec.batches import cut

        value: Mapping[str, Any] = self.resolution.settings["data"].value
        seed = self.resolution.settings["measure.seed"].value
        if "python" in value:
            found, described = self._own_factory("data")
            arguments = dict(value.get("args", {}))
            if "split" in value:
                arguments["split"] = value["split"]
            data = Data(returned=call(found, described, **arguments))
        else:
            request = DataRequest(
                **self._request("data", DATA_KINDS),
                split=value.get("split"),
                paths={key: value[key] for key in DATA_PATHS if key in value},
                seed=seed,
                download=self._download(),
            )
            data = build_data(request)
        batches = cut(
            data.returned,
            num_samples=value.get("num_samples"),
            batch_size=value.get("batch_size"),
            seed=seed,
            collate=data.collate,
        )
        return replace(batches, notes=(*data.notes, *batches.notes))

    def _loss(self, model: nn.Module, batches: Iterable[Any], check: Callable[[str], None]) -> Bound:
        """The function with what it never goes below; `check` complains where it needs pairs and there are none."""
        from samdiag.spec.weighting import Bound, bind

        setting = self.resolution.settings["loss"]
        if "python" in setting.value:
            found = self._import("loss", setting, setting.value["python"])
            _check_callable(found, "loss", setting.value["python"])
            _check_takes_two(found, setting.value["python"])
            return Bound(function=found, lower_bound=None)
        name = setting.value["name"]
        if registry.load(registry.LOSSES[name]).takes_pairs:
            check(name)
        samples = self.resolution.settings["measure.samples"].value
        return bind(name, setting.value.get("args", {}), model, batches, samples)

    def _request(self, key: str, kinds: tuple[str, ...]) -> dict[str, Any]:
        """What every builder of the catalogs is told."""
        setting = self.resolution.settings[key]
        library = next(kind for kind in kinds if kind in setting.value)
        place = self.resolution.places.get(key)
        return {
            "library": library,
            "name": setting.value[library],
            "args": setting.value.get("args", {}),
            "source": setting.source,
            "trust": setting.trust,
            "folder": place.folder if place is not None else Path.cwd(),
            "checkpoint": self.base if key == "model" and self.base is not None else self.checkpoint,
        }

    def _download(self) -> bool:
        """Whether --download was given; nothing else may ask for the network."""
        setting = self.resolution.settings.get("download")
        if setting is not None and setting.source not in DOWNLOAD_SOURCES:
            raise UsageError(f"{setting.source} says download", "give the flag instead: --download")
        return setting is not None and bool(setting.value)

    def _own_factory(self, key: str) -> tuple[Any, str]:
        """What the user wrote to make the model or the data, and what to call it in messages."""
        setting = self.resolution.settings[key]
        reference = setting.value["python"]
        found = self._import(key, setting, reference)
        _check_callable(found, key, reference)
        return found, f"{key} ({shown(reference)})"

    def _import(self, key: str, setting: Setting, reference: str) -> Any:
        """The user's own object; an artifact never gets here, and is refused if it does."""
        place = self.resolution.places.get(key)
        if setting.trust is Trust.ARTIFACT or place is None:
            raise UsageError(
                f"{setting.source} names code: {quoted(reference)}", f"name {key} in your own samdiag.toml"
            )
        return import_object(reference, key=key, place=place, checkpoint_folder=self.checkpoint.folder)


def _check_callable(found: Any, key: str, reference: str) -> None:
    if not callable(found):
        what = f"{key} ({shown(reference)}) is a {type(found).__name__} and not a function"
        raise UsageError(what, f"name a function, as in {key} = 'module:function'")


def _check_module(found: Any, described: str) -> nn.Module:
    from torch import nn

    if not isinstance(found, nn.Module):
        what = f"{described} is a {type(found).__name__} and not a torch.nn.Module"
        raise UsageError(what, "return the network itself")
    return found


def _check_takes_two(function: Callable[..., Any], reference: str) -> None:
    """Nothing, or UsageError where the loss cannot be called as loss(model, batch)."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-ins have none
        return
    try:
        signature.bind(None, None)
    except TypeError:
        what = f"loss ({shown(reference)}) takes {signature}"
        raise UsageError(what, "define it as loss(model, batch), returning the mean over the batch") from None
