"""`samdiag info`: what a checkpoint says about itself."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from samdiag.cli import completion, flags
from samdiag.cli.streams import ReportOutput, complain, steady_streams, told
from samdiag.errors import EXIT_OK, SamdiagError, UsageError
from samdiag.gates import worst


def info(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="CKPT…", help="Files or folders.", autocompletion=completion.checkpoints)
    ],
    tensors: Annotated[
        bool, flags.flag("--tensors", help="Every tensor, in the file's order.", panel=flags.OUT)
    ] = False,
    fingerprint: Annotated[
        bool, flags.flag("--fingerprint", help="Also the sha256: reads the whole file.", panel=flags.OUT)
    ] = False,
    format: flags.Format = "text",
    output: Annotated[
        Path | None, flags.flag("--output", help="Write the report here instead of stdout.", panel=flags.OUT)
    ] = None,
) -> None:
    """Say what checkpoints hold: format, tensors, optimizer hints, stamp. No model, no data, nothing measured.

    Of safetensors only headers are read. Exit code 0: all were read; 2: usage; 3: something could not be read; 130:
    interrupted.
    """
    steady_streams()
    with told():
        code = _info(checkpoints, tensors=tensors, fingerprint=fingerprint, format=format, output=output)
    raise typer.Exit(code)


def _info(paths: list[str], *, tensors: bool, fingerprint: bool, format: str, output: Path | None) -> int:
    from samdiag.formats.summary import read_summary
    from samdiag.reports import info as report

    if format not in ("text", "json"):
        raise UsageError(f"--format {format!r} is unknown", "choose text or json")
    indent = 2 if len(paths) == 1 else None
    sink = ReportOutput(output, paths)
    codes: list[int] = []
    with contextlib.closing(sink):
        for number, path in enumerate(paths):
            try:
                summary = read_summary(path, fingerprint=fingerprint)
            except SamdiagError as error:
                codes.append(error.exit_code)
                complain(error)
                if format == "json":
                    sink.write(report.render_failure(path, error, indent=indent))
                continue
            codes.append(EXIT_OK)
            if format == "json":
                sink.write(report.render_json(summary, all_tensors=tensors, indent=indent))
            else:
                blank = "\n" if number > 0 else ""
                sink.write(blank + report.render(summary, all_tensors=tensors))
    return worst(codes)
