"""Folders of torch.distributed.checkpoint, written by two processes whose parameters are sharded (FSDP2)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from tests.ecosystem.networks import kept, loss_of, network
from tests.ecosystem.produced import Made, Producer

RANKS = 2
SGD = {"lr": 0.125, "momentum": 0.75, "weight_decay": 0.0625}
HINTS = {f"sam.{name}": value for name, value in SGD.items()} | {"sam.dampening": 0.0, "sam.nesterov": False}
FULL = "full.pt"


def _work(rank: int, folder: Path, layout: str) -> None:
    """One process: trains the sharded network for two steps and saves it together with the others."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_optimizer_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    try:
        model = network()
        fully_shard(model.first, mesh=init_device_mesh("cpu", (RANKS,)))
        fully_shard(model, mesh=init_device_mesh("cpu", (RANKS,)))
        optimizer = torch.optim.SGD(model.parameters(), **SGD)
        for _ in range(2):
            optimizer.step(loss_of(model))
        for group in optimizer.param_groups:
            group["rho"] = 0.25
        flat = StateDictOptions(flatten_optimizer_state_dict=layout == "flattened")
        weights = get_model_state_dict(model)
        state = get_optimizer_state_dict(model, optimizer, options=flat)
        saved: dict[str, Any] = {
            "weights": weights,
            "nested": {"model": weights, "optim": state},
            "flattened": {"model": weights, "optim": state},
            "beside": {**weights, "optimizer": state, "train_state": {"step": torch.tensor(2)}},
        }[layout]
        dcp.save(saved, checkpoint_id=folder / "checkpoint")
        full = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if rank == 0:
            torch.save(full, folder / FULL)
    finally:
        distributed.destroy_process_group()


def _saved(layout: str, **hints: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        multiprocessing.spawn(_work, (folder, layout), nprocs=RANKS)  # type: ignore[no-untyped-call]
        full = torch.load(folder / FULL, weights_only=True)
        return Made(path=folder / "checkpoint", weights=kept(full), hints=hints)

    return make


def _alone(folder: Path) -> Made:
    """One process, a plain state dict."""
    import torch.distributed.checkpoint as dcp

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    optimizer.step(loss_of(model))
    dcp.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint_id=folder / "a")
    return Made(path=folder / "a", weights=kept(model.state_dict()), hints=HINTS)


READS = "rho, lr, momentum, weight decay, momentum buffers"


def _row(how: str, make: Callable[[Path], Made], reads: str = READS) -> Producer:
    return Producer(
        format="torch.distributed.checkpoint directory",
        kind="torch-distributed",
        how=how,
        make=make,
        reads=reads,
        library="torch",
    )


PRODUCERS = [
    _row("`save` of `get_model_state_dict`, 2 processes, FSDP2", _saved("weights"), "–"),
    _row("with `get_optimizer_state_dict`, 2 processes, FSDP2", _saved("nested", **HINTS, **{"sam.rho": 0.25})),
    _row("the same, `flatten_optimizer_state_dict`", _saved("flattened", **HINTS, **{"sam.rho": 0.25})),
    _row(
        "weights at the top level beside the optimizer's, 2 processes", _saved("beside", **HINTS, **{"sam.rho": 0.25})
    ),
    _row("`save` of plain state dicts, 1 process", _alone),
]
