"""What the shell offers after a TAB: names and files, found without importing torch or a catalog's library."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Callable, Iterable
from pathlib import Path

CHECKPOINT = re.compile(r".*\.(safetensors|pt|pth|bin|ckpt|tar)")
MAX_SOURCES = 50  # .py files of the working folder that are read for the names in them
Complete = Callable[[str], list[str]]  # what has been typed of the word → the words it may become


def checkpoints(incomplete: str) -> list[str]:
    """Checkpoint files and folders that the path may become."""
    typed = Path(incomplete or ".").expanduser()
    folder = typed if incomplete.endswith(os.sep) or not incomplete else typed.parent
    head = incomplete[: incomplete.rfind(os.sep) + 1]
    start = incomplete[len(head) :]
    found = []
    try:
        entries = sorted(folder.iterdir())
    except (OSError, ValueError):
        return []
    for entry in entries:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
            continue
        if entry.is_dir():
            found.append(f"{head}{entry.name}{os.sep}")
        elif CHECKPOINT.fullmatch(entry.name):
            found.append(f"{head}{entry.name}")
    return found


def formats(incomplete: str) -> list[str]:
    """The reports' formats."""
    from samdiag.registry import REPORTS

    return _beginning(incomplete, REPORTS)


def media(incomplete: str) -> list[str]:
    """What `inspect` can write."""
    from samdiag.reports.media import MEDIA

    return _beginning(incomplete, MEDIA)


def fail_on(incomplete: str) -> list[str]:
    """Verdicts, severities, `any` and `never`; after a comma, one more of a list."""
    from samdiag.types import VERDICTS_BY_HARM

    head, comma, last = incomplete.rpartition(",")
    said = head.split(",")
    known = [name for name in VERDICTS_BY_HARM if name not in said]
    words = known if comma else (*known, "error", "warning", "any", "never")
    return [f"{head}{comma}{name}" for name in _beginning(last, words)]


def demos(incomplete: str) -> list[str]:
    """The papers' experiments."""
    from samdiag.registry import DEMOS

    return _beginning(incomplete, DEMOS)


def schemas(incomplete: str) -> list[str]:
    """What `samdiag schema` prints."""
    return _beginning(incomplete, ("report", "sweep", "spectrum"))


def for_setting(setting: str) -> Complete | None:
    """What completes the option of a setting; None where any text may follow."""
    own: dict[str, Complete] = {
        "model": _model,
        "data": _data,
        "loss": _loss,
        "problem": lambda incomplete: _beginning(incomplete, _own_names("problem")),
        "measure.device": lambda incomplete: _beginning(incomplete, ("auto", "cpu", "cuda", "cuda:0")),
    }
    if setting in own:
        return own[setting]
    return (lambda incomplete: _beginning(incomplete, choices(setting))) if setting in CHOSEN else None


CHOSEN = (  # settings with a closed list of words; a test compares it with the schema, which takes longer to import
    *("sam.variant", "sam.weight_decay_in", "measure.dtype", "measure.mode", "measure.jacobian", "measure.until"),
    *("measure.solver", "measure.products"),
)


def choices(setting: str) -> tuple[str, ...]:
    """The words that a setting may be, as the schema lists them."""
    from samdiag.spec.schema import Spec

    table, _, key = setting.partition(".")
    annotation = Spec.model_fields[table].annotation
    fields = getattr(annotation, "model_fields", {})
    said = fields[key].annotation
    return tuple(dict.fromkeys(word for inner in (said, *typing.get_args(said)) for word in _words(inner)))


def _words(annotation: object) -> tuple[str, ...]:
    if typing.get_origin(annotation) is not typing.Literal:
        return ()
    return tuple(word for word in typing.get_args(annotation) if isinstance(word, str))


def _model(incomplete: str) -> list[str]:
    from samdiag.registry import CATALOG_MODELS

    return _beginning(incomplete, (*_own_names("model"), *CATALOG_MODELS["gallery"]))


def _data(incomplete: str) -> list[str]:
    from samdiag.registry import CATALOG_DATA

    return _beginning(incomplete, (*_own_names("data"), *CATALOG_DATA["gallery"]))


def _loss(incomplete: str) -> list[str]:
    from samdiag.registry import LOSSES

    return _beginning(incomplete, (*LOSSES, *_own_names("loss")))


def _own_names(part: str) -> list[str]:
    """`train.py:function` for what the working folder's files define, read as text."""
    from samdiag.guessing import own_code
    from samdiag.guessing.sources import modules, read_folder

    sources = read_folder(Path.cwd())[:MAX_SOURCES]
    match part:
        case "problem":
            found = own_code.problems(sources)
        case "data":
            found = own_code.data(sources)
        case "loss":
            found = own_code.losses(sources)
        case _:
            classes = [f"{source.reference}:{name}" for name, (source, _) in modules(sources).items()]
            return [*own_code.model_functions(sources), *classes]
    return [named.reference for named in found]


def _beginning(incomplete: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith(incomplete)]
