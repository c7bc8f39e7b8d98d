"""`--report FORMAT=PATH`: the run's outcome in further media, each file written whole when the run ends."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samdiag.cli.streams import WRITE_TODO
from samdiag.errors import CannotDecide, UsageError
from samdiag.outcomes import Outcome
from samdiag.reports.escape import printable
from samdiag.reports.github import SUMMARY_VARIABLE
from samdiag.reports.media import Medium, medium
from samdiag.whole_file import replacing, usual_mode

FLAG = "--report"
_FORM_TODO = "write FORMAT=PATH, e.g. --report junit=samdiag.xml"
_PLACE_TODO = "give --report a file in a folder that exists and is writable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFile:
    """A medium and the file it is written to."""

    medium: Medium
    path: Path

    def write(self, outcomes: Sequence[Outcome], *, missing: int = 0) -> None:
        """Replaces the file in one step; what is no regular file (a pipe, a device) is written to as it is.

        Raises:
            CannotDecide: it cannot be written, e.g. because the disk is full.
        """
        text = self.medium.render(outcomes, missing=missing)
        content = f"{text}\n" if text else ""
        target = Path(os.path.realpath(self.path))
        try:
            if target.exists() and not target.is_file():
                with target.open("w", encoding="utf-8", errors="replace") as stream:
                    stream.write(content)
                return
            with replacing(target, mode=usual_mode(target)) as beside:
                Path(beside).write_text(content, encoding="utf-8", errors="replace")
        except OSError as error:
            what = f"the report could not be written to {printable(self.path)}: {error.strerror or error}"
            raise CannotDecide(what, WRITE_TODO.replace("--output", FLAG)) from error


def parse_reports(
    asked: Sequence[str], *, inputs: Iterable[str] = (), taken: Mapping[str, Path | None] | None = None
) -> tuple[ReportFile, ...]:
    """The files that `--report` asks for.

    Args:
        asked: every value of the flag.
        inputs: files that are read and must not be written over.
        taken: flag → the file that it writes already, such as {"--output": …, "--resume": …}.

    Raises:
        UsageError: no FORMAT=PATH, an unknown format, a place that is taken or cannot be written.
    """
    read = {os.path.realpath(path) for path in inputs} if asked else set()
    owners = {os.path.realpath(path): flag for flag, path in (taken or {}).items() if path is not None}
    files = []
    for text in asked:
        found = _parse(text)
        shown = printable(found.path)
        _check_place(found.path, shown)
        place = os.path.realpath(found.path)
        if place in read:
            raise UsageError(f"{FLAG} names {shown}, which is one of the checkpoints", "give it a name of its own")
        if place in owners:
            raise UsageError(f"{owners[place]} and {FLAG} both name {shown}", "give one of the two a name of its own")
        owners[place] = f"another {FLAG}"
        files.append(found)
    return tuple(files)


def write_reports(files: Sequence[ReportFile], outcomes: Sequence[Outcome], *, missing: int = 0) -> None:
    """Writes every file, at the end of a run or where it was interrupted; one that fails does not stop the others.

    Args:
        files: of `parse_reports`.
        outcomes: of the checkpoints that were finished.
        missing: checkpoints that were not come to.

    Raises:
        CannotDecide: the first that could not be written.
    """
    errors = []
    for file in files:
        try:
            file.write(outcomes, missing=missing)
        except CannotDecide as error:
            errors.append(error)
    if errors:
        raise errors[0]


def append_step_summary(outcomes: Sequence[Outcome], *, missing: int = 0) -> None:
    """Appends the Markdown to the file that GITHUB_STEP_SUMMARY names; nothing where it names none.

    Raises:
        CannotDecide: it cannot be written.
    """
    from samdiag.reports import github

    name = os.environ.get(SUMMARY_VARIABLE)
    if not name:
        return
    try:
        with open(name, "a", encoding="utf-8", errors="replace") as stream:
            stream.write(github.summary(outcomes, missing=missing))
    except OSError as error:
        what = f"the step summary could not be written to {printable(name)}: {error.strerror or error}"
        raise CannotDecide(what, f"unset {SUMMARY_VARIABLE}, or make its file writable") from error


def _parse(text: str) -> ReportFile:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise UsageError(f"{FLAG} {printable(text)!r} is not FORMAT=PATH", _FORM_TODO)
    if path == "-":
        raise UsageError(f"{FLAG} {printable(text)} names no file", f"use --format {printable(name)} for stdout")
    return ReportFile(medium=medium(name.strip().lower(), FLAG), path=Path(path))


def _check_place(path: Path, shown: str) -> None:
    try:
        held = path if path.exists() else path.parent
        free = not path.is_dir() and path.parent.is_dir() and "\0" not in str(path) and os.access(held, os.W_OK)
    except OSError:  # a name that is too long
        free = False
    if not free:
        raise UsageError(f"cannot write {shown}", _PLACE_TODO)
