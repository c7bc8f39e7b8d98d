"""Gauss-Newton and Fisher products against dense float64 matrices; every loss that cannot be split is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdiag import Problem
from samdiag.curvature.fisher import Fisher
from samdiag.curvature.gauss_newton import GaussNewton
from samdiag.curvature.objective import Objective
from samdiag.errors import CannotDecide, UsageError
from samdiag.measure.as_trained import with_decay
from tests.networks import NETWORKS, classification, dense_hessian, mlp, plain_kernels

NAMES = ("mlp", "tied", "unused", "batch_norm", "layer_norm", "attention", "lstm")
DOUBLE = torch.float64


@contextmanager
def objective_of(problem: Problem, loss: Callable[[Any, Any], Any] | None = None, **more: Any) -> Iterator[Objective]:
    batches = [
        ((x.double() if x.is_floating_point() else x, y.double() if y.is_floating_point() else y), len(x))
        for x, y in problem.batches
    ]
    objective = Objective(
        copy.deepcopy(problem.model), loss or problem.loss, batches, device=torch.device("cpu"), dtype=DOUBLE, **more
    )
    with objective.borrowed():
        yield objective


def columns(product: Callable[[Tensor], Tensor], dim: int) -> Tensor:
    return torch.stack([product(unit) for unit in torch.eye(dim, dtype=DOUBLE)])


def dense_gauss_newton(problem: Problem) -> Tensor:
    """Sample by sample, from the rows of the output's Jacobian and the closed form of cross-entropy's curvature."""
    return _summed(problem, lambda rows, z, y: rows.T @ (torch.diag(p := z.softmax(0)) - torch.outer(p, p)) @ rows)


def dense_fisher(problem: Problem) -> Tensor:
    def part(rows: Tensor, z: Tensor, y: Tensor) -> Tensor:
        g = rows.T @ (z.softmax(0) - F.one_hot(y, len(z)))
        return torch.outer(g, g)

    return _summed(problem, part)


def _summed(problem: Problem, part: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    model = copy.deepcopy(problem.model).double().eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    total, count = torch.zeros(()), 0
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), plain_kernels():
        for x, y in problem.batches:
            outputs = model(x.double() if x.is_floating_point() else x)
            for z, target in zip(outputs, y, strict=True):
                rows = [torch.autograd.grad(v, parameters, retain_graph=True, allow_unused=True) for v in z]
                jacobian = torch.stack(
                    [
                        torch.cat(
                            [
                                torch.zeros(p.numel(), dtype=DOUBLE) if r is None else r.reshape(-1)
                                for r, p in zip(row, parameters, strict=True)
                            ]
                        )
                        for row in rows
                    ]
                )
                total = total + part(jacobian, z.detach(), target)
                count += 1
    return total / count


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "dense"), [(GaussNewton, dense_gauss_newton), (Fisher, dense_fisher)])
def test_products_are_the_dense_matrix(name: str, kind: type[GaussNewton], dense: Callable[[Problem], Tensor]) -> None:
    problem = NETWORKS[name]()
    truth = dense(problem)
    generator = torch.Generator().manual_seed(0)
    with objective_of(problem) as objective:
        matrix = kind(objective)
        assert matrix.check(generator) < 1e-3
        for _ in range(3):
            v = torch.randn(matrix.num_params, generator=generator, dtype=DOUBLE)
            torch.testing.assert_close(matrix.product(v), truth @ v, rtol=1e-9, atol=1e-11)


def test_batches_sum_to_the_whole() -> None:
    with objective_of(mlp()) as objective:
        matrix = GaussNewton(objective)
        v = torch.ones(matrix.num_params, dtype=DOUBLE)
        seen: list[tuple[int, Tensor]] = []
        whole = matrix.product(v, lambda count, own: seen.append((count, own.clone())))
    assert [count for count, _ in seen] == [7, 7, 7, 3]
    torch.testing.assert_close(sum(count * own for count, own in seen) / 24, whole)


def test_a_linear_model_has_the_gauss_newton_matrix_as_hessian() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = nn.Linear(6, 5)
    problem = Problem(model=linear, loss=mlp().loss, batches=classification((6,), 5))
    with objective_of(problem) as objective:
        matrix = GaussNewton(objective)
        torch.testing.assert_close(columns(matrix.product, matrix.num_params), dense_hessian(problem))


def test_the_hessian_tends_to_it_as_residuals_vanish() -> None:
    """Squared error with targets at a distance r from the outputs: ‖H − G‖ is proportional to r."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    model = mlp().model.double()
    inputs = [x.double() for x, _ in mlp().batches]
    generator = torch.Generator().manual_seed(2)
    away = [torch.randn(len(x), 5, generator=generator, dtype=DOUBLE) for x in inputs]
    gaps = []
    for residual in (1e-1, 1e-2):
        batches = [(x, model(x).detach() + residual * a) for x, a in zip(inputs, away, strict=True)]
        problem = Problem(model=model, loss=loss, batches=batches)
        with objective_of(problem) as objective:
            matrix = GaussNewton(objective)
            v = torch.ones(matrix.num_params, dtype=DOUBLE)
            gaps.append(float(torch.linalg.vector_norm(matrix.product(v) - objective.product(v))))
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=1e-3)


@pytest.mark.parametrize("kind", [GaussNewton, Fisher])
def test_decay_in_the_objective_is_seen(kind: type[GaussNewton]) -> None:
    problem = mlp()
    with objective_of(problem, with_decay(problem.loss, 0.3)) as objective:
        matrix = kind(objective)
        v = torch.linspace(-1, 1, matrix.num_params, dtype=DOUBLE)
        if kind is GaussNewton:
            expected = dense_gauss_newton(problem) @ v + 0.3 * v
        else:
            rows = [
                objective.gradient_of([((x[i : i + 1], y[i : i + 1]), 1)])[1]
                for x, y in objective.batches
                for i in range(len(x))
            ]
            expected = torch.stack([g * torch.dot(g, v) for g in rows]).mean(dim=0)
        torch.testing.assert_close(matrix.product(v), expected)


class _Wrapped(nn.Module):
    """Returns an object with `.logits`, as Hugging Face models do, and its own loss beside it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.body(x)
        return SimpleNamespace(logits=logits, loss=None if labels is None else F.cross_entropy(logits, labels))


def test_logits_of_an_output_object_are_found() -> None:
    plain = mlp()
    problem = Problem(
        model=_Wrapped(plain.model), loss=lambda m, b: F.cross_entropy(m(b[0]).logits, b[1]), batches=plain.batches
    )
    with objective_of(problem) as objective:
        matrix = GaussNewton(objective)
        v = torch.ones(matrix.num_params, dtype=DOUBLE)
        torch.testing.assert_close(matrix.product(v), dense_gauss_newton(plain) @ v)


def _twice(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]) + model(-batch[0]), batch[1])


def _around(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model[2](model[1](model[0](batch[0]))), batch[1])


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (_twice, "calls the model 2 times"),
        (_around, "calls the model never"),
    ],
)
def test_a_loss_that_cannot_be_split_is_refused(loss: Callable[[Any, Any], Any], what: str) -> None:
    with objective_of(mlp(), loss) as objective, pytest.raises(CannotDecide, match=what):
        GaussNewton(objective).product(torch.ones(objective.num_params, dtype=DOUBLE))


def test_a_loss_made_inside_the_model_is_refused() -> None:
    plain = mlp()
    problem = Problem(model=_Wrapped(plain.model), loss=lambda m, b: m(b[0], labels=b[1]).loss, batches=plain.batches)
    with objective_of(problem) as objective, pytest.raises(CannotDecide, match="made inside the model"):
        GaussNewton(objective).product(torch.ones(objective.num_params, dtype=DOUBLE))


def test_an_output_without_a_tensor_is_refused() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp().model

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.body(x)
            return z, z

    problem = Problem(model=Pair(), loss=lambda m, b: F.cross_entropy(m(b[0])[0], b[1]), batches=mlp().batches)
    with objective_of(problem) as objective, pytest.raises(CannotDecide, match="neither a tensor nor"):
        GaussNewton(objective).product(torch.ones(objective.num_params, dtype=DOUBLE))


def test_samples_that_are_not_independent_have_no_fisher() -> None:
    """A loss with class weights of the batch's own labels: a sample alone has another gradient."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        weights = 1.0 + torch.bincount(batch[1], minlength=5).double()
        return F.cross_entropy(model(batch[0]), batch[1], weight=weights)

    with objective_of(mlp(), loss) as objective, pytest.raises(CannotDecide, match="not that of the sample alone"):
        Fisher(objective).check(torch.Generator().manual_seed(0))


def test_outputs_that_do_not_count_samples_have_no_fisher() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp().model

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).mean(dim=0, keepdim=True)

    problem = Problem(model=Joined(), loss=lambda m, b: m(b[0]).square().mean(), batches=mlp().batches)
    with objective_of(problem) as objective, pytest.raises(CannotDecide, match="7 samples"):
        Fisher(objective).product(torch.ones(objective.num_params, dtype=DOUBLE))


def test_batch_norm_in_train_mode_has_no_fisher() -> None:
    with (
        objective_of(NETWORKS["batch_norm"](), train_mode=True) as objective,
        pytest.raises(UsageError, match="BatchNorm in train mode"),
    ):
        Fisher(objective)


class _Wrong(torch.autograd.Function):
    """A derivative that is right, of which the next derivative is wrong: what fused kernels do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2.0

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope.detach() * 2.0 + slope - slope.detach()


def test_derivatives_that_are_silently_wrong_are_found() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp().model

        def forward(self, x: Tensor) -> Tensor:
            return _Wrong.apply(self.body(x))

    problem = Problem(model=Net(), loss=mlp().loss, batches=mlp().batches)
    with objective_of(problem) as objective, pytest.raises(CannotDecide, match="disagree with differences"):
        GaussNewton(objective).check(torch.Generator().manual_seed(0))
