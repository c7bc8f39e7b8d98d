"""`samdiag spectrum`: the whole spectrum of one checkpoint, with error bars."""

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
from samdiag.errors import UsageError

if TYPE_CHECKING:
    from samdiag.spectral import SpectralReport

WHAT = "What to look at"


@flags.with_settings
def spectrum(
    context: typer.Context,
    checkpoint: flags.Checkpoint,
    rho: Annotated[
        str | None, flags.flag("--rho", help="SAM's radius, for −1/ρ_eff; it may be left out.", panel=flags.SAM)
    ] = None,
    config: flags.Config = None,
    matrix: Annotated[
        list[str] | None, flags.flag("--matrix", help="hessian, ggn, fisher. (default: hessian)", panel=WHAT)
    ] = None,
    params: Annotated[
        list[str] | None,
        flags.flag("--params", help="Only these parameters: names with *, e.g. 'layer4.*'.", panel=WHAT),
    ] = None,
    per_layer: Annotated[
        bool, flags.flag("--per-layer", help="Also both ends and trace of every module.", panel=WHAT)
    ] = False,
    threshold: Annotated[
        list[str] | None, flags.flag("--threshold", help="Count eigenvalues below −T, within, above.", panel=WHAT)
    ] = None,
    probes: Annotated[
        int | None, flags.flag("--probes", help="Random vectors; 0: no density. (default: 8)", panel=flags.LOOK)
    ] = None,
    steps: Annotated[
        int | None, flags.flag("--steps", help="Lanczos steps of each. (default: 40)", panel=flags.LOOK)
    ] = None,
    format: flags.Format = "text",
    output: Annotated[
        Path | None, flags.flag("--output", help="Write the report here instead of stdout.", panel=flags.OUT)
    ] = None,
    plot: Annotated[
        Path | None, flags.flag("--plot", help="Also draw it: a .png, .svg or .pdf file.", panel=flags.OUT)
    ] = None,
    quiet: flags.Quiet = 0,
) -> None:
    """The whole spectrum at a checkpoint: both ends, density, counts and trace, each with its error.

    Hessian, Gauss-Newton and empirical Fisher, of all parameters, of some, or of every layer. Exit code 0: measured,
    whatever was found; 2: usage; 3: it could not be done; 130: interrupted.
    """
    steady_streams()
    overrides = flags.said(context)
    with told():
        if rho is not None:
            overrides["sam.rho"] = flags.number(rho, "--rho")
        flags.check_format(format)
        if plot is not None:
            _check_picture(plot, probes)
        asked = {
            "matrices": _entries(matrix) if matrix else ["hessian"],
            "params": _entries(params),
            "per_layer": per_layer,
            "num_probes": probes,
            "num_steps": steps,
            "thresholds": [_number(text) for text in _entries(threshold)],
        }
        sink = ReportOutput(output, [checkpoint])
        try:
            found = _measure(context, checkpoint, overrides, config, asked, quiet)
            code = write_found(
                found,
                sink,
                render="samdiag.reports.density_text:render",
                draw="samdiag.reports.density_picture:draw",
                format=format,
                output=output,
                plot=plot,
                quiet=quiet or flags.quiet_variable(),
            )
        finally:
            sink.close()
    raise typer.Exit(code)


def _entries(texts: list[str] | None) -> list[str]:
    """What a repeatable option says, each possibly a list with commas."""
    return [part.strip() for text in texts or [] for part in text.split(",") if part.strip()]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--threshold {text[:60]!r} is not a number", "give a positive number, e.g. 0.01") from None


def _measure(
    context: typer.Context,
    checkpoint: str,
    overrides: dict[str, object],
    config: str | None,
    asked: dict[str, object],
    quiet: int,
) -> SpectralReport:
    from samdiag import spectroscopy

    shown = sys.stderr.isatty() and not quiet
    with progress_line(shown) as progress, contextlib.redirect_stdout(sys.stderr):  # stdout is the report's
        return spectroscopy.spectrum(
            checkpoint,
            overrides=overrides,
            sources=flags.from_environment(context, overrides),
            config=config,
            progress=progress,
            **asked,  # type: ignore[arg-type]
        )


def _check_picture(plot: Path, probes: int | None) -> None:
    """Nothing, or UsageError before anything is measured."""
    if probes == 0:
        raise UsageError("--plot draws the density, and --probes 0 asks for none", "leave one of them out")
    check_picture(plot)
