"""Remarks of the evidence table that are worked out from the settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from samdiag.reports.evidence import evidence_rows

from ..verdicts.samples import measurements


@pytest.mark.parametrize(
    ("changes", "edge"),
    [
        ({"momentum": 0.5}, "30"),  # 2(1 + gamma)/eta
        ({"momentum": 0.5, "nesterov": True}, "15"),  # 2(1 + gamma)/(1 + 2 gamma)/eta
        ({"momentum": 0.5, "dampening": 0.5}, "60"),  # eta halved
    ],
)
def test_the_edge_is_that_of_the_iteration_that_is_run(changes: dict[str, float], edge: str) -> None:
    rows = evidence_rows(replace(measurements(), lr=0.1, **changes))
    [row] = [row for row in rows if "λ_max" in row.label]
    assert f"SGD's step edge: {edge}" in row.note
