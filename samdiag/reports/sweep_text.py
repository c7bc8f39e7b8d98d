"""A scan over rho for a terminal: what is safe, what is dangerous, then one line per radius."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from samdiag.reports.canvas import MIN_WIDTH, draw
from samdiag.reports.escape import printable
from samdiag.reports.numbers import count, estimate, number, seconds
from samdiag.reports.text import ICONS, SEVERITY_STYLES, grid, indented, title
from samdiag.sweep import Sweep, SweepPoint

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def render(sweep: Sweep, *, width: int = 100, color: bool = True) -> str:
    """The scan as text, at most `width` columns wide, without a final newline; a failure is two lines."""
    from rich.text import Text

    width = max(width, MIN_WIDTH)
    if sweep.failure is not None:
        where = f"{printable(sweep.checkpoint.path)}: " if sweep.checkpoint else ""
        lines = Text(f"✖ {where}{printable(sweep.failure.what)}\n→ {printable(sweep.failure.todo)}")
        return draw(lines, width=width, color=color, soft_wrap=True)
    sections = (_head(sweep), _dangers(sweep), _points(sweep), _bounds(sweep), _notes(sweep), _footer(sweep))
    return "\n\n".join(draw(*section, width=width, color=color) for section in sections if section)


def safe_sentence(sweep: Sweep) -> str:
    """The largest safe rho and what binds it, in one sentence."""
    safe = sweep.safe
    if safe is None:
        return ""
    if safe.verdict is None:
        return f"No danger up to rho {number(safe.value)}, the largest scanned."
    found = f"{safe.verdict} from rho {number(safe.above)}"
    if safe.value is None:
        tightest = f"; theory allows rho ≤ {number(safe.bounds[0][1])} ({safe.bounds[0][0]})" if safe.bounds else ""
        return f"No scanned rho is safe: {found}, the smallest scanned{tightest}."
    return f"Largest safe rho: {number(safe.value)}, bound by {safe.binding} ({found})."


def _head(sweep: Sweep) -> list[RenderableType]:
    from rich.text import Text

    path = printable(sweep.checkpoint.path) if sweep.checkpoint else ""
    present = ""
    if sweep.present_rho is not None:
        here = min(sweep.points, key=lambda p: abs(math.log(p.rho / (sweep.present_rho or p.rho))))
        present = f"Present rho: {number(sweep.present_rho)} (nearest scanned: {number(here.rho)}, {here.verdict})."
    return [Text(safe_sentence(sweep), "bold"), *([Text(present)] if present else []), Text(path, "dim")]


def _dangers(sweep: Sweep) -> list[RenderableType]:
    from rich.text import Text

    if not sweep.dangers:
        return []
    table = grid(3)
    for danger in sweep.dangers:
        style = SEVERITY_STYLES[danger.severity]
        span = number(danger.low) if danger.low == danger.high else f"{number(danger.low)} … {number(danger.high)}"
        table.add_row(
            Text(ICONS[danger.severity], f"bold {style}"),
            Text(f"rho {span}"),
            Text.assemble((danger.verdict, style), ": ", printable(danger.message)),
        )
    return [title("Dangerous intervals"), indented(table)]


def _points(sweep: Sweep) -> list[RenderableType]:
    from rich.text import Text

    batches = any(p.batch_ratio is not None for p in sweep.points)
    heads = ["", "rho", "‖g+‖/‖g‖", *(["m-SAM's"] if batches else []), "cosine", "f(x+) − f(x)", "ρ_eff", "kept escape"]
    table = grid(len(heads) + 1)
    for column in table.columns[1 : len(heads)]:
        column.justify = "right"
    table.add_row(*(Text(head, "dim") for head in (*heads, "verdict")))
    for point in sweep.points:
        style = SEVERITY_STYLES[point.severity]
        cells = [number(point.rho), _brief(point.gradient_ratio.value)]
        cells += [_brief(point.batch_ratio.value if point.batch_ratio else None)] if batches else []
        cells += [_brief(point.gradient_cosine.value), _change(point), number(point.effective_radius), _kept(point)]
        table.add_row(Text(ICONS[point.severity], style), *(Text(cell) for cell in cells), Text(point.verdict, style))
    return [title("Every radius", "one spectrum, the gradient at each radius"), indented(_tight(table))]


def _tight(table: Table) -> Table:
    table.padding = (0, 2, 0, 0)
    return table


def _brief(value: float | None) -> str:
    return "–" if value is None else number(value, digits=3)


def _change(point: SweepPoint) -> str:
    value, error = estimate(point.loss_change)
    significant = point.loss_change.spread() > 1e-3 * abs(point.loss_change.value or 0.0)
    return f"{value} {error}" if error and significant else number(point.loss_change.value, digits=3)


def _kept(point: SweepPoint) -> str:
    share = point.retained_escape_rate
    return "–" if share is None else f"{100 * share:.0f} %"


def _bounds(sweep: Sweep) -> list[RenderableType]:
    from rich.text import Text

    if sweep.safe is None or not sweep.safe.bounds:
        return []
    table = grid(2)
    for name, value in sweep.safe.bounds:
        table.add_row(Text(name), Text(f"rho ≤ {number(value)}"))
    remark = "docs/theory.md D1; the trap at the gradient that lasts, whether or not leaving is worth it"
    return [title("Theory's bounds here", remark), indented(table)]


def _notes(sweep: Sweep) -> list[RenderableType]:
    from rich.text import Text

    warnings = [Text.assemble(("▲ Warning: ", "yellow"), printable(w)) for w in sweep.warnings]
    return [*warnings, *(indented(Text(printable(note), "dim")) for note in sweep.notes)]


def _footer(sweep: Sweep) -> list[RenderableType]:
    from rich.text import Text

    parts = [
        f"{count(sweep.num_samples)} samples",
        f"{count(sweep.num_products)} Hessian products",
        f"{count(sweep.num_gradients)} gradients for {len(sweep.points)} radii",
        seconds(sum(sweep.timings.values())),
        f"samdiag {sweep.samdiag_version}",
    ]
    parts += [f"{printable(name)} {printable(value)}" for name, value in sweep.environment.items()]
    return [Text(" · ".join(parts), "dim")]
