"""`samdiag init`: a samdiag.toml from what a checkpoint and the working folder reveal."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samdiag.cli import flags
from samdiag.cli.emitted import write_whole
from samdiag.cli.streams import say, steady_streams, told
from samdiag.errors import EXIT_OK, EXIT_UNDECIDED, UsageError

if TYPE_CHECKING:
    from samdiag.guessing.proposal import Proposal

OWN_FILE = "samdiag.toml"
STDOUT = "-"
PARTS = ("problem", "model", "data", "loss")


def init(
    checkpoint: flags.Checkpoint,
    rho: Annotated[str | None, flags.flag("--rho", help="SAM's radius.", panel=flags.SAM)] = None,
    model: Annotated[str | None, flags.option("model")] = None,
    data: Annotated[str | None, flags.option("data")] = None,
    loss: Annotated[str | None, flags.option("loss")] = None,
    problem: Annotated[str | None, flags.option("problem")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="PACKAGE",
            help="Also look for the network in this package's sources; a name or a folder.",
            rich_help_panel=flags.SPEC,
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", metavar="FILE", help="Where to write; - is stdout.", rich_help_panel=flags.OUT)
    ] = OWN_FILE,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.", rich_help_panel=flags.OUT)
    ] = False,
    quiet: flags.Quiet = 0,
) -> None:
    """Write a samdiag.toml for a checkpoint: architecture, classes, data and settings as far as they can be read off.

    Nothing is imported or run but the libraries of the catalogs. Exit code 0: complete; 3: written, and something must
    be filled in; 2: usage.
    """
    steady_streams()
    said = {"problem": problem, "model": model, "data": data, "loss": loss}
    with told():
        code = write_spec(
            checkpoint,
            said={name: value for name, value in said.items() if value is not None},
            rho=flags.number(rho, "--rho"),
            search=tuple(search or ()),
            output=output,
            force=force,
            quiet=quiet or flags.quiet_variable(),
        )
    raise typer.Exit(code)


def write_spec(
    checkpoint: str,
    *,
    said: Mapping[str, Any],
    rho: float | None,
    search: tuple[str, ...] = (),
    output: str = OWN_FILE,
    force: bool = False,
    quiet: int = 0,
) -> int:
    """Writes the file and says what was found and what was not; the exit code.

    Raises:
        SamdiagError: the checkpoint cannot be read, what the command line says is not allowed, or the file is there.
    """
    from samdiag.formats import open_checkpoint
    from samdiag.guessing.elsewhere import moved
    from samdiag.guessing.guess import propose
    from samdiag.guessing.packages import find_package
    from samdiag.guessing.writing import render

    folder = Path.cwd()
    spec = _checked(said, rho)
    target = None if output == STDOUT else Path(output)
    if target is not None:
        _check_target(target, folder, force)
    opened = open_checkpoint(checkpoint)
    proposal = propose(
        opened,
        path=checkpoint,
        folder=folder,
        said={name: spec[name] for name in PARTS if name in spec},
        rho=rho,
        packages=tuple(find_package(name, folder) for name in search),
    )
    if target is not None and force:
        proposal = _keep(proposal, target, rho_said=rho is not None)
    if target is not None:
        proposal = moved(proposal, folder, target.absolute().parent)
    text = render(proposal)
    if not proposal.missing:
        _check_whole(text)
    if target is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_whole(target, text)
    if not quiet:
        _tell(proposal, target, checkpoint)
    return EXIT_UNDECIDED if proposal.missing or proposal.unbuilt else EXIT_OK


def _checked(said: Mapping[str, Any], rho: float | None) -> dict[str, Any]:
    """What the command line says, as a spec's values."""
    from samdiag.spec.discover import COMMAND_LINE
    from samdiag.spec.parsing import flatten, nest, parse

    return flatten(parse(nest({**said, "sam.rho": rho}, COMMAND_LINE), COMMAND_LINE))


def _check_target(target: Path, folder: Path, force: bool) -> None:
    """Nothing, where the file may be written; nothing is ever written over without --force."""
    from samdiag.spec.project_file import PYPROJECT, find_project_file

    if os.path.lexists(target) and not force:
        raise UsageError(f"{target} exists", "--force writes over it; --output FILE or --output - writes elsewhere")
    if target.is_dir() or not target.absolute().parent.is_dir() or not os.access(target.absolute().parent, os.W_OK):
        raise UsageError(f"cannot write {target}", "give --output a file in a folder that exists and is writable")
    if force or target.absolute() != folder / OWN_FILE:
        return
    found = find_project_file(folder)
    if found is not None and found.path.name == PYPROJECT:
        todo = "edit it there; `samdiag init CKPT --output -` prints what would be written"
        raise UsageError(f"{found.source} has the project's settings already ([tool.samdiag])", todo)


def _keep(proposal: Proposal, target: Path, *, rho_said: bool) -> Proposal:
    """The proposal with the [sam] settings of the file that it replaces; a file that cannot be read loses them."""
    from samdiag.spec.parsing import flatten, parse
    from samdiag.spec.project_file import read_config

    if not os.path.lexists(target):
        return proposal
    try:
        table = read_config(target, str(target)).get("sam", {})
        said = flatten(parse({"sam": table}, str(target)))
    except UsageError as error:
        lost = f"nothing is kept of the [sam] settings of the file that was here: {error.what}"
        return replace(proposal, remarks=(*proposal.remarks, lost))
    kept = {name.removeprefix("sam."): value for name, value in said.items()}
    if rho_said:
        kept.pop("rho", None)
    if "rho" in kept:
        why = f"kept from the {target.name} that was here: rho = {kept['rho']}"
        proposal = replace(proposal, rho=None, rho_why=why, rho_unknown=False)
    return replace(proposal, kept=kept)


def _check_whole(text: str) -> None:
    """Nothing, where the text is a whole spec; an internal error otherwise. A file that is there plays no part."""
    from samdiag.spec.merging import Origin, Place, merge
    from samdiag.spec.parsing import flatten, parse, parse_toml
    from samdiag.types import Trust

    values = flatten(parse(parse_toml(text, OWN_FILE), OWN_FILE))
    place = Place(folder=Path.cwd(), importable=False)
    merge([Origin(source=OWN_FILE, trust=Trust.PROJECT, values=values, place=place)])


def _tell(proposal: Proposal, target: Path | None, checkpoint: str) -> None:
    """What was found, what could not be known and what to do next, on stderr."""
    from samdiag.guessing.writing import short
    from samdiag.spec.toml_text import assignment

    for line in proposal.described:
        say(f"  {line}")
    for part in proposal.parts:
        if part.chosen is not None:
            say(f"found    {assignment(part.name, short(part.chosen.value))}: {part.chosen.why}")
        else:
            say(f"missing  {part.name}: {part.missing}")
        for other in part.others[:3]:
            say(f"  or     {assignment(part.name, short(other.value))}: {other.why}")
    say(f"{'unknown' if proposal.rho_unknown else 'found  '}  {proposal.rho_why}")
    if proposal.unnormalised is not None:
        say("unknown  how the pixels of data were normalised: see the commented line with normalize")
    for remark in proposal.remarks:
        say(f"note     {remark}")
    wrote = "" if target is None else f"wrote {target}; "
    command = f"samdiag inspect {shlex.quote(checkpoint)}"
    if target is not None and target.absolute() != Path.cwd() / OWN_FILE:
        command += f" --config {shlex.quote(str(target))}"
    if proposal.missing:
        names = " and ".join(part.name for part in proposal.parts if part.chosen is None)
        say(f"samdiag: {wrote}fill in {names}, then: {command}")
    elif proposal.unbuilt:
        say(f"samdiag: {wrote}the model cannot be built here: {'; '.join(proposal.unbuilt)}")
    else:
        say(f"samdiag: {wrote}next: {command}")
