"""A network may be as large as its checkpoint suggests, and not much larger."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from samdiag.errors import UsageError
from samdiag.spec import proportion
from samdiag.spec.proportion import in_proportion, stored_bytes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.pt").write_bytes(bytes(1000))
    return tmp_path / "a.pt"


def test_a_network_of_the_right_size_is_built_as_ever(file: Path) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(4, 3)
    torch.manual_seed(0)
    with in_proportion(file, "model"):
        guarded = nn.Linear(4, 3)
    assert torch.equal(plain.weight, guarded.weight)


def test_a_network_that_is_far_too_large_takes_no_memory(file: Path) -> None:
    with pytest.raises(UsageError, match=r"model is far larger than .*a\.pt"), in_proportion(file, "model"):
        nn.Linear(10**7, 10**7)


def test_the_parts_add_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proportion, "FREE_BYTES", 0)
    with in_proportion(file, "model"):
        torch.empty(500), torch.zeros(500), torch.ones(2, 250)  # 6000 of 8000 bytes
    with pytest.raises(UsageError), in_proportion(file, "model"):
        nn.Sequential(*(nn.Linear(20, 20) for _ in range(6)))  # 1680 bytes each


def test_a_folder_counts_its_files(file: Path) -> None:
    (file.parent / "b.pt").write_bytes(bytes(500))
    (file.parent / "more").mkdir()
    assert stored_bytes(file.parent) == 1500
