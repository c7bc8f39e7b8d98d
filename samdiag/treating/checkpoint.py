"""open → resolve → build → diagnose → apply → diagnose again → write: the order for `samdiag treat`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.failing import failure_of
from samdiag.pipeline import Progress
from samdiag.preparing import Clock, Known, Prepared, prepare
from samdiag.quoting import shown
from samdiag.treating.course import ROUNDS, Course, Tell
from samdiag.treating.log import Log
from samdiag.treatment import Outcome, State, Treatment, Written
from samdiag.types import CheckpointInfo, Trust

if TYPE_CHECKING:
    from torch import Tensor

    from samdiag.formats.writing import Outline, Targets
    from samdiag.measure.settings import MeasureSettings

PT_KEEPS_LESS = "of the old .pt file only the weights were taken over, not its other entries (epoch, scheduler, EMA)"
PT_HAS_NO_STAMP = "a .pt file has no room for a stamp: give model and data as for the old checkpoint"
GONE = "the old file is not the one any more that was diagnosed; the new one is made of what was read from it"


def treat(
    path: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
    config: str | None = None,
    cwd: Path | None = None,
    rounds: int = ROUNDS,
    steps: int | None = None,
    out: Path | None = None,
    log: Path | None = None,
    tell: Tell | None = None,
    progress: Progress | None = None,
) -> Treatment:
    """What following the prescription did to a checkpoint, written beside it; an expected failure is part of it.

    Args:
        path: the checkpoint; it is never written to.
        overrides, sources, config, cwd, progress: as for `pipeline.inspect`.
        rounds, steps: as for `treat_problem`.
        out: the new checkpoint; None: beside the old one. A file that exists is refused.
        log: JSON Lines; None: beside the new checkpoint.
        tell: called with lines about what is applied and what it did.

    Raises:
        KeyboardInterrupt: before the first round; a later one is answered by what is known.
    """
    from samdiag import __version__
    from samdiag.formats.content import look_at
    from samdiag.formats.writing import choose_targets

    clock, known = Clock(), Known(info=CheckpointInfo(path=str(path)))
    try:
        _check_counts(rounds, steps)
        if not Path(path).is_dir():
            look_at(Path(path))
        targets = choose_targets(Path(path), out, log)
        ready = prepare(path, known, clock, overrides=overrides, sources=sources, config=config, cwd=cwd, velocity=True)
        if known.info.format == "peft-adapter":
            todo = "inspect it with --emit, and train on with the settings that this writes"
            raise UsageError(f"{shown(path)} is an adapter: samdiag does not write those", todo)
        found = _Case(path=Path(path), ready=ready, known=known, targets=targets, tell=tell, steps=steps).go(
            rounds, clock, progress
        )
    except Exception as error:
        failure = failure_of(error)
        found = Treatment(outcome=Outcome.FAILED, reason=failure.what, failure=failure)
    return replace(
        found,
        checkpoint=known.info,
        warnings=known.warnings,
        timings=clock.seconds,
        samdiag_version=__version__,
    )


def _check_counts(rounds: int, steps: int | None) -> None:
    if rounds < 1:
        raise UsageError(f"--rounds {rounds} is no number of rounds", "give at least 1")
    if steps is not None and steps < 1:
        raise UsageError(f"--steps {steps} is no number of steps", "give at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One checkpoint under treatment."""

    path: Path
    ready: Prepared
    known: Known
    targets: Targets
    tell: Tell | None
    steps: int | None

    def go(self, rounds: int, clock: Clock, progress: Progress | None) -> Treatment:
        """Treats and writes; an error or an interruption in a later round does not lose the earlier ones."""
        outline = self._outline()
        log = Log(self.targets.log, lambda first: self._opening(first, rounds))
        velocity, notes = self._velocity()
        course = Course(
            self.ready.problem,
            self.ready.settings,
            steps=self.steps,
            velocity=velocity,
            samples=self._samples,
            tell=self.tell,
            progress=progress,
            watch=log.write,
        )
        try:
            with clock("treat"):
                found = course.run(rounds)
        except KeyboardInterrupt:
            if not course.rounds:
                raise
            kept = "the best weights so far are kept" if course.improved else "nothing better than the old weights yet"
            found = course.ended(Outcome.INTERRUPTED, f"interrupted in round {len(course.rounds)}: {kept}")
        except Exception as error:
            if not course.rounds:
                raise
            failure = failure_of(error)
            found = replace(course.ended(Outcome.FAILED, failure.what), failure=failure)
        course.leave()
        found = replace(found, notes=(*notes, *found.notes, *self._sample_note(found)))
        try:
            found = self._written(course, found, outline, log.path)
        finally:
            found = log.close(found)
        return found

    @property
    def _samples(self) -> int | None:
        """What the user limits the data of the steps to; None: nothing."""
        said = self.known.settings.get("measure.samples")
        return None if said is None or said.trust is Trust.DEFAULT else int(said.value)

    def _sample_note(self, found: Treatment) -> tuple[str, ...]:
        if self._samples is None or found.num_samples is None:
            return ()
        return (f"the steps were drawn from {found.num_samples} samples: --samples limits them",)

    def _velocity(self) -> tuple[Tensor | None, tuple[str, ...]]:
        if self.ready.buffers is None or self.ready.settings.momentum == 0:
            return None, ()
        return self.ready.buffers.flat(self.ready.problem.model)

    def _opening(self, first: State, rounds: int) -> dict[str, Any]:
        from samdiag import __version__

        return {
            "event": "start",
            "samdiag_version": __version__,
            "checkpoint": str(self.path),
            "fingerprint": self.known.info.fingerprint,
            "settings": {name: setting.value for name, setting in self.known.settings.items()},
            "samples": self._samples if self._samples is not None else "all",
            "rounds": rounds,
            "diagnosis": first,
        }

    # ---------------------------------------------------------------- the files

    def _outline(self) -> Outline:
        """What the new file takes over, as long as the old one is the one that was diagnosed."""
        from samdiag.formats import open_checkpoint
        from samdiag.formats.writing import Outline

        old = open_checkpoint(self.path)
        if old.fingerprint != self.known.info.fingerprint:
            raise CannotDecide(
                f"{shown(self.path)} changed while it was being read", "run again once nothing writes to it"
            )
        return Outline.of(old, self.ready.problem.model, self._which)

    @property
    def _which(self) -> str:
        said = self.known.settings.get("weights")
        return "raw" if said is None else str(said.value)

    def _stored(self, outline: Outline) -> Mapping[str, Tensor] | None:
        """The old file's tensors, if it is still the same; None otherwise: a training run may have gone on."""
        from samdiag.formats import open_checkpoint

        try:
            old = open_checkpoint(self.path)
            return old.weights(self._which) if old.fingerprint == outline.fingerprint else None
        except SamdiagError:
            return None

    def _written(self, course: Course, found: Treatment, outline: Outline, log: Path) -> Treatment:
        """The treatment with its checkpoint written, or with the reason why it is not."""
        from samdiag.formats.writing import Taken, choose_targets

        if found.outcome is Outcome.NOTHING or not found.improved:
            return found
        try:
            try:
                written, notes = self._write(self.targets, course.kept.settings, found, outline)
            except Taken as taken:  # what was computed must not be lost to a name
                written, notes = self._write(choose_targets(self.path, own=log), course.kept.settings, found, outline)
                notes = (*notes, taken.what)
        except SamdiagError as error:
            return replace(found, failure=failure_of(error))
        return replace(found, written=written, notes=(*found.notes, *notes))

    def _write(
        self, targets: Targets, settings: MeasureSettings, found: Treatment, outline: Outline
    ) -> tuple[Written, tuple[str, ...]]:
        from samdiag.formats.writing import optimizer_state, save_object, save_tensors, tensors_to_store
        from samdiag.spec.stamp import stamp_for

        assert settings.lr is not None
        model, stored = self.ready.problem.model, self._stored(outline)
        tensors = tensors_to_store(model, outline, stored)
        optimizer = optimizer_state(
            model,
            found.velocity,
            lr=settings.lr,
            momentum=settings.momentum,
            rho=settings.rho,
            weight_decay=settings.update_decay,
            dampening=settings.dampening,
            nesterov=settings.nesterov,
            adaptive={"sam": False, "asam": True}.get(settings.variant),
        )
        notes = tuple(
            note
            for note, holds in ((PT_KEEPS_LESS, self.known.info.format != "safetensors"), (GONE, stored is None))
            if holds
        )
        if targets.optimizer is None:
            save_object(targets.checkpoint, {"model": tensors, "optimizer": optimizer}, outline)
            return Written(checkpoint=str(targets.checkpoint)), (*notes, PT_HAS_NO_STAMP)
        said = {name: setting.value for name, setting in self.known.settings.items()}
        stamp, reason = stamp_for(said, outline.stamp, settings)
        save_tensors(targets.checkpoint, tensors, outline, stamp=stamp)
        written = Written(checkpoint=str(targets.checkpoint), stamped=stamp is not None)
        notes = (*notes, reason) if reason else notes
        try:
            save_object(targets.optimizer, optimizer, outline)
        except SamdiagError as error:
            return written, (*notes, f"no optimizer state: {error.what}")
        return replace(written, optimizer=str(targets.optimizer)), notes
