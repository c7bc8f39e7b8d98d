"""Every tensor arrives in the model, or the error says which do not fit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from samdiag.errors import UsageError
from samdiag.formats import open_checkpoint
from samdiag.spec.loading import load_weights


class Tied(nn.Module):
    """Two layers with one weight, which safetensors stores once."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 3, bias=False)
        self.head = nn.Linear(3, 3, bias=False)
        if tied:
            self.head.weight = self.embed.weight


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_all_tensors_arrive() -> None:
    target = network(1)
    assert load_weights(target, network().state_dict(), "a.pt") == ()
    assert same(target, network())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: nn.ModuleDict({"module": model})])
def test_wrappers_on_either_side_do_not_matter(wrap) -> None:
    target = wrap(network(1))
    load_weights(target, network().state_dict(), "a.pt")
    assert same(target, network())


def test_missing_and_unexpected_names_are_listed() -> None:
    given = network().state_dict()
    given = {name: value for name, value in given.items() if not name.startswith("0.")} | {
        f"extra.{index}": torch.zeros(1) for index in range(7)
    }
    target = network(1)
    with pytest.raises(UsageError) as caught:
        load_weights(target, given, "a.pt")
    assert "missing: 0.weight, 0.bias" in caught.value.what
    assert "not in the model: extra.0, extra.1, extra.2, extra.3, extra.4 … (7 in all)" in caught.value.what
    assert same(target, network(1))


def test_shapes_are_compared_before_anything_is_loaded() -> None:
    target = network(1)
    given = {**network().state_dict(), "2.weight": torch.zeros(5, 3)}
    with pytest.raises(UsageError, match=r"2\.weight \(5, 3\) against \(2, 3\)"):
        load_weights(target, given, "a.pt")
    assert same(target, network(1))


def test_only_the_batch_norm_counter_may_be_missing() -> None:
    given = network().state_dict()
    load_weights(network(1), {name: value for name, value in given.items() if "num_batches" not in name}, "a.pt")
    with pytest.raises(UsageError, match=r"missing: 1\.running_mean"):
        load_weights(network(1), {name: value for name, value in given.items() if "running_mean" not in name}, "a.pt")


def test_tied_weights_that_safetensors_stored_once(tmp_path) -> None:
    saved = Tied()
    save_model(saved, str(tmp_path / "a.safetensors"))
    given = open_checkpoint(tmp_path / "a.safetensors").weights()
    assert len(given) == 1
    target = Tied()
    load_weights(target, given, "a")
    assert same(target, saved)
    with pytest.raises(UsageError, match="missing"):
        load_weights(Tied(tied=False), given, "a")


def test_tied_weights_that_differ_in_the_file() -> None:
    with pytest.raises(UsageError, match="one parameter in the model"):
        load_weights(Tied(), Tied(tied=False).state_dict(), "a")
    load_weights(Tied(), dict.fromkeys(Tied().state_dict(), torch.full((3, 3), torch.nan)), "a")  # judged elsewhere


def test_lower_precision_is_converted_and_said() -> None:
    target = network(1)
    given = {
        name: value.bfloat16() if value.is_floating_point() else value for name, value in network().state_dict().items()
    }
    assert load_weights(target, given, "a.pt") == ("8 tensors are stored as bfloat16 and measured as float32",)
    assert target[0].weight.dtype == torch.float32
    assert torch.equal(target[0].weight, given["0.weight"].float())


def test_a_common_first_component_is_taken_off() -> None:
    target = network(1)
    notes = load_weights(target, {f"net.{name}": value for name, value in network().state_dict().items()}, "a.ckpt")
    assert "'net'" in notes[0]
    assert same(target, network())
    partial: dict[str, Tensor] = {f"net.{name}": value for name, value in list(network().state_dict().items())[1:]}
    with pytest.raises(UsageError, match=r"not in the model: net\."):
        load_weights(target, partial, "a.ckpt")


def test_parameters_without_memory() -> None:
    with torch.device("meta"):
        hollow = network()
    for target in (hollow, nn.LazyLinear(2)):
        with pytest.raises(UsageError, match="no values yet"):
            load_weights(target, network().state_dict(), "a.pt")
