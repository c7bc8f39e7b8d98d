"""The tanh network: its exact case, the runs behind the experiment, and what the experiment makes of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from samdiag.gallery import tanh_network_rows as rows
from samdiag.gallery import tanh_network_study as study_module
from samdiag.gallery.endpoints import inspected
from samdiag.gallery.experiment import Outcome
from samdiag.gallery.tanh_network import EXPERIMENT, prescribed_rho, tanh_network
from samdiag.gallery.tanh_network_model import TanhNetwork, as_problem, dataset, network, own_loss, shipped
from samdiag.gallery.tanh_network_pictures import wilson
from samdiag.gallery.tanh_network_runs import (
    Ends,
    Regression,
    attraction,
    examine,
    fresh_weights,
    ridge_distances,
    sam_jacobian,
    train,
)
from samdiag.gallery.tanh_network_study import LR, SHOWN, Study, regression

KNOWN = json.loads((Path(__file__).parents[1] / "data" / "cases.json").read_text(encoding="utf-8"))["network"][0]
Array = np.ndarray


@pytest.fixture(scope="module")
def problem() -> Regression:
    return regression()


@pytest.fixture(scope="module")
def hallucinated(problem: Regression) -> Array:
    """Eight of twelve runs after a warm start: at this radius nearly all of them end hallucinated."""
    warm = train(problem, fresh_weights(12, 0), rho=0.0, lr=LR, num_steps=200).ends
    ends = train(problem, warm, rho=SHOWN, lr=LR, num_steps=6000).ends
    chosen = ends[examine(problem, ends, SHOWN).hallucinated]
    assert len(chosen) >= 8
    return chosen[:8]


def autograd(weights: Array) -> tuple[float, Array]:
    """f and ∇f of one network, by the model and torch."""
    model = TanhNetwork(torch.from_numpy(weights.copy()))
    loss = own_loss(model, (shipped().inputs, shipped().targets))
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    return float(loss.detach()), torch.cat([part.flatten() for part in gradient]).numpy()


def test_the_file_holds_the_known_case() -> None:
    assert shipped().inputs.tolist() == KNOWN["X"]
    assert shipped().targets.tolist() == KNOWN["Y"]
    assert shipped().teacher.tolist() == KNOWN["x_star"]
    assert shipped().hallucinated.tolist() == KNOWN["point"]
    assert shipped().rho == pytest.approx(KNOWN["rho"], rel=1e-15)


def test_the_targets_are_the_teachers_outputs() -> None:
    with torch.no_grad():
        outputs = TanhNetwork(shipped().teacher)(shipped().inputs)
    assert float((outputs - shipped().targets).abs().max()) < 1e-14


def test_the_model_takes_and_gives_its_weights_in_order() -> None:
    assert parameters_to_vector(network().parameters()).tolist() == KNOWN["point"]
    assert [name for name, _ in network().named_parameters()] == [
        "hidden.weight",
        "hidden.bias",
        "out.weight",
        "out.bias",
    ]
    assert [tensor.shape for tensor in dataset().tensors] == [(60, 2), (60, 1)]


def test_changing_a_network_leaves_the_shipped_weights_alone() -> None:
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert shipped().hallucinated.tolist() == KNOWN["point"]
    dataset().tensors[0].zero_()
    assert shipped().inputs.tolist() == KNOWN["X"]


def test_loss_gradient_and_hessian_are_those_of_the_model(problem: Regression) -> None:
    weights = np.random.default_rng(0).standard_normal((3, 9))
    loss, gradient = problem.loss_and_gradient(weights)
    curvature = problem.hessian(weights)
    for row, w in enumerate(weights):
        expected, slope = autograd(w)
        assert loss[row] == pytest.approx(expected, rel=1e-13)
        assert gradient[row] == pytest.approx(slope, rel=1e-11, abs=1e-14)
        step = 1e-6 * np.eye(9)
        differences = np.stack([autograd(w + move)[1] - autograd(w - move)[1] for move in step]) / 2e-6
        assert curvature[row] == pytest.approx(differences, abs=1e-8)
        assert curvature[row] == pytest.approx(curvature[row].T, abs=1e-14)


def test_wider_networks_have_the_right_gradient() -> None:
    rng = np.random.default_rng(1)
    inputs, targets, w = rng.standard_normal((7, 2)), rng.standard_normal(7), fresh_weights(1, 2, hidden=3)
    first, bias, second, shift = w[0, :6].reshape(3, 2), w[0, 6:9], w[0, 9:12], w[0, 12]
    expected = (0.5 * (np.tanh(inputs @ first.T + bias) @ second + shift - targets) ** 2).mean()
    loss, gradient = Regression.of(inputs, targets).loss_and_gradient(w)
    assert loss[0] == pytest.approx(expected)
    for index, move in enumerate(1e-6 * np.eye(13)):
        plus, minus = (Regression.of(inputs, targets).loss_and_gradient(w + s * move)[0][0] for s in (1, -1))
        assert gradient[0, index] == pytest.approx((plus - minus) / 2e-6, abs=1e-8)


def test_training_is_sam_as_defined(problem: Regression) -> None:
    start, rho = fresh_weights(2, 3), np.array([0.0, 0.7])
    found = train(problem, start, rho=rho, lr=0.1, num_steps=15, every=5)
    for row in range(2):
        w = torch.from_numpy(start[row].copy())
        for _ in range(15):
            g = torch.from_numpy(autograd(w.numpy())[1])
            w = w - 0.1 * torch.from_numpy(autograd((w + rho[row] * g / g.norm()).numpy())[1])
        assert found.ends[row] == pytest.approx(w.numpy(), rel=1e-11)
    assert found.steps.tolist() == [0, 5, 10]
    assert found.loss[0] == pytest.approx(problem.loss_and_gradient(start)[0])
    assert found.ratio[:, 0] == pytest.approx(np.ones(3))
    assert found.cosine[:, 0] == pytest.approx(np.ones(3))
    assert fresh_weights(2, 3).tolist() == start.tolist()  # training leaves the start alone


def test_a_radius_may_depend_on_the_step(problem: Regression) -> None:
    start = fresh_weights(3, 4)
    both = train(problem, start, rho=lambda step: 0.5 if step < 4 else 0.1, lr=0.1, num_steps=9).ends
    first = train(problem, start, rho=0.5, lr=0.1, num_steps=4).ends
    assert both.tolist() == train(problem, first, rho=0.1, lr=0.1, num_steps=5).ends.tolist()


def test_the_jacobian_of_the_exact_case(problem: Regression) -> None:
    point = shipped().hallucinated.numpy()
    dense = np.linalg.eigvals(sam_jacobian(problem, point[None], shipped().rho)[0])
    assert np.sort(dense.real) == pytest.approx(KNOWN["J_eigenvalues"], rel=1e-6)
    numeric = np.linalg.eigvals(rows.differenced_jacobian(problem, point, shipped().rho))
    assert np.sort_complex(numeric) == pytest.approx(np.sort_complex(dense), rel=1e-4)
    seen = attraction(problem, point[None], shipped().rho)
    assert seen.zero_modes.tolist() == [0]
    assert seen.attracting(0.99 * 2 / max(KNOWN["J_eigenvalues"])).all()
    assert not seen.attracting(1.01 * 2 / max(KNOWN["J_eigenvalues"])).any()


def test_the_exact_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "RETURN_STEPS", 15_000)  # e⁻⁷·⁵ is what a thousandth of the distance takes
    found = rows.exact_rows(0)
    assert all(row.agrees for row in found), [row for row in found if not row.agrees]


def test_sam_hallucinates_after_a_warm_start(problem: Regression, hallucinated: Array) -> None:
    ends = examine(problem, hallucinated, SHOWN)
    assert ends.hallucinated.all()
    assert (ends.shifted_loss < ends.loss).all()
    assert ends.shifted_norm.max() < 1e-4
    assert ends.loss.min() > 0.1
    seen = attraction(problem, hallucinated, SHOWN)
    assert seen.attracting(LR).all()
    assert (seen.lowest < -1e-3).all()  # x+ is a strict saddle of f


def test_what_frees_a_hallucinated_run(
    problem: Regression, hallucinated: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised = np.array([prescribed_rho(study_module.diagnosed(w, SHOWN)) for w in hallucinated])
    assert ((advised > 0) & (advised < 0.1)).all()
    run, found = rows.cure_rows(problem, hallucinated, advised)
    assert all(row.agrees for row in found), [row for row in found if not row.agrees]
    assert run.loss.shape == (rows.CURE_STEPS // study_module.LOOK_EVERY, len(hallucinated))
    monkeypatch.setattr(rows, "CURE_STEPS", 5)
    early = rows.cure_rows(problem, hallucinated, advised)[1]
    assert not any(row.agrees for row in early if row.expected.startswith("recovered"))


def test_the_ridge_lies_within_rho_and_is_where_the_slope_turns(problem: Regression, hallucinated: Array) -> None:
    distance = ridge_distances(problem, hallucinated, SHOWN)
    _, g = problem.loss_and_gradient(hallucinated)
    u = g / np.linalg.norm(g, axis=1, keepdims=True)
    before, after = (
        (problem.loss_and_gradient(hallucinated + (distance + move)[:, None] * u)[1] * u).sum(axis=1)
        for move in (-1.5e-3, 1e-9)
    )
    assert (before > 0).all()
    assert (after <= 0).all()
    assert np.isnan(ridge_distances(problem, hallucinated, 0.01)).all()


def test_small_radii_do_not_hallucinate(problem: Regression) -> None:
    ends = examine(problem, train(problem, fresh_weights(20, 5), rho=1.0, lr=LR, num_steps=2000).ends, 1.0)
    assert not ends.hallucinated.any()
    assert ends.trapped.mean() > 0.5


def test_verdicts_on_trapped_and_hallucinated_runs(problem: Regression, hallucinated: Array) -> None:
    caught = train(problem, fresh_weights(6, 6), rho=1.5, lr=LR, num_steps=3000).ends
    assert examine(problem, caught, 1.5).trapped.all()
    ends = examine(problem, np.concatenate([caught, hallucinated]), np.repeat([1.5, SHOWN], [6, 8]))
    diagnoses = [study_module.diagnosed(w, 1.5) for w in caught]
    diagnoses += [study_module.diagnosed(w, SHOWN) for w in hallucinated]
    found = rows.verdict_rows(diagnoses, ends)
    assert len(found) == 2
    assert all(row.agrees for row in found), found
    mixed = rows.verdict_rows(diagnoses[::-1], ends)
    assert not any(row.agrees for row in mixed)


def made_up(hallucinated: int, total: int, *, falling: bool = True) -> Ends:
    """Ends of which some are hallucinated and the others bounce in the saddle."""
    flags = np.arange(total) < hallucinated
    return Ends(
        loss=np.where(flags, 0.2, 0.34),
        shifted_loss=np.where(flags, 0.02 if falling else 0.5, 3.8),
        norm=np.where(flags, 0.3, 0.1),
        shifted_norm=np.where(flags, 1e-6, 2.0),
        plateau=0.336,
    )


def test_share_rows_judge_by_binomial_errors() -> None:
    counts = dict.fromkeys(study_module.COLD_RHOS, 0) | {1.0: 1, 2.0: 7, 2.5: 24, 3.0: 23}
    found = rows.share_rows(Study(ends={(0, rho): made_up(count, 60) for rho, count in counts.items()}))
    judged = {row.quantity.split()[3]: row.agrees for row in found}
    assert judged == {"0.1": True, "0.5": True, "1": False, "1.5": None, "2": None, "2.5": True, "3": False}
    assert "7 of 60 (12% ± 4%); in the constant network's saddle: 53" in found[4].measured


def test_signature_rows_count(problem: Regression, hallucinated: Array) -> None:
    real = train(problem, hallucinated, rho=SHOWN, lr=LR, num_steps=1)
    study = Study(
        ends={(0, SHOWN): examine(problem, real.ends, SHOWN), (0, 2.0): made_up(0, 5)}, runs={(0, SHOWN): real}
    )
    found = rows.signature_rows(problem, study)
    assert [row.measured for row in found] == ["8 of 8", "5 of 5; 0 runs lie in between", "8 of 8", "8 of 8"]
    study.ends[0, SHOWN] = made_up(8, 8, falling=False)
    assert rows.signature_rows(problem, study)[0].agrees is False


@pytest.mark.parametrize(("warm", "agrees"), [(48, True), (36, False), (20, False)])
def test_a_warm_start_is_said_to_raise_the_share_only_beyond_its_error(warm: int, agrees: bool) -> None:
    ends = {(0, SHOWN): made_up(31, 60)} | {(steps, SHOWN): made_up(warm, 60) for steps in study_module.WARM}
    found = rows.warm_rows(Study(ends=ends))
    assert [row.agrees for row in found] == [agrees] * len(study_module.WARM)
    assert found[0].measured == f"31, then {warm} of 60; in the saddle 29, then {60 - warm}"


def test_intervals_of_shares() -> None:
    z = 1.96
    low, high = wilson(0, 60)
    assert (low, high) == pytest.approx((0.0, z * z / (60 + z * z)))
    low, high = wilson(31, 60)
    for end in (low, high):  # Wilson's interval: the shares p with |p − 31/60| = z √(p(1−p)/60)
        assert abs(end - 31 / 60) == pytest.approx(z * math.sqrt(end * (1 - end) / 60))
    assert wilson(60, 60) == pytest.approx((60 / (60 + z * z), 1.0))
    assert rows.standard_error(30, 60) == pytest.approx(math.sqrt(0.25 / 60))
    assert 0 < rows.standard_error(0, 60) < 0.02


def test_the_problem_is_the_case() -> None:
    problem = tanh_network()
    loss = problem.loss(problem.model, next(iter(problem.batches))).detach()
    assert float(loss) == pytest.approx(KNOWN["f"], rel=1e-12)
    assert problem.population == 60
    vector_to_parameters(shipped().teacher.clone(), problem.model.parameters())
    assert float(problem.loss(problem.model, next(iter(problem.batches))).detach()) < 1e-28
    assert float(as_problem(network()).loss(network(), dataset().tensors).detach()) == pytest.approx(KNOWN["f"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The whole experiment with few and short runs."""
    folder = tmp_path_factory.mktemp("tanh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_module, "SEEDS", 8)
        patch.setattr(study_module, "STEPS", 2500)
        patch.setattr(study_module, "COLD_RHOS", (1.0, SHOWN))
        patch.setattr(rows, "COLD_RHOS", (1.0, SHOWN))
        patch.setattr(study_module, "WARM_RHOS", (SHOWN,))
        patch.setattr(rows, "RETURN_STEPS", 100)
        patch.setattr(rows, "CURE_STEPS", 500)
        return EXPERIMENT.run(folder, 0, lambda _text: None)


def test_the_experiment_writes_its_pictures(small: Outcome) -> None:
    assert [path.name for path in small.pictures] == [f"tanh-network-{n}.png" for n in ("shares", "losses", "run")]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in small.pictures)


def test_the_hallucinated_checkpoint_is_diagnosed_from_its_stamp(small: Outcome) -> None:
    stuck, recovered = small.checkpoints
    diagnosis = inspected(stuck)
    assert diagnosis.failure is None
    assert diagnosis.verdict == "hallucinated-minimizer"
    assert diagnosis.settings["sam.rho"].value == SHOWN
    assert inspected(recovered).settings["sam.rho"].value < 0.1


def test_a_short_run_of_the_experiment_says_what_it_did_not_see(small: Outcome) -> None:
    """100 steps bring nobody back, and the row must say so."""
    found = {row.quantity: row for row in small.rows}
    assert found["exact case: starts 0.0001 away that SAM brings back"].agrees is False
    assert found["hallucinated at ρ 1 from random weights"].agrees is True


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_experiment_agrees(tmp_path: Path, seed: int) -> None:
    outcome = EXPERIMENT.run(tmp_path, seed, lambda _text: None)
    judged = [row for row in outcome.rows if row.agrees is not None]
    assert all(row.agrees for row in judged), [row for row in judged if not row.agrees]
