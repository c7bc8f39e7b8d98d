"""Samples that would decide: on built measurements, and by drawing that many."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samdiag
from samdiag.types import Diagnosis, Problem
from samdiag.verdicts.sample_size import with_samples
from samdiag.verdicts.undecided import judge
from tests.verdicts.samples import est, saddle

RHO = 1.25  # of USAM: captured below −0.8
TRUTH = (4.0, 2.0, -1.0)
SPREAD = 1.5  # of each sample's curvatures


class Saddle(nn.Module):
    """½ Σ (lam_j + z_j) w_j² at its critical point 0, z the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(len(TRUTH), dtype=torch.float64))


def diagnosed(count: int, seed: int) -> Diagnosis:
    """What `count` samples of that saddle say."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.tensor(TRUTH) + SPREAD * torch.randn(count, len(TRUTH), generator=generator, dtype=torch.float64)

    def loss(model: Any, rows: Tensor) -> Tensor:
        return 0.5 * (rows * model.w**2).sum(dim=1).mean()

    batches = list(z.split(max(4, count // 16)))
    problem = Problem(model=Saddle(), loss=loss, batches=batches, batch_size_is_training=False)
    return samdiag.diagnose(problem, rho=RHO, lr=0.01, variant="usam", samples=count)


def needed(diagnosis: Diagnosis) -> int | None:
    """The number of samples that its verdict asks for."""
    finding = next(f for f in diagnosis.findings if f.verdict == "undecided")
    found = finding.evidence.get("samples_needed")
    assert found is None or isinstance(found, int)
    if found is not None:
        assert f"about {found} samples would decide it: --samples {found}" in finding.message
    return found


def test_with_so_many_samples_most_repetitions_decide() -> None:
    """lambda_min = −1 against −0.8 with 64 samples; the advice then holds in at least 20 of 30 fresh draws."""
    asked = [needed(d) for d in (diagnosed(64, seed) for seed in range(4)) if d.verdict == "undecided"]
    assert len(asked) >= 3
    told = sorted(count for count in asked if count is not None)
    # (3·1.5·(2.14/2)/0.196)² = 600 with the truth known, Student's t of 14 degrees and the margin of the test;
    # 64 samples put lambda_min anywhere between −0.6 and −1.4
    count = 600
    assert told[0] / 10 < count < told[-1] * 10
    verdicts = [diagnosed(count, 100 + seed).verdict for seed in range(30)]
    assert sum(verdict != "undecided" for verdict in verdicts) >= 20, verdicts


def open_saddle(**changes: Any) -> Any:
    """USAM at a critical saddle whose lambda_min −1 ± 0.4 does not exclude −0.8, seen through 100 samples."""
    bottom = est(-1.0, 0.0, 0.2)
    values = {"variant": "usam", "num_samples": 100, "population": None, "lr": 0.01} | changes
    return saddle(values.pop("bottom", bottom), radius=RHO, top=est(4.0), **values)


def test_the_number_is_the_smallest_that_leaves_nothing_open() -> None:
    m = open_saddle()
    finding = judge(m)
    assert finding is not None
    asked = finding.evidence["samples_needed"]
    assert isinstance(asked, int)
    assert asked == pytest.approx(100 * (3 * 0.2 / 0.2) ** 2, rel=0.1)  # 3 standard errors within the distance of 0.2
    assert judge(with_samples(m, asked)) is None
    assert judge(with_samples(m, asked * 4 // 5)) is not None


def test_a_bias_shrinks_faster_than_a_standard_error() -> None:
    doubtful = dataclasses.replace(est(-1.0, 0.0, 0.2), bias=-0.2 * 2**0.5)  # all of the error is doubt in the bias
    finding = judge(open_saddle(bottom=doubtful))
    assert finding is not None
    assert finding.evidence["samples_needed"] == pytest.approx(300, rel=0.1)  # 3·0.2·100/n = 0.2


def test_the_whole_training_set_is_the_most_that_can_be_asked_for() -> None:
    finding = judge(open_saddle(population=120))
    assert finding is not None
    assert finding.evidence["samples_needed"] == 120
    assert "all 120 samples would decide it: --samples 120" in finding.message


@pytest.mark.parametrize(
    "changes",
    [
        {"bottom": est(-0.8, 0.0, 0.2)},  # on the threshold
        {"bottom": est(-1.0, 0.4, 0.0)},  # the error is numerical
        {"population": 100},  # nothing more to see
    ],
)
def test_no_number_is_named_where_none_would_help(changes: dict[str, Any]) -> None:
    finding = judge(open_saddle(**changes))
    assert finding is not None
    assert "samples_needed" not in finding.evidence
    assert "--samples" not in finding.message


def test_errors_never_grow() -> None:
    m = open_saddle()
    assert with_samples(m, 101).lambda_min.sampling_error == m.lambda_min.sampling_error
    assert (with_samples(m, 10_000).lambda_min.sampling_error or 1.0) < 0.05
