"""The property of every reader on mutated real inputs, always the same ones; and on every input that once broke it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.checking import Target, check
from tests.fuzz.targets import TARGETS

FOUND = Path(__file__).with_name("found")
EXAMPLES = 150  # inputs a target; the long runs with coverage are recorded in docs/security.md
SLOW = {"pickle": 40, "config": 60, "trainer-state": 60, "adapter": 60}  # each writes files or archives


def mutated(seeds: list[bytes], words: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """A seed with a few places replaced, removed, repeated or filled with words; sometimes any bytes at all."""
    piece = st.one_of(st.binary(max_size=8), st.sampled_from(words or (b"\0", b"\xff" * 8)))
    edit = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 12), piece)

    def apply(seed: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
        for place, length, new in edits:
            start = int(place * (len(seed) + 1))
            seed = seed[:start] + new + seed[start + length :]
        return seed

    return st.one_of(st.builds(apply, st.sampled_from(seeds), st.lists(edit, max_size=4)), st.binary(max_size=64))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_mutated_inputs(target: Target, record_property: Callable[[str, object], None]) -> None:
    seeds = target.seeds()
    for seed in seeds:
        check(target, seed)
    num_inputs = len(seeds)

    @settings(
        max_examples=SLOW.get(target.name, EXAMPLES),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(seeds, target.words))
    def run(data: bytes) -> None:
        nonlocal num_inputs
        num_inputs += 1
        check(target, data)

    run()
    record_property("inputs", num_inputs)


def test_some_seed_of_every_reader_is_accepted() -> None:
    """A reader that refuses everything would pass every other test here."""
    assert [name for name, target in TARGETS.items() if not any(check(target, seed) for seed in target.seeds())] == []


@pytest.mark.parametrize("path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_inputs_that_once_broke_it(path: Path, record_property: Callable[[str, object], None]) -> None:
    check(TARGETS[path.parent.name], path.read_bytes())
    record_property("inputs", 1)
