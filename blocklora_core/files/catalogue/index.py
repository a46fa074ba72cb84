"""Summaries of LoRA files, each header read once: kept in memory, and in an index file for the next time.

Reading and checking a header takes milliseconds, so 100,000 of them take minutes; as many lines of the index take
seconds. A line counts as long as the file's size and times are those that it tells.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ..writing import write_atomic
from .stored import Kept, Times, line_of, parsed
from .summary import Block, Summary, read_summary

FORMAT = b'{"blocklora index": 2}\n'
"""The first line. When summaries are made otherwise, it gets another number."""
MOST_LINE, MOST_FILES = 2**17, 2**18
_YOUNG = 2 * 10**9
"""Nanoseconds in which a file may change again without its times telling."""


class Index:
    """path: gives the index file, or None to keep everything in memory alone."""

    def __init__(self, path: Callable[[], Path | None] = lambda: None):
        self.path = path
        self._known: dict[str, Kept] = {}
        self._new: list[str] = []
        self._file: Path | None = None
        self._lines = 0

    def known(self, path: Path) -> Summary | str:
        """The file's summary, or why it cannot be read; its header is read anew only when the file changes."""
        try:
            state = path.stat()
        except OSError as error:
            return str(error.strerror)
        self._load()
        name, times = str(path), Times(state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        kept = self._known.get(name)
        if kept is None or kept.times != times:
            kept = Kept(times, read_summary(path))
            while len(self._known) >= MOST_FILES:
                del self._known[next(iter(self._known))]
            self._known[name] = kept
            if time.time_ns() - max(times.modified, times.changed) > _YOUNG:
                self._new.append(name)
        return kept.found

    def save(self) -> None:
        """Add to the index file what it lacks. One that cannot be written costs the next one its time, no more."""
        path, new = self.path(), self._new
        if path is None or not new:
            return
        self._new = []
        try:
            if 0 < self._lines + len(new) < 2 * len(self._known):
                self._append(path, new)
            else:
                self._rewrite(path)
        except OSError as error:
            logging.warning("BlockLoRA: the index of LoRA files cannot be kept: %s", error)

    def _append(self, path: Path, names: list[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [line_of(name, self._known[name]) for name in names if name in self._known]
        with path.open("ab") as file:
            file.write(b"".join(lines) if file.tell() else FORMAT + b"".join(lines))
        self._lines += len(lines)

    def _rewrite(self, path: Path) -> None:
        """Each file's last line alone, and none of files that are gone."""
        there = [line_of(name, kept) for name, kept in self._known.items() if Path(name).is_file()]
        write_atomic(path, FORMAT + b"".join(there))
        self._lines = len(there)

    def _load(self) -> None:
        path = self.path()
        if path is None or path == self._file:
            return
        self._file, self._lines = path, 0
        for name, kept in _entries(path):
            self._lines += 1
            if name in self._known or len(self._known) < MOST_FILES:
                self._known[name] = kept


def _entries(path: Path) -> Iterator[tuple[str, Kept]]:
    with suppress(OSError), path.open("rb") as file:
        if file.readline(MOST_LINE) != FORMAT:
            path.unlink(missing_ok=True)
            return
        while line := file.readline(MOST_LINE):
            if (entry := parsed(line)) is not None:
                yield entry


INDEX = Index()
"""Of this process. The host says where its file is."""


def known(path: Path) -> Summary | str:
    """See `Index.known`."""
    return INDEX.known(path)


def block_of(path: Path) -> Block | None:
    """The row block that the file holds, None for any other."""
    summary = known(path)
    return None if isinstance(summary, str) else summary.block
