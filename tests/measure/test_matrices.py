"""Whole spectra and blocks of networks against their dense float64 matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from samdiag.curvature.objective import Objective
from samdiag.errors import UsageError
from samdiag.measure.blocks import block_of, matching, modules_of
from samdiag.measure.density import Effort
from samdiag.measure.matrices import measure_layer, measure_matrix
from samdiag.measure.opening import Opened, opened
from samdiag.measure.settings import MeasureSettings
from samdiag.measure.traces import pooled
from samdiag.spectral import MatrixSpectrum
from samdiag.types import Problem
from tests.curvature.spectra import network_like, with_spectrum
from tests.curvature.test_gauss_newton import dense_fisher, dense_gauss_newton
from tests.curvature.test_trace import estimate
from tests.networks import NETWORKS, classification, cross_entropy, dense_hessian, mlp

SETTINGS = MeasureSettings(rho=1.0, tol=1e-3, dtype="float64")
EFFORT = Effort(num_probes=5, num_steps=30)


def mlp_365() -> Problem:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 5))
    return Problem(model=model, loss=cross_entropy, batches=classification((6,), 5, (40, 40, 17)))


DENSE = {"hessian": dense_hessian, "ggn": dense_gauss_newton, "fisher": dense_fisher}


@contextmanager
def ready(problem: Problem) -> Iterator[Opened]:
    with opened(problem, SETTINGS) as found:
        yield found


def spectrum_of(problem: Problem, matrix: str, *, block: Sequence[str] = (), effort: Effort = EFFORT) -> MatrixSpectrum:
    with ready(problem) as found:
        names = matching(found.objective.model, block) if block else tuple(dict(problem.model.named_parameters()))
        with block_of(found, names) as objective:
            return measure_matrix(
                objective, matrix, SETTINGS, effort, population=None, marks=[], tell=lambda _what, _count: None
            )


@pytest.mark.parametrize("matrix", sorted(DENSE))
def test_a_small_network_is_known_completely(matrix: str) -> None:
    """101 parameters: every number of the report is that of the dense matrix."""
    values = torch.linalg.eigvalsh(DENSE[matrix](mlp())).numpy()
    found = spectrum_of(mlp(), matrix, effort=Effort(num_probes=5, thresholds=(0.01,)))
    assert found.complete
    assert found.lambda_max.value == pytest.approx(values[-1])
    assert found.lambda_min.value == pytest.approx(values[0], abs=1e-9)
    assert found.traces.trace.value == pytest.approx(values.sum())
    assert found.traces.squared_norm.value == pytest.approx((values**2).sum())
    assert found.traces.absolute is not None
    assert found.traces.absolute.value == pytest.approx(np.abs(values).sum())
    assert found.traces.effective_rank is not None
    assert found.traces.effective_rank.value == pytest.approx(np.abs(values).sum() ** 2 / (values**2).sum())
    below, within, above = found.counts
    assert below.count == below.low == below.high == (values < -0.01).sum()
    assert within.count == within.low == within.high == (np.abs(values) < 0.01).sum()
    assert above.count == above.low == above.high == (values > 0.01).sum()
    assert found.density is not None
    assert sum(found.density.counts) == len(values)
    assert found.density.num_probes == 0


@pytest.mark.parametrize("matrix", sorted(DENSE))
def test_a_larger_network_is_within_its_errors(matrix: str) -> None:
    """365 parameters: too many for the complete spectrum; every interval holds the truth (for this seed)."""
    values = torch.linalg.eigvalsh(DENSE[matrix](mlp_365())).numpy()
    found = spectrum_of(mlp_365(), matrix, effort=Effort(num_probes=5, num_steps=30, thresholds=(0.003, 0.03)))
    assert not found.complete
    assert abs((found.lambda_max.value or 0) - values[-1]) <= found.lambda_max.error
    traces = found.traces
    assert abs((traces.trace.value or 0) - values.sum()) <= 1.5 * traces.trace.error
    assert abs((traces.squared_norm.value or 0) - (values**2).sum()) <= 1.5 * traces.squared_norm.error
    hutchinson = 2 * np.sqrt(2 * (values**2).sum() / 30)  # its half-width at equal products
    assert traces.trace.error < 1.5 * hutchinson  # this network has no few eigenvalues that hold it all
    for count in found.counts:
        truth = {
            "below": (values < count.threshold).sum(),
            "within": (np.abs(values) < count.threshold).sum(),
            "above": (values > count.threshold).sum(),
        }[count.side]
        assert count.low <= truth <= count.high, count
    density = found.density
    assert density is not None
    truth = np.histogram(values, np.array(density.edges))[0]
    inside = (np.array(density.counts_low) <= truth) & (truth <= np.array(density.counts_high))
    assert inside.mean() >= 0.8
    area = np.trapezoid(density.density, density.values)
    assert area == pytest.approx(len(values), rel=0.02)


def test_no_probes_means_no_density() -> None:
    found = spectrum_of(mlp_365(), "hessian", effort=Effort(num_probes=0))
    assert found.density is None
    assert found.counts == ()
    assert found.traces.absolute is None
    assert found.traces.trace.sampling_error is not None


def test_a_block_is_the_dense_matrix_of_its_parameters() -> None:
    problem = mlp()
    names = [name for name, p in problem.model.named_parameters() for _ in range(p.numel())]
    chosen = [i for i, name in enumerate(names) if name.startswith("2.")]
    values = torch.linalg.eigvalsh(dense_hessian(problem)[chosen][:, chosen]).numpy()
    found = spectrum_of(problem, "hessian", block=["2.*"])
    assert found.num_params == len(chosen) == 45
    assert found.lambda_max.value == pytest.approx(values[-1])
    assert found.lambda_min.value == pytest.approx(values[0], abs=1e-9)


@pytest.mark.parametrize("name", ["mlp", "batch_norm", "tied", "unused"])
def test_layers_are_the_dense_blocks(name: str) -> None:
    problem = NETWORKS[name]()
    hessian = dense_hessian(problem)
    owners = [n for n, p in problem.model.named_parameters() if p.requires_grad for _ in range(p.numel())]
    with ready(problem) as found:
        for module, names in modules_of(found.objective.model).items():
            rows = [i for i, owner in enumerate(owners) if owner in names]
            values = torch.linalg.eigvalsh(hessian[rows][:, rows]).numpy()
            if name == "unused" and module == "never":
                continue  # the loss does not see it: reported as flat
            with block_of(found, names) as block:
                layer = measure_layer(block, module, names, SETTINGS, population=None)
            assert layer.num_params == len(rows)
            assert layer.lambda_max.value == pytest.approx(values[-1], abs=1e-9)
            assert layer.lambda_min.value == pytest.approx(values[0], abs=1e-9)
            assert layer.trace.value == pytest.approx(values.sum(), abs=layer.trace.error + 1e-9)


def test_everything_comes_back_after_an_error() -> None:
    problem = NETWORKS["unused"]()
    before = {n: (p.requires_grad, p.data_ptr(), p.detach().clone()) for n, p in problem.model.named_parameters()}

    class Stop(Exception):
        pass

    def stop(block: Objective) -> None:
        assert block.num_params == 30
        raise Stop

    with pytest.raises(Stop), ready(problem) as found, block_of(found, ["used.weight"]) as block:
        stop(block)
    for name, p in problem.model.named_parameters():
        trainable, place, value = before[name]
        assert p.requires_grad is trainable
        assert p.data_ptr() == place
        assert torch.equal(p, value)
        assert p.grad is None


def test_the_outer_objective_goes_on_as_before() -> None:
    with ready(mlp()) as found:
        v = torch.ones(found.objective.num_params, dtype=torch.float64)
        before = found.objective.product(v).clone()
        with block_of(found, ["0.bias"]) as block:
            block.product(torch.ones(8, dtype=torch.float64))
        torch.testing.assert_close(found.objective.product(v), before)


def network() -> nn.Module:
    return nn.ModuleDict(
        {"layer1": nn.Linear(2, 2), "layer2": nn.ModuleDict({"conv": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})}
    )


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["layer1.*"], ["layer1.weight", "layer1.bias"]),
        (["layer2"], ["layer2.conv.weight", "layer2.conv.bias", "layer2.norm.weight", "layer2.norm.bias"]),
        (["*.bias"], ["layer1.bias", "layer2.conv.bias", "layer2.norm.bias"]),
        (["layer2.norm.weight", "layer1.w*"], ["layer1.weight", "layer2.norm.weight"]),
    ],
)
def test_patterns(patterns: list[str], names: list[str]) -> None:
    assert list(matching(network(), patterns)) == names


def test_a_tied_parameter_answers_to_both_names() -> None:
    model = NETWORKS["tied"]().model
    assert matching(model, ["out.weight"]) == matching(model, ["embed.*"]) == ("embed.weight",)


@pytest.mark.parametrize(("pattern", "todo"), [("layr1.*", "did you mean 'layer1'"), ("zzz", "there are: layer1, ")])
def test_a_pattern_that_matches_nothing(pattern: str, todo: str) -> None:
    with pytest.raises(UsageError, match="matches no parameter") as caught:
        matching(network(), [pattern])
    assert todo in caught.value.todo


def test_a_pattern_that_matches_frozen_parameters_only() -> None:
    with pytest.raises(UsageError, match="frozen parameters only"):
        matching(NETWORKS["unused"]().model, ["frozen.*"])


@pytest.mark.parametrize("flat", [False, True])
def test_the_pooled_trace_covers_with_less_spread(flat: bool) -> None:
    """Hutch++ and the density's probes together, over 40 seeds, with and without outliers."""
    case = with_spectrum(torch.randn(120, generator=torch.Generator().manual_seed(3))) if flat else network_like()
    truth, squared = case.values.sum(), (case.values**2).sum()
    alone, together, hits, squared_hits = [], [], 0, 0
    for seed in range(40):
        found = estimate(case, seed, "deflated")
        trace, norm = pooled(found, case.probed(seed, probes=8, steps=6, count=4))
        alone.append(found.value - truth)
        together.append((trace.value or 0.0) - truth)
        hits += abs(together[-1]) <= trace.error
        squared_hits += abs((norm.value or 0.0) - squared) <= norm.error
    assert np.std(together) < np.std(alone)
    assert hits >= 35
    assert squared_hits >= 34
