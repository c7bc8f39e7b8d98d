"""The next checkpoint read from its disk while the present one is measured."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from samdiag.errors import SamdiagError
from samdiag.formats.content import look_at
from samdiag.formats.folder import is_folder

MOST_FILES = 32  # of a folder: fewer than the fingerprints that are remembered


class ReadAhead:
    """Reads and hashes files in a thread of its own, so that they lie in the page cache when they are needed.

    What goes wrong is said where the checkpoint is opened. One file at a time; a later request takes the place of one
    that has not begun.
    """

    def __init__(self) -> None:
        self._wanted: str | None = None
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def want(self, path: str) -> None:
        """Asks for the checkpoint at `path`; returns at once."""
        with self._ready:
            self._wanted = path
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="samdiag-read-ahead", daemon=True)
                self._thread.start()
            self._ready.notify()

    def close(self) -> None:
        """Ends the thread after the file in hand."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._ready:
                while self._wanted is None and not self._closed:
                    self._ready.wait()
                if self._closed:
                    return
                path, self._wanted = self._wanted, None
            assert path is not None
            self._read(path)

    def _read(self, path: str) -> None:
        with contextlib.suppress(SamdiagError, OSError, ValueError):
            for file in _files(path):
                if self._closed or self._wanted is not None:
                    return
                with contextlib.suppress(SamdiagError):
                    look_at(file).fingerprint()


def _files(path: str) -> list[Path]:
    """The file, or what lies directly in the folder."""
    if not is_folder(Path(path)):
        return [Path(path)]
    return [entry for entry in sorted(Path(path).iterdir()) if entry.is_file()][:MOST_FILES]
