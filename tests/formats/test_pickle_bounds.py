"""What is out of proportion is refused before it is read, and what training scripts save is not."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from samdiag.formats import open_checkpoint
from samdiag.formats.pickle_bounds import MARGIN, MAX_WEIGHT, Disproportionate, check_pickle, check_tensors

HONEST: dict[str, Any] = {
    "plain values": {"a": [1, 2.5, None, True, "x"], (1, 2): {"b": (3, (4, (5,)))}},
    "bytes": {"raw": b"\x00\xff" * 1000, "array": bytearray(b"ab" * 10)},
    "shared": [(shared := (1, 2)), shared, {shared: shared}],
    "a list of a hundred thousand": list(range(100_000)),
    "a tuple of many": tuple(range(90_000)),
    "numpy": {"mean": np.float64(0.5), "array": np.zeros(3)},
    "ordered": collections.OrderedDict(a=collections.Counter("aab"), b={1, 2}),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("saved", HONEST.values(), ids=HONEST)
def test_honest_pickles_pass(saved: Any, protocol: int) -> None:
    check_pickle(pickle.dumps(saved, protocol))


def test_a_real_run_passes(tmp_path: Path) -> None:
    module = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(50)))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    saved = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "note": b"bytes", "steps": (1, (2, 3))}
    torch.save(saved, tmp_path / "a.pt")
    torch.save(saved, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    for name in ("a.pt", "b.pt"):
        assert len(open_checkpoint(tmp_path / name).weights()) == 100


def nested(depth: int) -> tuple[Any, ...]:
    """A tuple that holds the one before twice: 2^depth objects, of which `depth` exist."""
    found: tuple[Any, ...] = ()
    for _ in range(depth):
        found = (found, found)
    return found


@pytest.mark.parametrize("protocol", range(6))
def test_the_bound_counts_what_is_shared_as_often_as_it_appears(protocol: int) -> None:
    deepest = MAX_WEIGHT.bit_length() - 2  # 2^(depth + 1) - 1 objects
    check_pickle(pickle.dumps(nested(deepest), protocol))
    with pytest.raises(Disproportionate, match="far more than the file"):
        check_pickle(pickle.dumps(nested(deepest + 1), protocol))


def test_what_is_no_pickle_is_left_to_its_reader() -> None:
    for content in (b"", b"hello", b"\x80\x02", b"\x80\x02(((", b"\x80\x02h\x05.", b"\x80\x02R.", b"\x80\x02t."):
        check_pickle(content)


def test_tensors_that_repeat_a_little_pass_and_those_that_repeat_much_do_not() -> None:
    small = torch.zeros(1).expand(1000)
    check_tensors({"a": [small, (small,)], "b": torch.zeros(10)}, size=40)
    with pytest.raises(Disproportionate, match="more values than the file"):
        check_tensors({"a": {"b": torch.zeros(1, dtype=torch.uint8).expand(MARGIN + 2)}}, size=1)


def test_views_of_one_storage_count_once() -> None:
    whole = torch.zeros(MARGIN // 4, dtype=torch.uint8)
    check_tensors([whole[start:] for start in range(100)], size=0)


def test_what_contains_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    check_tensors({"loop": loop}, size=0)
