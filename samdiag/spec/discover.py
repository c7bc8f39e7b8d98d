"""Who says what about a checkpoint: every origin, its trust, and the settings that result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from samdiag.errors import UsageError
from samdiag.formats import Checkpoint
from samdiag.quoting import listed, quoted, shown
from samdiag.spec.artifact import read_artifact, read_configuration
from samdiag.spec.merging import Origin, Place, known, merge
from samdiag.spec.parsing import WHOLE, flatten, nest, parse, parse_toml
from samdiag.spec.project_file import RefusedFile, find_project_file, read_config
from samdiag.spec.schema import Spec
from samdiag.types import Setting, Trust

COMMAND_LINE = "command line"
STAMP = "stamp in the checkpoint"
SIDECAR_SUFFIX = ".samdiag.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Every setting with who said it, and where the user's own names are looked up.

    Attributes:
        settings: by dotted name (`model`, `sam.rho`, `measure.seed`, …); absent where nobody said it and no default is.
        pythonpath: folders for `sys.path`, from the project or --config file only.
        places: for each of problem, model, data and loss that the user names, where its name is looked up.
        warnings: what an artifact said and was not heard, one line each.
        unused: who else says what the checkpoint belongs to, where it is not even shadowed, one line each.
    """

    settings: Mapping[str, Setting]
    pythonpath: tuple[Path, ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def resolve(
    *,
    overrides: Mapping[str, Any],
    config: str | None,
    checkpoint: Checkpoint | None,
    cwd: Path,
    sources: Mapping[str, str] | None = None,
) -> Resolution:
    """The settings of one run, the nearest origin first.

    Command line → --config → project file found upward from `cwd` → sidecar → the checkpoint's stamp → its own
    configuration (config.json, hyper-parameters) → its optimizer state → defaults.

    Args:
        overrides: what the command line says, by dotted name; None means "not said".
        config: the path of a TOML file, or TOML itself; None for neither.
        checkpoint: None where there is no file yet, so that nothing but the user is heard.
        cwd: the folder that the user works in.
        sources: who said an override, where it was not the command line itself (an environment variable).

    Raises:
        UsageError: a value is not allowed, an origin is refused, or the problem is not said or only in part.
    """
    resolution, error = look_up(overrides=overrides, config=config, checkpoint=checkpoint, cwd=cwd, sources=sources)
    if error is not None:
        raise error
    return resolution


def look_up(
    *,
    overrides: Mapping[str, Any],
    config: str | None,
    checkpoint: Checkpoint | None,
    cwd: Path,
    sources: Mapping[str, str] | None = None,
) -> tuple[Resolution, UsageError | None]:
    """The settings as `resolve` gives them; where the problem is not said or only in part, what is known, and why not.

    Raises:
        UsageError: a value is not allowed, or an origin is refused.
    """
    cwd = cwd.absolute()
    warnings: list[str] = []
    users = list(_user_origins(overrides, config, cwd, warnings))
    user_spec = any(name in origin.values for origin in users for name in WHOLE)
    artifacts = [] if checkpoint is None else _artifact_origins(checkpoint, warnings, user_spec=user_spec)
    origins = [*users, *artifacts]
    error: UsageError | None = None
    places: dict[str, Place] = {}
    try:
        settings, places = merge(origins)
    except UsageError as incomplete:
        settings, error = known(origins), incomplete
    for name, source in (sources or {}).items():
        if name in settings and settings[name].source == COMMAND_LINE:
            settings[name] = replace(settings[name], source=source)
    warnings += _gated_rho(settings)
    resolution = Resolution(
        settings=settings,
        pythonpath=tuple(dict.fromkeys(path for origin in users for path in origin.pythonpath)),
        places=places,
        warnings=tuple(warnings),
        unused=() if error is not None else tuple(_unused(origins, settings)),
    )
    return resolution, error


def said_by(checkpoint: Checkpoint) -> Mapping[str, Setting]:
    """What comes with the checkpoint says, with the defaults; nothing of the user's own is looked at."""
    return known(list(_artifact_origins(checkpoint, [], user_spec=True)))


def _artifact_origins(checkpoint: Checkpoint, warnings: list[str], *, user_spec: bool) -> Iterator[Origin]:
    """Sidecar, stamp, the checkpoint's own configuration, optimizer state; what is not heard becomes a warning."""
    for source, read in _documents(checkpoint):
        spec, ignored = read_artifact(read, source, user_spec=user_spec)
        yield Origin(source=source, trust=Trust.ARTIFACT, values=flatten(spec))
        warnings += ignored
    for embedded in checkpoint.embedded:
        spec, ignored = read_configuration(embedded.document, shown(embedded.source))
        yield Origin(source=shown(embedded.source), trust=Trust.ARTIFACT, values=flatten(spec))
        warnings += ignored
    hints, impossible = _hints(checkpoint)
    yield from hints
    warnings += impossible


def _gated_rho(settings: Mapping[str, Setting]) -> Iterator[str]:
    """A warning where a gate was asked for and the checkpoint itself chooses the radius that it is judged at."""
    rho = settings.get("sam.rho")
    gated = any(name in settings and settings[name].value for name in ("gate.fail_on", "gate.require"))
    if not gated or rho is None or rho.trust is not Trust.ARTIFACT:
        return
    yield f"rho = {rho.value:g} ({rho.source}) is the checkpoint's own word, and it is judged by it: say --rho yourself"


def _unused(origins: list[Origin], settings: Mapping[str, Setting]) -> Iterator[str]:
    """Who says a part of the problem that no setting shows, because another way of naming it is used."""
    for origin in origins:
        said = [name for name in WHOLE if name in origin.values and name not in settings]
        if said:
            used, by = ("problem", "problem") if "problem" in settings else ("model, data and loss", "model")
            yield f"{origin.source} also says {listed(said)}: not used, {used} said by {settings[by].source}"


def _user_origins(overrides: Mapping[str, Any], config: str | None, cwd: Path, warnings: list[str]) -> Iterator[Origin]:
    yield _user(parse(nest(overrides, COMMAND_LINE), COMMAND_LINE), COMMAND_LINE, Trust.CLI, cwd, importable=True)
    if config is not None:
        yield _config_origin(config, cwd)
    try:
        project = find_project_file(cwd)
    except RefusedFile as error:
        if config is None:
            raise
        warnings.append(error.what)  # the user named a file instead, as the refusal asks for
        return
    if project is not None:
        spec = parse(project.document, project.source)
        yield _user(spec, project.source, Trust.PROJECT, project.path.parent, importable=False)


def _config_origin(config: str, cwd: Path) -> Origin:
    """What --config says: a file where there is one of that name, else TOML."""
    path = cwd / Path(config).expanduser() if "\0" not in config and "\n" not in config else cwd
    try:
        is_file = path.is_file()
    except OSError:  # too long for a file name
        is_file = False
    if is_file:
        source = f"--config {shown(config)}"
        return _user(parse(read_config(path, source), source), source, Trust.CLI, path.parent, importable=False)
    if "=" not in config:
        todo = "give the path of a TOML file, or TOML itself: --config 'sam.rho=0.05'"
        raise UsageError(f"--config {quoted(config)} is neither a file nor TOML", todo)
    return _user(parse(parse_toml(config, "--config"), "--config"), "--config", Trust.CLI, cwd, importable=True)


def _user(spec: Spec, source: str, trust: Trust, folder: Path, *, importable: bool) -> Origin:
    """An origin of the user's own; its pythonpath is relative to its folder."""
    if spec.download is not None and source != COMMAND_LINE:
        raise UsageError(f"download ({source}) is not said in a file", "ask for the network with the flag --download")
    entries = tuple((folder / Path(entry).expanduser()).resolve() for entry in spec.pythonpath or ())
    for entry, said in zip(entries, spec.pythonpath or (), strict=True):
        if not entry.is_dir():
            raise UsageError(
                f"pythonpath names {quoted(said)} ({source}): there is no such folder", f"correct {source}"
            )
    place = Place(folder=folder, importable=importable)
    return Origin(source=source, trust=trust, values=flatten(spec), place=place, pythonpath=entries)


def _documents(checkpoint: Checkpoint) -> Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]:
    """What was put with the checkpoint for samdiag and how to read it: its sidecar, its stamp."""
    sidecar = sidecar_of(checkpoint.path)
    if sidecar is not None and sidecar.is_file():
        source = f"sidecar {shown(sidecar.name)}"
        yield source, lambda: read_config(sidecar, source)
    stamp = checkpoint.stamp
    if stamp is not None:
        yield STAMP, lambda: stamp


def sidecar_of(path: Path) -> Path | None:
    """`ckpt.pt.samdiag.toml` beside a file, `folder.samdiag.toml` beside a folder; None for the root folder."""
    if path.name in {"", ".."}:  # the folder that one stands in, or above it
        path = path.resolve()
    return path.with_name(path.name + SIDECAR_SUFFIX) if path.name else None


def _hints(checkpoint: Checkpoint) -> tuple[list[Origin], list[str]]:
    """What the optimizer state reveals, one origin per source; values that cannot be are dropped with a warning."""
    values: dict[str, dict[str, Any]] = {}
    warnings = []
    for name, hint in checkpoint.hints.items():
        try:
            spec = parse(nest({name: hint.value}, hint.source), hint.source)
        except UsageError as error:
            warnings.append(f"{error.what}: ignored")
        else:
            values.setdefault(hint.source, {}).update(flatten(spec))
    origins = [Origin(source=source, trust=Trust.ARTIFACT, values=said) for source, said in values.items()]
    return origins, warnings
