"""Sharded checkpoints whose index names what it must not, and folders that lead elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save

from tests.hostile.attack import Attack, Ground, write
from tests.hostile.containers import injected, state, torch_bytes
from tests.hostile.payloads import PAYLOADS

INDEX = "model.safetensors.index.json"
TORCH_INDEX = "pytorch_model.bin.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def parts() -> tuple[dict[str, Any], dict[str, Any]]:
    tensors = state()
    first = {key: value for key, value in tensors.items() if key.startswith("0")}
    return first, {key: value for key, value in tensors.items() if key not in first}


def honest_map() -> dict[str, str]:
    first, _ = parts()
    return {key: FIRST if key in first else SECOND for key in state()}


def sharded(ground: Ground, change: Callable[[dict[str, Any]], Any]) -> Path:
    """An honest folder of two shards whose index is passed through `change`."""
    for name, tensors in zip((FIRST, SECOND), parts(), strict=True):
        write(ground.download / name, save(tensors))
    changed = change({"metadata": {"total_size": 68}, "weight_map": honest_map()})
    write(ground.download / INDEX, changed if isinstance(changed, bytes) else json.dumps(changed))
    return ground.download


def _placed(name: Callable[[Ground], str]) -> Callable[[Ground], Path]:
    """The first shard is said to be elsewhere."""

    def make(ground: Ground) -> Path:
        def change(index: dict[str, Any]) -> dict[str, Any]:
            said = {key: name(ground) if file == FIRST else file for key, file in index["weight_map"].items()}
            return {**index, "weight_map": said}

        return sharded(ground, change)

    return make


def _is(name: str) -> Callable[[Ground], Path]:
    return _placed(lambda _: name)


ELSEWHERE: dict[str, tuple[Callable[[Ground], Path], str]] = {
    "../../etc/passwd": (_is("../../../../../../etc/passwd"), "no bare file name"),
    "..": (_is(".."), "no bare file name"),
    ".": (_is("."), "no bare file name"),
    "nothing": (_is(""), "no bare file name"),
    "absolute": (_placed(lambda ground: str(ground.secret)), "no bare file name"),
    "relative and real": (_is("../../outside/secret.safetensors"), "no bare file name"),
    "below": (_is("./" + FIRST), "no bare file name"),
    "backslashes": (_is("..\\..\\outside\\secret.safetensors"), "no bare file name"),
    "a drive": (_is("C:secret.safetensors"), "no bare file name"),
    "a stream": (_is(f"{FIRST}:stream"), "no bare file name"),
    "NUL": (_is(f"{FIRST}\0.txt"), "no bare file name"),
    "an address": (_is("https://example.invalid/model.safetensors"), "no bare file name"),
    "a home": (_is("~/model.safetensors"), "no bare file name"),
    "a name of ten thousand characters": (_is("m" * 10_000), "no bare file name"),
    "half a surrogate pair": (_is("model\ud800.safetensors"), ""),
    "the index itself": (_is(INDEX), ""),
    "a number": (_placed(lambda _: 7), "no bare file name"),  # type: ignore[arg-type, return-value]
    "a list": (_placed(lambda _: [FIRST]), "no bare file name"),  # type: ignore[arg-type, return-value]
    "a device by name": (_is("/dev/zero"), "no bare file name"),
    "a hidden file": (_is(".metadata"), "missing"),
    "the other shard": (_is(SECOND), ""),
}


def _replaced(replace: Callable[[Path, Ground], None]) -> Callable[[Ground], Path]:
    """The first shard is something else than a file."""

    def make(ground: Ground) -> Path:
        folder = sharded(ground, lambda index: index)
        (folder / FIRST).unlink()
        replace(folder / FIRST, ground)
        return folder

    return make


def _link(target: Callable[[Ground], str]) -> Callable[[Path, Ground], None]:
    return lambda path, ground: os.symlink(target(ground), path)


def _folder(path: Path, _: Ground) -> None:
    path.mkdir()


def _chain(path: Path, ground: Ground) -> None:
    """A link to a link in the folder, which leads out."""
    inner = path.with_name("inner.safetensors")
    os.symlink(ground.secret, inner)
    os.symlink(inner.name, path)


def _blobs(path: Path, ground: Ground) -> None:
    """A link into a folder called blobs that is not where the cache of Hugging Face has it."""
    target = write(ground.download / "blobs" / "x", ground.secret.read_bytes())
    os.symlink(target, path)


NO_FILES: dict[str, tuple[Callable[[Ground], Path], str]] = {
    "a link out of the folder": (_replaced(_link(lambda ground: str(ground.secret))), "link"),
    "a relative link out of the folder": (
        _replaced(_link(lambda _: "../../outside/secret.safetensors")),
        "link",
    ),
    "a link by way of another": (_replaced(_chain), "link"),
    "a link to itself": (_replaced(_link(lambda _: FIRST)), ""),
    "a link to /dev/zero": (_replaced(_link(lambda _: "/dev/zero")), ""),
    "a link to /dev/stdin": (_replaced(_link(lambda _: "/dev/stdin")), ""),
    "a link to /proc/self/environ": (_replaced(_link(lambda _: "/proc/self/environ")), ""),
    "a link to /etc/passwd": (_replaced(_link(lambda _: "/etc/passwd")), ""),
    "a link into blobs of its own": (_replaced(_blobs), "link"),
    "a link to nothing": (_replaced(_link(lambda _: "gone")), ""),
    "a pipe": (_replaced(lambda path, _: os.mkfifo(path)), ""),
    "a folder": (_replaced(_folder), ""),
    "an empty file": (_replaced(lambda path, _: path.write_bytes(b"") and None), ""),
    "a text": (_replaced(lambda path, _: write(path, "hello") and None), ""),
    "an index": (_replaced(lambda path, _: write(path, json.dumps({"weight_map": {"a": FIRST}})) and None), ""),
}

WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a million names": (
        lambda _: {"weight_map": dict.fromkeys(map(str, range(1_000_001)), FIRST)},
        "1000001 tensors",
    ),
    "ten thousand and one files": (
        lambda _: {"weight_map": {str(number): f"{number}.safetensors" for number in range(10_001)}},
        "files",
    ),
    "a name of a megabyte": (lambda _: {"weight_map": {"n" * 1_000_000: FIRST}}, "characters"),
    "a hundred thousand levels": (lambda _: b'{"weight_map":' * 100_000 + b"1" + b"}" * 100_000, ""),
    "a list as the map": (lambda _: {"weight_map": [FIRST]}, "weight_map"),
    "no map": (lambda _: {"metadata": {}}, "weight_map"),
    "an empty map": (lambda _: {"weight_map": {}}, "weight_map"),
    "a name twice": (lambda _: b'{"weight_map": {"a": "x", "a": "y"}}', "twice"),
    "NaN": (lambda _: b'{"weight_map": NaN}', "JSON"),
    "UTF-16": (lambda index: json.dumps(index).encode("utf-16"), ""),
    "a tensor that its shard lacks": (
        lambda index: {"weight_map": {**index["weight_map"], "ghost": FIRST}},
        "lacks tensors",
    ),
    "a tensor that it does not name": (
        lambda index: {"weight_map": {key: file for key, file in index["weight_map"].items() if key != "0.bias"}},
        "not in the index",
    ),
    "a tensor in two shards": (
        lambda index: {"weight_map": {**index["weight_map"], "0.bias": SECOND}},
        "which the index places",
    ),
}


def _pickled_shards(payload: str, which: int) -> Callable[[Ground], Path]:
    """Shards of torch.save, one of which has a payload."""

    def make(ground: Ground) -> Path:
        names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
        weight_map = {}
        for number, (name, tensors) in enumerate(zip(names, parts(), strict=True)):
            content = torch_bytes(tensors)
            if number == which:
                content = injected(content, PAYLOADS[payload](ground.marker))
            write(ground.download / name, content)
            weight_map |= dict.fromkeys(tensors, name)
        write(ground.download / TORCH_INDEX, json.dumps({"weight_map": weight_map}))
        return ground.download

    return make


ATTACKS = [
    *(Attack(name=f"shards: said to be {key}", make=make, says=says) for key, (make, says) in ELSEWHERE.items()),
    *(
        Attack(name=f"shards: the index alone, {key}", make=lambda ground, make=make: make(ground) / INDEX, says=says)
        for key, (make, says) in ELSEWHERE.items()
    ),
    *(Attack(name=f"shards: {key} in place of one", make=make, says=says) for key, (make, says) in NO_FILES.items()),
    *(
        Attack(
            name=f"shards: an index of {key}",
            make=lambda ground, change=change: sharded(ground, change),
            says=says,
            everywhere=key != "a million names",
        )
        for key, (change, says) in WRONG.items()
    ),
    *(
        Attack(name=f"pickle: {payload} in shard {which + 1}", make=_pickled_shards(payload, which), says="pickle")
        for payload in ("os.system", "eval", "STACK_GLOBAL", "dotted metadata module")
        for which in (0, 1)
    ),
]
