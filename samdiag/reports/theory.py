"""The papers' formulas as printed, beside the corrected ones, with this checkpoint's numbers in them."""

from __future__ import annotations

from samdiag.reports.canvas import draw
from samdiag.reports.numbers import count, number
from samdiag.reports.text import grid, indented, title
from samdiag.theory.comparisons import Comparison, comparisons
from samdiag.types import Diagnosis, Measurements
from samdiag.verdicts.thresholds import HORIZON

FOLDINGS = 2.0


def compare(m: Measurements) -> tuple[Comparison, ...]:
    """Every comparison that these measurements allow; the diffusion rows from rest, for `steps_of` steps."""
    first = m.bottom_directions[0] if m.bottom_directions else None
    eigenvalues = [e.value for e in (*m.bottom_eigenvalues, *m.top_eigenvalues) if e.value is not None]
    return comparisons(
        eigenvalues=eigenvalues,
        radius=first.effective_radius if first else m.effective_radius,
        lr=m.step_size,
        momentum=m.momentum,
        nesterov=m.nesterov,
        weight_decay=m.weight_decay,
        batch_size=m.batch_size,
        noise=first.noise if first else None,
        steps=steps_of(m),
    )


def steps_of(m: Measurements) -> int:
    """Steps in which SGD grows by FOLDINGS e-foldings along lambda_min, at most HORIZON; later all is exponential."""
    lam = abs(m.lambda_min.value or 0.0)
    if m.step_size is None or lam == 0:
        return HORIZON
    return max(1, min(HORIZON, round(FOLDINGS * (1.0 - m.momentum) / (m.step_size * lam))))


def render(diagnosis: Diagnosis, *, width: int, color: bool) -> str:
    """The table as text, one block per formula; empty without measurements."""
    from rich.text import Text

    m = diagnosis.measurements
    if m is None:
        return ""
    rows = compare(m)
    heading = title("The papers' formulas", f"as printed, and as simulation confirms them; {count(steps_of(m))} steps")
    if not rows:
        nothing = Text("no negative eigenvalue was found: none of them says anything here", "dim")
        return draw(heading, indented(nothing), width=width, color=color)
    table = grid(3)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(Text(""), Text("as printed", "dim"), Text("corrected", "dim"))
    for row in rows:
        label = Text.assemble(row.name, (f"\n{row.paper}. {row.why}", "dim"))
        table.add_row(label, Text(_value(row.quoted)), Text(_value(row.corrected), "bold"))
    return draw(heading, indented(table), width=width, color=color)


def _value(value: float | None) -> str:
    return "–" if value is None else number(value)
