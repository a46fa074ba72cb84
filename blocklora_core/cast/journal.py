"""What was done with a cast: a file of lines, each a JSON object, to which lines are only added.

One file tells of 100,000 concepts what a hundred thousand headers would have to be read for. The first line says whose
it is. The last line of a concept counts; a line that a killed process left unfinished is passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..files.writing import taken

NAME = "cast.jsonl"
DEALT, FINISHED, FAILED = "dealt", "finished", "failed"
MOST_LINE = 2**14
_CAST = "cast"


@dataclass(frozen=True)
class Entry:
    """What became of one concept. slot: None for a plain LoRA. inputs, stamp: see inputs.py. file, bytes: what was
    written. seconds: of the training; memory: bytes that it took, 0 unknown. error: why it failed."""

    concept: str
    event: str
    slot: int | None = None
    inputs: str = ""
    stamp: str = ""
    file: str = ""
    bytes: int = 0
    seconds: float = 0.0
    memory: int = 0
    error: str = ""


_KINDS: Mapping[str, tuple[type, ...]] = {
    "concept": (str,), "event": (str,), "slot": (int, type(None)), "inputs": (str,), "stamp": (str,), "file": (str,),
    "bytes": (int,), "seconds": (float, int), "memory": (int,), "error": (str,),
}  # fmt: skip


class Journal:
    """The journal in `folder`, which need not be there: reading makes nothing. source: of the cast whose it is."""

    def __init__(self, folder: Path, source: Path | None = None):
        self.folder, self.path, self.source = folder, folder / NAME, source

    def entries(self) -> dict[str, Entry]:
        """Concept -> its last entry."""
        return {entry.concept: entry for entry in self._lines()}

    def add(self, *entries: Entry) -> None:
        """Add a line for each, on the disk when this returns. WriteError when the disk does not take them."""
        lines = "".join(f"{json.dumps(_told(entry))}\n" for entry in entries).encode()
        with taken(self.path, len(lines)):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                size = file.tell()
                before = b"" if _ends_whole(size, self.path) else b"\n"
                if not size and self.source is not None:
                    before = json.dumps({_CAST: str(self.source)}).encode() + b"\n"
                file.write(before + lines)
                file.flush()
                os.fsync(file.fileno())

    @property
    def other(self) -> Path | None:
        """Where the cast is whose journal this is, if it is another one than `source` and still there: one that is not
        was moved here."""
        if self.source is None or not self.path.is_file():
            return None
        with self.path.open("rb") as file:
            told = _whose(file.readline(MOST_LINE))
        return told if told is not None and told != self.source and told.exists() else None

    def _lines(self) -> Iterator[Entry]:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            while line := file.readline(MOST_LINE):
                if (entry := _parsed(line)) is not None:
                    yield entry


def _told(entry: Entry) -> dict[str, Any]:
    return {name: value for name, value in asdict(entry).items() if name == "slot" or value}


def _ends_whole(size: int, path: Path) -> bool:
    if not size:
        return True
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"


def _whose(line: bytes) -> Path | None:
    try:
        given: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    told = given.get(_CAST) if isinstance(given, dict) else None
    return Path(told) if isinstance(told, str) and "\0" not in told else None


def _parsed(line: bytes) -> Entry | None:
    try:
        given: Any = json.loads(line)
        known = {field.name: given[field.name] for field in fields(Entry) if field.name in given}
        sound = all(type(value) in _KINDS[name] for name, value in known.items())
        entry = Entry(**known) if sound else None
    except (ValueError, TypeError, RecursionError):
        return None
    return entry if entry is not None and Path(entry.file).name == entry.file else None
