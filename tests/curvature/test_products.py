"""Every engine of Hessian products against the dense float64 Hessian: single, in blocks, kept in part, after moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdiag.curvature.batches import count_samples, move
from samdiag.curvature.objective import Objective
from samdiag.curvature.products import recomputed
from samdiag.curvature.products.batch_loss import Piece
from samdiag.curvature.products.compiled import Compiled
from samdiag.curvature.products.difference import Difference
from samdiag.curvature.products.engine import Engine
from samdiag.curvature.products.forward import Forward
from samdiag.curvature.products.kept import Kept
from samdiag.curvature.products.precision import full_precision
from samdiag.curvature.products.recomputed import Recomputed
from samdiag.types import Problem
from tests.networks import NETWORKS, RAGGED, dense_hessian

CPU = torch.device("cpu")
EXACT: dict[str, Any] = {"kept": Kept, "recomputed": Recomputed, "forward": Forward}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}
SMOOTH = ("mlp", "tied", "unused", "layer_norm", "lstm", "mlp_1870")  # no ReLU


@cache
def truth_of(name: str) -> Tensor:
    """The dense Hessian [num_params, num_params] of one of NETWORKS."""
    return dense_hessian(NETWORKS[name]())


@contextmanager
def objective(problem: Problem, dtype: torch.dtype, engine: Any = None, **changes: Any) -> Iterator[Objective]:
    batches = [(move(b, CPU, dtype), count_samples(b)) for b in problem.batches]
    f = Objective(problem.model, problem.loss, batches, device=CPU, dtype=dtype, **changes)
    with f.borrowed():
        if engine is not None:
            f.engine = engine(f.function)
        yield f


def directions(dim: int, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def miss(found: Tensor, truth: Tensor) -> float:
    return float(torch.linalg.vector_norm(found.double() - truth) / torch.linalg.vector_norm(truth))


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("name", NETWORKS)
def test_products_and_blocks_are_dense_products(name: str, engine: str) -> None:
    problem, hessian = NETWORKS[name](), truth_of(name)
    for dtype, tolerance in TOLERANCE.items():
        vectors = directions(len(hessian), 6, dtype)
        truth = vectors.double() @ hessian
        with objective(problem, dtype, EXACT[engine]) as f:
            assert miss(torch.stack([f.product(v) for v in vectors]), truth) < tolerance
            assert miss(f.block(vectors), truth) < tolerance
            out = torch.full_like(f.flat, torch.nan)
            assert f.product(vectors[0], out=out) is out
            assert miss(out, truth[0]) < tolerance


@pytest.mark.parametrize("name", NETWORKS)
def test_differences_are_dense_products_in_float64_and_on_smooth_networks_in_float32(name: str) -> None:
    problem, hessian = NETWORKS[name](), truth_of(name)
    for dtype in (torch.float32, torch.float64) if name in SMOOTH else (torch.float64,):
        vectors = directions(len(hessian), 3, dtype)
        with objective(problem, dtype, Difference) as f:
            x = f.flat.clone()
            found = f.block(vectors)
            assert torch.equal(f.flat, x)
            assert float(f.product(torch.zeros_like(x)).abs().max()) == 0.0
        assert miss(found, vectors.double() @ hessian) < {torch.float32: 1e-3, torch.float64: 1e-8}[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "tied", "batch_norm", "attention"])
def test_compiled_products_are_dense_products(name: str) -> None:
    """Compiling takes up to a minute; the ragged last batch has a shape of its own and a graph of its own."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    problem, hessian = NETWORKS[name](), truth_of(name)
    vectors = directions(len(hessian), 2, torch.float32)
    with objective(problem, torch.float32, Compiled) as f:
        assert miss(f.block(vectors), vectors.double() @ hessian) < 1e-5
    assert counters["stats"]["unique_graphs"] == 2  # not what was run eagerly


@pytest.mark.parametrize("engine", [*EXACT.values(), Difference])
def test_every_batch_shows_its_own_product(engine: Any) -> None:
    problem = NETWORKS["mlp"]()
    truths = [dense_hessian(Problem(model=problem.model, loss=problem.loss, batches=[b])) for b in problem.batches]
    vectors = directions(len(truths[0]), 5)
    single: list[tuple[int, Tensor]] = []
    block: list[tuple[int, Tensor]] = []
    with objective(problem, torch.float64, engine) as f:
        f.product(vectors[0], lambda count, own: single.append((count, own.clone())))
        f.block(vectors, lambda count, own: block.append((count, own.clone())))
    assert [count for count, _ in single] == [count for count, _ in block] == list(RAGGED)
    for (_, one), (_, many), truth in zip(single, block, truths, strict=True):
        assert miss(one, truth @ vectors[0]) < 1e-8
        assert miss(many, vectors @ truth) < 1e-8


def test_graphs_are_kept_for_as_many_batches_as_fit() -> None:
    problem, hessian = NETWORKS["attention"](), truth_of("attention")
    v = directions(len(hessian), 1)[0]
    with objective(problem, torch.float64) as whole:
        whole.product(v)
        assert whole.kept_share == 1.0
        need = int((whole.graphs.sample_bytes or 0) * sum(RAGGED))
    with objective(problem, torch.float64, graph_memory=need // 2) as f:
        assert miss(f.product(v), hessian @ v) < 1e-13
        assert f.kept_share == RAGGED[0] / sum(RAGGED)
        assert [b.graph is not None for b in f._pieces.batches] == [True, False, False, False]
        assert miss(f.block(v.expand(5, -1).contiguous()), (hessian @ v).expand(5, -1)) < 1e-13


def test_graphs_and_basis_share_one_budget() -> None:
    problem = NETWORKS["attention"]()
    for memory in (10_000, 100_000, 10_000_000):
        with objective(problem, torch.float64, memory=memory) as f:
            assert f.memory_for_graphs + f.memory_for_basis <= memory
            f.product(directions(f.num_params, 1)[0])
            held = sum(b.count for b in f._pieces.batches if b.graph is not None) * (f.graphs.sample_bytes or 0)
            assert held <= f.memory_for_graphs
    with objective(problem, torch.float64, Recomputed, memory=10_000) as f:
        assert f.memory_for_basis == 10_000


@pytest.mark.parametrize("engine", [*EXACT.values(), Difference])
def test_moves_are_followed(engine: Any) -> None:
    problem = NETWORKS["layer_norm"]()
    with objective(problem, torch.float64, engine) as f:
        v, x = directions(f.num_params, 1)[0], f.flat.clone()
        here = f.product(v)
        f.move_to(x + 0.3 * v)
        there = f.product(v)
        f.engine = Recomputed(f.function)
        f.drop_graphs()
        assert miss(there, f.product(v)) < 1e-8
        assert miss(there, here) > 1e-2


@pytest.mark.parametrize("engine", [*EXACT.values(), Difference])
def test_other_batches_at_the_same_point_use_the_same_engine(engine: Any) -> None:
    problem = NETWORKS["mlp"]()
    part = Problem(model=problem.model, loss=problem.loss, batches=list(problem.batches)[:2])
    v = directions(len(hessian := dense_hessian(part)), 1)[0]
    with objective(problem, torch.float64, engine) as f:
        f.product(v)
        with f.on([(move(b, CPU, torch.float64), count_samples(b)) for b in part.batches]) as other:
            assert other.engine is f.engine
            assert miss(other.product(v), hessian @ v) < 1e-8
            other.product(v)
            assert any(b.graph for b in other._pieces.batches) == (engine is Kept)
        assert f.num_products == pytest.approx(1 + 2 * 14 / 24)


@pytest.mark.parametrize("engine", [*EXACT.values(), Difference])
def test_memory_that_runs_out_halves_batches(engine: Any) -> None:
    problem, hessian = NETWORKS["mlp"](), truth_of("mlp")
    v = directions(len(hessian), 5)

    def tight(model: nn.Module, batch: Any) -> Tensor:
        if len(batch[1]) > 3:
            raise torch.OutOfMemoryError("pretended")
        return F.cross_entropy(model(batch[0]), batch[1])

    with objective(Problem(model=problem.model, loss=tight, batches=problem.batches), torch.float64, engine) as f:
        assert miss(f.product(v[0]), hessian @ v[0]) < 1e-8
        assert miss(f.block(v), v @ hessian) < 1e-8
        assert f.split > 0


def test_a_forward_product_leaves_values_and_kept_graphs_alone() -> None:
    with objective(NETWORKS["lstm"](), torch.float64) as f:
        v, x = directions(f.num_params, 1)[0], f.flat.clone()
        kept = f.product(v)
        with Forward(f.function).along(v) as product:
            product(Piece(f.batches[0], f.counts[0]))
        assert torch.equal(f.flat, x)
        assert torch.equal(f.product(v), kept)  # a graph whose tensors count as changed would raise


def test_blocks_in_one_pass_are_what_tiny_networks_use() -> None:
    """The cost of launching dozens of small operations is then paid once for all vectors."""
    problem, hessian = NETWORKS["mlp"](), truth_of("mlp")
    with objective(problem, torch.float64) as f:
        assert isinstance(f.engine, Kept)
        f.engine._batched = True
        assert miss(f.block(torch.eye(len(hessian), dtype=torch.float64)), hessian) < 1e-13


def test_an_operation_without_batching_rule_goes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, hessian = NETWORKS["mlp"](), truth_of("mlp")
    inner = Recomputed.backward

    def picky(self: Recomputed, *args: Any, batched: bool = False, **more: Any) -> Any:
        if batched:
            raise NotImplementedError("no batching rule")
        return inner(self, *args, **more)

    monkeypatch.setattr(Recomputed, "backward", picky)
    with objective(problem, torch.float64) as f:
        v = directions(len(hessian), 8)
        assert miss(f.block(v), v @ hessian) < 1e-13


def test_the_public_backward_gives_the_same_products(monkeypatch: pytest.MonkeyPatch) -> None:
    with objective(NETWORKS["batch_norm"](), torch.float64) as f:
        v = directions(f.num_params, 1)[0]
        direct = f.product(v)
        monkeypatch.setattr(recomputed, "_engine", None)
        assert torch.equal(f.product(v), direct)


def test_products_do_not_load_symbolic_shapes() -> None:
    """SymPy costs half a second of every run's start."""
    import subprocess
    import sys

    code = (
        "import sys, torch; from samdiag.curvature.objective import Objective\n"
        "m = torch.nn.Linear(3, 1); f = Objective(m, lambda m, b: (m(b) ** 2).mean(), [(torch.ones(4, 3), 4)],"
        " device=torch.device('cpu'), dtype=torch.float32)\n"
        "with f.borrowed(): assert float(f.product(torch.ones(4)).abs().sum()) > 0\n"
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_short_cuts_of_float32_are_off_inside_and_as_they_were_afterwards() -> None:
    conv: Any = torch.backends.cudnn.conv
    before = torch.get_float32_matmul_precision(), conv.fp32_precision
    try:
        torch.set_float32_matmul_precision("medium")
        with objective(NETWORKS["mlp"](), torch.float32):
            assert torch.get_float32_matmul_precision() == "highest"
            assert conv.fp32_precision not in ("tf32", "bf16")
        assert torch.get_float32_matmul_precision() == "medium"
        assert conv.fp32_precision == before[1]
        conv.fp32_precision = "tf32"
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]
        with full_precision():
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == "tf32"
    finally:
        torch.backends.cudnn.allow_tf32 = True  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision(before[0])
    assert conv.fp32_precision == before[1]


def test_engines_are_engines() -> None:
    with objective(NETWORKS["mlp"](), torch.float64) as f:
        engines: list[Engine] = [kind(f.function) for kind in (*EXACT.values(), Difference, Compiled)]
        assert [engine.name for engine in engines] == ["kept", "recomputed", "forward", "difference", "compiled"]
        assert [engine.keeps for engine in engines] == [True, False, False, False, False]
