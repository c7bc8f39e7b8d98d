"""Settings and a checkpoint become a Problem: the catalog's or the user's model, data and loss, with the weights in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag import registry
from samdiag.errors import UsageError
from samdiag.formats import Checkpoint
from samdiag.quoting import quoted, shown
from samdiag.spec.catalog import find_factory
from samdiag.spec.discover import Resolution
from samdiag.spec.user_code import call, extend_path, import_object
from samdiag.types import Problem, Setting, Trust

if TYPE_CHECKING:
    from torch import nn

    from samdiag.spec.batches import Batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A problem ready to be measured, and what the reader should know about how it was put together."""

    problem: Problem
    notes: tuple[str, ...] = ()


def build_problem(resolution: Resolution, checkpoint: Checkpoint) -> Problem:
    """The problem that the settings name, its model holding the checkpoint's weights; see `build`."""
    return build(resolution, checkpoint).problem


def build(resolution: Resolution, checkpoint: Checkpoint) -> Built:
    """The problem that the settings name, its model holding the checkpoint's weights, and notes about the loading.

    Raises:
        UsageError: something named is not found, fails, or returns another type; or the weights do not fit.
        CannotDecide: the weights cannot be read.
    """
    from samdiag.spec.loading import load_weights

    extend_path(resolution.pythonpath)
    maker = _Maker(resolution=resolution, checkpoint=checkpoint)
    built = maker.problem() if "problem" in resolution.settings else maker.from_parts()
    weights = checkpoint.weights(resolution.settings["weights"].value)
    notes = load_weights(built.problem.model, weights, shown(checkpoint.path))
    return Built(problem=built.problem, notes=(*built.notes, *notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    """Looks names up for one resolution."""

    resolution: Resolution
    checkpoint: Checkpoint

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
        function, lower_bound, paired_name = self._loss()
        first = first_batch(batches.items)
        if paired_name is not None:
            check_pairs(first, paired_name)
        problem = Problem(
            model=model,
            loss=function,
            batches=batches.items,
            population=batches.population,
            loss_lower_bound=lower_bound,
            batch_size_is_training=batches.as_in_training,
        )
        return Built(problem=problem, notes=batches.notes)

    def _model(self) -> nn.Module:
        from torch import nn

        value = self.resolution.settings["model"].value
        found, described = self._factory("model", ("gallery", "timm", "torchvision", "transformers"))
        if not isinstance(found, nn.Module):
            found = call(found, described, **value.get("args", {}))
        return _check_module(found, described)

    def _data(self) -> Batches:
        from samdiag.spec.batches import cut

        value = self.resolution.settings["data"].value
        found, described = self._factory("data", ("gallery", "torchvision", "folder", "datasets", "tensors"))
        arguments = dict(value.get("args", {}))
        if "split" in value:
            arguments["split"] = value["split"]
        returned = call(found, described, **arguments)
        return cut(
            returned,
            num_samples=value.get("num_samples"),
            batch_size=value.get("batch_size"),
            seed=self.resolution.settings["measure.seed"].value,
        )

    def _loss(self) -> tuple[Callable[[Any, Any], Any], float | None, str | None]:
        """The function, what it never goes below, and its name where batches must be (inputs, targets)."""
        setting = self.resolution.settings["loss"]
        if "python" in setting.value:
            found = self._import("loss", setting, setting.value["python"])
            _check_callable(found, "loss", setting.value["python"])
            _check_takes_two(found, setting.value["python"])
            return found, None, None
        name = setting.value["name"]
        named = registry.load(registry.LOSSES[name])
        return named.function, named.lower_bound, name if named.takes_pairs else None

    def _factory(self, key: str, libraries: tuple[str, ...]) -> tuple[Any, str]:
        """What makes the model or the data, and what to call it in messages."""
        setting = self.resolution.settings[key]
        value: Mapping[str, Any] = setting.value
        if "python" in value:
            found = self._import(key, setting, value["python"])
            _check_callable(found, key, value["python"])
            return found, f"{key} ({shown(value['python'])})"
        library = next(name for name in libraries if name in value)
        kind: Any = key
        return find_factory(kind, library, value[library]), f"{key} ({library} {shown(value[library])})"

    def _import(self, key: str, setting: Setting, reference: str) -> Any:
        """The user's own object; an artifact never gets here, and is refused if it does."""
        place = self.resolution.places.get(key)
        if setting.trust is Trust.ARTIFACT or place is None:
            raise UsageError(
                f"{setting.source} names code: {quoted(reference)}", f"name {key} in your own samdiag.toml"
            )
        folder = Path(self.checkpoint.path).absolute().parent
        return import_object(reference, key=key, place=place, checkpoint_folder=folder)


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
