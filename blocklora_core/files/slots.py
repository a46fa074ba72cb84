"""The slot ledger: which slots the files in the user's folders hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..cancel import check
from ..concept.rows import BY_NAME, Parts, Scheme
from .catalogue.index import INDEX, block_of, known
from .catalogue.summary import Block
from .untrusted.folders import Folders, files_below
from .untrusted.text import legible

MOST_PARTS = 64
"""Ways to divide a weight's rows that all files of a base tell: models have a few."""


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
    def title(self) -> str:
        """Which base and scheme."""
        version = "" if self.scheme.version == BY_NAME else f" (row scheme {self.scheme.version})"
        return f"{self.base or 'unknown base'}, {self.scheme.slots} slots{version}"

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
    in_order = sorted(named, key=lambda pair: (pair[0], pair[1].slots, pair[1].version))
    owners = {path: f"{entry.concept} {entry.class_word}" for path, entry in entries.items()}
    return [Table(base, scheme, _held(entries, base, scheme, ()), owners) for base, scheme in in_order]


def unreadable_files(folders: Folders) -> dict[Path, str]:
    """Files under `folders` that are no sound safetensors files, and why."""
    found = {path: known(path) for path in lora_files(folders)}
    return {path: entry for path, entry in found.items() if isinstance(entry, str)}


def describe_tables(found: Sequence[Table]) -> str:
    """The tables as text."""
    return "\n\n".join(map(_describe, found)) or "No row-block files here."


def _describe(table: Table) -> str:
    clashes = table.clashes
    lines = [
        f"  slot {slot}: {', '.join(legible(path.name) for path in files)}{'  CLASH' if slot in clashes else ''}"
        for slot, files in table.held.items()
    ]
    return "\n".join([table.title, *lines, f"  free: {', '.join(map(str, table.free)) or 'none'}"])


def _entries(folders: Folders) -> dict[Path, Block]:
    found = {}
    try:
        for path in lora_files(folders):
            check()
            if (entry := block_of(path)) is not None:
                found[path] = entry
    finally:
        # Also where the user was not willing to wait: the next time it is shorter.
        INDEX.save()
    return {path: found[path] for path in sorted(found, key=str)}


def owners_of_slots(folders: Folders, base: str, scheme: Scheme, parts: Collection[Parts] = ()) -> dict[int, set[str]]:
    """Slots of `scheme` whose rows some file under `folders` holds for `base`: slot -> names of concepts, slots sorted.

    parts: of the model's weights that are several layers in one, where their names do not tell.

    Reads headers only. Row index sets decide, so a file of another scheme takes every slot that it
    overlaps. Plain LoRAs and files that cannot be read hold no slot; a file that names no base may be for
    any.
    """
    entries = _entries(folders)
    held = _held(entries, base, scheme, parts)
    return {slot: {entries[path].concept for path in files} for slot, files in held.items()}


def _held(entries: Mapping[Path, Block], base: str, scheme: Scheme, parts: Collection[Parts]) -> dict[int, list[Path]]:
    ours = {path: entry for path, entry in entries.items() if entry.base in ("", base)}
    told = {part for entry in ours.values() for part in entry.told_parts}
    known_parts = frozenset([*parts, *sorted(told)[:MOST_PARTS]])
    taken: dict[int, list[Path]] = {}
    for path, entry in ours.items():
        for slot in entry.slots_in(scheme, known_parts):
            taken.setdefault(slot, []).append(path)
    return dict(sorted(taken.items()))


def lora_files(folders: Folders) -> Iterator[Path]:
    """Every .safetensors file under `folders`."""
    return files_below(folders, ".safetensors")
