"""What a picture in a test must be."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) in pixels of a PNG file that has something drawn in it.

    Raises:
        AssertionError: it is no PNG, or a blank one.
    """
    content = path.read_bytes()
    assert content.startswith(SIGNATURE)
    width, height = struct.unpack(">II", content[16:24])
    pixels, position = b"", len(SIGNATURE)
    while position < len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        if kind == b"IDAT":
            pixels += content[position + 8 : position + 8 + length]
        position += length + 12
    assert len(set(zlib.decompress(pixels)[:: 4 * 97])) > 1  # more than one colour value among some of the pixels
    return width, height
