"""The list of checkpoints that a command line means, in order.

A path is a checkpoint, a folder of checkpoints that is searched, or a glob that the shell has left alone. What is named
itself is always in the list, whatever it is, so that it becomes a record with its error; what is found is in it where
its content is that of a checkpoint.

Order: the runs (folders) in natural order, "run2" before "run10"; in a run by training step as the names say it, then
by name, those without a step last. A run that the user lists himself, and in which no name says a step, stays as given.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from samdiag.errors import CannotDecide, UsageError
from samdiag.fleet import patterns
from samdiag.fleet.entries import Entry
from samdiag.formats import tree
from samdiag.formats.folder import list_folder
from samdiag.formats.refused_folders import folder_refusal
from samdiag.formats.steps import NamedStep, Unit, named_step, natural
from samdiag.formats.training_state import TRAINER_STATE
from samdiag.quoting import listed, shown

# near its beginning: the keys of a Trainer's state are sorted, and this one comes before the long log
STEP_OF_TRAINER = re.compile(rb'^\s*"global_step":\s*(\d{1,18})\s*,?\s*$', re.MULTILINE)
ALSO_DATA = ".bin"  # a suffix that data sets have as well
GIVE = "name a checkpoint, a folder of checkpoints or a glob in quotes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The diagnoses to be made, in order.

    Attributes:
        entries: one per checkpoint and seed.
        notes: what the user should know about the list, one line each.
        many: whether a list was asked for, whatever its length: several paths, a folder of checkpoints, a glob,
            --files-from or several seeds.
    """

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    many: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A path of the list, and whether the user named it himself."""

    path: str
    named: bool
    step: NamedStep | None

    @property
    def run(self) -> str:
        parent = os.path.dirname(self.path)
        return os.path.dirname(parent) if self.step is not None and self.step.in_folder else parent


@dataclass(slots=True)
class _Gathered:
    candidates: list[_Candidate] = field(default_factory=list)
    missed: list[tuple[str, UsageError]] = field(default_factory=list)  # paths that lead to nothing
    notes: list[str] = field(default_factory=list)
    many: bool = False


def list_entries(
    paths: Sequence[str],
    *,
    files_from: str | None = None,
    null: bool = False,
    match: Sequence[str] = (),
    every: int | None = None,
    last: int | None = None,
    seeds: Sequence[int] = (),
) -> Listing:
    """The entries that these arguments of a command line mean.

    Args:
        paths: checkpoints, folders and globs.
        files_from: a file of paths, one a line, "-" for stdin; each is taken as named, and no folder is searched.
        null: the paths in it end in NUL instead of a line's end.
        match: globs or /regular expressions/; a path is kept that any of them fits.
        every: of each run every so manieth, from its first on, and its last.
        last: of each run the last so many; before `every`.
        seeds: each checkpoint once per seed.

    Raises:
        UsageError: an argument is wrong, or the list is empty.
    """
    _check(paths, files_from, null=null, every=every, last=last, seeds=seeds)
    wanted = [patterns.matcher(pattern) for pattern in match]
    gathered = _gather(paths, files_from, null)
    found = _once(gathered)
    found = _matching(found, match, wanted)
    runs = _in_order(found, gathered.notes)
    kept = [candidate for run in runs for candidate in _thinned(run, every, last)]
    entries = [
        Entry(path=candidate.path, step=candidate.step.number if candidate.step else None, seed=seed)
        for candidate in kept
        for seed in (seeds or (None,))
    ]
    return Listing(entries=tuple(entries), notes=tuple(gathered.notes), many=gathered.many or len(entries) > 1)


def _check(
    paths: Sequence[str],
    files_from: str | None,
    *,
    null: bool,
    every: int | None,
    last: int | None,
    seeds: Sequence[int],
) -> None:
    if not paths and files_from is None:
        raise UsageError("no checkpoint is named", f"{GIVE}, or a list with --files-from")
    if null and files_from is None:
        raise UsageError("-0 says how the list of --files-from is written, and there is none", "add --files-from -")
    for name, value in (("--every", every), ("--last", last)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value} keeps nothing", f"give a whole number from 1 on, e.g. {name} 10")
    if any(seed < 0 for seed in seeds) or len(set(seeds)) != len(seeds):
        raise UsageError(f"--seeds {listed(seeds)} are not different whole numbers ≥ 0", "e.g. --seeds 0,1,2")


def _gather(paths: Sequence[str], files_from: str | None, null: bool) -> _Gathered:
    gathered = _Gathered(many=files_from is not None)
    for path in paths:
        _add_path(path, gathered)
    if files_from is not None:
        names = _read_names(files_from, null)
        if not names and not paths:
            what = f"--files-from {shown(files_from)} names no checkpoint: it is empty"
            raise UsageError(what, "check what wrote it, e.g. that `find` found something")
        gathered.candidates += [_candidate(name, named=True) for name in names]
    if gathered.missed and not gathered.candidates:
        raise gathered.missed[0][1]
    gathered.candidates += [_candidate(path, named=True) for path, _ in gathered.missed]
    return gathered


def _add_path(path: str, gathered: _Gathered) -> None:
    if not path:
        raise UsageError("an empty path is named", "check the variable that it came from")
    if patterns.is_glob(path):
        _add_glob(path, gathered)
    elif _is_readable_folder(path) and not tree.is_checkpoint_folder(path):
        _add_folder(path, gathered)
    else:
        gathered.candidates.append(_candidate(path, named=True))
        if os.path.isdir(path):
            _note_inside(tree.inside(path), gathered)


def _note_inside(names: Sequence[str], gathered: _Gathered) -> None:
    if names:
        what = "inside a folder that is one checkpoint, and not looked at"
        gathered.notes.append(f"{what}: {listed(names)}; name it to have it inspected")


def _is_readable_folder(path: str) -> bool:
    """Whether it is a folder that can be listed; of another, opening it says what is wrong."""
    try:
        os.scandir(path).close()
    except (OSError, ValueError):
        return False
    return True


def _add_folder(path: str, gathered: _Gathered, *, named: bool = True) -> None:
    """What is in a folder of checkpoints; nothing is a mistake where the user named it himself."""
    gathered.many = True
    found = tree.search(path)
    if named and not found.found:
        if isinstance(folder_refusal(list_folder(Path(path))), CannotDecide):
            gathered.candidates.append(_candidate(path, named=True))  # a known kind: its record says what to do
            return
        looked = f"; {listed(found.unlike, 3)}: no content of a checkpoint" if found.unlike else ""
        closed = f"; {listed([p for p, _ in found.unreadable], 3)} cannot be read" if found.unreadable else ""
        what = f"{shown(path)} holds no checkpoint, nor does any folder in it{looked}{closed}"
        gathered.missed.append((path, UsageError(what, GIVE)))
        return
    # what cannot be read, or is called like a checkpoint and is none, is a gap: its record says so
    gaps = [name for name in found.unlike if not name.endswith(ALSO_DATA)] + [name for name, _ in found.unreadable]
    gathered.candidates += [_candidate(name, named=False) for name in (*found.found, *gaps)]
    if others := [name for name in found.unlike if name.endswith(ALSO_DATA)]:
        gathered.notes.append(f"left out, as their content is that of no checkpoint: {listed(others)}")
    _note_inside(found.inside, gathered)
    if found.links_out:
        what = f"left out, as links lead out of {shown(path)}: {listed(found.links_out)}"
        gathered.notes.append(f"{what}: name them to have them inspected")


def _add_glob(pattern: str, gathered: _Gathered) -> None:
    """What a glob matches: checkpoints, files that are called so, and what lies in matching folders."""
    gathered.many = True
    before = len(gathered.candidates)
    for path in sorted(patterns.expand(pattern), key=natural):
        if not os.path.isdir(path):
            if not tree.is_beside(os.path.basename(path)) and (tree.has_suffix(path) or tree.is_checkpoint_file(path)):
                gathered.candidates.append(_candidate(path, named=False))
        elif tree.is_checkpoint_folder(path):
            gathered.candidates.append(_candidate(path, named=False))
        else:
            _add_folder(path, gathered, named=False)
    if len(gathered.candidates) == before:
        error = UsageError(f"{shown(pattern)} matches no checkpoint", "check it with `ls`; ** stands for any folders")
        gathered.missed.append((pattern, error))


def _candidate(path: str, *, named: bool) -> _Candidate:
    path = str(Path(path))  # as a record spells it: "./a.pt" is "a.pt"
    step = named_step(path)
    if step is None:
        step = _step_of_trainer(path)
    return _Candidate(path=path, named=named, step=step)


def _step_of_trainer(folder: str) -> NamedStep | None:
    """What a Trainer's state in a folder says, from its beginning alone; None of a file."""
    if tree.has_suffix(folder):
        return None
    try:
        state = tree.peek(os.path.join(folder, TRAINER_STATE))
    except (OSError, ValueError):
        return None
    found = None if state is None else STEP_OF_TRAINER.search(state.prefix)
    return None if found is None else NamedStep(number=int(found[1]), unit=Unit.STEP)


def _read_names(source: str, null: bool) -> list[str]:
    """The names in a list, byte by byte as they are; blank lines are passed over."""
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        what = f"--files-from {shown(source)} cannot be read: {reason}"
        raise UsageError(what, "give a file of paths, or - for those on stdin") from None
    if not null and b"\0" in data:
        raise UsageError(f"--files-from {shown(source)} holds NUL characters, as `find -print0` writes them", "add -0")
    if null and b"\0" not in data and b"\n" in data:
        raise UsageError(f"--files-from {shown(source)} holds lines and no NUL characters", "leave -0 out")
    lines = data.split(b"\0") if null else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return [os.fsdecode(line) for line in lines if line.strip()]


def _once(gathered: _Gathered) -> list[_Candidate]:
    """The candidates without those that are another one under a second name; which they are is noted.

    Of several names the one is kept that is no link, then one that says a step, then the first.
    """
    first: dict[object, _Candidate] = {}
    again: list[str] = []
    for candidate in gathered.candidates:
        key = _identity(candidate.path)
        known = first.setdefault(key, candidate)
        if known is candidate:
            continue
        better, other = (candidate, known) if _rank(candidate) < _rank(known) else (known, candidate)
        first[key] = better
        if other.path != better.path:
            again.append(f"{shown(other.path)} (is {shown(better.path)})")
        elif other.named and better.named:
            again.append(shown(other.path))
    if again:
        gathered.notes.append(f"inspected once, though listed again: {listed(again)}")
    return list(first.values())


def _rank(candidate: _Candidate) -> tuple[bool, bool]:
    return (os.path.islink(candidate.path), candidate.step is None)


def _identity(path: str) -> object:
    """What is the same of all names of one file or folder; of a path that leads nowhere, itself."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return os.path.normpath(path)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _matching(
    found: list[_Candidate], match: Sequence[str], wanted: Sequence[Callable[[str], bool]]
) -> list[_Candidate]:
    if not wanted:
        return found
    kept = [candidate for candidate in found if any(fits(candidate.path) for fits in wanted)]
    if not kept:
        what = f"--match {listed(match)} fits none of the {len(found)} checkpoint(s): {listed(c.path for c in found)}"
        raise UsageError(what, "a glob fits from a folder's name on to the end: 'run1/*', '*.pt'; /…/ is searched for")
    return kept


def _in_order(found: Iterable[_Candidate], notes: list[str]) -> list[list[_Candidate]]:
    """The candidates by run; the runs and each of them in order."""
    runs: dict[str, list[_Candidate]] = {}
    for candidate in found:
        runs.setdefault(candidate.run, []).append(candidate)
    as_given = all(candidate.named and candidate.step is None for run in runs.values() for candidate in run)
    ordered = list(runs) if as_given else sorted(runs, key=natural)
    mixed = [run for run in ordered if _counts_differ(runs[run])]
    if mixed:
        notes.append(f"some names count epochs and others steps, and are in the order of the numbers: {listed(mixed)}")
    return [_run_in_order(runs[run]) for run in ordered]


def _run_in_order(run: list[_Candidate]) -> list[_Candidate]:
    if all(candidate.named and candidate.step is None for candidate in run):
        return run
    return sorted(run, key=lambda c: (c.step is None, c.step.number if c.step else 0, natural(c.path)))


def _counts_differ(run: list[_Candidate]) -> bool:
    units = {candidate.step.unit is Unit.EPOCH for candidate in run if candidate.step}
    return len(units) > 1


def _thinned(run: list[_Candidate], every: int | None, last: int | None) -> list[_Candidate]:
    kept = run[-last:] if last is not None else run
    if every is None:
        return kept
    chosen = kept[::every]
    return chosen if chosen[-1] is kept[-1] else [*chosen, kept[-1]]
