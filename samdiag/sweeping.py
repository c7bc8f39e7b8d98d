"""open → resolve → build → scan over rho → judge every radius: the order for `samdiag sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from samdiag.errors import UsageError
from samdiag.failing import environment, failure_of
from samdiag.pipeline import Progress
from samdiag.preparing import Clock, Known, Prepared, prepare
from samdiag.sweep import Sweep, SweepPoint
from samdiag.types import CheckpointInfo

MOST_POINTS = 1000
SPACINGS = ("log", "lin")


def parse_grid(text: str) -> tuple[float, ...]:
    """Radii in rising order from `0.01:1:log:25`, `0.1:0.5:lin:5`, or a list `0.05,0.1,0.2`.

    Raises:
        UsageError: it is none of these, or a radius is not positive.
    """
    todo = "write LOW:HIGH:log:COUNT, LOW:HIGH:lin:COUNT or a list: 0.01:1:log:25"
    try:
        if ":" in text:
            low_text, high_text, spacing, count_text = text.split(":")
            low, high, count = float(low_text), float(high_text), int(count_text)
            if spacing not in SPACINGS or not 0 < low < high < float("inf") or not 2 <= count <= MOST_POINTS:
                raise ValueError
            steps = [i / (count - 1) for i in range(count)]
            inner = [low * (high / low) ** s if spacing == "log" else low + (high - low) * s for s in steps[1:-1]]
            return (low, *inner, high)
        radii = sorted({float(part) for part in text.split(",") if part.strip()})
        if not radii or len(radii) > MOST_POINTS or not all(0 < rho < float("inf") for rho in radii):
            raise ValueError
        return tuple(radii)
    except ValueError:
        what = f"--rho {text[:60]!r} is no grid of positive radii (at most {MOST_POINTS})"
        raise UsageError(what, todo) from None


def sweep(
    path: str | Path,
    radii: Sequence[float],
    *,
    overrides: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
    config: str | None = None,
    cwd: Path | None = None,
    quick: bool = False,
    progress: Progress | None = None,
) -> Sweep:
    """What SAM would do from one checkpoint at every radius; an expected failure is part of it, never an exception.

    Args:
        path: the checkpoint.
        radii: in rising order.
        overrides, sources, config, cwd, progress: as for `pipeline.inspect`; `sam.rho` is not needed.
        quick: one gradient a radius: verdicts without the next steps at it.

    Raises:
        KeyboardInterrupt: passed on.
    """
    clock, known = Clock(), Known(info=CheckpointInfo(path=str(path)))
    try:
        ready = prepare(
            path, known, clock, overrides=overrides, sources=sources, config=config, cwd=cwd, unsaid_rho=radii[0]
        )
        return _scan(ready, radii, known, clock, quick, progress)
    except Exception as error:
        from samdiag import __version__

        return Sweep(
            checkpoint=known.info,
            settings=known.settings,
            present_rho=None,
            points=(),
            dangers=(),
            safe=None,
            loss=None,
            grad_norm=None,
            lambda_max=None,
            lambda_min=None,
            ridge_distance=None,
            num_gradients=0,
            num_products=0,
            num_samples=0,
            warnings=known.warnings,
            failure=failure_of(error),
            timings=clock.seconds,
            samdiag_version=__version__,
        )


def _scan(
    ready: Prepared, radii: Sequence[float], known: Known, clock: Clock, quick: bool, progress: Progress | None
) -> Sweep:
    from samdiag import __version__
    from samdiag.advice.safe_rho import dangers, largest_safe, point_of, theory_bounds
    from samdiag.measure.sweeping import scanning

    present = known.settings.get("sam.rho")
    with clock("measure"), scanning(ready.problem, ready.settings, radii[-1], progress, trials=not quick) as scan:
        measured = []
        for rho in radii:
            if progress:
                progress(f"rho {rho:.3g}", 0)
            measured.append(scan.at(rho))
        points: tuple[SweepPoint, ...] = tuple(point_of(m) for m in measured)
        safe, added = largest_safe(points, lambda rho: point_of(scan.at(rho)), theory_bounds(measured[-1]))
        points = tuple(sorted((*points, *added), key=lambda p: p.rho))
    last = measured[-1]
    objective = scan.base.ready.objective
    return Sweep(
        checkpoint=replace(known.info, num_params=last.num_params),
        settings=known.settings,
        present_rho=float(present.value) if present is not None else None,
        points=points,
        dangers=dangers(points),
        safe=safe,
        loss=last.loss,
        grad_norm=last.grad_norm,
        lambda_max=last.lambda_max,
        lambda_min=last.lambda_min,
        ridge_distance=last.ridge_distance,
        num_gradients=round(objective.num_gradients),
        num_products=round(objective.num_products),
        num_samples=last.num_samples,
        warnings=known.warnings,
        notes=last.notes,
        timings=clock.seconds,
        environment=environment(ready.settings.device),
        samdiag_version=__version__,
    )
