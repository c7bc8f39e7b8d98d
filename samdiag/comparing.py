"""Two diagnoses side by side: what changed beyond both error bars, and what did not. Plain values.

A number has changed where the two intervals value ± error do not touch. This asks for more than two standard errors of
the difference: among some twenty numbers one would pass that by chance.

The two are treated as independent. Checkpoints that were measured on the same samples share their sampling error, so
that most of it is not in the difference: what is said to have changed has, and of what is said not to have, more may.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samdiag.encoding import jsonable
from samdiag.errors import CannotDecide
from samdiag.quantities import quantity
from samdiag.types import CheckpointInfo, Diagnosis, Estimate, Failure, Finding

FORMAT_VERSION = 1
ROUNDING = 1e-5  # relative: float32 summed in another order, on another device
MEASURED = (  # with error bars; the first few are what a run is judged by
    *("loss", "grad_norm", "gradient_ratio", "gradient_cosine", "update_ratio", "lambda_max", "lambda_min"),
    *("directional_curvature", "perturbed_loss", "loss_change", "perturbed_grad_norm", "ridge_distance"),
    *("noise_trace", "largest_multiplier"),
)
BARE = (  # of the analysed samples, by themselves
    *("lookahead_loss", "lookahead_loss_sgd", "lookahead_cosine", "perturbation_norm", "effective_radius"),
    *("quadratic_error", "surviving_gradient"),
)
BESIDE = ("gate.", "measure.device", "measure.memory", "download")  # settings that move no number beyond rounding
UNSAID = "not said"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """A setting that differs: the numbers were not measured under the same conditions."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingChange:
    """A finding on both sides, or on one; a side is None where it is not there.

    Attributes:
        verdict: the finding's.
        before, after: its severity and confidence, and whether the dynamics probe contradicts it.
    """

    verdict: str
    before: tuple[str, str, bool] | None
    after: tuple[str, str, bool] | None

    @property
    def changed(self) -> bool:
        return self.before != self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """One number on both sides.

    Attributes:
        name: the quantity.
        before, after: with their errors; None where it was not measured.
        difference: after − before; None unless both are known.
        error: half-width of the 95 % interval of the difference: both numerical bounds, and twice the sampling errors'
            root sum of squares; None of a number that has no error bars.
        z: the difference in standard errors, 2·difference/error; infinite where only rounding remains.
        changed: whether the two intervals do not touch; None where nothing says so: measured on one side only, or
            without error bars, as where a sampling error is not known though only some samples were seen.
    """

    name: str
    before: Estimate | None
    after: Estimate | None
    difference: float | None = None
    error: float | None = None
    z: float | None = None
    changed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What a comparison says of one diagnosis."""

    checkpoint: CheckpointInfo | None
    verdict: str
    failure: Failure | None
    samdiag_version: str
    seed: Any = None

    @property
    def name(self) -> str:
        return self.checkpoint.path if self.checkpoint else "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two diagnoses side by side.

    Attributes:
        before, after: which they are.
        settings: those that differ; while there are any, the numbers are not comparable.
        findings: of both sides, in order of appearance.
        shifts: the numbers with error bars, then those without; left out where neither side has them.
        notes: what to know, one line each.
    """

    before: Side
    after: Side
    settings: tuple[SettingChange, ...]
    findings: tuple[FindingChange, ...]
    shifts: tuple[Shift, ...]
    notes: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether both were measured, and under the same settings."""
        return not self.settings and self.before.failure is None and self.after.failure is None

    @property
    def differs(self) -> bool:
        """Whether anything changed: a setting, the verdict, a finding, or a number beyond both error bars."""
        return (
            bool(self.settings)
            or self.before.verdict != self.after.verdict
            or (self.before.failure is None) is not (self.after.failure is None)
            or any(finding.changed for finding in self.findings)
            or any(shift.changed for shift in self.shifts)
        )

    def to_dict(self) -> dict[str, Any]:
        """One pair in the JSON object of `samdiag diff --format json`."""
        plain = {f.name: jsonable(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"differs": self.differs, "comparable": self.comparable, **plain}


def compare(before: Diagnosis, after: Diagnosis) -> Comparison:
    """What changed from one diagnosis to another."""
    numbers = [_shift(name, before, after) for name in (*MEASURED, *BARE)]
    return Comparison(
        before=_side(before),
        after=_side(after),
        settings=_settings(before, after),
        findings=_findings(before, after),
        shifts=tuple(shift for shift in numbers if shift.before is not None or shift.after is not None),
        notes=_notes(before, after),
    )


def has_error_bars(diagnosis: Diagnosis, name: str) -> bool:
    """Whether a measured quantity's error bars say all: it has some, and its sampling error is known or there is none,
    as where every sample of the training set was analysed.
    """
    found, m = quantity(diagnosis, name), diagnosis.measurements
    if name in BARE or found is None or m is None:
        return False
    return found.sampling_error is not None or (m.population is not None and m.num_samples >= m.population)


def has_changed(before: tuple[float, float, float], after: tuple[float, float, float]) -> bool:
    """Whether two (value, low, high) do not touch; what rounding can do is no change."""
    if math.isnan(before[0]) or math.isnan(after[0]) or before[0] == after[0]:
        return False
    slack = ROUNDING * max((abs(value) for value in (before[0], after[0]) if math.isfinite(value)), default=0.0)
    return after[1] > before[2] + slack or after[2] < before[1] - slack


def interval(measured: Estimate) -> tuple[float, float, float]:
    """Value, low and high of a known estimate; both ends at an infinite value."""
    assert measured.value is not None
    if math.isinf(measured.value):
        return measured.value, measured.value, measured.value
    return measured.value, measured.low, measured.high


def differing_settings(diagnoses: Sequence[Diagnosis]) -> dict[str, list[Any]]:
    """Setting → its different values, of all that decide the numbers: not the gate's, nor where it was measured."""
    found: dict[str, list[Any]] = {}
    names = dict.fromkeys(name for d in diagnoses for name in d.settings if not name.startswith(BESIDE))
    for name in names:
        values = [jsonable(d.settings[name].value) if name in d.settings else UNSAID for d in diagnoses]
        different = [value for index, value in enumerate(values) if value not in values[:index]]
        if len(different) > 1:
            found[name] = different
    return found


def _shift(name: str, before: Diagnosis, after: Diagnosis) -> Shift:
    left, right = quantity(before, name), quantity(after, name)
    if left is None or right is None or left.value is None or right.value is None:
        return Shift(name=name, before=left, after=right)
    difference = right.value - left.value if right.value != left.value else 0.0
    if not (has_error_bars(before, name) and has_error_bars(after, name)):
        return Shift(name=name, before=left, after=right, difference=difference)
    error = left.error + right.error + 2.0 * math.hypot(left.sampling_error or 0.0, right.sampling_error or 0.0)
    return Shift(
        name=name,
        before=left,
        after=right,
        difference=difference,
        error=error,
        z=_z(difference, error),
        changed=has_changed(interval(left), interval(right)),
    )


def _z(difference: float, error: float) -> float:
    """The difference in standard errors; the error is two of them."""
    if difference == 0 or math.isinf(error):
        return 0.0
    return 2.0 * difference / error if error else math.copysign(math.inf, difference)


def _side(diagnosis: Diagnosis) -> Side:
    return Side(
        checkpoint=diagnosis.checkpoint,
        verdict=diagnosis.verdict,
        failure=diagnosis.failure,
        samdiag_version=diagnosis.samdiag_version,
        seed=seed_of(diagnosis),
    )


def _settings(before: Diagnosis, after: Diagnosis) -> tuple[SettingChange, ...]:
    """What differs; of a diagnosis that failed before its settings were known, nothing can be said."""
    if not before.settings or not after.settings:
        return ()
    found = differing_settings([before, after])
    return tuple(SettingChange(name=name, before=values[0], after=values[1]) for name, values in found.items())


def _findings(before: Diagnosis, after: Diagnosis) -> tuple[FindingChange, ...]:
    left = {finding.verdict: _said(finding) for finding in before.findings}
    right = {finding.verdict: _said(finding) for finding in after.findings}
    return tuple(
        FindingChange(verdict=verdict, before=left.get(verdict), after=right.get(verdict))
        for verdict in {**left, **right}
    )


def _said(finding: Finding) -> tuple[str, str, bool]:
    return (finding.severity.value, finding.confidence.value, finding.contradicted)


def _notes(before: Diagnosis, after: Diagnosis) -> tuple[str, ...]:
    notes = []
    prints = [
        d.checkpoint.fingerprint for d in (before, after) if d.checkpoint is not None and d.checkpoint.fingerprint
    ]
    if len(prints) == 2 and prints[0] == prints[1]:
        notes.append("both are the same file, bit for bit")
    if before.samdiag_version != after.samdiag_version:
        notes.append(f"written by samdiag {before.samdiag_version} and {after.samdiag_version}")
    seen = [d.measurements.num_samples for d in (before, after) if d.measurements is not None]
    if len(set(seen)) > 1:
        notes.append(f"measured on {seen[0]} and {seen[1]} samples")
    return tuple(notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """Two lists of diagnoses, those of the same checkpoint side by side.

    Attributes:
        pairs: what is on both sides.
        only_before, only_after: what is on one.
        by: what they were matched by: "path", "step", or "alone" for one on each side.
    """

    pairs: tuple[Comparison, ...]
    only_before: tuple[Side, ...] = ()
    only_after: tuple[Side, ...] = ()
    by: str = "alone"

    @property
    def differs(self) -> bool:
        """Whether anything does: a pair, or a checkpoint that is on one side only."""
        return bool(self.only_before or self.only_after) or any(pair.differs for pair in self.pairs)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `samdiag diff --format json`."""
        return {
            "format_version": FORMAT_VERSION,
            "differs": self.differs,
            "by": self.by,
            "pairs": [pair.to_dict() for pair in self.pairs],
            "only_before": jsonable(self.only_before),
            "only_after": jsonable(self.only_after),
        }


def diff(before: Sequence[Diagnosis], after: Sequence[Diagnosis]) -> Diff:
    """The diagnoses of the same checkpoint and seed compared: by path, or where no path is shared by training step.

    Of several of one checkpoint and seed on a side the last counts. One diagnosis on each side need not match.

    Raises:
        CannotDecide: nothing matches.
    """
    if len(before) == len(after) == 1:
        return Diff(pairs=(compare(before[0], after[0]),))
    for by, key in (("path", _path_key), ("step", _step_key)):
        left, right = _keyed(before, key), _keyed(after, key)
        shared = [k for k in left if k in right]
        if shared:
            return Diff(
                pairs=tuple(compare(left[k], right[k]) for k in shared),
                only_before=tuple(_side(d) for k, d in left.items() if k not in right),
                only_after=tuple(_side(d) for k, d in right.items() if k not in left),
                by=by,
            )
    raise CannotDecide(
        f"no checkpoint is in both: {len(before)} and {len(after)} records share neither a path nor a training step",
        "compare records of the same checkpoints, or of two runs saved at the same steps",
    )


def _keyed(diagnoses: Sequence[Diagnosis], key: Callable[[Diagnosis], object]) -> dict[object, Diagnosis]:
    """The diagnoses by their key; none where one key stands for several checkpoints, as a step does of two runs."""
    found: dict[object, Diagnosis] = {}
    for diagnosis in diagnoses:
        name = key(diagnosis)
        if name is not None:
            known = found.setdefault(name, diagnosis)
            if _path_key(known) != _path_key(diagnosis):
                return {}
            found[name] = diagnosis
    return found


def seed_of(diagnosis: Diagnosis) -> Any:
    """The seed that it was measured with; None where its settings are not known."""
    said: Mapping[str, Any] = diagnosis.settings
    return said["measure.seed"].value if "measure.seed" in said else None


def _path_key(diagnosis: Diagnosis) -> object:
    return None if diagnosis.checkpoint is None else (diagnosis.checkpoint.path, seed_of(diagnosis))


def _step_key(diagnosis: Diagnosis) -> object:
    found = diagnosis.checkpoint
    return None if found is None or found.step is None else (found.step, seed_of(diagnosis))
