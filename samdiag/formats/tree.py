"""The checkpoints in a folder and below it: recognised by their content, without torch and without hashing.

A folder that is one checkpoint (Hugging Face's, torch.distributed.checkpoint's, …) is one find, and its files are not
found apart. What a run leaves beside its weights is left out: optimizer and schedule, arguments, random states,
hidden files and folders, samdiag's own eigenvectors and data. Links are followed to files of the same tree only.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from samdiag import registry
from samdiag.formats import adapter, huggingface, training_state
from samdiag.formats.content import CHECKPOINT_SUFFIXES, PREFIX_BYTES, Content, identity
from samdiag.formats.folder import TRAINER_STEP, Folder, FolderFormat
from samdiag.formats.recognition import Format
from samdiag.formats.refused import DEEPSPEED_FILE
from samdiag.formats.sharded import SUFFIX as INDEX

PASSED_OVER = ("__pycache__", "node_modules", "site-packages")  # folders that hold other people's files
TAR = ".tar"  # model_best.pth.tar
NO_CHECKPOINT = re.compile(  # names that are not opened: such files are never weights, and there may be many
    r".*\.(?:jsonl?|txt|log|md|[ct]sv|ya?ml|toml|ini|cfg|lock|pyc?|ipynb|sh|html|xml|so|c|h|png|jpe?g|gif|svg|pdf"
    r"|mp4|wav|np[yz]|h5|parquet|arrow|v2|gz|zip|distcp)",
    re.IGNORECASE,
)
_BESIDE = (
    r"(?:optimi[sz]er|optim|(?:lr[-_])?sched(?:uler)?|(?:grad[-_]?)?scaler|rng(?:[-_]states?)?"
    r"|training[-_]args|random[-_]states?)"
)
BESIDE = (
    re.compile(  # optimizer.pt, rng_state_3.pth, step-100-optimizer.pt, optimizer-step-100.pt; a model may say more
        rf"(?:.*[-_.])?{_BESIDE}(?:[-_.]?\d+)*|{_BESIDE}(?:[-_.]?(?:step|iter|epoch)?[-_=]?\d+)*", re.IGNORECASE
    )
)
ZIP_NAME = slice(26, 28)  # of a local file header: the length of its name, which begins at byte 30
REFUSED = frozenset(  # Megatron-LM's, TensorFlow's, Orbax's, a pipeline of diffusers: what to do with each is said
    ("latest_checkpointed_iteration.txt", "saved_model.pb", "_CHECKPOINT_METADATA", "model_index.json")
)
OWN_FILES = ((b'"ritz_vectors"', b"samdiag-ritz-vectors"), (b'"inputs"', b'"targets"'))  # --warm-start's; data


@dataclass(slots=True)
class Tree:
    """What was found below a folder, in the order of the file system.

    Attributes:
        found: paths that begin with the folder's as it was named.
        unreadable: folders that could not be listed, with the reason.
        unlike: files with the suffix of a checkpoint that are none.
        links_out: links that lead out of the tree.
        inside: what looks like a checkpoint of its own inside a folder that is one, and is not looked at.
    """

    found: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)
    links_out: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A folder that was listed: names of all, of the files and of the folders in it that are looked at."""

    folder: Folder
    files: list[os.DirEntry[str]]
    folders: list[str]


def search(root: str) -> Tree:
    """Every checkpoint in the folder `root` and below it, but `root` itself."""
    tree = Tree()
    home = os.path.realpath(root)
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            listed = _list(path)
        except OSError as error:
            tree.unreadable.append((path, error.strerror or type(error).__name__))
            continue
        inner = listed.folders
        if path != root and _is_checkpoint(listed):
            tree.found.append(path)
            inner = [name for name in inner if TRAINER_STEP.fullmatch(name)]  # a Trainer's, beside its final weights
            tree.inside += [os.path.join(path, name) for name in _inside(listed) if name not in inner]
        else:
            tree.found.extend(os.path.join(path, name) for name in _files(listed, home, tree))
        waiting.extend(os.path.join(path, name) for name in inner)
    return tree


def inside(path: str) -> list[str]:
    """What looks like a checkpoint of its own inside the checkpoint's folder `path`."""
    try:
        return [os.path.join(path, name) for name in _inside(_list(path))]
    except OSError:
        return []


def _inside(listed: _Listed) -> list[str]:
    """The names; of a folder that says itself what is in it (a pipeline, distributed shards) there are none."""
    folder = listed.folder
    if huggingface.CONFIG not in folder or huggingface.MODULES in folder:
        return []
    own = (*huggingface.WEIGHTS, *adapter.WEIGHTS)
    files = [
        entry.name
        for entry in listed.files
        if has_suffix(entry.name)
        and entry.name not in own
        and not is_beside(entry.name)
        and not huggingface.SHARD.fullmatch(entry.name)
    ]
    folders = [name for name in listed.folders if is_checkpoint_folder(os.path.join(folder.path, name))]
    return sorted(folders) + sorted(files)


def is_checkpoint_folder(path: str) -> bool:
    """Whether a folder is one checkpoint, by the names in it; False where it cannot be listed."""
    try:
        return _is_checkpoint(_list(path))
    except OSError:
        return False


def is_beside(name: str) -> bool:
    """Whether a file is what lies beside weights (optimizer, schedule, random states, logs, …), by its name."""
    if name.startswith(".") or name in training_state.FILES or (NO_CHECKPOINT.fullmatch(name) and INDEX not in name):
        return True
    stem, suffix = os.path.splitext(name)
    return suffix.lower() in (".pt", ".pth", ".bin", ".ckpt", ".pkl") and BESIDE.fullmatch(stem) is not None


def has_suffix(name: str) -> bool:
    """Whether a file is called like a checkpoint."""
    return name.lower().removesuffix(TAR).endswith(CHECKPOINT_SUFFIXES)


def _list(path: str) -> _Listed:
    names, files, folders = set(), [], []
    with os.scandir(path) as entries:
        for entry in entries:
            names.add(entry.name)
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif not entry.name.startswith("."):
                files.append(entry)
    cache = "snapshots" in names  # Hugging Face's cache: snapshots link to blobs, which have no names of their own
    kept = [n for n in folders if not (n.startswith(".") or n in PASSED_OVER or (cache and n == "blobs"))]
    return _Listed(folder=Folder(path=Path(path), names=frozenset(names)), files=files, folders=kept)


def _is_checkpoint(listed: _Listed) -> bool:
    """Whether the folder is one checkpoint, also one that samdiag refuses by name.

    Weights called `model.safetensors` make a folder one checkpoint only with a configuration or alone: beside
    `step-100.safetensors` they are one checkpoint of several.
    """
    folder = listed.folder
    if folder.names & REFUSED or any(
        DEEPSPEED_FILE.fullmatch(name) or name.endswith(".distcp") for name in folder.names
    ):
        return True
    known = {name: registry.load(entry) for name, entry in registry.FOLDERS.items()}
    kinds = [name for name, entry in known.items() if _recognises(entry, folder)]
    if not kinds or kinds[0] != "huggingface" or huggingface.CONFIG in folder or huggingface.MODULES in folder:
        return bool(kinds)
    own = (*huggingface.WEIGHTS, *adapter.WEIGHTS)
    others = (n for n in folder.names if has_suffix(n) and n not in own and not is_beside(n))
    return not listed.folders and all(_is_shard(name, folder) for name in others)


def _recognises(known: FolderFormat, folder: Folder) -> bool:
    return known.recognises(folder)


def _is_shard(name: str, folder: Folder) -> bool:
    """Whether an index beside it names the file's series."""
    shard = huggingface.SHARD.fullmatch(name)
    return shard is not None and shard[1] + shard[2] + INDEX in folder


def _files(listed: _Listed, home: str, tree: Tree) -> Iterator[str]:
    """The names of the checkpoints among a folder's files; what is left out is noted in `tree`."""
    for entry in listed.files:
        name = entry.name
        if is_beside(name) or _is_shard(name, listed.folder):
            continue
        if entry.is_symlink() and not os.path.exists(entry.path):  # or gone since it was listed
            if has_suffix(name):
                tree.unlike.append(entry.path)
        elif entry.is_symlink() and _leads_out(entry.path, home):
            if has_suffix(name) or os.path.isdir(entry.path):
                tree.links_out.append(entry.path)
        elif is_checkpoint_file(entry.path):
            yield name
        elif has_suffix(name) and entry.is_file() and not _is_own(entry.path):
            tree.unlike.append(entry.path)


def _leads_out(path: str, home: str) -> bool:
    try:
        return not os.path.realpath(path).startswith(os.path.join(home, ""))
    except OSError:  # e.g. of a process in /proc that has ended
        return True


def is_checkpoint_file(path: str) -> bool:
    """Whether a file is of a format that samdiag reads, by its first bytes; also an empty one with such a suffix.

    A file that cannot be read counts where it is called like a checkpoint: a gap is to be seen.
    """
    try:
        content = peek(path)
    except OSError:
        return has_suffix(path) and os.path.lexists(path) and not os.path.islink(path)
    if content is None:
        return False
    if content.size == 0:
        return has_suffix(path)
    formats = (registry.load(entry) for entry in registry.FORMATS.values())
    if not any(_knows(known, content) for known in formats):
        return False
    if content.prefix.startswith(b"PK"):
        return _is_torch_zip(content)
    return not _holds_own(content.prefix)


def _knows(known: Format, content: Content) -> bool:
    return known.recognises(content)


def peek(path: str) -> Content | None:
    """The first bytes of a regular file; None of anything else: to open a pipe would wait for its writer."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return None
    with open(path, "rb", buffering=0) as file:
        return Content(path=Path(path), size=status.st_size, prefix=file.read(PREFIX_BYTES), identity=identity(status))


def _is_torch_zip(content: Content) -> bool:
    """Whether a zip archive is one of torch.save, whose first entry is its pickle; a damaged one by its suffix."""
    length = int.from_bytes(content.prefix[ZIP_NAME], "little")
    if content.prefix[30 : 30 + length].endswith(b"data.pkl"):
        return True
    try:
        with zipfile.ZipFile(content.path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return has_suffix(content.path.name)


def _holds_own(prefix: bytes) -> bool:
    return any(all(mark in prefix for mark in marks) for marks in OWN_FILES)


def _is_own(path: str) -> bool:
    try:
        content = peek(path)
    except OSError:
        return False
    return content is not None and _holds_own(content.prefix)
