"""WebDataset shards on the user's own disk: tar files whose members, grouped by name, are samples.

Read by hand: the library's own readers start programs (`pipe:`), fetch addresses and unpickle members.
"""

from __future__ import annotations

import glob
import gzip
import itertools
import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from samdiag.errors import CannotDecide, UsageError
from samdiag.quoting import listed, quoted, shown
from samdiag.spec.data.images import MAX_BYTES, SUFFIXES, Preparation, check_same_size, decode
from samdiag.spec.data.options import Options
from samdiag.spec.libraries import library
from samdiag.spec.requests import Data, DataRequest

KEY = "data.webdataset"
MAX_SHARDS = 100_000
MAX_MEMBERS = 10_000_000  # of one shard; some 10⁴ is usual
MAX_SAMPLES = 100_000  # held in memory
MAX_TEXT = 10_000  # bytes of a class number or a line of JSON
TARGETS = ("cls", "index", "txt", "json")
UNPICKLED = ("pyd", "pickle", "pkl", "pth", "pt")
GZIP = b"\x1f\x8b"
Sample = dict[str, bytes]


def build(request: DataRequest) -> Data:
    """Pairs (image, class) of the first `samples` samples, all of them in memory.

    Args of the request: those of `Preparation`; `image` and `target` (the members' endings, "jpg" and "cls", or
    "json.label" for a number inside), `samples` (how many are read, 10 000).

    Raises:
        UsageError: a shard is not there, or its samples have no image or no class.
        CannotDecide: a shard is damaged.
    """
    library("PIL.Image", key=KEY, extra="webdataset")
    options = Options(request)
    image, target = options.optional_text("image"), options.optional_text("target")
    wanted = options.count("samples", 10_000)
    preparation = Preparation.of(options)
    options.finish()
    if request.split is not None:
        raise UsageError(f"{KEY} has no splits, and split = {quoted(request.split)}", "name the split's own shards")
    inputs: list[Tensor] = []
    targets: list[int] = []
    for label, sample in itertools.islice(_samples(_shards(request)), min(wanted or MAX_SAMPLES, MAX_SAMPLES)):
        image = image or _ending(sample, [suffix[1:] for suffix in SUFFIXES], "image", label)
        target = target or _ending(sample, list(TARGETS), "target", label)
        if image not in sample:
            raise UsageError(f"sample {shown(label)} has no {shown(image)}", "say its ending: args = { image = 'jpg' }")
        inputs.append(preparation.tensor(decode(sample[image], f"{label}.{image}"), label))
        targets.append(_class(sample, target, label))
    if not inputs:
        raise UsageError("the shards hold no samples", f"check {KEY}")
    check_same_size({tuple(value.shape) for value in inputs})
    return Data(returned=TensorDataset(torch.stack(inputs), torch.tensor(targets)))


def _shards(request: DataRequest) -> list[Path]:
    """The shards' files in the order in which they are named; `*` and `{000..009}` stand for many."""
    said: Any = request.name
    patterns = said if isinstance(said, list) else [said]
    found: list[Path] = []
    for pattern in itertools.chain.from_iterable(_braces(str(pattern)) for pattern in patterns):
        if "*" in pattern and "://" not in pattern and not pattern.startswith("pipe:") and not request.from_artifact:
            files = sorted(glob.glob(str(request.folder / Path(pattern).expanduser())))
            if not files:
                raise UsageError(f"{KEY} names {quoted(pattern)}: no such files", f"looked in {shown(request.folder)}")
            found += [Path(file) for file in files]
        else:
            found.append(request.path(pattern, KEY))
    return found


def _braces(pattern: str) -> list[str]:
    """`shard-{000..002}.tar` as three names."""
    head, brace, rest = pattern.partition("{")
    inside, closing, tail = rest.partition("}")
    first, dots, last = inside.partition("..")
    if not (brace and closing and dots and first.isdecimal() and last.isdecimal()):
        return [pattern]
    numbers = range(int(first), int(last) + 1)
    if not 0 < len(numbers) <= MAX_SHARDS:
        raise UsageError(f"{KEY} names {len(numbers)} shards in {quoted(pattern)}", f"name 1 to {MAX_SHARDS}")
    return [f"{head}{number:0{len(first)}d}{tail}" for number in numbers]


def _samples(shards: list[Path]) -> Iterator[tuple[str, Sample]]:
    """Each sample's name and members: files that follow one another and differ after the first dot of their name."""
    for shard in shards:
        name: str | None = None
        sample: Sample = {}
        for member, content in _members(shard):
            folder, slash, file = member.rpartition("/")
            stem, _, ending = file.partition(".")
            own = f"{folder}{slash}{stem}"
            if own != name and name is not None and sample:
                yield f"{shard.name}:{name}", sample
            if own != name:
                name, sample = own, {}
            if ending:
                sample[ending.lower()] = content
                if sum(map(len, sample.values())) > MAX_BYTES:
                    raise _damaged(shard, f"its sample {quoted(name)} has more than {MAX_BYTES} bytes")
        if name is not None and sample:
            yield f"{shard.name}:{name}", sample


class _Bounded:
    """A file that never gives more than MAX_BYTES at once, whatever a header in it claims."""

    def __init__(self, file: Any) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_BYTES:
            raise ValueError(f"a header claims {size} bytes")
        return bytes(self._read(size))


def _members(shard: Path) -> Iterator[tuple[str, bytes]]:
    """The files of one tar, gzipped or not; nothing is unpacked to disk, and links are passed over."""
    try:
        with _opened(shard) as file, tarfile.open(fileobj=_Bounded(file), mode="r:") as archive:  # type: ignore[call-overload]
            for number, member in enumerate(archive):
                if number >= MAX_MEMBERS:
                    raise _damaged(shard, f"it has more than {MAX_MEMBERS} members")
                if not member.isfile():
                    continue
                if member.size > MAX_BYTES:
                    raise _damaged(shard, f"{quoted(member.name)} has {member.size} bytes, more than {MAX_BYTES}")
                inner = archive.extractfile(member)
                content = inner.read(member.size) if inner is not None else b""
                if len(content) != member.size:
                    raise _damaged(shard, f"{quoted(member.name)} is truncated")
                yield member.name, content
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise _damaged(shard, shown(error)) from None


def _opened(shard: Path) -> Any:
    with shard.open("rb") as file:
        compressed = file.read(2) == GZIP
    return gzip.open(shard, "rb") if compressed else shard.open("rb")


def _damaged(shard: Path, reason: str) -> CannotDecide:
    return CannotDecide(f"the shard {shown(shard)} cannot be read: {reason}", "copy it again, or leave it out")


def _ending(sample: Sample, known: list[str], what: str, label: str) -> str:
    """The one of the known endings that the first sample has."""
    found = next((ending for ending in known if ending in sample), None)
    if found is not None:
        return found
    pickled = [ending for ending in sample if ending in UNPICKLED]
    reason = f"; {listed(pickled)} would have to be unpickled, which is never done" if pickled else ""
    said = f"sample {shown(label)} has {listed(sample)}, and none is its {what}{reason}"
    raise UsageError(said, f"say its ending: args = {{ {what} = '…' }}; of {', '.join(known[:6])}")


def _class(sample: Sample, target: str, label: str) -> int:
    """The class number that a sample's member says."""
    ending, _, key = target.partition(".")
    content = sample.get(ending, b"")
    try:
        if len(content) > MAX_TEXT:
            raise ValueError("too long")
        found: Any = json.loads(content) if ending == "json" else content.decode("utf-8").strip()
        for part in key.split(".") if key else ("label",) if ending == "json" and isinstance(found, dict) else ():
            found = found[part]
        return int(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        what = f"sample {shown(label)} has no class number in {quoted(target)}"
        raise UsageError(what, "say where it is: args = { target = 'cls' }, or 'json.label'") from None
