"""The folder that the jobs of a list share: the list, what each share has finished, and what they come to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from samdiag.errors import UsageError
from samdiag.fleet.appending import RecordFile
from samdiag.fleet.merging import merging
from samdiag.fleet.saved_lines import same_name
from samdiag.fleet.shards import Shard, take
from samdiag.quoting import shown
from samdiag.whole_file import replacing


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The folder that the jobs share, and how the list is dealt out.

    Attributes:
        folder: absolute; on a cluster, where its nodes see it too.
        paths: of the list, in order, each once.
        count: shares.
    """

    folder: Path
    paths: tuple[str, ...]
    count: int

    @property
    def listing(self) -> Path:
        """The paths, each ended by NUL: what every job deals out, whatever becomes of the folders meanwhile."""
        return self.folder / "list"

    def ledger(self, index: int) -> Path:
        """What the jobs of a share have finished, whatever was asked."""
        return self.folder / f"shard-{index}-of-{self.count}.jsonl"

    def records(self, index: int) -> Path:
        """What the last job of a share says about what was asked last."""
        return self.folder / f"records-{index}-of-{self.count}.jsonl"

    @property
    def merged(self) -> Path:
        """All records of what was asked last."""
        return self.folder / "merged.jsonl"

    def shards(self) -> Iterator[Shard]:
        """All shares."""
        return (Shard(index=index, count=self.count) for index in range(1, self.count + 1))

    def set_up(self) -> None:
        """Writes the list; records that an earlier call with another list or count has finished go to their new share.

        Raises:
            UsageError: the folder cannot be used, or jobs are still at work in it.
        """
        listing = b"".join(os.fsencode(path) + b"\0" for path in self.paths)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            old = sorted(self.folder.glob("shard-*-of-*.jsonl"))
            before = self.listing.read_bytes() if self.listing.exists() else b""
            if old and (before != listing or not {*old} <= {self.ledger(shard.index) for shard in self.shards()}):
                self._deal_again(old)
            for stale in [*self.folder.glob("records-*-of-*.jsonl"), self.merged]:
                stale.unlink(missing_ok=True)
            with replacing(self.listing) as beside:
                Path(beside).write_bytes(listing)
        except OSError as error:
            what = f"cannot write into {shown(self.folder)}: {error.strerror or error}"
            raise UsageError(what, "give --folder a folder that you may write to") from error

    def _deal_again(self, old: Sequence[Path]) -> None:
        place = {same_name(path): shard.index for shard in self.shards() for path in take(self.paths, shard)}
        with ExitStack() as held:
            for path in old:
                held.enter_context(RecordFile(path))  # refused while a job writes to it
            merged = held.enter_context(merging(old))
            beside = {shard.index: held.enter_context(replacing(self.ledger(shard.index))) for shard in self.shards()}
            files = {index: held.enter_context(open(name, "wb")) for index, name in beside.items()}
            for row, text in zip(merged.rows, merged.texts(), strict=True):
                files[place.get(same_name(row.key.path), 1)].write(text + b"\n")
        for path in {*old} - {self.ledger(shard.index) for shard in self.shards()}:
            path.unlink()


class Tally:
    """How many records the jobs have written so far; each look reads only what is new."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._read = dict.fromkeys(files, 0)
        self.num_records = 0

    def update(self) -> int:
        """Records written since the last look."""
        new = 0
        for path, offset in self._read.items():
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    text = file.read()
            except OSError:  # not there yet
                continue
            self._read[path] = offset + len(text)
            new += text.count(b"\n")
        self.num_records += new
        return new
