"""`--strict-spec`: what a checkpoint says about itself is not enough to be judged by."""

from __future__ import annotations

from collections.abc import Mapping

from samdiag.outcomes import Hit, HitKind
from samdiag.quoting import listed, quoted
from samdiag.types import Diagnosis, Setting, Severity, Trust

NAME = "trust"
WHOLE = ("problem", "model", "data", "loss")
SHOWN = 20  # all of [sam], model, data and loss: 15 names


def untrusted(settings: Mapping[str, Setting]) -> tuple[str, ...]:
    """The judged settings (model, data, loss and all of `sam`) that come from the checkpoint or what lies beside it."""
    judged = [name for name in WHOLE if name in settings]
    judged += [name for name in settings if name.startswith("sam.")]
    return tuple(name for name in judged if settings[name].trust is Trust.ARTIFACT)


def spec_lines(settings: Mapping[str, Setting]) -> tuple[str, str] | None:
    """What `--strict-spec` does not take and what to do about it, a line each; None where the user said everything."""
    names = untrusted(settings)
    if not names:
        return None
    sources = listed(dict.fromkeys(settings[name].source for name in names))
    said = listed((_said(name, settings[name]) for name in names), SHOWN)
    flags = " ".join(f"--{name.removeprefix('sam.').replace('_', '-')}" for name in names)
    return (
        f"the checkpoint itself says what it is judged by: {said} ({sources})",
        f"say it yourself: in your samdiag.toml, or with {flags}",
    )


def spec_gaps(diagnosis: Diagnosis) -> tuple[Hit, ...]:
    """The gap that `--strict-spec` leaves; none where the user said everything."""
    lines = spec_lines(diagnosis.settings)
    if lines is None:
        return ()
    return (Hit(kind=HitKind.SPEC, name=NAME, severity=Severity.ERROR, message="; ".join(lines)),)


def _said(name: str, setting: Setting) -> str:
    """The name, with the value where that is one number or word."""
    return name if isinstance(setting.value, Mapping) else f"{name} = {quoted(setting.value)}"
