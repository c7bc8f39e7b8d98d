"""What optimizer state reveals, and weights that were saved between the two SAM steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from samdiag.formats import Checkpoint, open_checkpoint
from samdiag.formats.optimizer_state import as_number

MID_STEP = "between the two SAM steps"


class ToySam(torch.optim.SGD):
    """SAM around SGD that keeps `old_p`, as the usual implementations do."""

    def __init__(self, params: Iterable[Any], *, rho: float, adaptive: bool = False, **options: Any) -> None:
        super().__init__(params, **options)
        for group in self.param_groups:
            group.update(rho=rho, adaptive=adaptive)

    @torch.no_grad()
    def first_step(self) -> None:
        params = [p for group in self.param_groups for p in group["params"]]
        adaptive, rho = self.param_groups[0]["adaptive"], self.param_groups[0]["rho"]
        norm = math.sqrt(sum(float(((p.abs() if adaptive else 1.0) * p.grad).square().sum()) for p in params))
        for p in params:
            self.state[p]["old_p"] = p.clone()
            p.add_((p.square() if adaptive else 1.0) * p.grad, alpha=rho / norm)

    @torch.no_grad()
    def second_step(self, *, keep: bool) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                old = self.state[p]["old_p"]
                if keep:
                    p.copy_(old)
                else:
                    p.data = old  # the usual implementation: from here on old_p is the parameter itself
        self.step()


def loss(network: nn.Module) -> Tensor:
    torch.manual_seed(1)
    return network(torch.randn(16, 2)).square().mean()


def opened(save: Any, network: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
    return open_checkpoint(save({"model": network.state_dict(), "optimizer": optimizer.state_dict()}))


def hints(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: hint.value for name, hint in checkpoint.hints.items()}


def saved_with(save: Any, *groups: dict[str, Any], key: str = "optimizer") -> Checkpoint:
    state = {"state": {}, "param_groups": [{"params": [], **group} for group in groups]}
    return open_checkpoint(save({"model": {"w": torch.ones(2)}, key: [state] if key == "optimizer_states" else state}))


@pytest.mark.parametrize("key", ["optimizer", "optimizer_state_dict", "optimizer_states", "some_name"])
def test_hints_are_read_under_any_name(save, key: str) -> None:
    group = {"rho": 0.05, "adaptive": True, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    checkpoint = saved_with(save, group, key=key)
    assert hints(checkpoint) == {
        "sam.rho": 0.05,
        "sam.variant": "asam",
        "sam.lr": 0.1,
        "sam.momentum": 0.9,
        "sam.weight_decay": 5e-4,
    }
    assert {hint.source for hint in checkpoint.hints.values()} == {"optimizer state"}
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    ("group", "note"),
    [
        ({"lr": 0.1, "betas": (0.9, 0.999)}, "Adam"),
        ({"lr": "fast"}, "lr = 'fast' is not a number"),
        ({"lr": float("nan")}, "not a number"),
    ],
)
def test_what_is_not_modelled_is_noted(save, group: dict[str, Any], note: str) -> None:
    assert any(note in found for found in saved_with(save, group).notes)


def test_nesterov_and_dampening_are_read(save) -> None:
    group = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "dampening": 0}
    found = hints(saved_with(save, group))
    assert found["sam.nesterov"] is True
    assert found["sam.dampening"] == 0.0


def test_differing_groups_use_the_first(save) -> None:
    checkpoint = saved_with(save, {"lr": 0.1, "weight_decay": 0.0}, {"lr": 0.1, "weight_decay": 0.01})
    assert hints(checkpoint)["sam.weight_decay"] == 0.0
    assert [note for note in checkpoint.notes if "differ" in note] == [
        "optimizer state: parameter groups differ in weight_decay (0.0, 0.01): the first is used"
    ]


def test_of_several_optimizers_the_one_with_rho_is_read(save) -> None:
    plain, sam = ({"state": {}, "param_groups": [{"params": [], **group}]} for group in ({"lr": 1.0}, {"rho": 0.1}))
    checkpoint = open_checkpoint(save({"model": {"w": torch.ones(2)}, "optimizer": plain, "sam": sam}))
    assert hints(checkpoint) == {"sam.rho": 0.1}
    assert "several optimizers" in checkpoint.notes[0]


def test_numbers() -> None:
    assert as_number(torch.tensor(0.5)) == 0.5
    assert [as_number(value) for value in (True, None, "1", math.inf, 10**400, torch.zeros(2), torch.tensor(1j))] == [
        None
    ] * 7


def test_no_optimizer_no_hints(save) -> None:
    assert hints(open_checkpoint(save({"model": {"w": torch.ones(2)}, "optimizer": {"state": {}}}))) == {}


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mid_step_weights_are_taken_back(save, network: nn.Module, adaptive: bool, dtype: torch.dtype) -> None:
    network.to(dtype)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.set_default_dtype(dtype)
    loss(network).backward()
    torch.set_default_dtype(torch.float32)
    optimizer = ToySam(network.parameters(), rho=0.3, adaptive=adaptive, lr=0.1)
    optimizer.first_step()
    checkpoint = opened(save, network, optimizer)
    assert any(MID_STEP in note for note in checkpoint.notes)
    weights = checkpoint.weights()
    parameters = dict(network.named_parameters())
    assert all(torch.equal(weights[name], before[name]) for name in parameters)
    assert weights.keys() == before.keys()


@pytest.mark.parametrize("keep", [False, True])
def test_a_finished_step_is_left_alone(save, network: nn.Module, keep: bool) -> None:
    loss(network).backward()
    optimizer = ToySam(network.parameters(), rho=0.3, lr=0.1, momentum=0.9)
    optimizer.first_step()
    optimizer.second_step(keep=keep)
    checkpoint = opened(save, network, optimizer)
    assert checkpoint.notes == ()
    assert all(torch.equal(checkpoint.weights()[name], value) for name, value in network.state_dict().items())


def test_tied_weights_are_matched_once(save) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss(network).backward()
    optimizer = ToySam(network.parameters(), rho=0.3, lr=0.1)
    optimizer.first_step()
    weights = opened(save, network, optimizer).weights()
    assert all(torch.equal(weights[name], value) for name, value in before.items())


def test_kept_weights_that_do_not_match_are_not_used(save, network: nn.Module) -> None:
    state = {"state": {0: {"old_p": torch.zeros(7)}}, "param_groups": [{"params": [0], "rho": 0.1}]}
    checkpoint = open_checkpoint(save({"model": network.state_dict(), "optimizer": state}))
    assert any("do not match" in note for note in checkpoint.notes)
    assert all(torch.equal(checkpoint.weights()[name], value) for name, value in network.state_dict().items())


def test_without_rho_nothing_is_claimed(save) -> None:
    state = {"state": {0: {"old_p": torch.zeros(2)}}, "param_groups": [{"params": [0], "lr": 0.1}]}
    checkpoint = open_checkpoint(save({"model": {"w": torch.ones(2)}, "optimizer": state}))
    assert checkpoint.notes == ()
    assert torch.equal(checkpoint.weights()["w"], torch.ones(2))


def test_a_kept_move_is_taken_off_where_the_state_says_so(save) -> None:
    before, move, buffer = torch.randn(3, 2), torch.randn(3, 2), torch.randn(2)
    weights = {"w": before + move, "running_mean": buffer}
    group = {"params": [0], "lr": 0.1}
    between = {"state": {0: {"e_w": move, "old_g": torch.zeros(3, 2)}}, "param_groups": [group]}
    found = open_checkpoint(save({"model": weights, "optimizer": between}))
    assert torch.equal(found.weights()["w"], (before + move) - move)
    assert torch.equal(found.weights()["running_mean"], buffer)
    assert any("e_w" in note and "between the two SAM steps" in note for note in found.notes)


@pytest.mark.parametrize(
    ("entry", "note"),
    [
        ({"e_w": torch.ones(3, 2)}, "does not say whether"),  # a class that leaves it there after a whole step
        ({"e_w": torch.ones(2, 3), "grad": torch.ones(2, 3)}, "does not fit the weights"),
    ],
)
def test_a_kept_move_that_decides_nothing(save, entry: dict[str, Tensor], note: str) -> None:
    weights = {"w": torch.randn(3, 2)}
    state = {"state": {0: entry}, "param_groups": [{"params": [0], "lr": 0.1}]}
    found = open_checkpoint(save({"model": weights, "optimizer": state}))
    assert torch.equal(found.weights()["w"], weights["w"])
    assert any(note in line for line in found.notes)


def test_momentum_buffers_of_a_wrapped_optimizer(save) -> None:
    buffer = torch.randn(3, 2)
    group = {"params": [0], "lr": 0.1, "rho": 0.25}
    base = {"state": {0: {"momentum_buffer": buffer}}, "param_groups": [group]}
    state = {"state": {0: {"sharpness": torch.ones(3, 2)}}, "param_groups": [group], "base_optimizer": base}
    found = open_checkpoint(save({"model": {"w": torch.randn(3, 2)}, "optimizer": state}))
    assert torch.equal(found.velocity().tensors[0], buffer)
    assert any("WSAM" in note for note in found.notes)
    assert not any("several optimizers" in note for note in found.notes)


def test_gsam_says_that_it_holds_no_rho(save) -> None:
    state = {"state": {0: {"old_g": torch.ones(2)}}, "param_groups": [{"params": [0], "lr": 0.1}]}
    found = open_checkpoint(save({"model": {"w": torch.randn(2)}, "optimizer": state}))
    assert found.hints["sam.variant"].value == "gsam"
    assert any("--rho" in note for note in found.notes)
