"""Small pickles and small files that ask for endless time or memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch

from tests.hostile.attack import Attack, write
from tests.hostile.containers import injected, rewritten, state, torch_bytes
from tests.hostile.opcodes import alone, call, integer, name, text

DEPTH = 60  # doublings: 2^60 objects, or bytes


def chain(depth: int = DEPTH) -> bytes:
    """A tuple of twice the tuple before it, and so on: a few hundred bytes."""
    return b")q\x00" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(depth))


def endless(depth: int = DEPTH) -> bytes:
    """The same with nothing below it on the stack."""
    return b")q\x00" + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(depth))


def growing_text() -> bytes:
    """A text encoded as hexadecimal digits, over and over."""
    grown = text("x" * 100)
    for _ in range(DEPTH):
        grown = call(name("_codecs", "encode"), grown, text("hex"))
    return grown


def _whole(expression: bytes) -> Callable[[], bytes]:
    """A file of torch.save whose object is the expression's."""
    return lambda: rewritten(
        torch_bytes(state()), lambda key, raw: alone(expression, 2) if key.endswith("data.pkl") else raw
    )


def _first(expression: bytes) -> Callable[[], bytes]:
    return lambda: injected(torch_bytes(state()), expression)


def _saved(make: Callable[[], Any]) -> Callable[[], bytes]:
    return lambda: torch_bytes(make())


def _wide(value: float = 0.0) -> torch.Tensor:
    """10¹¹ values that are one."""
    return torch.tensor([value]).expand(10**11)


def _with_optimizer(**entry: Any) -> dict[str, Any]:
    group = {"params": [0], "rho": 0.1, "lr": 0.1, "momentum": 0.9}
    return {"model": {"w": _wide()}, "optimizer": {"state": {0: entry}, "param_groups": [group]}}


def _legacy(expression: bytes) -> Callable[[], bytes]:
    """The old layout with the expression as its object."""

    def make() -> bytes:
        file = io.BytesIO()
        torch.save({}, file, _use_new_zipfile_serialization=False)
        content = file.getvalue()
        start = content.index(b"\x80\x02}q\x00.", 60)
        return content[:start] + alone(expression, 2) + b"\x80\x02]."

    return make


def _sparse() -> dict[str, torch.Tensor]:
    return {"w": torch.sparse_coo_tensor(torch.zeros(2, 1), torch.ones(1), (10**9, 10**9), check_invariants=False)}


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a key that takes for ever to hash": (_whole(b"}" + chain() + b"K\x01s"), "far more than the file has"),
    "a key beside the weights": (_first(b"}" + chain() + b"K\x01s"), "far more than the file has"),
    "a member of a set": (_whole(call(name("builtins", "set"), b"]" + chain() + b"a")), "far more than the file has"),
    "a key in the old layout": (_legacy(b"}" + chain() + b"K\x01s"), "far more than the file has"),
    "a value of endless tuples": (_first(chain()), "far more than the file has"),
    "tuples of three": (
        _whole(b")q\x00" + b"".join(b"h%ch%c\x87q%c" % (i, i, i + 1) for i in range(40))),
        "far more than the file has",
    ),
    "a text that doubles": (_first(growing_text()), "makes it grow"),
    "a text packed by a codec": (_first(call(name("_codecs", "encode"), text("x"), text("zip"))), "makes it grow"),
    "a codec of a class": (_first(call(name("_codecs", "encode"), text("x"), text("idna"))), "makes it grow"),
    "weights of one value": (_saved(lambda: {"w": _wide()}), "more values than the file"),
    "weights of one value under EMA": (_saved(lambda: {"model": state(), "ema": {"w": _wide()}}), "more values than"),
    "old_p of one value": (_saved(lambda: _with_optimizer(old_p=_wide(1.0))), "more values than"),
    "momentum of one value": (_saved(lambda: _with_optimizer(momentum_buffer=_wide())), "more values than"),
    "weights of no bytes at all": (
        _whole(call(name("torch", "FloatTensor"), integer(10**10))),
        "",
    ),
    "a storage of a terabyte": (_first(call(name("torch.storage", "UntypedStorage"), integer(10**12))), ""),
    "a storage of a negative size": (_first(call(name("torch.storage", "UntypedStorage"), integer(-1))), ""),
    "a sparse tensor of 10^18 values": (_saved(_sparse), ""),
    "nested lists two hundred thousand deep": (_whole(b"]" * 200_000 + b"a" * 199_999), ""),
    "nested tuples two hundred thousand deep": (_whole(b")" + b"\x85" * 200_000), ""),
    "marks without end": (_whole(b"(" * 300_000), ""),
    "a memo index of 2^32-1": (_whole(b"}r\xff\xff\xff\xff"), ""),
    "LONG4 of a gigabyte": (_whole(b"\x8b\xff\xff\xff\x3f"), ""),
    "LONG of a million digits": (_whole(b"L" + b"9" * 1_000_000 + b"L\n"), ""),
    "BINUNICODE of four gigabytes": (_whole(b"X\xff\xff\xff\xff"), ""),
    "BINUNICODE8 of an exabyte": (_whole(b"\x8d" + b"\xff" * 7 + b"\x0f"), ""),
    "a frame of an exabyte": (_whole(b"\x95" + b"\xff" * 7 + b"\x0f}"), ""),
    "no end": (lambda: _whole(b"}")()[:-1], ""),
    "a bytearray of a terabyte": (_first(call(name("builtins", "bytearray"), integer(10**12))), ""),
}


ATTACKS = [
    Attack(name=f"memory: {key}", make=lambda ground, make=make: write(ground.download / "model.pt", make()), says=says)
    for key, (make, says) in BOMBS.items()
]
