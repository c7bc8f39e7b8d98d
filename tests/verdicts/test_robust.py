"""Whatever was measured, `judge_all` answers: in order of harm, with a message, evidence and a source."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from samdiag.types import VERDICTS_BY_HARM, Measurements
from samdiag.verdicts import judge_all

from . import samples

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def check(m: Measurements) -> None:
    findings = judge_all(m)
    assert findings
    names = [f.verdict for f in findings]
    assert names == sorted(names, key=VERDICTS_BY_HARM.index)
    assert len(set(names)) == len(names)
    for finding in findings:
        assert finding.message.strip()
        assert finding.source.strip()
        assert finding.evidence
        assert all(v is None or isinstance(v, (int, float, str)) for v in finding.evidence.values())
        assert "None" not in finding.message


@QUICK
@given(samples.reachable())
def test_judge_all_answers_whatever_can_be_measured(m: Measurements) -> None:
    check(m)


def test_judge_all_answers_where_weight_decay_balances_the_curvature() -> None:
    """A pure maximum freed by momentum (A8) whose escape rate under SGD, |lam| − wd, is 0."""
    check(samples.saddle(samples.est(-1.0), top=samples.est(-1.0), lr=0.2, momentum=0.9, weight_decay=1.0))


def test_judge_all_answers_where_an_estimate_is_unknown() -> None:
    """`Estimate.value` may be None by its type, though `measure` always fills this one."""
    check(samples.hallucinated(perturbed_grad_norm=samples.UNKNOWN))


def test_judge_all_answers_where_nothing_is_known() -> None:
    nothing = samples.UNKNOWN
    names = (
        *("loss", "grad_norm", "perturbed_loss", "loss_change", "perturbed_grad_norm", "gradient_ratio"),
        *("gradient_cosine", "update_ratio", "directional_curvature", "ridge_distance", "lambda_max", "lambda_min"),
        "noise_trace",
    )
    m = samples.measurements(
        **dict.fromkeys(names, nothing),
        lr=None,
        lookahead_loss=None,
        lookahead_loss_sgd=None,
        lookahead_cosine=None,
        quadratic_error=None,
        loss_lower_bound=None,
        top_directions=(),
        bottom_directions=(),
        top_eigenvalues=(),
        bottom_eigenvalues=(),
    )
    assert judge_all(m)[0].verdict == "undecided"


def test_the_reference_samples_give_the_verdict_they_are_made_for() -> None:
    verdicts = {
        "saddle-attraction": samples.measurements(),
        "minimum": samples.minimum(),
        "hallucinated-minimizer": samples.hallucinated(),
        "hallucinated-point": samples.hallucinated(jacobian_eigenvalues=((2.0, 0.0), (-1.0, 0.0))),
        "bounce": samples.bouncing(),
    }
    for verdict, m in verdicts.items():
        check(m)
        assert judge_all(m)[0].verdict == verdict
