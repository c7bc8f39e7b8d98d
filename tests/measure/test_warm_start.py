"""Start vectors: from a part of the data, from a neighbouring checkpoint, and from files that are something else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import samdiag
from samdiag.curvature.lanczos import fewest_vectors
from samdiag.curvature.objective import Objective
from samdiag.errors import CannotDecide, UsageError
from samdiag.measure import solving, warm_start
from samdiag.measure.measuring import measure
from samdiag.measure.settings import MeasureSettings
from samdiag.patience import INTERRUPTED, Patience
from samdiag.types import Diagnosis, Problem
from tests.measure.test_solving import nearly_trained, whole_mlp
from tests.networks import NETWORKS, dense_hessian

GOOD = {"format": warm_start.FORMAT, "generation": "1"}


def diagnose(**changes: object) -> Diagnosis:
    return samdiag.diagnose(NETWORKS["mlp_1870"](), rho=0.1, lr=0.1, num_eigenvalues=1, **changes)  # type: ignore[arg-type]


def test_a_file_is_written_and_saves_products_the_second_time(tmp_path: Path) -> None:
    path = str(tmp_path / "ritz.safetensors")
    first, second = diagnose(warm_start=path), diagnose(warm_start=path)
    assert first.measurements is not None
    assert second.measurements is not None
    assert first.measurements.solver is not None
    assert second.measurements.solver is not None
    assert first.measurements.solver.warm_start is None
    assert second.measurements.solver.warm_start == path
    assert second.measurements.solver.steps < 0.8 * first.measurements.solver.steps
    for name in ("lambda_max", "lambda_min"):
        one, two = getattr(first.measurements, name), getattr(second.measurements, name)
        assert two.value == pytest.approx(one.value, abs=one.error + two.error)
    assert first.verdict == second.verdict


def test_the_random_part_is_new_in_every_run(tmp_path: Path) -> None:
    """Vectors that come from a random start know it: the same start again would prove nothing."""
    path = tmp_path / "ritz.safetensors"
    warm_start.save(path, torch.eye(2, 300), 1)
    first = warm_start.load(path, 300)
    assert first is not None
    warm_start.save(path, torch.eye(2, 300), first.generation + 1)
    second = warm_start.load(path, 300)
    assert second is not None
    generators = [
        solving._generator(solving.Search(num_eigenvalues=1, tol=0.1, max_products=9, seed=0, start=start))
        for start in (None, first, second)
    ]
    assert len({float(torch.randn(1, generator=g)) for g in generators}) == 3


def tensor_file(path: Path, vectors: Tensor, metadata: dict[str, str] | None = None) -> None:
    save_file({warm_start.NAME: vectors}, path, metadata=GOOD if metadata is None else metadata)


def test_a_checkpoint_or_a_text_is_refused_and_kept(tmp_path: Path) -> None:
    other, text = tmp_path / "weights.safetensors", tmp_path / "notes.txt"
    save_file({"w": torch.zeros(3)}, other)
    text.write_text("not tensors")
    for path, what in ((other, "holds no eigenvectors"), (text, "cannot be read")):
        before = path.read_bytes()
        with pytest.raises(UsageError, match=what) as refusal:
            diagnose(warm_start=str(path))
        assert "an earlier --warm-start wrote" in refusal.value.todo
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("vectors", "metadata", "what"),
    [
        (torch.eye(2, 1870), {}, "holds no eigenvectors"),
        (torch.eye(2, 1870), {**GOOD, "format": "samdiag-ritz-vectors-2"}, "holds no eigenvectors"),
        (torch.eye(2, 1870, dtype=torch.int64), None, "holds no eigenvectors"),
        (torch.tensor(1.0), None, r"holds a tensor of shape \[\]"),
        (torch.eye(1, 1870)[0], None, r"holds a tensor of shape \[1870\]"),
        (torch.zeros(0, 1870), None, r"holds a tensor of shape \[0, 1870\]"),
        (torch.eye(2, 300), None, "holds vectors of 300 parameters, this model has 1870"),
        (torch.eye(2, 1870).log(), None, "holds vectors that are not numbers"),
        (torch.full((2, 1870), torch.nan), None, "holds vectors that are not numbers"),
        (torch.eye(2, 1870) * torch.tensor([[1.0], [0.0]]), None, "holds a vector of length 0 where 1 is expected"),
        (torch.eye(2, 1870) * 3e38, None, r"holds a vector of length 3e\+38"),
        *(
            (torch.eye(2, 1870), {**GOOD, "generation": text}, "does not say how many runs")
            for text in ("", "0", "-1", "1.5", "two", "²", "2147483649", "9" * 5000)
        ),
        (torch.eye(2, 1870), {"format": warm_start.FORMAT}, "does not say how many runs"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_looked_at(
    vectors: Tensor, metadata: dict[str, str] | None, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ritz.safetensors"
    tensor_file(path, vectors, metadata)
    before = path.read_bytes()
    for late in ("check_products", "choose_engine"):
        monkeypatch.setattr(f"samdiag.measure.curved.{late}", lambda *_args, **_more: pytest.fail("too late"))
    with pytest.raises(UsageError, match=what) as refusal:
        diagnose(warm_start=str(path))
    assert refusal.value.todo
    assert path.read_bytes() == before


def test_every_generation_up_to_the_last_is_taken(tmp_path: Path) -> None:
    for generation in (1, 7, 2**31):
        warm_start.save(tmp_path / "ritz.safetensors", torch.eye(2, 300), generation)
        found = warm_start.load(tmp_path / "ritz.safetensors", 300)
        assert found is not None
        assert found.generation == generation
        assert torch.equal(found.vectors, torch.eye(2, 300))


def test_after_the_last_generation_the_file_is_still_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "ritz.safetensors"
    warm_start.save(path, torch.eye(2, 1870), 2**31)
    diagnose(warm_start=str(path))
    found = warm_start.load(path, 1870)
    assert found is not None
    assert found.generation == 1


def test_what_cannot_be_reached_or_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("not a folder")
    for path, what in ((tmp_path, "is no regular file"), (tmp_path / "notes.txt" / "ritz", "Not a directory")):
        with pytest.raises(UsageError, match=what):
            warm_start.load(path, 300)
    with pytest.raises(UsageError, match="cannot be read: embedded null byte"):
        warm_start.load(Path("ritz\0"), 300)
    closed, plain = tmp_path / "closed" / "ritz", Path.stat

    def refused(path: Path, **more: Any) -> os.stat_result:
        if path == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path, **more)

    monkeypatch.setattr(Path, "stat", refused)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        warm_start.load(closed, 300)


def test_a_file_that_may_not_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ritz.safetensors"
    warm_start.save(path, torch.eye(2, 300), 1)

    def refused(*_args: Any, **_more: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("safetensors.safe_open", refused)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        warm_start.load(path, 300)


@pytest.mark.parametrize("where", ["safetensors.torch.save_file", "os.replace"])
@pytest.mark.parametrize(
    ("error", "expected", "what"),
    [
        (KeyboardInterrupt("now"), KeyboardInterrupt, "now"),
        (OSError(errno.ENOSPC, "No space left on device"), CannotDecide, "cannot be written: No space left on device"),
    ],
)
def test_no_temporary_file_is_left_behind(
    where: str,
    error: BaseException,
    expected: type[BaseException],
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "ritz.safetensors"
    warm_start.save(path, torch.eye(2, 300), 1)
    assert os.listdir(tmp_path) == [path.name]
    before = path.read_bytes()
    beside: list[str] = []

    def fails(*args: Any, **_more: Any) -> None:
        beside.extend(set(os.listdir(tmp_path)) - {path.name})
        raise error

    monkeypatch.setattr(where, fails)
    for _ in range(2):
        with pytest.raises(expected, match=what):
            warm_start.save(path, torch.eye(2, 300), 2)
    assert len(set(beside)) == 2  # a name that cannot be foreseen
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    found = diagnose(warm_start=str(tmp_path / "no-such-folder" / "ritz.safetensors"))
    assert found.measurements is not None
    assert any("cannot be written" in note for note in found.measurements.notes)
    assert found.verdict


def test_too_few_samples_are_not_divided() -> None:
    found = diagnose(warm_start="subsample")
    assert found.measurements is not None
    assert found.measurements.solver is not None
    assert found.measurements.solver.warm_start is None


def barely_trained() -> Problem:
    """1536 samples early in training: all of them carry the loss, so that a part resembles the whole."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 8))
    labels = torch.randint(0, 8, (1536,), generator=generator)
    x = 2.0 * torch.eye(8)[labels] + 0.5 * torch.randn(1536, 8, generator=generator)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(10):
        adam.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        adam.step()
    batches = list(zip(x.split(128), labels.split(128), strict=True))
    return Problem(model=model, loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]), batches=batches, population=1536)


def test_a_part_of_the_samples_saves_products_with_all_of_them() -> None:
    problem = barely_trained()
    truth = torch.linalg.eigvalsh(dense_hessian(problem))
    for seed in range(3):
        settings = MeasureSettings(rho=0.05, dtype="float64", num_eigenvalues=1, solver="lanczos", seed=seed)
        cold, warm = measure(problem, settings), measure(problem, replace(settings, warm_start="subsample"))
        assert cold.solver is not None
        assert warm.solver is not None
        assert cold.solver.warm_start is None
        assert warm.solver.warm_start is not None
        assert warm.solver.warm_start.startswith("192 of 1536 samples")
        assert warm.solver.steps < cold.solver.steps
        for found in (cold, warm):
            assert found.lambda_max.value == pytest.approx(float(truth[-1]), rel=1e-3)
            assert found.lambda_min.value is not None
            assert found.lambda_min_bound is not None
            assert found.lambda_min_bound <= float(truth[0]) <= found.lambda_min.value + 1e-9


def test_a_part_that_does_not_resemble_the_whole_does_no_harm() -> None:
    """Few samples carry the loss: which of them are in the part is chance."""
    problem = nearly_trained()
    truth = torch.linalg.eigvalsh(dense_hessian(problem))
    settings = MeasureSettings(rho=0.05, lr=0.01, dtype="float64", num_eigenvalues=1, until="converged")
    found = measure(problem, replace(settings, warm_start="subsample"))
    assert found.solver is not None
    assert found.solver.warm_start is not None
    assert found.solver.warm_start.startswith("188 of 1500 samples")  # the first eighth of every batch, rounded up
    assert found.lambda_max.value == pytest.approx(float(truth[-1]), rel=1e-3)
    assert found.lambda_min.value == pytest.approx(float(truth[0]), rel=1e-2)


@contextmanager
def objective_of(problem: Problem, *, train_mode: bool = False) -> Iterator[Objective]:
    counts = [(b, len(b[1])) for b in problem.batches]
    device, dtype = torch.device("cpu"), torch.float64
    pieces = [((x.double(), *rest), count) for (x, *rest), count in counts]
    with Objective(
        problem.model, problem.loss, pieces, device=device, dtype=dtype, train_mode=train_mode
    ).borrowed() as objective:
        yield objective


@pytest.mark.parametrize("affordable", [9, 40])
def test_the_part_keeps_to_the_memory_that_there_is(affordable: int, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets, capacities = [], []

    def afford(*_args: Any, budget: int) -> int:
        budgets.append(budget)
        return affordable

    def solve(*args: Any, capacity: int, **more: Any) -> Any:
        capacities.append(capacity)
        return found(*args, capacity=capacity, **more)

    found: Callable[..., Any] = warm_start.extremal_eigenpairs
    monkeypatch.setattr(warm_start, "affordable_vectors", afford)
    monkeypatch.setattr(warm_start, "extremal_eigenpairs", solve)
    with objective_of(nearly_trained()) as objective:
        start = warm_start.from_subsample(objective, seed=0, max_products=500)
        assert budgets == [objective.memory_for_basis]
        assert capacities == [max(affordable - warm_start.BESIDE, fewest_vectors(1))]
        assert start is not None
        with objective.on(warm_start._part_of(objective)) as part:
            for row in start.vectors:
                image = part.product(row)
                value = torch.dot(row, image)
                assert float(torch.linalg.vector_norm(image - value * row)) <= 1.01 * warm_start.ROUGH * abs(value)


def test_the_part_stops_when_it_is_told_to() -> None:
    answers = iter([None, None, "time limit"])
    with objective_of(nearly_trained()) as objective:
        start = warm_start.from_subsample(objective, seed=0, max_products=500, stop=lambda: next(answers))
    assert start is not None
    assert start.source == "188 of 1500 samples, 3 products of them"


def test_ctrl_c_while_the_part_is_looked_at_still_gives_an_answer() -> None:
    patience, heard = Patience(), []

    def tell(what: str, _count: int) -> None:
        if what == "spectrum of a part of the samples":
            heard.append(patience.interrupt())

    settings = MeasureSettings(rho=0.05, num_eigenvalues=1, warm_start="subsample")
    found = measure(nearly_trained(), settings, tell, patience)
    assert heard == [True]
    assert found.solver is not None
    assert found.solver.stopped == INTERRUPTED
    assert found.solver.warm_start == "188 of 1500 samples, 1 product of them"


def with_a_hole(problem: Problem) -> Problem:
    """The last batch takes |0| to the power of 1.5: loss and gradient are finite, the second derivative is not."""
    *rest, last = problem.batches

    def loss(model: nn.Module, batch: Any) -> Tensor:
        out = model(batch[0])
        out = out + (out * 0).abs().pow(1.5) if bool(batch[2].any()) else out
        return F.cross_entropy(out, batch[1])

    marked = [(*b, torch.zeros(len(b[1]))) for b in rest]
    return replace(problem, loss=loss, batches=[*marked, (*last, torch.ones(len(last[1])))])


def test_a_product_of_the_part_that_is_not_a_number_is_refused_by_name() -> None:
    problem = with_a_hole(nearly_trained())
    with pytest.raises(CannotDecide, match=r"second derivative is NaN or infinite for 0\.weight"):
        samdiag.diagnose(problem, rho=0.05, warm_start="subsample")
    with (
        objective_of(problem) as objective,
        pytest.raises(CannotDecide, match=r"second derivative is NaN or infinite for 0\.weight"),
    ):
        warm_start.from_subsample(objective, seed=0, max_products=500)


def test_batches_with_statistics_of_their_own_are_not_cut() -> None:
    """An eighth of a batch of eight is one sample, of which BatchNorm has no variance."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 24), nn.BatchNorm1d(24), nn.Tanh(), nn.Linear(24, 8))
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(8, 8, generator=generator), torch.randint(0, 8, (8,), generator=generator)) for _ in range(96)
    ]
    problem = replace(nearly_trained(), model=model, batches=batches)
    with objective_of(problem, train_mode=True) as objective:
        start = warm_start.from_subsample(objective, seed=0, max_products=20)
    assert start is not None
    assert start.source.startswith("96 of 768 samples")


def test_a_complete_spectrum_needs_no_start() -> None:
    problem = nearly_trained()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(8, 8)
    with objective_of(replace(problem, model=model)) as objective:
        assert warm_start.from_subsample(objective, seed=0, max_products=500) is None


def test_of_a_run_that_was_cut_short_only_what_is_known_is_kept(tmp_path: Path) -> None:
    problem, path = whole_mlp(), tmp_path / "ritz.safetensors"
    found = samdiag.diagnose(
        problem, rho=0.1, dtype="float64", num_eigenvalues=1, max_products=7, warm_start=str(path)
    ).measurements
    assert found is not None
    assert found.solver is not None
    assert found.solver.stopped == "products"
    hessian, rows = dense_hessian(problem), load_file(path)[warm_start.NAME].double()
    values = torch.linalg.eigvalsh(hessian)
    assert len(rows) == 1  # the top, known to 7 %; the bottom is known to 15 % only
    image = hessian @ rows[0]
    assert float(rows[0] @ image) == pytest.approx(float(values[-1]), rel=0.05)
    assert float(torch.linalg.vector_norm(image - (rows[0] @ image) * rows[0])) <= 0.1 * float(values[-1])


@pytest.mark.parametrize("hurry", [{"time_limit": 1e-6}, {"max_products": 1}])
def test_a_good_file_outlives_a_run_that_knows_nothing(hurry: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "ritz.safetensors"
    diagnose(warm_start=str(path))
    before = path.read_bytes()
    found = diagnose(warm_start=str(path), **hurry).measurements
    assert found is not None
    assert path.read_bytes() == before
    assert any("nothing was written" in note for note in found.notes)
    assert os.listdir(tmp_path) == [path.name]
