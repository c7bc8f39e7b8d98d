"""Payloads in files of torch.save and plain pickles."""

from __future__ import annotations

from tests.hostile.attack import Attack
from tests.hostile.containers import Container, legacy, pickled_state, plain_pickle, torch_file
from tests.hostile.payloads import ESSENTIAL, PAYLOADS

REFUSED = "pickle"  # "is a pickle that wants to run …", "is a plain Python pickle", …

CONTAINERS: dict[str, tuple[Container, str]] = {
    ".pth": (torch_file("model.pth"), REFUSED),
    ".bin": (torch_file("pytorch_model.bin"), REFUSED),
    "no suffix": (torch_file("checkpoint"), REFUSED),
    "named .safetensors": (torch_file("model.safetensors"), REFUSED),
    "nested": (torch_file("last.pt", lambda found: {"epoch": 3, "model_state_dict": found}), REFUSED),
    "Lightning .ckpt": (
        torch_file(
            "last.ckpt", lambda found: {"state_dict": found, "pytorch-lightning_version": "2.6", "hyper_parameters": {}}
        ),
        REFUSED,
    ),
    "timm": (torch_file("model_best.pth.tar", lambda found: {"arch": "resnet18", "state_dict": found}), REFUSED),
    "pickle.dump": (pickled_state("weights.pkl"), "plain Python pickle"),
    "plain pickle as .pt": (plain_pickle("weights.pt"), "plain Python pickle"),
    "legacy torch, first part": (legacy(0), ""),
    "legacy torch, object": (legacy(3), "legacy"),
}


def _attack(name: str, container: Container, payload: str, says: str) -> Attack:
    return Attack(
        name=f"pickle: {payload} in {name}", make=lambda ground: container(ground, PAYLOADS[payload]), says=says
    )


ATTACKS = [
    *(_attack(".pt", torch_file("model.pt"), payload, REFUSED) for payload in PAYLOADS),
    *(
        _attack(name, container, payload, says)
        for name, (container, says) in CONTAINERS.items()
        for payload in ESSENTIAL
    ),
]
