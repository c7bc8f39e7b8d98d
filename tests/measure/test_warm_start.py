"""Start vectors: from a part of the data, from a neighbouring checkpoint, and from files that are something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import samdiag
from samdiag.errors import UsageError
from samdiag.measure import solving, warm_start
from samdiag.types import Diagnosis
from tests.networks import NETWORKS


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


def test_files_that_are_something_else_are_refused_and_kept(tmp_path: Path) -> None:
    other, text, small = tmp_path / "weights.safetensors", tmp_path / "notes.txt", tmp_path / "small.safetensors"
    save_file({"w": torch.zeros(3)}, other)
    text.write_text("not tensors")
    warm_start.save(small, torch.eye(2, 300), 1)
    for path, what in ((other, "holds no eigenvectors"), (text, "cannot be read"), (small, "this model has 1870")):
        before = path.read_bytes()
        with pytest.raises(UsageError, match=what):
            diagnose(warm_start=str(path))
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
