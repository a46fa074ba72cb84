"""The slot ledger: which slots the files in the user's folders hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import keys, metadata
from .files import read_header
from .metadata import Record
from .rows import Scheme, overlap

PathLike = str | os.PathLike[str]
Folders = PathLike | Iterable[PathLike]


def occupied_slots(folders: Folders, base: str, scheme: Scheme) -> dict[int, list[Path]]:
    """Slots of `scheme` whose rows some file under `folders` holds for `base`: slot -> files, both sorted.

    Reads headers only. Row index sets decide, so a file of another scheme takes every slot that it
    overlaps. Plain LoRAs and files that cannot be read hold no slot; a file that names no base may be for
    any.
    """
    taken: dict[int, list[Path]] = {}
    for path in sorted(_safetensors(folders)):
        record = _record(path)
        if record is not None and record.base in ("", base):
            for slot in _slots_of(record, scheme):
                taken.setdefault(slot, []).append(path)
    return dict(sorted(taken.items()))


def _safetensors(folders: Folders) -> Iterator[Path]:
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
        return metadata.read(read_header(path).get("__metadata__", {}))
    except ValueError:
        return None


def _slots_of(record: Record, scheme: Scheme) -> set[int]:
    if record.scheme is None or record.slot is None:
        return set()
    if record.scheme == scheme:
        return {record.slot}
    shapes = {(out, keys.parts(stem), rows) for stem, (out, rows) in record.layers.items()}
    return {
        slot
        for slot in range(scheme.slots)
        if any(overlap(rows, scheme.rows(slot, out, parts)) for out, parts, rows in shapes)
    }
