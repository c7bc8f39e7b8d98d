"""The command line's root."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from samdiag.cli.demo import demo
from samdiag.cli.diff import diff
from samdiag.cli.info import info
from samdiag.cli.init import init
from samdiag.cli.inspect import inspect
from samdiag.cli.merge import merge
from samdiag.cli.schema import schema
from samdiag.cli.spectrum import spectrum
from samdiag.cli.stamp import stamp
from samdiag.cli.submit import submit
from samdiag.cli.sweep import sweep
from samdiag.cli.treat import treat
from samdiag.cli.trend import trend
from samdiag.cli.watch import watch

app = typer.Typer(
    name="samdiag",
    help="Is this checkpoint, trained with Sharpness-Aware Minimization, stuck? Why, and what to change?",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(init)
app.command()(inspect)
app.command()(watch)
app.command()(merge)
app.command()(trend)
app.command()(diff)
app.command()(submit)
app.command()(info)
app.command()(sweep)
app.command()(treat)
app.command()(spectrum)
app.command()(stamp)
app.command()(schema)
app.add_typer(demo, name="demo")


def _version(asked: bool) -> None:
    if asked:
        from samdiag import __version__

        typer.echo(f"samdiag {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Is this checkpoint, trained with Sharpness-Aware Minimization, stuck? Why, and what to change?"""


def main() -> None:
    """Console script entry point."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller: `samdiag … >&-`
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for the whole process)
    app()
