"""`--fail-on`: which findings fail a gate."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from samdiag.errors import UsageError
from samdiag.types import VERDICTS_BY_HARM, Finding, Severity

ANY = "any"
NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailOn:
    """Which findings fail a gate: those of a listed verdict or severity, unless a test of the run contradicts them."""

    verdicts: frozenset[str] = frozenset()
    severities: frozenset[Severity] = frozenset()

    def hits(self, finding: Finding) -> bool:
        """True when `finding` fails the gate."""
        listed = finding.verdict in self.verdicts or finding.severity in self.severities
        return listed and not finding.contradicted


FAIL_ON_DEFAULT = FailOn(severities=frozenset({Severity.ERROR}))
FAIL_ON_ANY = FailOn(severities=frozenset({Severity.ERROR, Severity.WARNING}))
FAIL_ON_NEVER = FailOn()

# a severity means that one or a worse one; no `info`, because every checkpoint has a finding of some kind
WORDS = {
    ANY: FAIL_ON_ANY.severities,
    "warning": FAIL_ON_ANY.severities,
    "error": FAIL_ON_DEFAULT.severities,
}


def parse_fail_on(text: str | Iterable[str] | None) -> FailOn:
    """The gate that `--fail-on` or `gate.fail_on` asks for.

    Args:
        text: verdict ids (`"bounce,unstable"` or a list of such texts); `"error"`: every finding of severity error;
            `"warning"` or `"any"`: every finding of severity error or warning, thus none of `minimum`, `descending`,
            `saddle-escaping`, which are information; `"never"`: no finding; None: every finding of severity error.

    Raises:
        UsageError: an unknown verdict id, an empty list, or `never` together with something else.
    """
    if text is None:
        return FAIL_ON_DEFAULT
    parts = [text] if isinstance(text, str) else list(text)
    names = [name.strip().lower() for part in parts for name in part.split(",") if name.strip()]
    if not names:
        raise UsageError("--fail-on is empty", "list verdict ids, or write `any` or `never`")
    if NEVER in names:
        if set(names) != {NEVER}:
            raise UsageError("--fail-on has `never` together with other entries", "write `never` alone, or drop it")
        return FAIL_ON_NEVER
    severities = (WORDS[name] for name in names if name in WORDS)
    return FailOn(
        verdicts=frozenset(_known(name) for name in names if name not in WORDS),
        severities=frozenset[Severity]().union(*severities),
    )


def _known(name: str) -> str:
    if name in VERDICTS_BY_HARM:
        return name
    close = difflib.get_close_matches(name, (*VERDICTS_BY_HARM, *WORDS, NEVER), n=1)
    todo = f"did you mean `{close[0]}`?" if close else f"known: {', '.join((*VERDICTS_BY_HARM, *WORDS, NEVER))}"
    raise UsageError(f"--fail-on names an unknown verdict: {name!r}", todo)
