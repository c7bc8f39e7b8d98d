"""A whole spectrum for a terminal: what it says about SAM, then ends, sums, counts and a histogram with intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from samdiag.reports.canvas import MIN_WIDTH, draw
from samdiag.reports.escape import printable
from samdiag.reports.numbers import count, estimate, estimate_line, number, seconds
from samdiag.reports.text import grid, indented, title
from samdiag.spectral import Density, EigenvalueCount, MatrixSpectrum, SpectralReport
from samdiag.types import Estimate

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

NAMES = {"hessian": "Hessian", "ggn": "Gauss-Newton matrix", "fisher": "Empirical Fisher matrix"}
BAR = 30  # columns of the longest bar
SURE, LIKELY, POSSIBLE = "█", "▓", "░"
SIDES = {"below": "below", "within": "within ±", "above": "above"}


def render(report: SpectralReport, *, width: int = 100, color: bool = True) -> str:
    """The spectrum as text, at most `width` columns wide, without a final newline; a failure is two lines."""
    from rich.text import Text

    width = max(width, MIN_WIDTH)
    if report.failure is not None:
        where = f"{printable(report.checkpoint.path)}: " if report.checkpoint else ""
        lines = Text(f"✖ {where}{printable(report.failure.what)}\n→ {printable(report.failure.todo)}")
        return draw(lines, width=width, color=color, soft_wrap=True)
    sections = [_head(report)]
    for one in report.matrices:
        sections += [_numbers(one), _counts(one), _histogram(one)]
    sections += [_layers(report), _notes(report), _footer(report)]
    return "\n\n".join(draw(*section, width=width, color=color) for section in sections if section)


def sentence(report: SpectralReport) -> str:
    """Both ends, and how many directions SAM reverses where rho is known."""
    if not report.matrices:
        return ""
    first = report.matrices[0]
    text = (
        f"{NAMES[first.matrix]}: {count(first.num_params)} eigenvalues from {estimate_line(first.lambda_min)} "
        f"to {estimate_line(first.lambda_max)}."
    )
    reversed_ones = next((c for c in first.counts if c.side == "below" and "ρ_eff" in c.meaning), None)
    if reversed_ones is not None:
        none, one = reversed_ones.high == 0, reversed_ones.low == reversed_ones.high == 1
        number_of = "None" if none else interval(reversed_ones)
        lie = "lies" if none or one else "lie"
        threshold = number(reversed_ones.threshold)
        text += f" {number_of} {lie} below −1/ρ_eff = {threshold}, where SAM reverses the direction."
    return text


def interval(found: EigenvalueCount) -> str:
    """`281 (267 … 296)`; only the number where it is certain."""
    return _interval(found.count, found.low, found.high)


def _interval(value: float, low: float, high: float) -> str:
    if low == high:
        return _whole(low)
    return f"{_whole(min(max(value, low), high))} ({_whole(low)} … {_whole(high)})"


def _whole(value: float) -> str:
    return count(round(value))


def _head(report: SpectralReport) -> list[RenderableType]:
    from rich.text import Text

    path = printable(report.checkpoint.path) if report.checkpoint else ""
    lines: list[RenderableType] = [Text(sentence(report), "bold")]
    if report.patterns:
        chosen = f"{len(report.parameters)} parameter tensor(s), the others held fixed"
        lines.append(Text(f"--params {printable(', '.join(report.patterns))}: {chosen}"))
    return [*lines, Text(path, "dim")]


def _numbers(one: MatrixSpectrum) -> list[RenderableType]:
    from rich.text import Text

    table = grid(3)
    for label, measured, remark in _rows(one):
        value, error = estimate(measured)
        mark = "" if measured.converged else "not converged; " if remark else "not converged"
        table.add_row(
            Text(label),
            Text.assemble((value, "bold"), (f" {error}" if error else "", "dim")),
            Text(mark + remark, "dim"),
        )
    what = "complete" if one.complete else f"{count(one.num_products)} products"
    return [title(NAMES[one.matrix], f"{count(one.num_params)} parameters, {what}"), indented(table)]


def _rows(one: MatrixSpectrum) -> list[tuple[str, Estimate, str]]:
    traces = one.traces
    bound = ""
    if one.lambda_min_bound is not None and not one.complete:
        bound = f"above {number(one.lambda_min_bound)} with probability 0.99"
    root = _root(traces.squared_norm)
    rows = [
        ("λ_max", one.lambda_max, ""),
        ("λ_min", one.lambda_min, bound),
        ("trace", traces.trace, ""),
        ("‖·‖_F", root, "root of the sum of squared eigenvalues"),
    ]
    if traces.absolute is not None:
        rows.append(("Σ|λ|", traces.absolute, ""))
    if traces.effective_rank is not None:
        rows.append(("effective rank", traces.effective_rank, "(Σ|λ|)²/Σλ²"))
    return rows


def _root(squared: Estimate) -> Estimate:
    value = math.sqrt(max(squared.value or 0.0, 0.0))
    return Estimate(value=value, error=squared.error / (2 * value) if value > 0 else 0.0)


def _counts(one: MatrixSpectrum) -> list[RenderableType]:
    from rich.text import Text

    if not one.counts:
        return []
    table = grid(3)
    for found in one.counts:
        where = f"{SIDES[found.side]}{'' if found.side == 'within' else ' '}{number(found.threshold)}"
        table.add_row(Text(where), Text(interval(found), "bold"), Text(found.meaning, "dim"))
    remark = "" if one.complete else "95 % intervals over the random probes, for any spectrum"
    return [title("How many eigenvalues", remark), indented(table)]


def _histogram(one: MatrixSpectrum) -> list[RenderableType]:
    from rich.text import Text

    density = one.density
    if density is None:
        return []
    table = grid(3)
    table.columns[0].justify = "right"
    largest = max((*density.counts, *density.counts_low, 1.0))
    for i, (low, value, high) in enumerate(zip(density.counts_low, density.counts, density.counts_high, strict=True)):
        edges = f"{number(density.edges[i], digits=2)} … {number(density.edges[i + 1], digits=2)}"
        table.add_row(Text(edges), _bar(low, value, high, largest), Text(_interval(value, low, high), "dim"))
    return [title("Spectrum", _remark(density)), indented(table)]


def _bar(low: float, value: float, high: float, largest: float) -> Text:
    """Solid up to the interval's lower end, half up to the estimate, light up to its upper end; log scale."""
    from rich.text import Text

    columns = [round(BAR * math.log1p(v) / math.log1p(largest)) for v in (low, value, high)]
    sure, likely, possible = columns[0], max(columns[0], columns[1]), max(columns[0], columns[1], columns[2])
    possible = min(possible, BAR)
    return Text(SURE * sure + LIKELY * (likely - sure) + POSSIBLE * (possible - likely))


def _remark(density: Density) -> str:
    if not density.num_probes:
        return "every eigenvalue is known; log scale"
    return (
        f"{density.num_probes} probes of {density.num_steps} steps, {density.num_known} eigenvalues known; log scale; "
        f"{SURE} at least, {POSSIBLE} at most (95 %)"
    )


def _layers(report: SpectralReport) -> list[RenderableType]:
    from rich.text import Text

    if not report.layers:
        return []
    table = grid(5)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(*(Text(head, "dim") for head in ("module", "parameters", "λ_max", "λ_min", "trace")))
    for layer in report.layers:
        table.add_row(
            Text(printable(layer.module) or "(the model itself)"),
            Text(count(layer.num_params)),
            *(Text(estimate_line(e)) for e in (layer.lambda_max, layer.lambda_min, layer.trace)),
        )
    return [title("Layers", "the Hessian's diagonal blocks, the other parameters held fixed"), indented(table)]


def _notes(report: SpectralReport) -> list[RenderableType]:
    from rich.text import Text

    warnings = [Text.assemble(("▲ Warning: ", "yellow"), printable(w)) for w in report.warnings]
    return [*warnings, *(indented(Text(printable(note), "dim")) for note in report.notes)]


def _footer(report: SpectralReport) -> list[RenderableType]:
    from rich.text import Text

    products = sum(one.num_products for one in report.matrices) + sum(layer.num_products for layer in report.layers)
    parts = [
        f"loss {estimate_line(report.loss)}" if report.loss else "",
        f"|g| {estimate_line(report.grad_norm)}" if report.grad_norm else "",
        f"{count(report.num_samples)} samples",
        f"{count(products)} products",
        seconds(sum(report.timings.values())),
        f"samdiag {report.samdiag_version}",
    ]
    parts += [f"{printable(name)} {printable(value)}" for name, value in report.environment.items()]
    return [Text(" · ".join(part for part in parts if part), "dim")]
