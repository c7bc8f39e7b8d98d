"""Files of torch.save as training scripts write them: state dicts, wrappers, nested dictionaries, averages, SAM."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.ecosystem.networks import kept, loss_of, network, samples
from tests.ecosystem.produced import Made, Producer

SGD = {"lr": 0.125, "momentum": 0.75, "weight_decay": 0.0625}
SGD_HINTS = {f"sam.{name}": value for name, value in SGD.items()} | {"sam.dampening": 0.0, "sam.nesterov": False}


def _trained(model: nn.Module, steps: int = 2, **options: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), **SGD, **options)
    for _ in range(steps):
        optimizer.step(loss_of(model))
    return optimizer


def state_dict(folder: Path) -> Made:
    model = network()
    torch.save(model.state_dict(), folder / "weights.pt")
    return Made(path=folder / "weights.pt", weights=kept(model.state_dict()))


def legacy(folder: Path) -> Made:
    model = network()
    optimizer = _trained(model)
    saved = {"epoch": 3, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, folder / "model.pth.tar", _use_new_zipfile_serialization=False)
    return Made(path=folder / "model.pth.tar", weights=kept(model.state_dict()), hints=SGD_HINTS)


def nested(folder: Path) -> Made:
    model = network()
    optimizer = _trained(model, foreach=True)
    saved = {
        "epoch": 3,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": 0.5,
    }
    torch.save(saved, folder / "checkpoint.bin")
    return Made(path=folder / "checkpoint.bin", weights=kept(model.state_dict()), hints=SGD_HINTS)


def whole_module(folder: Path) -> Made:
    model = network()
    torch.save({"model": nn.DataParallel(torch.compile(model)).state_dict()}, folder / "compiled.pt")  # type: ignore[arg-type]
    return Made(path=folder / "compiled.pt", weights=kept(model.state_dict()))


def distributed(folder: Path) -> Made:
    from torch import distributed as dist

    model = network()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
    try:
        torch.save(nn.parallel.DistributedDataParallel(model).state_dict(), folder / "ddp.pt")
    finally:
        dist.destroy_process_group()
    return Made(path=folder / "ddp.pt", weights=kept(model.state_dict()))


def averaged(folder: Path) -> Made:
    from torch.optim.swa_utils import AveragedModel

    model = network()
    average = AveragedModel(model)
    for _ in range(2):
        _trained(model, steps=1)
        average.update_parameters(model)
    torch.save(average.state_dict(), folder / "swa.pt")
    return Made(path=folder / "swa.pt", weights=kept(average.module.state_dict()))


def averaged_beside(folder: Path) -> Made:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = network()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    for _ in range(3):
        optimizer = _trained(model, steps=1)
        average.update_parameters(model)
    saved = {"model": model.state_dict(), "model_ema": average.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, folder / "checkpoint.pth")
    return Made(
        path=folder / "checkpoint.pth",
        weights=kept(model.state_dict()),
        ema=kept(average.module.state_dict()),
        hints=SGD_HINTS,
    )


def torch_ema(folder: Path) -> Made:
    from torch_ema import ExponentialMovingAverage

    model = network()
    average = ExponentialMovingAverage(model.parameters(), decay=0.5)
    for _ in range(3):
        _trained(model, steps=1)
        average.update()
    torch.save({"model": model.state_dict(), "ema": average.state_dict()}, folder / "ema.pt")
    raw = kept(model.state_dict())
    with average.average_parameters():
        shadow = kept(model.state_dict())
    return Made(path=folder / "ema.pt", weights=raw, ema=shadow)


def ema_pytorch(folder: Path) -> Made:
    from ema_pytorch import EMA

    model = network()
    average = EMA(model, beta=0.5, update_after_step=0, update_every=1)
    for _ in range(3):
        _trained(model, steps=1)
        average.update()
    torch.save(average.state_dict(), folder / "ema.pt")
    return Made(path=folder / "ema.pt", weights=kept(model.state_dict()), ema=kept(average.ema_model.state_dict()))


def _sam(rho: float = 0.25, **options: Any) -> tuple[nn.Module, Any]:
    from pytorch_optimizer import SAM

    model = network()
    return model, SAM(model.parameters(), torch.optim.SGD, rho=rho, **SGD, **options)


def _sam_file(folder: Path, model: nn.Module, optimizer: Any, weights: dict[str, Any], **hints: Any) -> Made:
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "sam.pt")
    return Made(path=folder / "sam.pt", weights=weights, hints={**SGD_HINTS, **hints})


def sam(folder: Path) -> Made:
    model, optimizer = _sam()
    for _ in range(2):
        loss_of(model)()
        optimizer.step(loss_of(model))
    return _sam_file(folder, model, optimizer, kept(model.state_dict()), **{"sam.rho": 0.25, "sam.variant": "sam"})


def _between(variant: str, **options: Any) -> Callable[[Path], Made]:
    """A file that was written after the ascent: the weights in it are not those that are being trained."""

    def make(folder: Path) -> Made:
        model, optimizer = _sam(**options)
        loss_of(model)()
        optimizer.step(loss_of(model))
        loss_of(model)()
        before = kept(model.state_dict())  # after the backward pass, which moves the running statistics
        optimizer.first_step()
        return _sam_file(folder, model, optimizer, before, **{"sam.rho": 0.25, "sam.variant": variant})

    return make


def wsam_between(folder: Path) -> Made:
    from pytorch_optimizer import WSAM

    model = network()
    optimizer = WSAM(model, model.parameters(), torch.optim.SGD, rho=0.25, **SGD)
    loss_of(model)()
    optimizer.step(loss_of(model))
    loss_of(model)()
    optimizer.first_step()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    moves = {name: optimizer.state[p]["e_w"] for name, p in model.named_parameters()}
    weights = kept({name: value - moves.get(name, 0) for name, value in model.state_dict().items()})
    torch.save(saved, folder / "wsam.pt")
    return Made(path=folder / "wsam.pt", weights=weights, hints={**SGD_HINTS, "sam.rho": 0.25, "sam.variant": "sam"})


def gsam(folder: Path) -> Made:
    from pytorch_optimizer import GSAM, LinearScheduler, ProportionScheduler

    model = network()
    base = torch.optim.SGD(model.parameters(), **SGD)
    rates = LinearScheduler(base, t_max=10, max_lr=0.125, init_lr=0.125)
    rates.step()
    radii = ProportionScheduler(rates, max_lr=0.125, max_value=0.25)
    optimizer = GSAM(model.parameters(), base_optimizer=base, model=model, rho_scheduler=radii)
    inputs, classes = samples()
    optimizer.set_closure(nn.functional.cross_entropy, inputs, classes)
    optimizer.step()
    loss_of(model)()
    optimizer.perturb_weights(rho=optimizer.rho_t)
    moves = {name: optimizer.state[p]["e_w"] for name, p in model.named_parameters()}
    weights = kept({name: value - moves.get(name, 0) for name, value in model.state_dict().items()})
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "gsam.pt")
    return Made(
        path=folder / "gsam.pt",
        weights=weights,
        hints={**SGD_HINTS, "sam.lr": base.param_groups[0]["lr"], "sam.variant": "gsam"},
    )


def adam_on_device(folder: Path) -> Made:
    model = network()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=torch.tensor(0.125), weight_decay=0.0625, capturable=False, fused=True
    )
    optimizer.step(loss_of(model))
    torch.save({"net": model.state_dict(), "optim": optimizer.state_dict()}, folder / "adam.ckpt")
    return Made(
        path=folder / "adam.ckpt",
        weights=kept(model.state_dict()),
        hints={"sam.lr": 0.125, "sam.weight_decay": 0.0625},
    )


def _row(format: str, how: str, make: Callable[[Path], Made], reads: str = "–", **more: Any) -> Producer:
    return Producer(format=format, kind=more.pop("kind", "torch-zip"), how=how, make=make, reads=reads, **more)


LR = "lr, momentum, weight decay, momentum buffers"
SAM_READS = f"rho, variant, {LR}"
PRODUCERS = [
    _row("torch file: state dict", "`torch.save(model.state_dict())`", state_dict),
    _row("torch file: before torch 1.6", "`_use_new_zipfile_serialization=False`", legacy, LR, kind="torch-legacy"),
    _row("torch file: nested dictionary", "`model_state_dict` and `optimizer_state_dict`, foreach SGD", nested, LR),
    _row("torch file: wrapped", "`nn.DataParallel(torch.compile(model))`", whole_module),
    _row("torch file: wrapped", "`DistributedDataParallel`, gloo", distributed),
    _row("torch file: fused optimizer", "fused AdamW, lr in a tensor", adam_on_device, "lr, weight decay"),
    _row("torch file: averaged weights", "`torch.optim.swa_utils.AveragedModel` alone", averaged),
    _row(
        "torch file: averaged weights", "`model_ema` of `AveragedModel` beside `model`", averaged_beside, f"EMA; {LR}"
    ),
    _row("torch file: averaged weights", "torch_ema: a list without names", torch_ema, "EMA", library="torch-ema"),
    _row("torch file: averaged weights", "ema_pytorch's `EMA.state_dict()`", ema_pytorch, "EMA", library="ema-pytorch"),
    _row("SAM optimizer state", "SAM, after a step", sam, SAM_READS, library="pytorch_optimizer"),
    _row(
        "SAM optimizer state",
        "SAM, between its two steps: `old_p` is used",
        _between("sam"),
        SAM_READS,
        library="pytorch_optimizer",
    ),
    _row(
        "SAM optimizer state",
        "ASAM (`adaptive=True`), between its two steps",
        _between("asam", adaptive=True),
        SAM_READS,
        library="pytorch_optimizer",
    ),
    _row(
        "SAM optimizer state",
        "SAM with `foreach=True`, between its two steps",
        _between("sam", foreach=True),
        SAM_READS,
        library="pytorch_optimizer",
    ),
    _row(
        "SAM optimizer state",
        "WSAM, between its two steps: `e_w` is taken off",
        wsam_between,
        SAM_READS,
        library="pytorch_optimizer",
    ),
    _row(
        "SAM optimizer state",
        "GSAM, between its two steps: `e_w` is taken off",
        gsam,
        f"variant, {LR}; its state holds no rho",
        library="pytorch_optimizer",
    ),
]
