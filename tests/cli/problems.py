"""A user's training file: one honest problem, and one for each way to get it wrong. Copied beside the tests' runs."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import samdiag

SAMPLES = 32


def model(hidden=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 2))


def data():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(SAMPLES, 2, generator=generator)
    return TensorDataset(inputs, (inputs[:, 0] + 0.3 * torch.randn(SAMPLES, generator=generator) > 0).long())


def batches():
    inputs, targets = data().tensors
    return [(inputs[:16], targets[:16]), (inputs[16:], targets[16:])]


def loss(network, batch):
    return F.cross_entropy(network(batch[0]), batch[1])


def with_loss(function):
    return samdiag.Problem(model=model(), loss=function, batches=batches())


def with_batches(items):
    return samdiag.Problem(model=model(), loss=loss, batches=items)


def problem():
    print("a line of the training script's own")
    return with_loss(loss)


def single_batch():
    return with_batches(batches()[:1])


def double():
    return samdiag.Problem(model=model().double(), loss=loss, batches=batches())


# ---------------------------------------------------------------- special networks


class Vector(nn.Module):
    """Parameters w, and nothing to compute."""

    def __init__(self, size, dtype=torch.float64):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size, dtype=dtype))


def quadratic(network, batch):
    return 0.5 * (network.w**2 * torch.arange(1, 1 + len(network.w))).sum()


def bowl():
    """Exactly at its minimum when w = 0: the gradient is zero."""
    return samdiag.Problem(model=Vector(3), loss=quadratic, batches=[torch.zeros(1)], population=1)


def saddle():
    """Under USAM with rho = 0.6 the saddle at 0 attracts: an error. At (2, 1) it is a slope."""
    function = lambda m, _: m.w[0] ** 2 - m.w[1] ** 2 + m.w[1] ** 4  # noqa: E731
    return samdiag.Problem(model=Vector(2), loss=function, batches=[torch.zeros(1)], population=1)


def one_parameter():
    return samdiag.Problem(model=Vector(1), loss=quadratic, batches=[torch.zeros(1)], population=1)


def linear_regression():
    torch.manual_seed(0)
    inputs, targets = torch.randn(20, 3), torch.randn(20, 1)
    return samdiag.Problem(
        model=nn.Linear(3, 1), loss=lambda m, b: F.mse_loss(m(b[0]), b[1]), batches=[(inputs, targets)]
    )


def no_curvature():
    return samdiag.Problem(model=Vector(3), loss=lambda m, b: (m.w * b).mean(), batches=[torch.ones(4, 3)])


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.never = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)), nn.Linear(2, 2)

    def forward(self, inputs):
        return self.body(inputs)


def unused():
    return samdiag.Problem(model=Unused(), loss=loss, batches=batches())


# ---------------------------------------------------------------- mistakes


def raises():
    print("before the failure")
    raise FileNotFoundError("no folder /data/cifar10")


def raises_out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory")


def returns_a_number():
    return 3


def loss_raises():
    def function(network, batch):
        raise KeyError("labels")

    return with_loss(function)


def loss_vector():
    return with_loss(lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"))


def loss_nan():
    return with_loss(lambda m, b: loss(m, b) * float("nan"))


def loss_infinite():
    return with_loss(lambda m, b: loss(m, b) + float("inf"))


def loss_constant():
    return with_loss(lambda m, b: torch.tensor(1.0))


def loss_detached():
    return with_loss(lambda m, b: loss(m, b).detach())


def loss_of_another_model():
    other = model()
    return with_loss(lambda m, b: loss(other, b))


def loss_float():
    return with_loss(lambda m, b: loss(m, b).item())


def loss_random():
    return with_loss(lambda m, b: loss(m, b) * (1 + time.perf_counter_ns() % 1000))


def loss_prints():
    def function(network, batch):
        print("step")
        return loss(network, batch)

    return with_loss(function)


def loss_exits():
    def function(network, batch):
        raise SystemExit(0)

    return with_loss(function)


def no_batches():
    return with_batches([])


def empty_batch():
    return with_batches([(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))])


def no_data():
    return []


def generator():
    return with_batches(iter(batches()))


class Counting:
    """A loader whose every pass differs, whatever the seed."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        yield from ((inputs + self.passes, targets) for inputs, targets in batches())


def loader_changes():
    return with_batches(Counting())


class Broken:
    def __iter__(self):
        raise OSError("stale file handle")


def loader_raises():
    return with_batches(Broken())


def frozen():
    return samdiag.Problem(model=model().requires_grad_(False), loss=loss, batches=batches())


# ---------------------------------------------------------------- memory and time


def limited(most):
    """The honest loss on a machine that holds `most` samples."""

    def function(network, batch):
        if len(batch[0]) > most:
            raise torch.OutOfMemoryError("out of memory: tried to allocate 2.00 GiB")
        return loss(network, batch)

    return with_loss(function)


def memory_for_four():
    return limited(4)


def memory_for_none():
    return limited(0)


def memory_for_four_in_float64():
    """float32 fits, the float64 comparison of the self-check does not."""

    def function(network, batch):
        if batch[0].dtype == torch.float64 and len(batch[0]) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return loss(network, batch)

    return with_loss(function)


def memory_for_none_in_float64():
    """A machine that holds the network in float32 only."""

    def function(network, batch):
        if batch[0].dtype == torch.float64:
            raise torch.OutOfMemoryError("out of memory")
        return loss(network, batch)

    return with_loss(function)


class Backward(torch.autograd.Function):
    """The identity, whose backward pass holds at most 4 samples."""

    @staticmethod
    def forward(context, values):
        return values.clone()

    @staticmethod
    def backward(context, gradient):
        if len(gradient) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return gradient.clone()


def memory_for_four_backward():
    return with_loss(lambda m, b: F.cross_entropy(Backward.apply(m(b[0])), b[1]))


def wide():
    """Too many parameters for a complete spectrum."""
    return samdiag.Problem(model=model(hidden=100), loss=loss, batches=batches())


def second_is_slow():
    """Honest, but with a bias above 100 the loss says that it began and then takes a minute."""

    def function(network, batch):
        if bool(network[2].bias.detach().max() > 100):
            Path("began").touch()
            time.sleep(60)
        return loss(network, batch)

    return with_loss(function)
