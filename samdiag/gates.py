"""Diagnoses → exit code: what `--fail-on` means, and which outcome outranks which."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from samdiag.errors import EXIT_FINDING, EXIT_OK, EXIT_UNDECIDED, EXIT_USAGE, UsageError
from samdiag.types import VERDICTS_BY_HARM, Diagnosis, Finding, Severity

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


def parse_fail_on(text: str | Iterable[str] | None) -> FailOn:
    """The gate that `--fail-on` or `gate.fail_on` asks for.

    Args:
        text: verdict ids (`"bounce,unstable"` or a list of such texts); `"any"`: every finding of severity error or
            warning, thus none of `minimum`, `descending`, `saddle-escaping`, which are information; `"never"`: no
            finding; None: every finding of severity error.

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
    verdicts = frozenset(_known(name) for name in names if name != ANY)
    return FailOn(verdicts=verdicts, severities=FAIL_ON_ANY.severities if ANY in names else frozenset())


def exit_code(diagnoses: Sequence[Diagnosis], fail_on: FailOn) -> int:
    """The exit code of a run over `diagnoses`: 1 outranks 3, and 3 outranks 0, because a gap is not a pass.

    1: any finding (not only a verdict) is in `fail_on`. 3: some checkpoint failed or is `undecided`, or there was none.
    2: every checkpoint failed, and each for a usage error; where one of several did, the rest were examined, and the
    gap that it leaves is a 3. 0: otherwise.
    """
    if any(fail_on.hits(finding) for diagnosis in diagnoses for finding in diagnosis.findings):
        return EXIT_FINDING
    return worst(_outcome(diagnosis) for diagnosis in diagnoses)


def worst(codes: Iterable[int]) -> int:
    """The exit code that several come to: 1 outranks 3, 3 outranks 0; 2 only where all are 2, 3 where there is none."""
    found = set(codes)
    if EXIT_FINDING in found:
        return EXIT_FINDING
    return found.pop() if found in ({EXIT_OK}, {EXIT_USAGE}) else EXIT_UNDECIDED


def _outcome(diagnosis: Diagnosis) -> int:
    """What one checkpoint contributes when no finding fails the gate: 0, 2 or 3."""
    if diagnosis.failure is not None:
        return EXIT_USAGE if diagnosis.failure.exit_code == EXIT_USAGE else EXIT_UNDECIDED
    return EXIT_UNDECIDED if diagnosis.verdict == "undecided" else EXIT_OK


def _known(name: str) -> str:
    if name in VERDICTS_BY_HARM:
        return name
    close = difflib.get_close_matches(name, (*VERDICTS_BY_HARM, ANY, NEVER), n=1)
    todo = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(VERDICTS_BY_HARM)}, any, never"
    raise UsageError(f"--fail-on names an unknown verdict: {name!r}", todo)
