"""Files that are recognised in order to be refused by name, each with the way to convert it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from samdiag import registry
from samdiag.errors import CannotDecide, SamdiagError
from samdiag.formats.content import Content
from samdiag.formats.folder import list_folder
from samdiag.quoting import shown

SAVE_WEIGHTS = "`torch.save(model.state_dict(), 'weights.pt')`"
DEEPSPEED_FILE = re.compile(r"(bf16_|fp16_)?zero_pp_rank_\d+_.*|mp_rank_\d+_model_states\.pt|.*_optim_states\.pt")


EXPORTED = f"inspect the PyTorch checkpoint that it was exported from: {SAVE_WEIGHTS}"
PORTED = f"load it with the library that wrote it into a PyTorch model, then {SAVE_WEIGHTS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A kind of file known by its first bytes, or by those from `at` on."""

    magic: bytes
    kind: str
    todo: str
    at: int = 0


KINDS = (
    Refused(
        magic=b"version https://git-lfs",
        kind="a Git LFS pointer and not the checkpoint itself",
        todo="run `git lfs pull` to fetch the file",
    ),
    Refused(
        magic=b"GGUF",
        kind="a GGUF file, whose weights are quantised for inference",
        todo="inspect the PyTorch or safetensors checkpoint that it was converted from",
    ),
    Refused(
        magic=b"\x89HDF\r\n\x1a\n",
        kind="an HDF5 file (Keras or h5py)",
        todo=PORTED,
    ),
    Refused(
        magic=b"\x93NUMPY",
        kind="a NumPy array",
        todo="save the named weights: `safetensors.torch.save_file({'name': tensor, …}, 'weights.safetensors')`",
    ),
    Refused(magic=b"\x1f\x8b", kind="compressed with gzip", todo="unpack it first: `gunzip`"),
    Refused(magic=b"\x28\xb5\x2f\xfd", kind="compressed with zstd", todo="unpack it first: `zstd -d`"),
    Refused(magic=b"BZh", kind="compressed with bzip2", todo="unpack it first: `bunzip2`"),
    Refused(magic=b"7z\xbc\xaf", kind="a 7z archive", todo="unpack it first: `7z x`"),
    *(
        Refused(
            magic=magic,
            kind="a ggml file, whose weights are quantised for inference",
            todo="inspect the PyTorch or safetensors checkpoint that it was converted from",
        )
        for magic in (b"lmgg", b"fmgg", b"tjgg")
    ),
    Refused(magic=b"ftrt", kind="a TensorRT engine", todo=EXPORTED),
    Refused(magic=b"ET", at=4, kind="an ExecuTorch program", todo=EXPORTED),
    Refused(magic=b"TFL3", at=4, kind="a TensorFlow Lite model", todo=EXPORTED),
    Refused(magic=b"ustar", at=257, kind="a tar archive", todo="unpack it: `tar xf`, then name the checkpoint in it"),
    Refused(magic=b"\xfd7zXZ\x00", kind="compressed with xz", todo="unpack it first: `unxz`"),
    Refused(magic=b"<!DOCTYPE", kind="a web page: the download failed", todo="download the checkpoint again"),
    Refused(magic=b"<html", kind="a web page: the download failed", todo="download the checkpoint again"),
)


FLAX_TODO = "convert it: `AutoModel.from_pretrained(folder, from_flax=True).save_pretrained(new)`, transformers below 5"
BY_SUFFIX = (  # binary files without a magic number
    (".msgpack", "a file of Flax weights", FLAX_TODO),
    (".pb", "a TensorFlow graph", PORTED),
    (".mlmodel", "a Core ML model", EXPORTED),
    (".engine", "a TensorRT engine", EXPORTED),
    (".plan", "a TensorRT engine", EXPORTED),
)


def check_whole(content: Content) -> None:
    """Nothing, or CannotDecide where the file is only a part of a checkpoint that is a folder."""
    name, folder = content.path.name, content.path.parent
    if name == ".metadata" or name.endswith(".distcp"):
        todo = f"name the folder: {shown(folder)}"
        raise CannotDecide(f"{content.name} is one file of a torch.distributed.checkpoint folder", todo)


def deepspeed_todo(folder: str) -> str:
    """How to merge a DeepSpeed checkpoint, without running the script that lies in its folder."""
    command = f"python -m deepspeed.utils.zero_to_fp32 {folder} merged"
    return f"merge it where DeepSpeed is installed: `{command}` (what its zero_to_fp32.py does), then inspect `merged`"


def refusal(content: Content) -> CannotDecide:
    """Why a file that no format recognises is not read, and how to make one that is."""
    for known in KINDS:
        if content.prefix.startswith(known.magic, known.at):
            return CannotDecide(f"{content.name} is {known.kind}", known.todo)
    if _is_onnx(content):
        return CannotDecide(f"{content.name} is an ONNX graph", EXPORTED)
    for suffix, kind, todo in BY_SUFFIX:
        if content.path.name.endswith(suffix) and not _is_text(content.prefix):
            return CannotDecide(f"{content.name} is {kind}", todo)
    if content.path.suffix == ".safetensors":
        todo = "copy or download it again, or save it again"
        return CannotDecide(f"{content.name} is not a safetensors file: its first bytes are no header", todo)
    if content.prefix[0] == 0x80 and content.prefix[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        todo = f"pickles are never run here; in your own training code save the weights alone: {SAVE_WEIGHTS}"
        return CannotDecide(f"{content.name} is a plain Python pickle", todo)
    if content.path.suffix == ".json" and _is_in_checkpoint(content):
        what = f"{content.name} holds no weights: it is one file of a checkpoint that is a folder"
        return CannotDecide(what, f"name the folder: {shown(content.path.parent)}")
    kind = "text" if _is_text(content.prefix) else "unknown binary data"
    return CannotDecide(f"{content.name} is not a checkpoint: {kind}", f"save one with {SAVE_WEIGHTS} or safetensors")


def _is_in_checkpoint(content: Content) -> bool:
    """Whether the file's folder is itself a checkpoint that a format reads."""
    try:
        folder = list_folder(content.path.parent)
    except SamdiagError:
        return False
    return any(registry.load(entry).recognises(folder) for entry in registry.FOLDERS.values())


def _is_onnx(content: Content) -> bool:
    """Whether it is an ONNX ModelProto: field 1 (ir_version, below 32), then field 2 (producer_name) or 7 (graph)."""
    start = content.prefix[:3]
    looks = len(start) == 3 and start[0] == 0x08 and start[1] < 32 and start[2] in {0x12, 0x3A}
    return looks or (content.path.suffix == ".onnx" and not _is_text(content.prefix))


def _is_text(prefix: bytes) -> bool:
    try:
        text = prefix.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(prefix) - 3:  # not merely a character cut in two by the end of the prefix
            return False
        text = prefix[: error.start].decode("utf-8")
    return all(character.isprintable() or character.isspace() for character in text)
