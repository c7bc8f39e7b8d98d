"""Files that are recognised in order to be refused by name, each with the way to convert it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from samdiag.errors import CannotDecide, UsageError
from samdiag.formats.content import Content, checkpoints_in
from samdiag.formats.folder import Folder
from samdiag.quoting import listed

SAVE_WEIGHTS = "`torch.save(model.state_dict(), 'weights.pt')`"
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number of torch.save before 1.6
ZERO_FILE = re.compile(r"(bf16_)?zero_pp_rank_\d+_.*_optim_states\.pt|mp_rank_\d+_model_states\.pt")
INSPECT = "inspect the file that this writes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A kind of file known by its first bytes."""

    magic: bytes
    kind: str
    todo: str


KINDS = (
    Refused(
        magic=b"version https://git-lfs",
        kind="a Git LFS pointer and not the checkpoint itself",
        todo="run `git lfs pull` to fetch the file",
    ),
    Refused(
        magic=LEGACY_TORCH,
        kind="a torch file in the legacy (non-zip) layout of before torch 1.6",
        todo="rewrite it: `torch.save(torch.load(old, weights_only=True, map_location='cpu'), 'new.pt')`, then "
        + INSPECT,
    ),
    Refused(
        magic=b"GGUF",
        kind="a GGUF file, whose weights are quantised for inference",
        todo="inspect the PyTorch or safetensors checkpoint that it was converted from",
    ),
    Refused(
        magic=b"\x89HDF\r\n\x1a\n",
        kind="an HDF5 file (Keras or h5py)",
        todo="load it with the library that wrote it into a PyTorch model, then " + SAVE_WEIGHTS,
    ),
    Refused(
        magic=b"\x93NUMPY",
        kind="a NumPy array",
        todo="save the named weights: `safetensors.torch.save_file({'name': tensor, …}, 'weights.safetensors')`",
    ),
    Refused(magic=b"\x1f\x8b", kind="compressed with gzip", todo="unpack it first: `gunzip`"),
    Refused(magic=b"\x28\xb5\x2f\xfd", kind="compressed with zstd", todo="unpack it first: `zstd -d`"),
    Refused(magic=b"\xfd7zXZ\x00", kind="compressed with xz", todo="unpack it first: `unxz`"),
    Refused(magic=b"<!DOCTYPE", kind="a web page: the download failed", todo="download the checkpoint again"),
    Refused(magic=b"<html", kind="a web page: the download failed", todo="download the checkpoint again"),
)


def refusal(content: Content) -> CannotDecide:
    """Why a file that no format recognises is not read, and how to make one that is."""
    for known in KINDS:
        if content.prefix.startswith(known.magic):
            return CannotDecide(f"{content.name} is {known.kind}", known.todo)
    if _is_onnx(content):
        todo = f"inspect the PyTorch checkpoint that it was exported from: {SAVE_WEIGHTS}"
        return CannotDecide(f"{content.name} is an ONNX graph", todo)
    if content.path.name.endswith(".index.json"):
        todo = "merge the shards into one file: load the model and save it unsharded"
        return CannotDecide(f"{content.name} is the index of a sharded checkpoint", todo)
    if content.path.suffix == ".safetensors":
        todo = "copy or download it again, or save it again"
        return CannotDecide(f"{content.name} is not a safetensors file: its first bytes are no header", todo)
    if content.prefix[0] == 0x80 and content.prefix[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        todo = f"pickles are never run here; in your own training code save the weights alone: {SAVE_WEIGHTS}"
        return CannotDecide(f"{content.name} is a plain Python pickle", todo)
    kind = "text" if _is_text(content.prefix) else "unknown binary data"
    return CannotDecide(f"{content.name} is not a checkpoint: {kind}", f"save one with {SAVE_WEIGHTS} or safetensors")


def folder_refusal(folder: Folder) -> CannotDecide | UsageError:
    """Why a folder that no format recognises is not read, and what to name instead."""
    if "zero_to_fp32.py" in folder or any(ZERO_FILE.fullmatch(name) for name in folder.names):
        return CannotDecide(
            f"{folder.name} is a DeepSpeed checkpoint folder",
            "merge it with the zero_to_fp32.py that DeepSpeed wrote for your run, then inspect the file it writes",
        )
    found = checkpoints_in(folder.path)
    todo = f"name one file in it: {listed(found)}" if found else "give the path of a checkpoint file"
    return UsageError(f"{folder.name} is a folder", todo)


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
