"""The choice of an engine: what is accepted, what is refused and why, and that a forced one is never replaced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samdiag
from samdiag.curvature.batches import count_samples
from samdiag.curvature.objective import Objective
from samdiag.curvature.products import choice
from samdiag.curvature.products.choice import ENGINES, choose_engine
from samdiag.curvature.products.forward import Forward
from samdiag.errors import CannotDecide, UsageError
from samdiag.reports.digest import digest
from samdiag.spec.parsing import flatten, parse
from samdiag.types import Problem
from tests.curvature.test_products import truth_of
from tests.networks import NETWORKS

CPU = torch.device("cpu")


def objective(problem: Problem, loss: Any = None, **changes: Any) -> Objective:
    batches = [(b, count_samples(b)) for b in problem.batches]
    return Objective(problem.model, loss or problem.loss, batches, device=CPU, dtype=torch.float32, **changes)


class Cube(torch.autograd.Function):
    """x³ with first and second derivatives, and no forward-mode rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grads[0]


def cubed(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(Cube.apply(model(batch[0])), batch[1])


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is timed, however short."""
    monkeypatch.setattr(choice, "SHORT", 0.0)
    monkeypatch.setattr(choice, "FORWARD_WORTH", 0.0)


def test_short_products_are_not_timed() -> None:
    with objective(NETWORKS["mlp"]()).borrowed() as f:
        chosen = choose_engine(f)
        assert (chosen.name, chosen.tried, chosen.seconds) == ("kept", (), None)
        assert f.num_products == 0


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_fastest_that_agrees_is_chosen_and_its_products_are_right(name: str) -> None:
    problem, hessian = NETWORKS[name](), truth_of(name)
    v = torch.randn(len(hessian), generator=torch.Generator().manual_seed(0))
    with objective(problem).borrowed() as f:
        chosen = choose_engine(f)
        assert [t.name for t in chosen.tried] == ["recomputed", "kept", "forward"]
        assert all(t.error is not None and t.error < 1e-5 for t in chosen.tried), chosen
        assert chosen.seconds == min(t.seconds or 0.0 for t in chosen.tried if t.name != "recomputed")
        assert f.engine.name == chosen.name
        truth = hessian @ v.double()
        assert torch.linalg.vector_norm(f.product(v).double() - truth) < 1e-5 * torch.linalg.vector_norm(truth)


@pytest.mark.parametrize("name", [n for n in ENGINES if n != "compiled"])
def test_a_forced_engine_is_the_one_that_is_used(name: str) -> None:
    with objective(NETWORKS["layer_norm"]()).borrowed() as f:
        chosen = choose_engine(f, name)
        assert chosen.name == f.engine.name == name
        assert [t.name for t in chosen.tried] == [name]


@pytest.mark.usefixtures("patient")
def test_what_has_no_forward_rule_is_refused_by_name_and_another_is_chosen() -> None:
    with objective(NETWORKS["mlp"](), cubed).borrowed() as f:
        refused = {t.name: t.refused for t in choose_engine(f).tried}
        assert "forward derivative of the gradient of the loss cannot be computed" in refused["forward"]
        assert refused["kept"] == refused["recomputed"] == ""
        with pytest.raises(CannotDecide, match="forward derivative of the gradient"):
            choose_engine(f, "forward")


@pytest.mark.parametrize("name", ["batch_norm", "attention"])
def test_differences_across_kinks_are_refused(name: str) -> None:
    """In float32 the step is long enough to cross ReLU kinks, on all of the data if not on a part."""
    with (
        objective(NETWORKS[name]()).borrowed() as f,
        pytest.raises(CannotDecide, match=r"--products difference: its products differ from the recomputed ones by"),
    ):
        choose_engine(f, "difference")


@pytest.mark.usefixtures("patient")
def test_an_engine_that_disagrees_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Forward._product

    def wrong(self: Forward, piece: Any) -> Any:
        return [None if p is None else 1.05 * p for p in inner(self, piece)]

    monkeypatch.setattr(Forward, "_product", wrong)
    with objective(NETWORKS["mlp"]()).borrowed() as f:
        refused = {t.name: t.refused for t in choose_engine(f).tried}
        assert refused["forward"] == "its products differ from the recomputed ones by 5.0e-02"
        assert f.engine.name != "forward"
        with pytest.raises(CannotDecide, match=r"--products forward: its products differ"):
            choose_engine(f, "forward")


@pytest.mark.usefixtures("patient")
def test_kept_graphs_that_do_not_fit_are_refused() -> None:
    with objective(NETWORKS["attention"](), graph_memory=100).borrowed() as f:
        chosen = choose_engine(f)
        assert "one batch's graph takes" in next(t.refused for t in chosen.tried if t.name == "kept")
        assert chosen.name != "kept"
        assert chosen.kept_share == 0.0
        with pytest.raises(CannotDecide, match="--products kept: one batch's graph takes"):
            choose_engine(f, "kept")


@pytest.mark.usefixtures("patient")
def test_the_report_says_what_products_cost_and_json_says_it_all() -> None:
    diagnosis = samdiag.diagnose(NETWORKS["mlp_1870"](), rho=0.05, lr=0.1, products="recomputed", memory=10**9)
    m = diagnosis.measurements
    assert m is not None
    assert m.engine is not None
    assert m.engine.name == "recomputed"
    line = next(part for part in digest(diagnosis).footer if "products" in part)
    assert "gradients each (recomputed)" in line
    assert diagnosis.to_dict()["measurements"]["engine"]["tried"][0]["name"] == "recomputed"


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("500MB", 500_000_000),
        ("4GB", 4_000_000_000),
        ("2GiB", 2**31),
        ("1.5 g", 1_500_000_000),
        ("123456", 123456),
        (77, 77),
    ],
)
def test_memory_is_read_with_its_unit(said: Any, number: int) -> None:
    assert flatten(parse({"measure": {"memory": said}}, "--memory"))["measure.memory"] == number


@pytest.mark.parametrize("said", ["much", "4 apples", "-1GB", "0", "GB", "1ib", 0, True])
def test_what_is_no_amount_of_memory_is_refused(said: Any) -> None:
    with pytest.raises(UsageError) as caught:
        parse({"measure": {"memory": said}}, "command line")
    assert "measure.memory" in caught.value.what
    assert "\n" not in caught.value.what + caught.value.todo


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(UsageError, match=r"measure\.products"):
        parse({"measure": {"products": "fast"}}, "command line")
    with pytest.raises(UsageError, match="is not a number of bytes"):
        samdiag.diagnose(NETWORKS["mlp"](), rho=0.1, memory="4GB")
