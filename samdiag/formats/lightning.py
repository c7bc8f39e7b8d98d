"""Lightning checkpoints: torch files that say which Lightning wrote them, with its hyper-parameters and averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samdiag.formats.checkpoint import Embedded
from samdiag.formats.plain_data import as_table
from samdiag.formats.run_settings import read_settings

SOURCE = "hyper-parameters"
VERSION = ("pytorch-lightning_version", "pytorch-ligthning_version")  # the second: a slip in versions before 1.0
PARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters", "hparams")  # the last: before 1.0
AVERAGED_NOW = "current_model_state"  # the raw weights, where a WeightAveraging callback put the average in state_dict
AVERAGED_LATER = "average_model_state"  # in the state of StochasticWeightAveraging
EMA_KEY = "ema_state_dict"  # one that `state_dict.find_weights` knows


def recognises(saved: object) -> bool:
    """Whether Lightning wrote it."""
    return isinstance(saved, Mapping) and "state_dict" in saved and any(key in saved for key in VERSION)


def arranged(saved: Any) -> dict[str, Any]:
    """`saved` with the raw weights under `state_dict`, and averaged ones under `ema_state_dict`."""
    found = dict(saved)
    if isinstance(found.get(AVERAGED_NOW), Mapping):
        found[EMA_KEY] = found["state_dict"]
        found["state_dict"] = found.pop(AVERAGED_NOW)
        return found
    callbacks = found.get("callbacks")
    for state in callbacks.values() if isinstance(callbacks, Mapping) else ():
        average = state.get(AVERAGED_LATER) if isinstance(state, Mapping) else None
        if isinstance(average, Mapping) and average:
            found[EMA_KEY] = average
    return found


def hyper_parameters(saved: object) -> dict[str, Any]:
    """The hyper-parameters of module and data module as plain data."""
    tables = [as_table(saved.get(key)) for key in PARAMETERS] if isinstance(saved, Mapping) else []
    merged: dict[str, Any] = {}
    for table in tables:
        merged = {**table, **merged}  # the module's come first
    return merged


def embed(saved: object) -> Embedded | None:
    """The training settings among the hyper-parameters, as a spec document; None where there are none."""
    sam = read_settings(hyper_parameters(saved))
    return Embedded(source=SOURCE, document={"sam": sam}) if sam else None
