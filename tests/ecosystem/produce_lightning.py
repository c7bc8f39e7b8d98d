"""Lightning checkpoints, written by its Trainer."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.ecosystem.networks import kept, network, samples
from tests.ecosystem.produced import Made, Producer
from tests.torchvision_ops import declare

SGD = {"lr": 0.125, "momentum": 0.75, "weight_decay": 0.0625}


def _module(**said: Any) -> Any:
    """A LightningModule around the network, which saves what it was given as its hyper-parameters."""
    declare()
    import lightning

    class Classifier(lightning.LightningModule):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            self.save_hyperparameters(options.get("config", options))
            self.net = network()

        def training_step(self, batch: Any, _: int) -> Any:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), **SGD)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]

    class TwoOptimizers(Classifier):
        automatic_optimization = False

        def training_step(self, batch: Any, number: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch, number))
                optimizer.step()

        def configure_optimizers(self) -> Any:
            from pytorch_optimizer import SAM

            head = torch.optim.SGD(self.net.head.parameters(), lr=0.5)
            return head, SAM(self.net.first.parameters(), torch.optim.SGD, rho=0.25, **SGD)

    kind = TwoOptimizers if said.pop("two", False) else Classifier
    return kind(**said)


def _fit(folder: Path, module: Any, *callbacks: Any, epochs: int = 2) -> Path:
    import lightning

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*samples()), batch_size=8)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        default_root_dir=folder,
    )
    trainer.fit(module, batches)
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def _last(lr: float) -> dict[str, Any]:
    """What the optimizer state says after a schedule has brought lr to its last value."""
    return {
        "sam.lr": lr,
        "sam.momentum": 0.75,
        "sam.weight_decay": 0.0625,
        "sam.dampening": 0.0,
        "sam.nesterov": False,
    }


def plain(folder: Path) -> Made:
    module = _module(rho=0.25, adaptive=True, batch_size=8, lr=0.125, layers=[8, 8], name="a run")
    path = _fit(folder, module)
    hints = {**_last(0.03125), "sam.rho": 0.25, "sam.variant": "asam", "sam.batch_size": 8}
    return Made(path=path, weights=kept(module.state_dict()), hints=hints)


def compiled(folder: Path) -> Made:
    """Compiled after training: compiling for real is not what is looked at here."""
    module = _module(rho=0.25)
    _fit(folder, module)
    trained = module.net
    module.net = torch.compile(trained)
    module.trainer.save_checkpoint(folder / "compiled.ckpt")
    weights = {f"net.{name}": value for name, value in kept(trained.state_dict()).items()}
    return Made(path=folder / "compiled.ckpt", weights=weights, hints={**_last(0.03125), "sam.rho": 0.25})


def namespace(folder: Path) -> Made:
    module = _module(args=argparse.Namespace(rho=0.25, learning_rate=0.125, batch_size=8, root=folder))
    path = _fit(folder, module)
    return Made(
        path=path,
        weights=kept(module.state_dict()),
        hints={**_last(0.03125), "sam.rho": 0.25, "sam.batch_size": 8},
    )


def omegaconf(folder: Path) -> Made:
    from omegaconf import OmegaConf

    config = OmegaConf.create({"optimizer": {"rho": 0.25, "lr": "${base}"}, "base": 0.125, "data": {"batch_size": 8}})
    module = _module(config=config)
    path = _fit(folder, module)
    return Made(
        path=path,
        weights=kept(module.state_dict()),
        hints={**_last(0.03125), "sam.rho": 0.25, "sam.batch_size": 8},
    )


def averaging(folder: Path) -> Made:
    from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

    module = _module(rho=0.25)
    average = EMAWeightAveraging(decay=0.5)
    found: dict[str, Any] = {}

    class Save(Callback):
        """In the middle of training, as ModelCheckpoint does."""

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(folder / "middle.ckpt")
            found["raw"] = kept(pl_module.state_dict())
            found["ema"] = kept(average._average_model.module.state_dict())

    _fit(folder, module, average, Save(), epochs=1)
    hints = {**_last(0.0625), "sam.rho": 0.25}
    return Made(path=folder / "middle.ckpt", weights=found["raw"], ema=found["ema"], hints=hints)


def two_optimizers(folder: Path) -> Made:
    module = _module(two=True, note="GAN")
    path = _fit_manually(folder, module)
    hints = {**_last(0.125), "sam.rho": 0.25, "sam.variant": "sam"}
    return Made(path=path, weights=kept(module.state_dict()), hints=hints)


def _fit_manually(folder: Path, module: Any) -> Path:
    """SAM wants two passes in one step; what is of interest is its state in the file, not this training."""

    def step(self: Any, batch: Any, number: int) -> None:
        head, sam = self.optimizers(use_pl_optimizer=False)
        for optimizer in (head, sam):
            optimizer.zero_grad()
        self.manual_backward(type(self).__mro__[1].training_step(self, batch, number))
        head.step()
        sam.first_step(zero_grad=True)
        self.manual_backward(type(self).__mro__[1].training_step(self, batch, number))
        sam.second_step()

    type(module).training_step = step
    return _fit(folder, module, epochs=1)


def _row(how: str, make: Callable[[Path], Made], reads: str) -> Producer:
    return Producer(format="Lightning .ckpt", kind="lightning", how=how, make=make, reads=reads, library="lightning")


OPTIMIZER = "lr, momentum, weight decay, momentum buffers"
PRODUCERS = [
    _row("`Trainer.save_checkpoint`", plain, f"rho, variant, batch size from hyper-parameters; {OPTIMIZER}"),
    _row("with a network of `torch.compile` in it", compiled, f"rho; {OPTIMIZER}"),
    _row("hyper-parameters in an `argparse.Namespace`", namespace, f"rho, batch size; {OPTIMIZER}"),
    _row("hyper-parameters in an omegaconf `DictConfig`", omegaconf, f"rho, batch size; {OPTIMIZER}"),
    _row("with `EMAWeightAveraging`", averaging, f"EMA, rho; {OPTIMIZER}"),
    _row("two optimizers, one of them SAM", two_optimizers, f"rho, variant of the SAM one; {OPTIMIZER}"),
]
