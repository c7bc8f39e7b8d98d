"""The options that `inspect` and `sweep` share: one place for names, help and environment twins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from samdiag.cli.streams import complain
from samdiag.errors import UsageError

SAM = "Training settings that are judged"
SPEC = "Model and data"
LOOK = "How hard to look"
OUT = "Report and gate"


def flag(*names: str, help: str, panel: str, **more: Any) -> Any:
    """An option with its SAMDIAG_* twin."""
    long = next(n for n in names if n.startswith("--")).split("/")[0].lstrip("-").replace("-", "_").upper()
    return typer.Option(*names, help=help, rich_help_panel=panel, envvar=f"SAMDIAG_{long}", **more)


Variant = Annotated[
    str | None, flag("--variant", help="sam, usam, asam, asam-samsung or gsam.  [default: sam]", panel=SAM)
]
Lr = Annotated[float | None, flag("--lr", help="Learning rate.", panel=SAM)]
Momentum = Annotated[float | None, flag("--momentum", help="Momentum, as in torch.optim.SGD.  [default: 0]", panel=SAM)]
Nesterov = Annotated[
    bool | None, flag("--nesterov/--no-nesterov", help="Nesterov's momentum.  [default: heavy ball]", panel=SAM)
]
Dampening = Annotated[
    float | None,
    flag("--dampening", help="Of the momentum; equal to it: an average (EMA).  [default: 0]", panel=SAM),
]
WeightDecay = Annotated[float | None, flag("--weight-decay", help="Weight decay.  [default: 0]", panel=SAM)]
WeightDecayIn = Annotated[
    str | None,
    flag("--weight-decay-in", help="update, as optimizers apply it, or objective.  [default: update]", panel=SAM),
]
BatchSize = Annotated[
    int | None,
    flag(
        "--batch-size",
        help="Training batch size.  [default: that of your own batches; a Dataset: full batch]",
        panel=SAM,
    ),
]
MicroBatch = Annotated[
    int | None,
    flag("--micro-batch", help="Samples behind one ascent gradient (m-SAM).  [default: the batch]", panel=SAM),
]
Alpha = Annotated[float | None, flag("--alpha", help="gsam: share of the orthogonal part.  [default: 0.4]", panel=SAM)]
EtaA = Annotated[float | None, flag("--eta-a", help="asam-samsung: constant added to |w|.  [default: 0.01]", panel=SAM)]
Model = Annotated[str | None, flag("--model", help="module:factory or file.py:factory → nn.Module.", panel=SPEC)]
Data = Annotated[
    str | None, flag("--data", help="module:factory or file.py:factory → batches or a Dataset.", panel=SPEC)
]
Loss = Annotated[
    str | None, flag("--loss", help="cross_entropy, mse, … or file.py:function(model, batch).", panel=SPEC)
]
Problem = Annotated[
    str | None, flag("--problem", help="file.py:function → samdiag.Problem, in place of the three.", panel=SPEC)
]
Config = Annotated[str | None, flag("--config", help="A TOML file, or TOML itself.", panel=SPEC)]
Samples = Annotated[int | None, flag("--samples", help="Samples to analyse.  [default: 2048]", panel=LOOK)]
Seed = Annotated[int | None, flag("--seed", help="Seed of start vectors and data order.  [default: 0]", panel=LOOK)]
Device = Annotated[str | None, flag("--device", help="auto, cpu, cuda, cuda:0.  [default: auto]", panel=LOOK)]
Dtype = Annotated[str | None, flag("--dtype", help="auto, float32 or float64.  [default: auto]", panel=LOOK)]
Tol = Annotated[float | None, flag("--tol", help="Relative residual asked of either end.  [default: 0.01]", panel=LOOK)]
NumEigenvalues = Annotated[
    int | None, flag("--num-eigenvalues", help="Eigenvalues reported per end.  [default: 5]", panel=LOOK)
]
Mode = Annotated[
    str | None,
    flag("--mode", help="eval, or train: BatchNorm with each batch's own statistics.  [default: eval]", panel=LOOK),
]
Jacobian = Annotated[
    str | None,
    flag(
        "--jacobian",
        help="auto: where the shifted gradient may vanish; arnoldi: always.  [default: auto]",
        panel=LOOK,
    ),
]
Quiet = Annotated[
    int,
    typer.Option("-q", "--quiet", count=True, help="-q: report only; -qq: exit code only.", rich_help_panel=OUT),
]

_SAM = (
    "variant",
    "lr",
    "momentum",
    "nesterov",
    "dampening",
    "weight_decay",
    "weight_decay_in",
    "batch_size",
    "micro_batch",
    "alpha",
    "eta_a",
)
_MEASURE = ("samples", "seed", "device", "dtype", "tol", "num_eigenvalues", "mode", "jacobian")
_SPEC = ("problem", "model", "data", "loss")
SETTINGS: Mapping[str, str] = {
    **{name: name for name in _SPEC},
    **{name: f"sam.{name}" for name in _SAM},
    **{name: f"measure.{name}" for name in _MEASURE},
}


def said(context: typer.Context) -> dict[str, Any]:
    """What the command line (or its environment) says, by dotted setting name; what it does not say is left out."""
    found = {dotted: context.params.get(name) for name, dotted in SETTINGS.items()}
    return {dotted: value for dotted, value in found.items() if value is not None}


def from_environment(context: typer.Context, overrides: Mapping[str, Any]) -> dict[str, str]:
    """The variable that said each setting, for those that the command line itself did not say."""
    variables = {}
    for name in overrides:
        parameter = name.rpartition(".")[2]
        source = context.get_parameter_source(parameter)
        if source is not None and source.name == "ENVIRONMENT":
            variables[name] = f"SAMDIAG_{parameter.upper()}"
    return variables


def quiet_variable() -> int:
    """SAMDIAG_QUIET, the twin of a flag that is counted: 1 or 2."""
    text = os.environ.get("SAMDIAG_QUIET", "0")
    return int(text) if text.isdecimal() else 1


def parse_names(text: str) -> list[str]:
    """`"a, B,"` as ["a", "b"]: the entries of a list typed on the command line."""
    return [name.strip().lower() for name in text.split(",") if name.strip()]


def number(text: str | None, name: str) -> float | None:
    """A number typed on the command line, kept as text until here so that a bad one gets samdiag's own two lines."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        complain(UsageError(f"{name} {text!r} is not a number", f"give a positive number, e.g. {name} 0.05"))
        raise typer.Exit(2) from None
