"""`samdiag stamp`: the spec written into a checkpoint, so that the one-argument command works anywhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from samdiag.cli import completion, flags
from samdiag.cli.streams import complain, say, steady_streams, told
from samdiag.errors import EXIT_OK, EXIT_UNDECIDED, SamdiagError, UsageError
from samdiag.gates import worst

NAMES = (
    *("model", "data", "loss", "variant", "lr", "momentum", "nesterov", "dampening", "weight_decay"),
    *("weight_decay_in", "batch_size", "micro_batch", "alpha", "eta_a"),
)


def stamp(
    context: typer.Context,
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CKPT…",
            help="A .safetensors file, or a Hugging Face directory of one.",
            autocompletion=completion.checkpoints,
        ),
    ],
    rho: Annotated[str | None, flags.flag("--rho", help="SAM's radius.", panel=flags.SAM)] = None,
    variant: Annotated[str | None, flags.option("variant")] = None,
    lr: Annotated[float | None, flags.option("lr")] = None,
    momentum: Annotated[float | None, flags.option("momentum")] = None,
    nesterov: Annotated[bool | None, flags.option("nesterov")] = None,
    dampening: Annotated[float | None, flags.option("dampening")] = None,
    weight_decay: Annotated[float | None, flags.option("weight_decay")] = None,
    weight_decay_in: Annotated[str | None, flags.option("weight_decay_in")] = None,
    batch_size: Annotated[int | None, flags.option("batch_size")] = None,
    micro_batch: Annotated[int | None, flags.option("micro_batch")] = None,
    alpha: Annotated[float | None, flags.option("alpha")] = None,
    eta_a: Annotated[float | None, flags.option("eta_a")] = None,
    model: Annotated[
        str | None, flags.flag("--model", help="A model of the gallery; others by --from.", panel=flags.SPEC)
    ] = None,
    data: Annotated[
        str | None, flags.flag("--data", help="Data of the gallery; others by --from.", panel=flags.SPEC)
    ] = None,
    loss: Annotated[str | None, flags.flag("--loss", help="cross_entropy, mse, …", panel=flags.SPEC)] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            "--config",
            metavar="FILE",
            help="A samdiag.toml, or TOML itself. (default: the project file)",
            rich_help_panel=flags.SPEC,
        ),
    ] = None,
    sidecar: Annotated[
        bool,
        typer.Option(
            "--sidecar", help="Write CKPT.samdiag.toml beside it instead: any format.", rich_help_panel=flags.OUT
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a sidecar that is there.", rich_help_panel=flags.OUT)
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the stamp as TOML, and change nothing.", rich_help_panel=flags.OUT)
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take the stamp out again.", rich_help_panel=flags.OUT)
    ] = False,
    quiet: flags.Quiet = 0,
) -> None:
    """Write into a checkpoint which model, data, loss and SAM settings it belongs to; its tensors keep every bit.

    What is not said here is taken from --from or the project file. A stamp names what is in the catalogs, never code or
    paths. Exit code 0: done; 2: usage; 3: a file could not be read or written, or has no stamp to show.
    """
    steady_streams()
    overrides = {
        (name if name in ("model", "data", "loss") else f"sam.{name}"): value
        for name in NAMES
        if (value := context.params.get(name)) is not None
    }
    with told():
        if rho is not None:
            overrides["sam.rho"] = flags.number(rho, "--rho")
        code = _stamp(
            checkpoints,
            overrides,
            source,
            sidecar=sidecar,
            force=force,
            show=show,
            remove=remove,
            quiet=quiet or flags.quiet_variable(),
        )
    raise typer.Exit(code)


def _stamp(
    paths: list[str],
    overrides: dict[str, Any],
    source: str | None,
    *,
    sidecar: bool,
    force: bool,
    show: bool,
    remove: bool,
    quiet: int,
) -> int:
    if show + remove + sidecar > 1:
        raise UsageError("--show, --remove and --sidecar exclude each other", "give one of them")
    if (show or remove) and (overrides or source):
        raise UsageError("--show and --remove take no settings", "leave the settings out")
    text, notes = ("", ()) if show or remove else _text(paths[0], overrides, source)
    for note in () if quiet else notes:
        say(f"samdiag: {note}")
    codes = []
    for path in paths:
        try:
            codes.append(_show(path) if show else _change(path, text, sidecar, force, remove, quiet))
        except SamdiagError as error:
            complain(error)
            codes.append(error.exit_code)
    return worst(codes)


def _text(path: str, overrides: dict[str, Any], source: str | None) -> tuple[str, tuple[str, ...]]:
    """The stamp as JSON: what the command line, --from and the project file say, and nobody else."""
    from samdiag.quoting import shown
    from samdiag.spec.discover import look_up
    from samdiag.spec.stamp import checked, document_of

    resolution, incomplete = look_up(overrides=overrides, config=source, checkpoint=None, cwd=Path.cwd())
    if incomplete is not None:  # its own remedies name code, which a stamp may not
        todo = f"say all three: samdiag stamp {shown(path)} --model … --data … --loss …, or --from FILE, a samdiag.toml"
        raise UsageError(incomplete.what, todo)
    document, notes = document_of(resolution.settings)
    return checked(document), (*resolution.warnings, *notes)


def _show(path: str) -> int:
    from samdiag.reports.escape import printable
    from samdiag.spec.stamp_place import as_toml, read_stamp

    found = read_stamp(path)
    if found is None:
        say(f"samdiag: {path} has no stamp")
        return EXIT_UNDECIDED
    for line in as_toml(found).splitlines():
        sys.stdout.write(printable(line, limit=sys.maxsize) + "\n")
    return EXIT_OK


def _change(path: str, text: str, sidecar: bool, force: bool, remove: bool, quiet: int) -> int:
    from samdiag.spec.stamp_place import remove_stamp, write_sidecar, write_text

    if remove:
        done = f"the stamp of {path} is gone" if remove_stamp(path) else f"{path} had no stamp"
    elif sidecar:
        done = f"wrote {write_sidecar(path, text, force=force)}"
    else:
        write_text(path, text)
        done = f"stamped {path}"
    if not quiet:
        say(f"samdiag: {done}")
    return EXIT_OK
