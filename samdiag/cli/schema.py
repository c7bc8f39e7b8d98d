"""`samdiag schema`: the JSON Schema of the report."""

from __future__ import annotations

import json
import sys


def schema() -> None:
    """Print the JSON Schema of the JSON report."""
    from samdiag.reports.schema import report_schema

    sys.stdout.write(json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n")
