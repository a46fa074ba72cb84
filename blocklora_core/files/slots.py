"""The slot ledger: which slots the files in the user's folders hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..concept import keys
from ..concept.rows import Scheme, overlap
from .io import read_header
from .record import Record, read_record

PathLike = str | os.PathLike[str]
Folders = PathLike | Iterable[PathLike]


def occupied_slots(folders: Folders, base: str, scheme: Scheme) -> dict[int, list[Path]]:
    """Slots of `scheme` whose rows some file under `folders` holds for `base`: slot -> files, both sorted.

    Reads headers only. Row index sets decide, so a file of another scheme takes every slot that it
    overlaps. Plain LoRAs and files that cannot be read hold no slot; a file that names no base may be for
    any.
    """
    return _held(_records(folders), base, scheme)


@dataclass(frozen=True)
class Table:
    """Who holds which slot of one scheme for one base.

    held: slot -> files, both sorted. A file of another scheme stands in every slot whose rows it holds.
    """

    base: str
    scheme: Scheme
    held: Mapping[int, list[Path]]

    @property
    def clashes(self) -> dict[int, list[Path]]:
        """Slots that several files hold."""
        return {slot: files for slot, files in self.held.items() if len(files) > 1}

    @property
    def free(self) -> list[int]:
        """Slots that no file holds."""
        return [slot for slot in range(self.scheme.slots) if slot not in self.held]


def tables(folders: Folders) -> list[Table]:
    """One table for each base and scheme that some row-block file under `folders` names; headers only."""
    records = _records(folders)
    named = {(record.base, record.scheme) for record in records.values() if record.scheme is not None}
    in_order = sorted(named, key=lambda pair: (pair[0], pair[1].slots))
    return [Table(base, scheme, _held(records, base, scheme)) for base, scheme in in_order]


def describe_tables(found: Sequence[Table]) -> str:
    """The tables as text."""
    return "\n\n".join(map(_describe, found)) or "No row-block files here."


def _describe(table: Table) -> str:
    title = f"{table.base or 'unknown base'}, {table.scheme.slots} slots"
    lines = [
        f"  slot {slot}: {', '.join(path.name for path in files)}{'  CLASH' if len(files) > 1 else ''}"
        for slot, files in table.held.items()
    ]
    return "\n".join([title, *lines, f"  free: {', '.join(map(str, table.free)) or 'none'}"])


def _records(folders: Folders) -> dict[Path, Record]:
    found = {path: _record(path) for path in sorted(lora_files(folders))}
    return {path: record for path, record in found.items() if record is not None}


def _held(records: Mapping[Path, Record], base: str, scheme: Scheme) -> dict[int, list[Path]]:
    taken: dict[int, list[Path]] = {}
    for path, record in records.items():
        if record.base in ("", base):
            for slot in _slots_of(record, scheme):
                taken.setdefault(slot, []).append(path)
    return dict(sorted(taken.items()))


def lora_files(folders: Folders) -> Iterator[Path]:
    """Every .safetensors file under `folders`."""
    seen: set[str] = set()
    for folder in [folders] if isinstance(folders, str | os.PathLike) else folders:
        for parent, inner, names in os.walk(folder, followlinks=True):
            # Links are followed, as ComfyUI does, but a loop of them only once.
            real = os.path.realpath(parent)
            if real in seen:
                inner.clear()
                continue
            seen.add(real)
            yield from (Path(parent, name) for name in names if name.endswith(".safetensors"))


def _record(path: Path) -> Record | None:
    try:
        return read_record(read_header(path).get("__metadata__", {}))
    except ValueError:
        return None


def _slots_of(record: Record, scheme: Scheme) -> set[int]:
    if record.scheme is None or record.slot is None:
        return set()
    if record.scheme == scheme:
        return {record.slot}
    shapes = {(out, keys.fused_parts(stem), rows) for stem, (out, rows) in record.layers.items()}
    return {
        slot
        for slot in range(scheme.slots)
        if any(overlap(rows, scheme.rows(slot, out, parts)) for out, parts, rows in shapes)
    }
