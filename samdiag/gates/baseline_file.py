"""The baseline's file: sorted JSON, one line for each finding, requirement and number, made to be committed to git."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.encoding import jsonable
from samdiag.errors import CannotDecide, UsageError
from samdiag.gates.baseline import Baseline, Known
from samdiag.quoting import shown
from samdiag.whole_file import replacing, usual_mode

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = "samdiag_baseline"  # the key that tells a baseline from any other JSON
VERSION = 1
MAX_BYTES = 256 * 1024 * 1024  # a hundred thousand checkpoints take about 100 MB
BLOCKS = 3  # levels that are broken into lines: checkpoints, one of them, its findings


@functools.cache
def _adapter() -> TypeAdapter[dict[str, Known]]:
    from pydantic import TypeAdapter

    return TypeAdapter(dict[str, Known])


def load_baseline(path: str | Path, *, missing_ok: bool = False) -> Baseline:
    """The baseline that a file says.

    Args:
        path: of the file.
        missing_ok: whether it may be absent, as with `--update-baseline`: then nothing is known yet.

    Raises:
        UsageError: it is absent, cannot be read, is no baseline, or one of another version.
    """
    file = Path(path)
    folder = Path(os.path.abspath(file)).parent
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise _not_one(file, "it is no regular file")
        if file.exists() and file.stat().st_size > MAX_BYTES:
            raise _not_one(file, "it is too large")
        text = file.read_bytes()
    except FileNotFoundError:
        if missing_ok:
            if not folder.is_dir():
                raise UsageError(f"there is no folder {shown(folder)} for the baseline", "make it first") from None
            return Baseline(folder=folder)
        todo = "write it first: the same command with --update-baseline"
        raise UsageError(f"the baseline {shown(path)} does not exist", todo) from None
    except OSError as error:
        what = f"the baseline {shown(path)} cannot be read: {error.strerror or error}"
        raise UsageError(what, "give a file that --update-baseline wrote") from None
    return Baseline(folder=folder, checkpoints=_checkpoints(file, text))


def update_baseline(path: str | Path, notes: Mapping[str, Known]) -> Baseline:
    """Writes what `notes` say into the file, in one step: other checkpoints in it stay as they are.

    Args:
        path: of the file; it is made where it is absent.
        notes: of `Baseline.noted`, for every checkpoint that was inspected.

    Raises:
        UsageError: there is a file that is not a baseline; it is left alone.
        CannotDecide: it cannot be written.
    """
    merged = load_baseline(path, missing_ok=True).merged(notes)
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        mode = usual_mode(target)
        with replacing(target, mode=mode) as beside:
            Path(beside).write_text(render(merged), encoding="ascii", newline="\n")
    except OSError as error:
        what = f"the baseline could not be written to {shown(path)}: {error.strerror or error}"
        raise CannotDecide(what, "free some space or give another --baseline, and repeat the command") from error
    return merged


def render(baseline: Baseline) -> str:
    """The file's text: ASCII, keys in order, the same for equal baselines."""
    document = {FORMAT: VERSION, "checkpoints": jsonable(baseline.checkpoints)}
    return _lines(document, 0) + "\n"


def _lines(value: Any, depth: int) -> str:
    """JSON with the first levels on lines of their own and what is deeper on one line."""
    if not isinstance(value, dict) or not value or depth > BLOCKS:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    indent = "  " * depth
    items = (f"{indent}  {json.dumps(key)}: {_lines(item, depth + 1)}" for key, item in sorted(value.items()))
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


def _checkpoints(file: Path, text: bytes) -> dict[str, Known]:
    from pydantic import ValidationError

    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        conflict = b"<<<<<<<" in text and b">>>>>>>" in text
        raise _not_one(file, "it has a merge conflict" if conflict else "it is not JSON") from None
    if not isinstance(document, dict) or FORMAT not in document:
        raise _not_one(file, f"it has no {FORMAT!r}")
    if document[FORMAT] != VERSION:
        what = f"the baseline {shown(file)} has format version {shown(document[FORMAT])}; this samdiag reads {VERSION}"
        raise UsageError(what, "write it again with --update-baseline under another name")
    try:
        return _adapter().validate_python(document.get("checkpoints"))
    except (ValidationError, RecursionError) as error:
        why = "it is nested too deeply"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{shown('.'.join(str(part) for part in first['loc']))}: {first['msg']}"
        raise _not_one(file, why) from None


def _not_one(file: Path, why: str) -> UsageError:
    todo = "give a file that --update-baseline wrote, or a new name; nothing was changed in this one"
    return UsageError(f"{shown(file)} is not a baseline: {why}", todo)
