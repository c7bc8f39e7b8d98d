"""Safetensors files: the header now, the tensors when asked for."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats.checkpoint import Checkpoint, TensorInfo
from samdiag.formats.content import MAPPED_BYTES, Content, reading
from samdiag.formats.json_text import is_deeper, parse_json
from samdiag.formats.recognition import Format
from samdiag.formats.safetensors_header import SAVE_AGAIN, Header, read_header
from samdiag.formats.state_dict import strip_prefixes
from samdiag.formats.steps import step_in
from samdiag.quoting import shown

if TYPE_CHECKING:
    from torch import Tensor

STAMP_KEY = "samdiag"
MAX_STAMP_CHARACTERS = 100_000  # a spec has some hundred
DTYPE_NAMES = {  # torch's names; those that torch lacks keep safetensors' own
    **{"BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32"},
    **{"I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"},
    **{"C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"},
    **{"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"},
}
MAX_STAMP_DEPTH = 16  # levels of nesting; the schema has three plus those of `args`


def recognises(content: Content) -> bool:
    """Whether it begins with a length and a JSON object; a text file has printable characters for a length."""
    length, brace = content.prefix[:8], content.prefix[8:9]
    return brace == b"{" and not all(32 <= byte < 127 or byte in b"\t\r\n" for byte in length)


def open_content(content: Content) -> Checkpoint:
    """The Checkpoint, from the header alone: torch is not imported until `weights()`."""
    header = read_header(content.path)
    if not header.tensors:
        raise CannotDecide(f"{content.name} holds no tensors", "save the model's state dict")
    stamp, notes = find_stamp(header)

    def load(which: str) -> dict[str, Tensor]:
        if which == "ema":
            raise UsageError(f"{content.name} holds no EMA weights", "ask for weights = raw")
        return strip_prefixes(read_tensors(content))

    return Checkpoint(
        path=content.path,
        format="safetensors",
        fingerprint=content.fingerprint(),
        stamp=stamp,
        metadata={key: text for key, text in header.metadata.items() if key != STAMP_KEY},
        notes=notes,
        step=step_in(header.metadata, content.path),
        load=load,
        load_infos=lambda: strip_prefixes(tensor_infos(header)),
    )


def tensor_infos(header: Header) -> dict[str, TensorInfo]:
    """The header's tensors by the names in the file."""
    return {
        name: TensorInfo(dtype=DTYPE_NAMES[entry.dtype], shape=entry.shape, num_bytes=entry.end - entry.begin)
        for name, entry in header.tensors.items()
    }


def find_stamp(header: Header) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The embedded spec as plain JSON, and a note where there is one that cannot be read."""
    text = header.metadata.get(STAMP_KEY)
    if text is None:
        return None, ()
    if len(text) > MAX_STAMP_CHARACTERS:
        return None, (f"the stamp is ignored: it has {len(text)} characters, more than {MAX_STAMP_CHARACTERS}",)
    try:
        stamp = parse_json(text)
    except ValueError as error:
        return None, (f"the stamp is ignored: it is not valid JSON ({shown(error)})",)
    if not isinstance(stamp, dict) or is_deeper(stamp, MAX_STAMP_DEPTH):
        return None, (f"the stamp is ignored: it is not a JSON object of at most {MAX_STAMP_DEPTH} levels",)
    return stamp, ()


def read_tensors(content: Content) -> dict[str, Tensor]:
    """The tensors under the names in the file, which must still be the one whose header was checked.

    Raises:
        CannotDecide: it changed, or cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    content.check_unchanged()
    try:
        if content.size >= MAPPED_BYTES:
            return load_file(content.path, device="cpu")
        with reading(content.path):
            data = content.path.read_bytes()
        content.check_unchanged()
        with contextlib.suppress(RuntimeError):  # an empty tensor of an enormous shape: the mapping reader makes one
            return load(data)
        return load_file(content.path, device="cpu")
    except (SafetensorError, KeyError, RuntimeError) as error:  # KeyError: a dtype that this torch has no name for
        raise CannotDecide(f"{content.name} cannot be read: {shown(error)}", SAVE_AGAIN) from error


FORMAT = Format(recognises=recognises, open=open_content)
