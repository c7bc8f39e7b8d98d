"""Files of timm's CheckpointSaver, and the dictionaries of torchvision's and PyTorch's own training scripts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.ecosystem.networks import kept
from tests.ecosystem.produced import Made, Producer
from tests.torchvision_ops import declare

SGD = {"lr": 0.125, "momentum": 0.75, "weight_decay": 0.0625}
LAST = {"sam.lr": 0.125, "sam.momentum": 0.75, "sam.weight_decay": 0.0625, "sam.dampening": 0.0}
SMOOTHED = {"name": "cross_entropy", "args": {"label_smoothing": 0.1}}


def timm_args(**said: Any) -> argparse.Namespace:
    """The arguments of timm's train.py that matter here, under its names and with its defaults."""
    defaults = {
        "data_dir": "/data/imagenet", "dataset": "", "model": "resnet50", "pretrained": False, "num_classes": None,
        "gp": None, "img_size": None, "in_chans": None, "batch_size": 128, "grad_accum_steps": 1, "model_kwargs": {},
        "opt": "sgd", "opt_eps": None, "momentum": 0.9, "weight_decay": 2e-5, "sched": "cosine", "lr": None,
        "lr_base": 0.1, "epochs": 300, "mixup": 0.0, "cutmix": 0.0, "bce_loss": False, "jsd_loss": False,
        "smoothing": 0.1, "drop": 0.0, "drop_path": None, "bn_momentum": None, "model_ema": False, "seed": 42,
        "distributed": False, "world_size": 1, "rank": 0, "local_rank": 0, "device": torch.device("cpu"),
    }  # fmt: skip
    return argparse.Namespace(**{**defaults, **said})


def _save(folder: Path, args: argparse.Namespace | None, model: nn.Module, optimizer: Any, average: Any = None) -> Path:
    from timm.utils import CheckpointSaver

    saver = CheckpointSaver(model, optimizer, args, model_ema=average, checkpoint_dir=folder, recovery_dir=folder)
    saver.save_checkpoint(3, metric=71.5)
    return folder / "last.pth.tar"


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, channels: int = 3) -> None:
    torch.manual_seed(0)
    nn.functional.cross_entropy(model(torch.randn(2, channels, 32, 32)), torch.tensor([0, 1])).backward()
    optimizer.step()


def saver(folder: Path) -> Made:
    declare()
    import timm

    args = timm_args(model="resnet18", num_classes=5, in_chans=1, batch_size=32, world_size=4, **SGD)
    model = timm.create_model("resnet18", num_classes=5, in_chans=1)
    optimizer = torch.optim.SGD(model.parameters(), nesterov=True, **SGD)
    _step(model, optimizer, 1)
    path = _save(folder, args, model, optimizer)
    hints = {
        **LAST,
        "sam.nesterov": True,
        "sam.batch_size": 128,
        "model": {"timm": "resnet18", "args": {"num_classes": 5, "in_chans": 1}},
        "loss": SMOOTHED,
    }
    return Made(path=path, weights=kept(model.state_dict()), hints=hints)


def saver_ema(folder: Path) -> Made:
    declare()
    import timm
    from timm.utils import ModelEmaV3

    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, depth=2)
    args = timm_args(
        model="vit_tiny_patch16_224",
        num_classes=5,
        opt="adamw",
        lr=0.125,
        weight_decay=0.0625,
        smoothing=0.0,
        model_kwargs={"depth": 2, "img_size": 32},
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.125, weight_decay=0.0625)
    average = ModelEmaV3(model, decay=0.5)
    _step(model, optimizer)
    average.update(model, step=3)
    path = _save(folder, args, model, optimizer, average)
    chosen = {"num_classes": 5, "depth": 2, "img_size": 32}
    hints = {
        "sam.lr": 0.125,
        "sam.weight_decay": 0.0625,
        "sam.batch_size": 128,
        "model": {"timm": "vit_tiny_patch16_224", "args": chosen},
        "loss": {"name": "cross_entropy"},
    }
    return Made(path=path, weights=kept(model.state_dict()), ema=kept(average.module.state_dict()), hints=hints)


def reference(folder: Path) -> Made:
    declare()
    import torchvision

    args = argparse.Namespace(
        **{"data_path": "/data/imagenet", "model": "resnet18", "device": "cpu", "batch_size": 32, "epochs": 90},
        **{"workers": 16, "opt": "sgd", "norm_weight_decay": None, "label_smoothing": 0.1, "mixup_alpha": 0.0},
        **{"lr_scheduler": "steplr", "lr_step_size": 30, "lr_gamma": 0.1, "test_only": False, "world_size": 8},
        **{"distributed": True, "gpu": 0, "weights": None, "model_ema": False, **SGD},
    )
    model = torchvision.models.resnet18(num_classes=7)
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    _step(model, optimizer)
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict(),
        "epoch": 3,
        "args": args,
    }
    torch.save(saved, folder / "model_3.pth")
    hints = {
        **LAST,
        "sam.nesterov": False,
        "sam.batch_size": 256,
        "model": {"torchvision": "resnet18", "args": {"num_classes": 7}},
        "loss": SMOOTHED,
    }
    return Made(path=folder / "model_3.pth", weights=kept(model.state_dict()), hints=hints)


def imagenet(folder: Path) -> Made:
    declare()
    import torchvision

    model = torchvision.models.mobilenet_v3_small(num_classes=7)
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    _step(model, optimizer)
    saved = {
        "epoch": 3,
        "arch": "mobilenet_v3_small",
        "state_dict": nn.DataParallel(model).state_dict(),
        "best_acc1": torch.tensor(71.5),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict(),
    }
    torch.save(saved, folder / "model_best.pth.tar")
    hints = {
        **LAST,
        "sam.nesterov": False,
        "model": {"torchvision": "mobilenet_v3_small", "args": {"num_classes": 7}},
        "loss": {"name": "cross_entropy"},
    }
    return Made(path=folder / "model_best.pth.tar", weights=kept(model.state_dict()), hints=hints)


def _row(format: str, kind: str, how: str, make: Callable[[Path], Made], reads: str, library: str) -> Producer:
    return Producer(format=format, kind=kind, how=how, make=make, reads=reads, library=library)


RUN = "lr, momentum, weight decay, momentum buffers"
PRODUCERS = [
    _row("timm", "timm", "`CheckpointSaver` with its script's args", saver, f"model, loss, batch size; {RUN}", "timm"),
    _row(
        "timm",
        "timm",
        "`CheckpointSaver` with `ModelEmaV3`",
        saver_ema,
        "EMA, model, loss, batch size; lr, weight decay",
        "timm",
    ),
    _row(
        "torchvision's reference script",
        "torch-zip",
        "the dictionary of its train.py, args in a Namespace",
        reference,
        f"model, loss, batch size; {RUN}",
        "torchvision",
    ),
    _row(
        "PyTorch's ImageNet example",
        "torch-zip",
        "the dictionary of its main.py, `DataParallel`",
        imagenet,
        f"model; {RUN}",
        "torchvision",
    ),
]
