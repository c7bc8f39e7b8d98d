"""A treatment for a terminal: what is applied as it goes; in the end every round, what was written, what is next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from samdiag.remedies import Phase
from samdiag.reports.canvas import MIN_WIDTH, draw
from samdiag.reports.escape import printable
from samdiag.reports.numbers import count, number, seconds
from samdiag.reports.text import grid, indented, title
from samdiag.reports.words import words_for
from samdiag.treatment import Outcome, Recipe, Round, State, Treatment

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


def applied(before: State, phases: Sequence[Phase], start: Recipe) -> str:
    """What a round treats and with what, in one line."""
    return f"{before.verdict} at loss {number(before.loss)}: {described(phases, start)}"


def described(phases: Sequence[Phase], start: Recipe, *, steps: bool = True) -> str:
    """The phases in words, each with what it changes and, where they are wanted, its steps."""
    parts, now = [], start
    for phase in phases:
        parts.append(_changes(phase, now, _begun(phase, start)) + (f" for {phase.steps} steps" if steps else ""))
        now = replace(_begun(phase, start), rho=phase.last_rho)
    return ", then ".join(parts)


def _begun(phase: Phase, start: Recipe) -> Recipe:
    """The settings at the first step of a phase: what it leaves open is as it was before the round."""
    return replace(start, rho=phase.rho, **phase.changes)


def _changes(phase: Phase, now: Recipe, new: Recipe) -> str:
    end = phase.rho_end
    if new.rho == 0 and not end:
        parts = ["plain SGD (rho 0)"]
    else:
        parts = [_change("rho", now.rho, new.rho) if now.rho > 0 else f"SAM at rho {number(new.rho)}"]
    if end is not None and end != new.rho:
        parts[0] += f" … {number(end)}"
    parts += [_change("momentum", now.momentum, new.momentum)] if new.momentum != now.momentum else []
    parts += [_change("lr", now.lr, new.lr)] if new.lr != now.lr else []
    parts += [_sizes("batch size", now.batch_size, new.batch_size)] if new.batch_size != now.batch_size else []
    parts += [_sizes("micro-batch", now.micro_batch, new.micro_batch)] if new.micro_batch != now.micro_batch else []
    return ", ".join(parts)


def _change(name: str, old: float, new: float) -> str:
    return f"{name} {number(new)}" if number(old) == number(new) else f"{name} {number(old)} → {number(new)}"


def _sizes(name: str, old: int | None, new: int | None) -> str:
    whole = "all" if name == "batch size" else "the batch"
    return f"{name} {whole if old is None else old} → {whole if new is None else new}"


def effect(entry: Round) -> str:
    """What a round did, in one line."""
    took = f"{entry.steps} steps, {seconds(entry.seconds)}"
    if entry.diverged:
        return f"{entry.note} ({took})"
    moved = f"loss {number(entry.before.loss)} → {number(entry.loss_after)} ({took})"
    parts = [moved, *([f"verdict now: {entry.verdict_after}"] if entry.verdict_after else [])]
    return "; ".join([*parts, *([entry.note] if entry.note else [])])


# ---------------------------------------------------------------- the report


def render(treatment: Treatment, *, width: int = 100, color: bool = True) -> str:
    """The treatment as text, at most `width` columns wide where paths allow it, without a final newline."""
    sections = (_head, _rounds, _next, _files, _notes, _footer)
    drawn = []
    for section in sections:
        parts = [
            draw(*lines, width=max(width, MIN_WIDTH), color=color, soft_wrap=soft)
            for lines, soft in section(treatment)
            if lines
        ]
        drawn += ["\n".join(parts)] if parts else []
    return "\n\n".join(drawn)


Section = list[tuple[list["RenderableType"], bool]]  # lines, and whether they may be longer than the terminal is wide
STYLES = {
    Outcome.RESCUED: ("✔", "green"),
    Outcome.NOTHING: ("✔", "green"),
    Outcome.NOT_RESCUED: ("✖", "red"),
    Outcome.INTERRUPTED: ("▲", "yellow"),
    Outcome.FAILED: ("✖", "red"),
}


def _head(treatment: Treatment) -> Section:
    from rich.text import Text

    icon, style = STYLES[treatment.outcome]
    headline = Text.assemble((f"{icon} {treatment.outcome.value.upper()}", f"bold {style}"))
    if treatment.before is not None:
        headline.append(f"  {_course(treatment)}", style="dim")
    lines: list[RenderableType] = [headline, Text(_sentence(treatment.reason))]
    if treatment.checkpoint is not None:
        lines.append(Text(printable(treatment.checkpoint.path), "bold"))
    return [(lines, False)]


def _course(treatment: Treatment) -> str:
    before, after = treatment.before, treatment.after
    assert before is not None
    last = after.verdict if after is not None else "not diagnosed"
    if not treatment.rounds:
        return f"{before.verdict} · loss {number(before.loss)}"
    loss = after.loss if after is not None else treatment.rounds[-1].loss_after
    verdicts = f"{before.verdict} → {last}" if treatment.improved else before.verdict
    losses = f"loss {number(before.loss)} → {number(loss)}" if treatment.improved else f"loss {number(before.loss)}"
    rounds = "1 round" if len(treatment.rounds) == 1 else f"{len(treatment.rounds)} rounds"
    return f"{verdicts} · {losses} · {treatment.steps} steps in {rounds}"


def _sentence(words: str) -> str:
    clean = printable(words)
    return clean[:1].upper() + clean[1:] + ("" if clean.endswith(".") else ".")


def _rounds(treatment: Treatment) -> Section:
    from rich.text import Text

    if not treatment.rounds:
        return []
    heads = ("round", "verdict", "loss", "‖g‖", "λ_min", "then applied", "steps", "time")
    table = grid(len(heads))
    for column in (0, 2, 3, 4, 6, 7):
        table.columns[column].justify = "right"
        table.columns[column].no_wrap = True
    table.columns[1].no_wrap = True
    table.add_row(*(Text(head, "dim") for head in heads))
    for entry in treatment.rounds:
        done = described(entry.phases, entry.start, steps=len(entry.phases) > 1)
        what = Text(done + (f" ({entry.note})" if entry.note else ""))
        table.add_row(
            Text(str(entry.number)), *_state(entry.before), what, Text(str(entry.steps)), Text(seconds(entry.seconds))
        )
    if treatment.improved and treatment.after is not None:
        table.add_row(Text("now"), *_state(treatment.after), Text(""), Text(""), Text(""))
    return [([title("Rounds"), indented(table)], False)]


def _state(state: State) -> list[Text]:
    from rich.text import Text

    verdict = Text(printable(state.verdict), words_for(state.verdict).color)
    return [verdict, *(Text(number(v, digits=3)) for v in (state.loss, state.grad_norm, state.lambda_min.value))]


def _next(treatment: Treatment) -> Section:
    from rich.text import Text

    written, recipe = treatment.written.checkpoint, treatment.recipe
    if written is not None and treatment.outcome is not Outcome.RESCUED:
        more = "" if treatment.written.stamped else "  (model and data as for the old file)"
        again = f"  Go on from there: samdiag treat {printable(shlex.quote(written))}{more}"
        return [([title("What next"), Text(again)], True)]
    if treatment.outcome is not Outcome.RESCUED or recipe is None:
        return []
    size = "full batch" if recipe.batch_size is None else f"batch size {recipe.batch_size}"
    size += f", micro-batch {recipe.micro_batch}" if recipe.micro_batch is not None else ""
    setting = f"rho {number(recipe.rho)}, lr {number(recipe.lr)}, momentum {number(recipe.momentum)}, {size}"
    lines = [Text(f"Train on with {setting}."), Text(_safe(treatment, recipe.rho))]
    wrapped: list[RenderableType] = [title("What next"), *(indented(line) for line in lines)]
    if written is None:
        return [(wrapped, False)]
    more = "" if treatment.written.stamped else "  (model and data as for the old file)"
    command = f"  Which other rho are safe: samdiag sweep {printable(shlex.quote(written))}{more}"
    return [(wrapped, False), ([Text(command)], True)]


def _safe(treatment: Treatment, rho: float) -> str:
    """Which rho is safe at the new weights: the one that was diagnosed, and theory's tightest bound."""
    if not treatment.safe:
        return f"Safe now: rho {number(rho)}, as diagnosed; nothing measured here bounds it from above."
    name, bound = treatment.safe[0]
    if rho <= bound:
        return f"Safe now: rho {number(rho)}, as diagnosed; theory allows up to {number(bound)} ({name})."
    why = "half of SGD's escape rate is kept below it" if name == "saddle trap" else "which is strict"
    return f"Safe now: rho {number(rho)}, as diagnosed. Theory's bound is {number(bound)} ({name}: {why})."


def _files(treatment: Treatment) -> Section:
    from rich.text import Text

    written = treatment.written
    found = [("new checkpoint", written.checkpoint), ("optimizer state", written.optimizer), ("log", written.log)]
    lines = [Text(f"  {name:<16} {printable(path)}") for name, path in found if path is not None]
    if written.checkpoint is None and treatment.outcome is not Outcome.FAILED:
        why = "there is nothing to treat" if treatment.outcome is Outcome.NOTHING else "no round lowered the loss"
        lines.append(Text(f"  no checkpoint: {why}" if treatment.failure is None else "  no checkpoint"))
    return [([title("Written"), *lines], True)] if lines else []


def _notes(treatment: Treatment) -> Section:
    from rich.text import Text

    warnings = [Text.assemble(("▲ Warning: ", "yellow"), printable(w)) for w in treatment.warnings]
    return [([*warnings, *(Text(printable(note), "dim") for note in treatment.notes)], False)]


def _footer(treatment: Treatment) -> Section:
    from rich.text import Text

    seen = f"{count(treatment.num_samples)} samples" if treatment.num_samples is not None else ""
    parts = [seen, seconds(sum(treatment.timings.values())), f"samdiag {treatment.samdiag_version}"]
    return [([Text(" · ".join(part for part in parts if part), "dim")], False)]
