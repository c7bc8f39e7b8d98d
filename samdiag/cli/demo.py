"""`samdiag demo`: the papers' own experiments, run now, beside what they published and what theory expects."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samdiag.cli import completion
from samdiag.cli.streams import (
    report_width,
    say,
    steady_streams,
    told,
    wants_color,
)
from samdiag.errors import EXIT_FINDING, EXIT_OK, UsageError
from samdiag.registry import DEMOS
from samdiag.suggesting import did_you_mean

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from samdiag.gallery.experiment import Experiment, Outcome, Row

FORMATS = ("text", "json")
GAP = 2  # blanks between columns
MARKS = {True: ("✔ yes", "green"), False: ("✖ no", "red"), None: ("", "")}

demo = typer.Typer(
    invoke_without_command=True,
    subcommand_metavar="",
    context_settings={"allow_interspersed_args": True},  # options may follow NAME
)


@demo.callback()
def run_demo(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help=f"{', '.join(DEMOS)}. Without a name they are listed.",
            autocompletion=completion.demos,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for pictures and checkpoints. (default: demo/NAME)")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of whatever the experiment draws at random.")] = 0,
    format: Annotated[str, typer.Option("--format", help="text or json.", autocompletion=completion.formats)] = "text",
) -> None:
    """Run one of the papers' experiments: published, expected and measured numbers side by side, and the picture.

    Exit code 0: every row with an expectation agrees; 1: one does not; 2: usage; 3: a checkpoint could not be examined;
    130: interrupted.
    """
    steady_streams()
    with told():
        _check_format(format)
        if name is None:
            _write(_list(format))
            code = EXIT_OK
        else:
            code = _run(_found(name), out, seed, format)
    raise typer.Exit(code)


def perform(name: str, out: Path, *, seed: int = 0) -> Outcome:
    """The outcome of the demo called `name`, its files written to `out`, which is made.

    Raises:
        UsageError: there is no such demo, or `out` cannot be written.
        SamdiagError: whatever the demo itself raises.
    """
    experiment = _found(name)
    try:
        out.mkdir(parents=True, exist_ok=True)
        from samdiag.gallery.training import one_thread

        with _telling(experiment.name) as tell, one_thread():  # networks this small only wait for a second one
            return experiment.run(out, seed, tell)
    except OSError as error:
        what = f"cannot write to {out}: {error.strerror or error}"
        raise UsageError(what, "give another folder with --out") from error


def _run(experiment: Experiment, out: Path | None, seed: int, format: str) -> int:
    folder = out or Path("demo") / experiment.name
    outcome = perform(experiment.name, folder, seed=seed)
    if format == "json":
        _write(json.dumps(as_dict(experiment, outcome, seed), indent=2, ensure_ascii=False))
    else:
        _write(render(experiment, outcome, width=report_width(), color=wants_color(sys.stdout)))
    return EXIT_OK if agrees(outcome) else EXIT_FINDING


def agrees(outcome: Outcome) -> bool:
    """Whether every row with an expectation agrees."""
    return False not in [_said(row) for row in outcome.rows]


def _said(row: Row) -> bool | None:
    """`row.agrees` as Python's own bool: numpy's is neither `True` nor JSON."""
    return None if row.agrees is None else bool(row.agrees)


def as_dict(experiment: Experiment, outcome: Outcome, seed: int) -> dict[str, object]:
    """The outcome as plain data, for --format json."""
    from dataclasses import asdict

    return {
        "format_version": 1,
        "demo": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "seed": seed,
        "agrees": agrees(outcome),
        "rows": [{**asdict(row), "agrees": _said(row)} for row in outcome.rows],
        "remarks": list(outcome.remarks),
        "pictures": [str(path) for path in outcome.pictures],
        "checkpoints": [str(path) for path in outcome.checkpoints],
    }


def render(experiment: Experiment, outcome: Outcome, *, width: int, color: bool) -> str:
    """The outcome as text, at most `width` columns wide where paths allow it, without a final newline."""
    from samdiag.reports import text
    from samdiag.reports.canvas import draw

    parts = [text.render(diagnosis, width=width, color=color) for diagnosis in outcome.diagnoses]
    parts.append(draw(*_head(experiment, outcome), width=width, color=color))
    parts.append(draw(_table(outcome.rows, width), width=width, color=color))
    if outcome.remarks:
        parts.append(draw(*(_item(remark) for remark in outcome.remarks), width=width, color=color))
    parts.append(draw(*_files(outcome), width=width, color=color, soft_wrap=True))
    return "\n\n".join(parts)


def _head(experiment: Experiment, outcome: Outcome) -> list[RenderableType]:
    from samdiag.reports.canvas import text

    asked = [said for said in map(_said, outcome.rows) if said is not None]
    right, good = sum(asked), all(asked)
    line = text(f"{'✔' if good else '✖'} {right} of {len(asked)} agree", f"bold {'green' if good else 'red'}")
    return [text(experiment.title, "bold"), line, text(experiment.source, "dim")]


def _table(rows: tuple[Row, ...], width: int) -> RenderableType:
    """published | expected | measured | agrees; a column that no row fills is left out."""
    from rich.table import Table

    from samdiag.reports.canvas import text

    table = Table(box=None, padding=(0, GAP, 0, 0), show_edge=False, header_style="bold underline")
    columns: dict[str, Callable[[Row], Text]] = {
        "quantity": lambda row: text(row.quantity),
        "published": lambda row: text(row.published, "dim"),
        "expected": _expected,
        "measured": lambda row: text(row.measured, "bold"),
        "agrees": lambda row: text(*MARKS[_said(row)]),
    }
    shown = {name: cell for name, cell in columns.items() if any(cell(row).plain for row in rows)}
    cells = [[cell(row) for cell in shown.values()] for row in rows]
    texts = [[name, *(row[i].plain for row in cells)] for i, name in enumerate(shown)]
    for name, wide in zip(shown, _fitted(texts, width - GAP * len(shown)), strict=True):
        table.add_column(name, overflow="fold", width=wide)
    for row in cells:
        table.add_row(*row)
    return table


def _fitted(columns: list[list[str]], room: int) -> list[int]:
    """Column widths that sum to `room` at most, taken from the widest; words are broken only as a last resort."""
    widths = [max(map(len, column)) for column in columns]
    words = [max(len(word) for text in column for word in text.split(" ")) for column in columns]
    while sum(widths) > room and max(widths) > 1:
        spare = [wide if wide > word else 0 for wide, word in zip(widths, words, strict=True)]
        chosen = spare if any(spare) else widths
        widths[chosen.index(max(chosen))] -= 1
    return widths


def _expected(row: Row) -> Text:
    """What was expected and, where there is room for error, how much."""
    from rich.text import Text

    return Text.assemble(row.expected, (f" {row.tolerance}" if row.tolerance.startswith("±") else "", "dim"))


def _item(remark: str) -> RenderableType:
    from rich.table import Table

    from samdiag.reports.canvas import text

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(text("·"), text(remark))
    return grid


def _files(outcome: Outcome) -> list[RenderableType]:
    from samdiag.reports.canvas import text
    from samdiag.reports.escape import printable

    lines = [text(f"picture     {printable(path)}") for path in outcome.pictures]
    lines += [text(f"checkpoint  {printable(path)}") for path in outcome.checkpoints]
    if outcome.checkpoints:
        names = " ".join(printable(shlex.quote(str(path))) for path in outcome.checkpoints)
        lines.append(text(f"look closer: samdiag inspect {names}", "dim"))
    return list(lines)


def _list(format: str) -> str:
    """All demos, one line each."""
    from samdiag.reports.canvas import draw, text

    found = [_found(name) for name in DEMOS]
    if format == "json":
        entries = [{"demo": each.name, "title": each.title, "source": each.source} for each in found]
        return json.dumps(entries, indent=2, ensure_ascii=False)
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    for each in found:
        grid.add_row(text(each.name, "bold"), text(each.title))
    return draw(
        grid, text("\nsamdiag demo NAME runs one of them.", "dim"), width=report_width(), color=wants_color(sys.stdout)
    )


def _found(name: str) -> Experiment:
    """The experiment called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in DEMOS:
        from samdiag.quoting import quoted

        what = f"there is no demo named {quoted(name)}{did_you_mean(name, DEMOS)}"
        raise UsageError(what, f"choose one of: {', '.join(DEMOS)}")
    from samdiag.registry import load

    experiment: Experiment = load(DEMOS[name])
    return experiment


def _check_format(format: str) -> None:
    if format not in FORMATS:
        near = did_you_mean(format, FORMATS)
        raise UsageError(f"--format {format!r} is unknown{near}", f"choose {' or '.join(FORMATS)}")


@contextmanager
def _telling(name: str) -> Iterator[Callable[[str], None]]:
    """What takes a line of progress: beside a spinner on a terminal, else on stderr."""
    if not sys.stderr.isatty():
        yield say
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(name), spinner="dots") as status:
        yield lambda line: status.update(Text(line))


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
