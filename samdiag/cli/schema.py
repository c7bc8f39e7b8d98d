"""`samdiag schema`: the JSON Schema of the report."""

from __future__ import annotations

import json
import sys

from samdiag.cli.streams import reader_may_leave


def schema() -> None:
    """Print the JSON Schema of the JSON report."""
    from samdiag.reports.schema import report_schema

    with reader_may_leave():
        sys.stdout.write(json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n")
        sys.stdout.flush()
