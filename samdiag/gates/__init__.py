"""Diagnoses → outcomes and an exit code: what fails a checkpoint, what leaves it open, and what is known already.

`gate_of(diagnosis, …).judge(diagnosis)` is the whole of it for one checkpoint, made now or read from a saved report;
`exit_code_of(outcomes)` for many. Nothing here imports torch.
"""

from samdiag.gates.baseline import Baseline, Known, KnownFinding, KnownNumber
from samdiag.gates.baseline_file import load_baseline, update_baseline
from samdiag.gates.codes import exit_code, exit_code_of, worst
from samdiag.gates.fail_on import (
    ANY,
    FAIL_ON_ANY,
    FAIL_ON_DEFAULT,
    FAIL_ON_NEVER,
    NEVER,
    FailOn,
    parse_fail_on,
)
from samdiag.gates.gate import Gate, gate_of
from samdiag.gates.spec_trust import spec_lines, untrusted
from samdiag.requirements import Condition, Requirement, parse_requirement, parse_requirements

__all__ = [
    "ANY",
    "FAIL_ON_ANY",
    "FAIL_ON_DEFAULT",
    "FAIL_ON_NEVER",
    "NEVER",
    "Baseline",
    "Condition",
    "FailOn",
    "Gate",
    "Known",
    "KnownFinding",
    "KnownNumber",
    "Requirement",
    "exit_code",
    "exit_code_of",
    "gate_of",
    "load_baseline",
    "parse_fail_on",
    "parse_requirement",
    "parse_requirements",
    "spec_lines",
    "untrusted",
    "update_baseline",
    "worst",
]
