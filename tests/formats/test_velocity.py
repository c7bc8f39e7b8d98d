"""Momentum buffers out of a file: in the order of the model's parameters, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from samdiag.formats import Checkpoint, open_checkpoint


def trained(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(8, 2, generator=generator)).square().mean().backward()
        optimizer.step()


def sgd(parameters: Any, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, **({"lr": 0.1, "momentum": 0.9} | options))


def truth(network: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """The buffers of the trainable parameters in the model's order."""
    parts = [
        optimizer.state[p]["momentum_buffer"].double().reshape(-1) if p in optimizer.state else torch.zeros(p.numel())
        for p in network.parameters()
        if p.requires_grad
    ]
    return torch.cat([part.double() for part in parts])


def opened(save: Any, network: nn.Module, **entries: Any) -> Checkpoint:
    return open_checkpoint(save({"model": network.state_dict(), **entries}))


def flat(checkpoint: Checkpoint, network: nn.Module) -> tuple[Tensor | None, tuple[str, ...]]:
    found = checkpoint.velocity()
    assert found is not None
    return found.flat(network)


def all_of_it(network: nn.Module) -> Any:
    return network.parameters()


def named(network: nn.Module) -> Any:
    return list(network.named_parameters())


def split_by_decay_with_names(network: nn.Module) -> Any:
    """As training scripts split them: weights first, then biases; the model's order is another."""
    parameters = list(network.named_parameters())
    return [
        {"params": [(n, p) for n, p in parameters if p.ndim > 1], "weight_decay": 0.1},
        {"params": [(n, p) for n, p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]


@pytest.mark.parametrize("groups", [all_of_it, named, split_by_decay_with_names])
def test_buffers_are_in_the_models_order(save, network: nn.Module, groups: Callable[[nn.Module], Any]) -> None:
    optimizer = sgd(groups(network))
    trained(network, optimizer)
    velocity, notes = flat(opened(save, network, optimizer=optimizer.state_dict()), network)
    assert velocity is not None
    assert torch.equal(velocity, truth(network, optimizer))
    assert notes == ()


@pytest.mark.parametrize("given", ["all", "trainable"])
def test_frozen_parameters_are_left_out(save, network: nn.Module, given: str) -> None:
    network[0].weight.requires_grad_(False)
    parameters = [p for p in network.parameters() if given == "all" or p.requires_grad]
    optimizer = sgd(parameters)
    trained(network, optimizer)
    velocity, _ = flat(opened(save, network, optimizer=optimizer.state_dict()), network)
    assert velocity is not None
    assert torch.equal(velocity, truth(network, optimizer))


def test_the_base_optimizer_of_sam_has_them(save, network: nn.Module) -> None:
    """The state of the SAM wrapper itself knows rho and no buffer."""
    optimizer = sgd(network.parameters())
    trained(network, optimizer)
    wrapper = {"state": {}, "param_groups": [{"params": list(range(6)), "rho": 0.1}]}
    checkpoint = opened(save, network, optimizer=wrapper, base_optimizer=optimizer.state_dict())
    assert checkpoint.hints["sam.rho"].value == 0.1
    velocity, _ = flat(checkpoint, network)
    assert velocity is not None
    assert torch.equal(velocity, truth(network, optimizer))


@pytest.mark.parametrize("options", [{"momentum": 0.0}, None])
def test_none_where_there_are_none(save, network: nn.Module, options: dict[str, Any] | None) -> None:
    entries: dict[str, Any] = {}
    if options is not None:
        optimizer = sgd(network.parameters(), **options)
        trained(network, optimizer)
        entries["optimizer"] = optimizer.state_dict()
    assert opened(save, network, **entries).velocity() is None


def test_safetensors_have_none(write_safetensors) -> None:
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    assert open_checkpoint(write_safetensors(header, b"\0" * 8)).velocity() is None


def swapped(state: dict[str, Any]) -> None:
    """Two buffers exchanged, as in a split into weights and biases that kept no names."""
    state["state"][0], state["state"][1] = state["state"][1], state["state"][0]


def one_fewer(state: dict[str, Any]) -> None:
    state["param_groups"][0]["params"].pop()


def not_a_number(state: dict[str, Any]) -> None:
    state["state"][0]["momentum_buffer"][0, 0] = float("nan")


def whole_numbers(state: dict[str, Any]) -> None:
    state["state"][0]["momentum_buffer"] = state["state"][0]["momentum_buffer"].long()


def sparse(state: dict[str, Any]) -> None:
    state["state"][0]["momentum_buffer"] = state["state"][0]["momentum_buffer"].to_sparse()


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (swapped, "other shapes"),
        (one_fewer, "not one for each parameter"),
        (not_a_number, "not finite"),
        (whole_numbers, "not finite"),
        (sparse, "not finite"),
    ],
)
def test_what_does_not_fit_is_left_out_with_a_note(
    save, network: nn.Module, spoil: Callable[[dict[str, Any]], None], word: str
) -> None:
    optimizer = sgd(network.parameters())
    trained(network, optimizer)
    state = optimizer.state_dict()
    spoil(state)
    velocity, notes = flat(opened(save, network, optimizer=state), network)
    assert velocity is None
    assert len(notes) == 1
    assert word in notes[0]
    assert "starts anew" in notes[0]


@pytest.mark.parametrize("params", [[[1]], [0, 1, 2, 3, 4, {}]])
def test_a_hostile_state_is_no_buffer(save, network: nn.Module, params: Any) -> None:
    state = {"state": {0: {"momentum_buffer": torch.zeros(1)}, 1: 5}, "param_groups": [{"params": params}]}
    found = opened(save, network, optimizer=state).velocity()
    assert found is None or found.flat(network)[0] is None
