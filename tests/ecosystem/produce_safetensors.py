"""Single safetensors files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from samdiag import stamp
from tests.ecosystem.networks import kept, network
from tests.ecosystem.produced import Made, Producer


def save_file(folder: Path) -> Made:
    from safetensors.torch import save_file as save

    tensors = {**network().state_dict(), "half": torch.randn(3, 2).half(), "brain": torch.randn(5).bfloat16()}
    save(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return Made(path=folder / "model.safetensors", weights=kept(tensors))


def save_model(folder: Path) -> Made:
    from safetensors.torch import save_model as save

    model = network()
    model.second.weight = model.norm.register_parameter("tied", nn.Parameter(torch.randn(8, 8))) or model.norm.tied
    save(model, str(folder / "tied.safetensors"))
    stored = kept(model.state_dict())
    del stored["second.weight"]  # stored once, under the first of its names in alphabetical order
    return Made(path=folder / "tied.safetensors", weights=stored)


def stamped(folder: Path) -> Made:
    made = save_file(folder)
    stamp(made.path, model="digits-mlp", data="digits", rho=0.25)
    return made


PRODUCERS = [
    Producer(
        format="safetensors",
        kind="safetensors",
        how="`safetensors.torch.save_file`",
        make=save_file,
        reads="–",
        library="safetensors",
    ),
    Producer(
        format="safetensors",
        kind="safetensors",
        how="`safetensors.torch.save_model`, tied weights",
        make=save_model,
        reads="–",
        library="safetensors",
    ),
    Producer(
        format="safetensors",
        kind="safetensors",
        how="`save_file`, then `samdiag.stamp`",
        make=stamped,
        reads="stamp",
        library="safetensors",
    ),
]
