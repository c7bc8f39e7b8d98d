"""Zip archives that unpack to more than they are, lie about what they hold, or name what is not theirs."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable

from tests.hostile.attack import EXAMINED, UNDECIDED, Attack, write
from tests.hostile.containers import state, torch_bytes
from tests.hostile.opcodes import before, call, name, text

BIG = 100_000_000  # bytes; what the bombs claim or unpack to, times ten or more where it costs nothing


def packed(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for key, value in entries.items():
            archive.writestr(key, value)
    return file.getvalue()


def _deflated() -> bytes:
    content = torch_bytes(state())
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in old.infolist():
            archive.writestr(entry.filename, old.read(entry))
        archive.writestr("archive/data/bomb", bytes(BIG))
    return file.getvalue()


def _packed_weights() -> bytes:
    """Compressed, and padded so that it is no bomb: read in place, the compressed bytes would pass for weights."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(torch_bytes(state()))) as old,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for entry in old.infolist():
            archive.writestr(entry.filename, old.read(entry))
        archive.writestr(zipfile.ZipInfo("archive/padding"), bytes(10_000))
    return file.getvalue()


def _compressed(method: int) -> Callable[[], bytes]:
    return lambda: packed({"archive/data.pkl": bytes(10_000_000)}, method)


def _overlapping() -> bytes:
    """Many entries of the central directory that point to one local entry, as in a quoted-overlap bomb."""
    one = packed({"archive/data.pkl": bytes(1_000_000)})
    end = one.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", one[end + 16 : end + 20])[0]
    entry, count = one[start:end], 20_000
    trailer = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(entry) * count, start, 0)
    return one[:start] + entry * count + trailer


def _lying_size(claimed: int) -> Callable[[], bytes]:
    """The size of the pickle in the central directory is not its size."""

    def make() -> bytes:
        content = bytearray(torch_bytes(state()))
        at = content.index(b"PK\x01\x02")
        struct.pack_into("<II", content, at + 20, claimed, claimed)
        return bytes(content)

    return make


def _zip64() -> bytes:
    """A zip64 end that puts the directory far beyond the file."""
    content = torch_bytes(state())
    end = content.rindex(b"PK\x05\x06")
    record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2**40, 2**40, 2**50, 2**60)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    trailer = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return content[:end] + record + locator + trailer


def _many_entries() -> bytes:
    """A directory of a million empty entries, all at one place."""
    one = packed({"archive/data/0": b""})
    end = one.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", one[end + 16 : end + 20])[0]
    entry, count = one[start:end], 1_000_000
    record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(entry) * count, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + len(entry) * count, 1)
    trailer = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return one[:start] + entry * count + record + locator + trailer


def _link() -> bytes:
    """An entry that is a symbolic link to a file of the system."""
    content = torch_bytes(state())
    link = zipfile.ZipInfo("archive/data/0")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as archive:
        for entry in old.infolist():
            archive.writestr(entry.filename, old.read(entry))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr(link, b"/etc/passwd")
    return file.getvalue()


def _renamed(new: str) -> Callable[[], bytes]:
    """The honest archive whose members lie in another folder."""

    def make() -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(torch_bytes(state()))) as old, zipfile.ZipFile(file, "w") as archive:
            for entry in old.infolist():
                archive.writestr(entry.filename.replace("archive", new, 1), old.read(entry))
        return file.getvalue()

    return make


def _two_pickles() -> bytes:
    """data.pkl twice: readers that take the first and readers that take the last see different files."""
    content = torch_bytes(state())
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(file, "w") as archive,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        for entry in old.infolist():
            raw = old.read(entry)
            archive.writestr(entry.filename, raw)
            if entry.filename.endswith("data.pkl"):
                archive.writestr(entry.filename, before(call(name("os", "system"), text("exit 0")), raw))
    return file.getvalue()


def _prefixed() -> bytes:
    return b"PK\x03\x04" + torch_bytes(state())


def _encrypted() -> bytes:
    content = bytearray(torch_bytes(state()))
    for magic, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = content.index(magic)
        content[at + offset] |= 1
    return bytes(content)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "deflated a thousand times": (_deflated, "unpack to"),
    "bzip2": (_compressed(zipfile.ZIP_BZIP2), "unpack to"),
    "LZMA": (_compressed(zipfile.ZIP_LZMA), "unpack to"),
    "overlapping entries": (_overlapping, "unpack to"),
    "a size of 2^32-2": (_lying_size(2**32 - 2), "unpack to"),
    "a size of zero": (_lying_size(0), "m"),
    "zip64 beyond the file": (_zip64, "damaged"),
    "a million entries": (_many_entries, ""),
    "encrypted": (_encrypted, ""),
    "prefix before the archive": (_prefixed, "damaged"),
    "a zip inside a zip": (lambda: packed({"archive.pt": torch_bytes(state())}), "no data.pkl"),
    "a zip as the pickle": (lambda: packed({"archive/data.pkl": torch_bytes(state())}), "damaged"),
    "an end of directory and nothing else": (lambda: b"PK\x03\x04" + packed({}), "no data.pkl"),
    "weights that are compressed": (_packed_weights, "compressed"),
    "two pickles": (_two_pickles, "one name"),
    "a link as a tensor": (_link, "one name"),
}


ATTACKS = [
    Attack(
        name=f"zip: {key}",
        make=lambda ground, make=make: write(ground.download / "model.pt", make()),
        says=says,
        everywhere="million" not in key,
    )
    for key, (make, says) in BAD.items()
]
ATTACKS += [
    Attack(
        name=f"zip: {key}",
        make=lambda ground, folder=folder: write(ground.download / "model.pt", _renamed(folder)()),
        says="",
        code=code,  # names of members are never turned into paths: such an archive is read, or refused, and that is all
    )
    for key, folder, code in (
        ("names with ..", "../../outside", UNDECIDED),
        ("absolute names", "/tmp/outside", UNDECIDED),
        ("backslashes", "..\\..\\outside", EXAMINED),
        ("a name of control characters", "\x1b[2Jx", EXAMINED),
    )
]
