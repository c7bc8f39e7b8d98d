"""`samdiag demo`: trains a healthy and a stuck network in seconds and inspects both."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samdiag.cli.inspect import inspect_paths
from samdiag.cli.streams import complain, say
from samdiag.errors import SamdiagError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from samdiag.gallery.training import Recipe

LINE_EVERY = 100  # steps between plain progress lines, where there is no terminal to draw on

demo = typer.Typer(no_args_is_help=True, help="Train small networks with SAM and inspect them.")


@demo.callback()
def _root() -> None:
    """Train small networks with SAM and inspect them."""


@demo.command()
def digits(
    out: Annotated[Path, typer.Option("--out", help="Folder for healthy.safetensors and stuck.safetensors.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Seed of the initial weights.")] = 0,
) -> None:
    """Train one healthy and one stuck network on 8×8 digits, then inspect both.

    Exit code 0 when both were inspected, whatever was found.
    """
    try:
        paths = train_demo(out, seed=seed)
    except SamdiagError as error:
        complain(error)
        raise typer.Exit(error.exit_code) from None
    raise typer.Exit(inspect_paths([str(path) for path in paths], overrides={"gate.fail_on": ["never"]}))


def train_demo(out: Path, *, seed: int = 0) -> list[Path]:
    """The stamped `healthy.safetensors` and `stuck.safetensors` in `out`, trained now; older ones are replaced.

    Raises:
        UsageError: `out` cannot be written.
    """
    from samdiag.gallery.digits_runs import RUNS

    try:
        out.mkdir(parents=True, exist_ok=True)
        return [_train_one(name, recipe, out / f"{name}.safetensors", seed) for name, recipe in RUNS.items()]
    except OSError as error:
        raise UsageError(
            f"cannot write to {out}: {error.strerror or error}", "give another folder with --out"
        ) from error


def _train_one(name: str, recipe: Recipe, path: Path, seed: int) -> Path:
    from samdiag.gallery.digits import dataset
    from samdiag.gallery.digits_runs import fresh_model
    from samdiag.gallery.training import evaluate, one_thread, train

    data, model = dataset(), fresh_model(seed)
    with one_thread(), _progress(name, recipe) as advance:
        for record in train(model, data, recipe):
            advance(record.step, record.loss)
    loss, accuracy = evaluate(model, data)
    _save(model, recipe, path, len(data))
    say(f"{name}: rho {recipe.rho:g}, {recipe.steps} steps → loss {loss:.4f}, accuracy {accuracy:.1%}, saved to {path}")
    return path


def _save(model: nn.Module, recipe: Recipe, path: Path, num_samples: int) -> None:
    """Writes the weights and says in the file what they belong to."""
    from safetensors.torch import save

    from samdiag.gallery.digits_runs import MODEL_ARGS
    from samdiag.spec.stamp import stamp

    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", "give another folder with --out")
    path.write_bytes(save({key: tensor.detach().contiguous() for key, tensor in model.state_dict().items()}))
    stamp(
        path,
        model={"gallery": "digits-mlp", "args": dict(MODEL_ARGS)},
        data={"gallery": "digits"},
        loss="cross_entropy",
        rho=recipe.rho,
        variant=recipe.variant,
        lr=recipe.lr,
        momentum=recipe.momentum,
        batch_size=recipe.batch_size or num_samples,  # full batch
    )


@contextmanager
def _progress(name: str, recipe: Recipe) -> Iterator[Callable[[int, float], None]]:
    """A function of (step, loss) that shows how far training is: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield lambda step, loss: _line(name, recipe, step, loss)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{name} (rho {recipe.rho:g})", total=recipe.steps, loss="")
        yield lambda step, loss: bar.update(task, completed=step, loss=f"{loss:.4f}")


def _line(name: str, recipe: Recipe, step: int, loss: float) -> None:
    if step % LINE_EVERY == 0:
        say(f"{name}: step {step} of {recipe.steps}, loss {loss:.4f}")
