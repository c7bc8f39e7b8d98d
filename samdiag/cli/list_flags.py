"""The options of `inspect` for lists of checkpoints and for gates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from samdiag.cli import completion
from samdiag.cli.flags import OUT, flag
from samdiag.errors import UsageError

MANY = "Many checkpoints"

FilesFrom = Annotated[
    str | None, flag("--files-from", help="Read paths from this file, one per line; -: from stdin.", panel=MANY)
]
Null = Annotated[bool, flag("-0", "--null", help="In --files-from, paths end with NUL (find -print0).", panel=MANY)]
Match = Annotated[
    list[str] | None,
    flag("--match", help="Only paths that match this glob, or /regular expression/.", panel=MANY),
]
Every = Annotated[int | None, flag("--every", help="Only every N-th checkpoint of a run, and its last.", panel=MANY)]
Last = Annotated[int | None, flag("--last", help="Only the last N checkpoints of a run.", panel=MANY)]
Seeds = Annotated[
    str | None, flag("--seeds", help="Each checkpoint once per seed: 0,1,2. Verdicts should agree.", panel=MANY)
]
ShardOf = Annotated[str | None, flag("--shard", help="The i-th of n shares of the list: 2/8.", panel=MANY)]
Resume = Annotated[
    Path | None,
    flag(
        "--resume",
        help="Records are added to this JSON Lines file as they are finished; those in it are not made again.",
        panel=MANY,
    ),
]
Workers = Annotated[
    str | None, flag("--workers", help="Processes: a number, or auto. (default: this one alone)", panel=MANY)
]
ListOnly = Annotated[
    bool, flag("--list", help="Print the list's paths in order, and stop; with -0 each ends with NUL.", panel=MANY)
]
Each = Annotated[bool, flag("--each", help="Of a list, the full text report of each checkpoint.", panel=MANY)]

Require = Annotated[
    list[str] | None,
    flag("--require", help="What must hold: 'lambda_max < 200'. May be repeated.", panel=OUT),
]
BaselineFile = Annotated[
    Path | None, flag("--baseline", help="Only fail on what is new or worse than this file says.", panel=OUT)
]
UpdateBaseline = Annotated[
    bool, flag("--update-baseline", help="Write what is found into --baseline, and accept it.", panel=OUT)
]
StrictSpec = Annotated[
    bool, flag("--strict-spec", help="Exit 3 where the checkpoint itself says what it is judged by.", panel=OUT)
]
Medium = Annotated[
    str,
    flag(
        "--format",
        help="text, json (of a list: one object per line), markdown, junit, github or sarif.",
        panel=OUT,
        autocompletion=completion.media,
    ),
]
Reports = Annotated[
    list[str] | None,
    flag(
        "--report",
        help="Also write FORMAT=FILE, as in junit=out.xml. May be repeated.",
        panel=OUT,
    ),
]


def several(context: typer.Context, name: str, given: Sequence[str] | None) -> list[str] | None:
    """What a repeatable option was given; in its SAMDIAG_* variable there are semicolons between the texts.

    (The parser splits a variable at blanks, which a requirement is full of.)
    """
    source = context.get_parameter_source(name)
    if source is None or source.name != "ENVIRONMENT":
        return None if given is None else list(given)
    return [part.strip() for part in os.environ[f"SAMDIAG_{name.upper()}"].split(";") if part.strip()]


def parse_seeds(text: str | None) -> tuple[int, ...]:
    """`"0,1,2"` as numbers; empty where nothing is said.

    Raises:
        UsageError: one of them is no whole number from 0 on, or one comes twice.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if not (part.isascii() and part.isdecimal() and len(part) <= 18):  # a 64-bit seed
            raise UsageError(f"--seeds {text!r}: {part!r} is no seed", "give whole numbers from 0 on: --seeds 0,1,2")
    seeds = tuple(int(part) for part in parts)
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text!r} names no seed, or one twice", "give different numbers: --seeds 0,1,2")
    return seeds
