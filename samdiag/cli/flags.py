"""The options that `inspect` and `sweep` share: one place for names, help and environment twins."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from samdiag.cli import completion
from samdiag.cli.streams import complain
from samdiag.errors import UsageError
from samdiag.probes import Verify
from samdiag.registry import REPORTS
from samdiag.suggesting import did_you_mean

SAM = "Training settings that are judged"
SPEC = "Model and data"
LOOK = "How hard to look"
OUT = "Report and gate"


def flag(*names: str, help: str, panel: str, **more: Any) -> Any:
    """An option with its SAMDIAG_* twin."""
    long = next(n for n in names if n.startswith("--")).split("/")[0].lstrip("-").replace("-", "_").upper()
    return typer.Option(*names, help=help, rich_help_panel=panel, envvar=f"SAMDIAG_{long}", **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """An option of several commands: the setting it says, its type, its help, and its flags where they are unusual."""

    name: str
    setting: str
    kind: type
    help: str
    flags: tuple[str, ...] = ()

    @property
    def annotation(self) -> Any:
        """For a parameter that is None unless it is said."""
        return Annotated[self.kind | None, self.option()]

    def option(self) -> Any:
        """What typer is told of it."""
        panel = SAM if self.setting.startswith("sam.") else LOOK if self.setting.startswith("measure.") else SPEC
        names = self.flags or (_dashed(self.name),)
        words = completion.for_setting(self.setting)
        return flag(*names, help=self.help, panel=panel, autocompletion=words)


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shared(setting: str, kind: type, help: str, *flags: str) -> Shared:
    return Shared(name=setting.rpartition(".")[2], setting=setting, kind=kind, help=help, flags=flags)


SHARED: tuple[Shared, ...] = (
    _shared("sam.variant", str, "sam, usam, asam, asam-samsung or gsam. (default: sam)"),
    _shared("sam.lr", float, "Learning rate."),
    _shared("sam.momentum", float, "Momentum, as in torch.optim.SGD. (default: 0)"),
    _shared("sam.nesterov", bool, "Nesterov's momentum. (default: heavy ball)", "--nesterov/--no-nesterov"),
    _shared("sam.dampening", float, "Of the momentum; equal to it: an average (EMA). (default: 0)"),
    _shared("sam.weight_decay", float, "Weight decay. (default: 0)"),
    _shared("sam.weight_decay_in", str, "update, as optimizers apply it, or objective. (default: update)"),
    _shared("sam.batch_size", int, "Training batch size. (default: that of your own batches; a Dataset: full batch)"),
    _shared("sam.micro_batch", int, "Samples behind one ascent gradient (m-SAM). (default: the batch)"),
    _shared("sam.alpha", float, "gsam: share of the orthogonal part. (default: 0.4)"),
    _shared("sam.eta_a", float, "asam-samsung: constant added to |w|. (default: 0.01)"),
    _shared("model", str, "module:factory or file.py:factory → nn.Module."),
    _shared("data", str, "module:factory or file.py:factory → batches or a Dataset."),
    _shared("loss", str, "cross_entropy, mse, … or file.py:function(model, batch)."),
    _shared("problem", str, "file.py:function → samdiag.Problem, in place of the three."),
    _shared("weights", str, "raw, or ema: the averaged weights where the file holds some. (default: raw)"),
    _shared("download", bool, "Let torchvision fetch the data set: the only use of the network.", "--download"),
    _shared("measure.samples", int, "Samples to analyse. (default: 2048)"),
    _shared("measure.seed", int, "Seed of start vectors and data order. (default: 0)"),
    _shared("measure.device", str, "auto, cpu, cuda, cuda:0. (default: auto)"),
    _shared("measure.dtype", str, "auto, float32 or float64. (default: auto)"),
    _shared("measure.tol", float, "Relative residual asked of either end. (default: 0.01)"),
    _shared("measure.num_eigenvalues", int, "Eigenvalues reported per end. (default: 5)"),
    _shared("measure.mode", str, "eval, or train: BatchNorm with each batch's own statistics. (default: eval)"),
    _shared(
        "measure.until",
        str,
        "ends: both to --tol; decided: verdicts certain, values rough; converged: all asked for. (default: ends)",
    ),
    _shared(
        "measure.solver",
        str,
        "lanczos; two-level: led by the few samples that carry most of the loss; auto: where they are few. "
        "(default: auto)",
    ),
    _shared("measure.time_limit", str, "Best answer so far after this long: 90, 90s, 5m, 1h. (default: none)"),
    _shared("measure.max_products", int, "Most Hessian products of one run. (default: 300)"),
    _shared(
        "measure.products",
        str,
        "Hessian products: auto, kept, recomputed, forward, compiled or difference. (default: auto, the fastest)",
    ),
    _shared("measure.memory", str, "For graphs and vectors: 500MB, 4GB, 2GiB. (default: most of what is free)"),
    _shared("measure.block", int, "Vectors per solver step; more finds repeated eigenvalues at once. (default: 1)"),
)
NAMES = frozenset(option.name for option in SHARED)


def option(name: str) -> Any:
    """What typer is told of one shared option, for a command that takes only some of them."""
    return next(shared for shared in SHARED if shared.name == name).option()


Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CKPT",
        help="A checkpoint: .safetensors, .pt, .pth, .bin, .ckpt, or a folder.",
        autocompletion=completion.checkpoints,
    ),
]
Format = Annotated[str, flag("--format", help="text or json.", panel=OUT, autocompletion=completion.formats)]
Config = Annotated[str | None, flag("--config", help="A TOML file, or TOML itself.", panel=SPEC)]
Jacobian = Annotated[
    str | None,
    flag(
        "--jacobian",
        help="auto: where the shifted gradient may vanish; arnoldi: always.  (default: auto)",
        panel=LOOK,
        autocompletion=completion.for_setting("measure.jacobian"),
    ),
]
Quiet = Annotated[
    int,
    typer.Option("-q", "--quiet", count=True, help="-q: report only; -qq: exit code only.", rich_help_panel=OUT),
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of SHARED in front of its own; it reads them by `said(context)`."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        command(*args, **{name: value for name, value in kwargs.items() if name not in NAMES})

    own = inspect.signature(command, eval_str=True)
    shared = [
        inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option.annotation)
        for option in SHARED
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.parameters.values()]
    first = [p for p in parameters if p.default is inspect.Parameter.empty or p.name == "rho"]
    signature = own.replace(parameters=[*first, *shared, *(p for p in parameters if p not in first)])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()} | {"return": None}
    return run


def said(context: typer.Context) -> dict[str, Any]:
    """What the command line (or its environment) says, by dotted setting name; what it does not say is left out."""
    found = {option.setting: context.params.get(option.name) for option in SHARED}
    values = {setting: value for setting, value in found.items() if value is not None}
    if "measure.time_limit" in values:
        values["measure.time_limit"] = seconds(values["measure.time_limit"], "--time-limit")
    return values


def seconds(text: str, name: str) -> float:
    """A duration typed on the command line as the option `name`, in seconds."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(s|m|h)?", text.strip().lower())
    if found is None or float(found[1]) <= 0:
        complain(UsageError(f"{name} {text!r} is not a duration", "give seconds, or e.g. 90s, 5m, 1h"))
        raise typer.Exit(2)
    return float(found[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[found[2] or "s"]


def verify_of(context: typer.Context, wanted: bool, steps: int | None, budget: str | None) -> Verify | None:
    """What --verify, --steps and --budget ask for; None without --verify."""
    if not wanted:
        for name in ("steps", "budget"):  # from the environment they wait for a --verify
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                complain(UsageError(f"--{name} is for --verify", f"add --verify, or leave --{name} out"))
                raise typer.Exit(2)
        return None
    try:
        return Verify(steps=steps, budget=None if budget is None else seconds(budget, "--budget"))
    except UsageError as error:
        complain(error)
        raise typer.Exit(2) from None


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


def check_format(format: str) -> None:
    """Nothing, or UsageError where no report has that format."""
    if format not in REPORTS:
        near = did_you_mean(format, REPORTS)
        raise UsageError(f"--format {format!r} is unknown{near}", f"choose {' or '.join(REPORTS)}")


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
