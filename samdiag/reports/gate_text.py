"""What the gate makes of a single checkpoint, below its text report."""

from __future__ import annotations

from samdiag.outcomes import Hit, HitKind, Outcome
from samdiag.reports.canvas import draw, text
from samdiag.reports.escape import printable

_INDENT = "  "


def render(outcome: Outcome, *, width: int = 100, color: bool = True) -> str:
    """The requirements that are broken or left open, what the baseline accepts, and a spec that is not trusted.

    Findings that fail the gate stand in the report already. Empty where there is nothing else to say.
    """
    said = [("✖", "bold red", hit) for hit in outcome.hits if hit.kind is not HitKind.FINDING]
    said += [("?", "bold magenta", gap) for gap in outcome.gaps]
    said += [("▲", "bold yellow", hit) for hit in outcome.accepted]
    if not said:
        return ""
    lines = [draw(text("Gate", "bold"), width=width, color=color)]
    for mark, style, hit in said:
        accepted = " (accepted by the baseline)" if mark == "▲" else ""
        lines.append(_line(mark, style, hit, accepted, width, color))
    return "\n".join(lines)


def _line(mark: str, style: str, hit: Hit, accepted: str, width: int, color: bool) -> str:
    from rich.padding import Padding
    from rich.text import Text

    line = Text.assemble((f"{mark} ", style), printable(f"{hit.name}: {hit.message}{accepted}"))
    return draw(Padding(line, (0, 0, 0, len(_INDENT))), width=width, color=color)
