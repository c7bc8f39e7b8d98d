"""The options of `inspect` behind `submit … --`: which were said, and how they are written for another command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from samdiag.cli import flags, list_flags
from samdiag.errors import UsageError

NOT_HERE = {  # of `inspect`: why not
    "shard": "the shares are dealt out by --jobs",
    "resume": "every job has a ledger of its own in --folder",
    "explain": "it measures nothing",
    "emit": "it is for one checkpoint",
    "update_baseline": "the jobs would write one file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of `inspect` that were said, by name, and how each is written on a command line."""

    values: Mapping[str, Any]
    written: Mapping[str, tuple[str, ...]]

    def without(self, names: Sequence[str]) -> Iterator[str]:
        """The words of all the others."""
        return (word for name, words in self.written.items() if name not in names for word in words)

    def only(self, names: Sequence[str]) -> Iterator[str]:
        """The words of these."""
        return (word for name in names for word in self.written.get(name, ()))


def read(words: Sequence[str]) -> Asked:
    """The command line of `inspect`, so that a slip is seen before anything is submitted.

    Raises:
        UsageError: one of its options has no meaning for jobs.
    """
    from samdiag.cli.inspect import inspect

    alone = typer.Typer(add_completion=False)
    alone.command()(inspect)
    command = typer.main.get_command(alone)
    try:
        context = command.make_context("samdiag inspect", list(words))
    except Exception as error:
        if (said_of := getattr(error, "format_message", None)) is None:  # no slip of the command line
            raise
        raise UsageError(said_of(), "see samdiag inspect --help") from error
    said = [
        option
        for option in command.params
        if option.name is not None
        and (source := context.get_parameter_source(option.name)) is not None
        and source.name == "COMMANDLINE"
    ]
    for option in said:
        if option.name in NOT_HERE:
            raise UsageError(f"{option.opts[0]} cannot be submitted: {NOT_HERE[option.name]}", "leave it out")
    _check_gate(context.params)
    return Asked(
        values=context.params,
        written={str(option.name): tuple(_words(option, context.params[str(option.name)])) for option in said},
    )


def _check_gate(values: Mapping[str, Any]) -> None:
    """Nothing, or UsageError where the gate at the end would be refused."""
    from samdiag.gates import load_baseline, parse_fail_on, parse_requirements
    from samdiag.reports.media import medium

    parse_fail_on(None if values["fail_on"] is None else flags.parse_names(values["fail_on"]))
    parse_requirements(values["require"])
    medium(values["format"])
    if values["baseline"] is not None:
        load_baseline(values["baseline"])


def _words(option: Any, value: Any) -> Iterator[str]:
    """An option as it is written on a command line."""
    if option.param_type_name == "argument":
        yield from value
    elif isinstance(value, bool):
        yield max(option.opts if value else option.secondary_opts, key=len)
    else:
        for one in value if isinstance(value, (list, tuple)) else [value]:
            yield f"{max(option.opts, key=len)}={one}"


def list_paths(asked: Asked) -> tuple[tuple[str, ...], Sequence[str]]:
    """The path of each entry, in order, and notes about the list."""
    from samdiag.fleet.listing import list_entries

    values = asked.values
    found = list_entries(
        values["checkpoints"] or [],
        files_from=values["files_from"],
        null=values["null"],
        match=values["match"] or [],
        every=values["every"],
        last=values["last"],
        seeds=list_flags.parse_seeds(values["seeds"]),
    )
    return tuple(entry.path for entry in found.entries), found.notes
