"""The media that a run over checkpoints is written in: name → how it is rendered, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from samdiag.errors import UsageError
from samdiag.outcomes import Outcome
from samdiag.registry import load
from samdiag.suggesting import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """A way to write a run's outcome.

    Attributes:
        whole: "module:function" from (outcomes, missing=) to the text of all of them, written at the end.
        streaming: whether a part can be written as each checkpoint is finished; `whole` then is those parts together.
    """

    whole: str
    streaming: bool = False

    def render(self, outcomes: Sequence[Outcome], *, missing: int = 0) -> str:
        """The text for all outcomes, without a final newline."""
        function = cast("Callable[..., str]", load(self.whole))
        return function(outcomes, missing=missing)


MEDIA: Mapping[str, Medium] = {
    "text": Medium(whole="samdiag.reports.media:render_text", streaming=True),
    "json": Medium(whole="samdiag.reports.media:render_json", streaming=True),
    "markdown": Medium(whole="samdiag.reports.markdown:render"),
    "junit": Medium(whole="samdiag.reports.junit:render"),
    "github": Medium(whole="samdiag.reports.github:render"),
    "sarif": Medium(whole="samdiag.reports.sarif:render"),
}


def medium(name: str, flag: str = "--format") -> Medium:
    """The medium called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in MEDIA:
        raise UsageError(f"{flag} {name!r} is unknown{did_you_mean(name, MEDIA)}", f"choose {' or '.join(MEDIA)}")
    return MEDIA[name]


def render_json(outcomes: Sequence[Outcome], *, missing: int = 0) -> str:
    """JSON Lines: one object per checkpoint. Checkpoints that were not come to have no line."""
    from samdiag.reports import json_lines

    return "\n".join(json_lines.render(outcome.diagnosis) for outcome in outcomes)


def render_text(outcomes: Sequence[Outcome], *, missing: int = 0) -> str:
    """The full report of a single checkpoint; of several the lines and the summary, in no colour."""
    from samdiag.reports import fleet_text, text

    if len(outcomes) == 1 and not missing:
        return text.render(outcomes[0].diagnosis, color=False)
    return fleet_text.render(outcomes, missing=missing)
