"""Which dictionary the weights are, and what their names are without wrappers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from samdiag.errors import CannotDecide
from samdiag.formats.state_dict import WEIGHT_KEYS, find_weights, strip_prefixes

PART = st.sampled_from(["layer", "0", "weight", "bias", "head", "n"])
NAMES = st.lists(PART, min_size=1, max_size=4).map(".".join)
STATE = st.dictionaries(NAMES, st.integers(), min_size=1, max_size=6)
WRAPPERS = st.lists(st.sampled_from(["module.", "_orig_mod.", "_fsdp_wrapped_module."]), max_size=4).map("".join)


@given(STATE, WRAPPERS)
def test_wrappers_around_the_whole_model_leave_no_trace(state: dict[str, int], prefix: str) -> None:
    assert strip_prefixes({prefix + name: value for name, value in state.items()}) == state


@given(
    st.dictionaries(
        st.lists(st.one_of(PART, st.just("module"), st.just("_orig_mod")), min_size=1).map(".".join), st.integers()
    )
)
def test_stripping_is_idempotent_and_loses_nothing(state: dict[str, int]) -> None:
    once = strip_prefixes(state)
    assert strip_prefixes(once) == once
    assert sorted(once.values()) == sorted(state.values())


@given(STATE)
def test_module_stays_where_not_every_name_has_it(state: dict[str, int]) -> None:
    mixed = {**state, **{f"module.{name}": value for name, value in state.items()}}
    assert strip_prefixes(mixed) == mixed


def test_wrappers_of_parts_go_at_any_depth() -> None:
    names = ["a._fsdp_wrapped_module.b.weight", "c._orig_mod.weight", "d._checkpoint_wrapped_module.e"]
    assert list(strip_prefixes(dict.fromkeys(names))) == ["a.b.weight", "c.weight", "d.e"]


def test_two_names_that_would_become_one_stay() -> None:
    state = {"a.weight": 1, "a._orig_mod.weight": 2}
    assert strip_prefixes(state) == state


def test_real_wrappers() -> None:
    network = nn.Linear(2, 2)
    averaged = torch.optim.swa_utils.AveragedModel(nn.DataParallel(network))
    assert strip_prefixes(averaged.state_dict()).keys() == network.state_dict().keys()


@pytest.mark.parametrize("key", [*WEIGHT_KEYS, "generator"])
def test_weights_are_found_inside(key: str) -> None:
    saved = {"epoch": 1, key: {"module.w": torch.ones(2)}, "model_ema": {"w": torch.zeros(2)}}
    assert torch.equal(find_weights("a.pt", saved, "raw")["w"], torch.ones(2))


def test_weights_are_found_two_levels_down() -> None:
    assert find_weights("a.pt", {"model": {"state_dict": {"w": torch.ones(2)}, "config": {}}}, "raw").keys() == {"w"}


def test_extra_state_is_left_out() -> None:
    assert find_weights("a.pt", {"w": torch.ones(2), "w._extra_state": None}, "raw").keys() == {"w"}


def test_one_dictionary_under_two_names_is_not_ambiguous() -> None:
    weights = {"w": torch.ones(2)}
    assert find_weights("a.pt", {"model": weights, "state_dict": weights}, "raw").keys() == {"w"}


@pytest.mark.parametrize("keys", [("model", "net"), ("encoder", "decoder")])
def test_two_models_are_ambiguous(keys: tuple[str, str]) -> None:
    with pytest.raises(CannotDecide, match=f"several models: {keys[0]}, {keys[1]}"):
        find_weights("a.pt", {key: {"w": torch.ones(2)} for key in keys}, "raw")


def test_two_averages_are_ambiguous() -> None:
    with pytest.raises(CannotDecide, match="several models"):
        find_weights("a.pt", {"model_ema": {"w": torch.ones(2)}, "ema": {"w": torch.ones(2)}}, "ema")


def test_averages_without_names_are_matched_by_order(network: nn.Module) -> None:
    raw = network.state_dict()
    shadow = [torch.full_like(p, float(index)) for index, p in enumerate(network.parameters())]
    found = find_weights("a.pt", {"model": raw, "ema": {"decay": 0.9, "shadow_params": shadow}}, "ema")
    for index, (name, _) in enumerate(network.named_parameters()):
        assert bool((found[name] == index).all())
    assert torch.equal(found["1.running_mean"], raw["1.running_mean"])


@pytest.mark.parametrize("change", ["fewer", "more", "shape", "kind"])
def test_averages_that_do_not_fit_are_refused(network: nn.Module, change: str) -> None:
    shadow: list[Any] = [p.detach() for p in network.parameters()]
    shadow = {
        "fewer": shadow[:-1],
        "more": [*shadow, torch.zeros(2)],
        "shape": [shadow[1], shadow[0], *shadow[2:]],
        "kind": [None, *shadow[1:]],
    }[change]
    with pytest.raises(CannotDecide, match="number and shape") as caught:
        find_weights("a.pt", {"model": network.state_dict(), "ema": {"shadow_params": shadow}}, "ema")
    assert "copy_to" in caught.value.todo


def test_an_optimizer_state_alone_is_called_that(network: nn.Module) -> None:
    state = torch.optim.SGD(network.parameters(), lr=0.1).state_dict()
    with pytest.raises(CannotDecide, match="an optimizer state and no weights"):
        find_weights("optimizer.pt", state, "raw")
