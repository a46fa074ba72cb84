"""The slot ledger: which slots the files in the user's folders hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..cancel import check
from ..concept import keys
from ..concept.rows import Rows, Scheme, overlap
from .record import Record, read_record
from .untrusted.folders import Folders, files_below
from .untrusted.header import read_header
from .untrusted.text import legible

MOST_SHAPES = 1024
"""Of a file's layers, each counted once: models have a few dozen."""


@dataclass(frozen=True)
class Entry:
    """What the ledger needs of a file. shapes: (rows of the weight, parts, rows held), each once."""

    concept: str
    class_word: str
    base: str
    scheme: Scheme
    slot: int
    shapes: frozenset[tuple[int, int, Rows]]


def occupied_slots(folders: Folders, base: str, scheme: Scheme) -> dict[int, list[Path]]:
    """Slots of `scheme` whose rows some file under `folders` holds for `base`: slot -> files, both sorted.

    Reads headers only. Row index sets decide, so a file of another scheme takes every slot that it
    overlaps. Plain LoRAs and files that cannot be read hold no slot; a file that names no base may be for
    any.
    """
    return _held(_entries(folders), base, scheme)


@dataclass(frozen=True)
class Table:
    """Who holds which slot of one scheme for one base.

    held: slot -> files, both sorted. A file of another scheme stands in every slot whose rows it holds. owners: file ->
    concept, so that copies and snapshots of one concept do not clash; a file that is not there is one of its own.
    """

    base: str
    scheme: Scheme
    held: Mapping[int, list[Path]]
    owners: Mapping[Path, str] = field(default_factory=dict)

    @property
    def clashes(self) -> dict[int, list[Path]]:
        """Slots that files of several concepts hold."""
        return {slot: files for slot, files in self.held.items() if len(self._concepts(files)) > 1}

    def _concepts(self, files: Sequence[Path]) -> set[str]:
        return {self.owners.get(file, str(file)) for file in files}

    @property
    def free(self) -> list[int]:
        """Slots that no file holds."""
        return [slot for slot in range(self.scheme.slots) if slot not in self.held]


def tables(folders: Folders) -> list[Table]:
    """One table for each base and scheme that some row-block file under `folders` names; headers only."""
    entries = _entries(folders)
    named = {(entry.base, entry.scheme) for entry in entries.values()}
    in_order = sorted(named, key=lambda pair: (pair[0], pair[1].slots))
    owners = {path: f"{entry.concept} {entry.class_word}" for path, entry in entries.items()}
    return [Table(base, scheme, _held(entries, base, scheme), owners) for base, scheme in in_order]


def unreadable_files(folders: Folders) -> dict[Path, str]:
    """Files under `folders` that are no sound safetensors files, and why."""
    found = {path: _known(path) for path in lora_files(folders)}
    return {path: entry for path, entry in found.items() if isinstance(entry, str)}


def describe_tables(found: Sequence[Table]) -> str:
    """The tables as text."""
    return "\n\n".join(map(_describe, found)) or "No row-block files here."


def _describe(table: Table) -> str:
    title = f"{table.base or 'unknown base'}, {table.scheme.slots} slots"
    clashes = table.clashes
    lines = [
        f"  slot {slot}: {', '.join(legible(path.name) for path in files)}{'  CLASH' if slot in clashes else ''}"
        for slot, files in table.held.items()
    ]
    return "\n".join([title, *lines, f"  free: {', '.join(map(str, table.free)) or 'none'}"])


def entry_of(path: Path) -> Entry | None:
    """The row block that the file holds, None for any other; its header is read anew only when the file changes."""
    entry = _known(path)
    return None if isinstance(entry, str) else entry


def _entries(folders: Folders) -> dict[Path, Entry]:
    found = {}
    for path in sorted(lora_files(folders)):
        check()
        if (entry := entry_of(path)) is not None:
            found[path] = entry
    return found


def _held(entries: Mapping[Path, Entry], base: str, scheme: Scheme) -> dict[int, list[Path]]:
    taken: dict[int, list[Path]] = {}
    for path, entry in entries.items():
        if entry.base in ("", base):
            for slot in _slots_of(entry, scheme):
                taken.setdefault(slot, []).append(path)
    return dict(sorted(taken.items()))


def lora_files(folders: Folders) -> Iterator[Path]:
    """Every .safetensors file under `folders`."""
    return files_below(folders, ".safetensors")


def _known(path: Path) -> Entry | str | None:
    """The file's entry, None when it holds no row block, or why it cannot be read."""
    try:
        state = path.stat()
    except OSError as error:
        return str(error.strerror)
    return _read(path, state.st_size, state.st_mtime_ns)


# Bounded by what a large folder holds; an entry takes a kilobyte or two.
@lru_cache(maxsize=2**14)
def _read(path: Path, _size: int, _changed: int) -> Entry | str | None:
    try:
        record = read_record(read_header(path).get("__metadata__", {}))
        return None if record is None else _entry(record)
    except Exception as error:  # noqa: BLE001 - one bad file never stops the others
        return str(error)


def _entry(record: Record) -> Entry | None:
    if record.scheme is None or record.slot is None:
        return None
    shapes = frozenset((out, keys.fused_parts(stem), rows) for stem, (out, rows) in record.layers.items())
    if len(shapes) > MOST_SHAPES:
        raise ValueError(f"expected at most {MOST_SHAPES} shapes of layers, got {len(shapes)}. It is no model's LoRA.")
    concept = record.concept
    return Entry(concept.name, concept.class_word, record.base, record.scheme, record.slot, shapes)


@lru_cache(maxsize=2**14)
def _slots_of(entry: Entry, scheme: Scheme) -> set[int]:
    if entry.scheme == scheme:
        return {entry.slot}
    return {
        slot
        for slot in range(scheme.slots)
        if any(overlap(rows, scheme.rows(slot, out, parts)) for out, parts, rows in entry.shapes)
    }
