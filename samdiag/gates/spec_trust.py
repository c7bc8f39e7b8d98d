"""`--strict-spec`: what a checkpoint says about itself is not enough to be judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from samdiag.outcomes import Hit, HitKind
from samdiag.quoting import listed, quoted, shown
from samdiag.types import Diagnosis, Setting, Severity, Trust

WHOLE = ("problem", "model", "data", "loss")


def untrusted(settings: Mapping[str, Setting]) -> tuple[str, ...]:
    """The judged settings (model, data, loss and all of `sam`) that come from the checkpoint or what lies beside it."""
    judged = [name for name in WHOLE if name in settings]
    judged += [name for name in settings if name.startswith("sam.")]
    return tuple(name for name in judged if settings[name].trust is Trust.ARTIFACT)


def spec_gaps(diagnosis: Diagnosis) -> tuple[Hit, ...]:
    """One gap for each setting that `--strict-spec` does not take from a checkpoint."""
    return tuple(
        Hit(
            kind=HitKind.SPEC,
            name=name,
            severity=Severity.ERROR,
            message=_message(name, diagnosis.settings[name]),
        )
        for name in untrusted(diagnosis.settings)
    )


def spec_lines(gaps: Sequence[Hit]) -> tuple[str, str] | None:
    """What was found and what to do, for all gaps of one checkpoint together; None where none is of `--strict-spec`."""
    names = [gap.name for gap in gaps if gap.kind is HitKind.SPEC]
    if not names:
        return None
    what = f"the checkpoint itself says what it is judged by, which --strict-spec does not take: {listed(names, 12)}"
    flags = " ".join(_flag(name) for name in names)
    return what, f"say it yourself, on the command line ({flags}) or in your samdiag.toml"


def _message(name: str, setting: Setting) -> str:
    return (
        f"{name} = {quoted(setting.value)} is the checkpoint's own word ({shown(setting.source)}); "
        f"--strict-spec wants yours: {_flag(name)}, or {name} in your samdiag.toml"
    )


def _flag(name: str) -> str:
    return f"--{name.removeprefix('sam.').replace('_', '-')}"
