"""`samdiag sweep`: one checkpoint at many radii."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samdiag.cli import flags
from samdiag.cli.pictured import check_picture, write_found
from samdiag.cli.streams import (
    ReportOutput,
    progress_line,
    steady_streams,
    told,
)

if TYPE_CHECKING:
    from samdiag.sweep import Sweep


@flags.with_settings
def sweep(
    context: typer.Context,
    checkpoint: flags.Checkpoint,
    rho: Annotated[
        str,
        typer.Option("--rho", help="LOW:HIGH:log:COUNT, LOW:HIGH:lin:COUNT, or a list.", rich_help_panel=flags.SAM),
    ] = "0.01:1:log:25",
    config: flags.Config = None,
    quick: Annotated[
        bool,
        flags.flag("--quick", help="One gradient a radius: verdicts without SAM's next steps.", panel=flags.LOOK),
    ] = False,
    format: flags.Format = "text",
    output: Annotated[
        Path | None, flags.flag("--output", help="Write the report here instead of stdout.", panel=flags.OUT)
    ] = None,
    plot: Annotated[
        Path | None, flags.flag("--plot", help="Also draw it: a .png, .svg or .pdf file.", panel=flags.OUT)
    ] = None,
    quiet: flags.Quiet = 0,
) -> None:
    """What SAM would do from this checkpoint at many rho: dangerous intervals and the largest safe one.

    One spectrum for all of them, and at each rho the gradient at x + e and SAM's next steps. Exit code 0: scanned,
    whatever was found; 2: usage; 3: it could not be done; 130: interrupted.
    """
    steady_streams()
    overrides = flags.said(context)
    with told():
        flags.check_format(format)
        if plot is not None:
            check_picture(plot)
        sink = ReportOutput(output, [checkpoint])
        try:
            found = _scan(context, checkpoint, rho, overrides, config, quick, quiet)
            code = write_found(
                found,
                sink,
                render="samdiag.reports.sweep_text:render",
                draw="samdiag.reports.sweep_picture:draw",
                format=format,
                output=output,
                plot=plot,
                quiet=quiet or flags.quiet_variable(),
            )
        finally:
            sink.close()
    raise typer.Exit(code)


def _scan(
    context: typer.Context,
    checkpoint: str,
    rho: str,
    overrides: dict[str, object],
    config: str | None,
    quick: bool,
    quiet: int,
) -> Sweep:
    from samdiag import sweeping

    radii = sweeping.parse_grid(rho)
    shown = sys.stderr.isatty() and not quiet
    with progress_line(shown) as progress, contextlib.redirect_stdout(sys.stderr):  # stdout is the report's
        return sweeping.sweep(
            checkpoint,
            radii,
            overrides=overrides,
            sources=flags.from_environment(context, overrides),
            config=config,
            quick=quick,
            progress=progress,
        )
