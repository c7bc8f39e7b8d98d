"""`samdiag schema`: the JSON Schema of the report."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from samdiag.cli import completion
from samdiag.cli.streams import complain, reader_may_leave
from samdiag.errors import UsageError
from samdiag.suggesting import did_you_mean


def schema(
    kind: Annotated[
        str, typer.Argument(help="report (of inspect), sweep or spectrum.", autocompletion=completion.schemas)
    ] = "report",
) -> None:
    """Print the JSON Schema of the JSON report of `inspect`, `sweep` or `spectrum`."""
    from samdiag.reports.schema import report_schema
    from samdiag.spectral import SpectralReport
    from samdiag.sweep import Sweep
    from samdiag.types import Diagnosis

    kinds: dict[str, type[Diagnosis] | type[Sweep] | type[SpectralReport]] = {
        "report": Diagnosis,
        "sweep": Sweep,
        "spectrum": SpectralReport,
    }
    if kind not in kinds:
        near = did_you_mean(kind, kinds)
        error = UsageError(f"there is no schema named {kind!r}{near}", f"choose {', '.join(kinds)}")
        complain(error)
        raise typer.Exit(error.exit_code)
    with reader_may_leave():
        sys.stdout.write(json.dumps(report_schema(kinds[kind]), indent=2, ensure_ascii=False) + "\n")
        sys.stdout.flush()
