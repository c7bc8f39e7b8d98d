"""What the libraries wrote goes into the bare network, whatever was wrapped around it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from samdiag.formats import open_checkpoint
from samdiag.spec.loading import load_weights
from tests.ecosystem import produce_lightning, produce_torch
from tests.ecosystem.networks import network
from tests.ecosystem.produced import Made
from tests.ecosystem.test_table import make


def check(made: Made, prefix: str = "") -> tuple[str, ...]:
    """The notes about the loading; AssertionError where the network does not hold what was written."""
    bare = network(seed=9)
    notes = load_weights(bare, open_checkpoint(made.path).weights(), "file")
    for name, value in bare.state_dict().items():
        assert torch.equal(value, made.weights[prefix + name]), name
    return notes


@pytest.mark.slow
@pytest.mark.parametrize("how", ["`Trainer.save_checkpoint`", "with a network of `torch.compile` in it"])
def test_the_network_inside_a_lightning_module(how: str, tmp_path: Path) -> None:
    producer = next(row for row in produce_lightning.PRODUCERS if row.how == how)
    notes = check(make(producer, tmp_path), "net.")
    assert any("begins with 'net'" in note for note in notes)


@pytest.mark.parametrize("number", range(len(produce_torch.PRODUCERS)))
def test_torch_files(number: int, tmp_path: Path) -> None:
    assert check(make(produce_torch.PRODUCERS[number], tmp_path)) == ()
