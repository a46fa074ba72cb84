"""What one LoRA file says about itself: read from its header, and kept until the file changes.

Pickles have no header: nothing but their names is known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ...concept import keys
from ...concept.concept import Concept
from ...concept.rows import Rows, Scheme, overlap
from .. import shown
from ..contents import sort_foreign
from ..formats import pickles
from ..record import Record, bundled, read_record
from ..untrusted.header import METADATA, read_header

Apart = Literal["rows", "grams", "collect", "added"]
"""How a merge keeps a file apart: by rows of its own, by Grams that it carries, by Grams that are collected once; or
not at all, as its layers are of other kinds and are added as chained loaders do."""


@dataclass(frozen=True)
class Block:
    """A row block. shapes: (rows of the weight, parts, rows held), each once."""

    concept: str
    class_word: str
    base: str
    scheme: Scheme
    slot: int
    shapes: frozenset[tuple[int, int, Rows]]

    def slots_in(self, scheme: Scheme) -> set[int]:
        """Slots of `scheme` whose rows the block holds. Row index sets decide where it is of another scheme."""
        if self.scheme == scheme:
            return {self.slot}
        return {
            slot
            for slot in range(scheme.slots)
            if any(overlap(rows, scheme.rows(slot, out, parts)) for out, parts, rows in self.shapes)
        }

    def shares_rows(self, other: Block) -> bool:
        """Whether both hold some row of one base; a file that names no base may be for any."""
        same = not self.base or not other.base or self.base == other.base
        return same and other.slot in self.slots_in(other.scheme)


@dataclass(frozen=True)
class Summary:
    """words: what prompts need to call the concept, empty when the file does not tell. images: pictures that it was
    trained on, None when unknown. block: None for a plain LoRA. problem: why the file is no LoRA that can be read."""

    concept: str
    base: str
    words: str
    images: int | None
    apart: Apart
    block: Block | None = None
    problem: str = ""


def known(path: Path) -> Summary | str:
    """The file's summary, or why it cannot be read; its header is read anew only when the file changes."""
    try:
        state = path.stat()
    except OSError as error:
        return str(error.strerror)
    return _read(path, state.st_size, state.st_mtime_ns)


def block_of(path: Path) -> Block | None:
    """The row block that the file holds, None for any other."""
    summary = known(path)
    return None if isinstance(summary, str) else summary.block


# Bounded by what a large folder holds; an entry takes a kilobyte or two.
@lru_cache(maxsize=2**14)
def _read(path: Path, _size: int, _changed: int) -> Summary | str:
    if path.suffix.lower() in pickles.SUFFIXES:
        return Summary(shown.foreign_concept({}, path).name, "", "", None, "collect")
    try:
        header = read_header(path)
        entries = header.pop(METADATA, {})
        record = read_record(entries)
        return _foreign(path, header, entries) if record is None else _own(record)
    except (ValueError, ArithmeticError) as error:
        return str(error)


def _own(record: Record) -> Summary:
    named = bool(record.embeddings) or record.slot is not None
    apart: Apart = "rows" if record.slot is not None else "grams" if record.grams is not None else "collect"
    name = record.concept.name
    images = _count(record.training.get("images"))
    return Summary(name, record.base, name if named else "", images, apart, _block(record))


def _foreign(path: Path, names: Mapping[str, Any], entries: Mapping[str, str]) -> Summary:
    name, words = shown.foreign_concept(entries, path).name, shown.recorded_words(entries)
    embedding = next((bundle[0] for one in sorted(names) if (bundle := bundled(one))), None)
    if embedding is not None:
        name = words = Concept(shown.word(embedding)).name
    images = _count(entries.get("ss_num_train_images"))
    summary = Summary(name, shown.foreign_base(entries), words, images, "collect")
    try:
        return replace(summary, apart="added") if sort_foreign(names).others else summary
    except ValueError as error:
        return replace(summary, problem=str(error))


def _count(value: object) -> int | None:
    with suppress(ValueError):
        if isinstance(value, int | str) and 0 < (count := int(value)) < 2**31:
            return count
    return None


def _block(record: Record) -> Block | None:
    if record.scheme is None or record.slot is None:
        return None
    shapes = frozenset((out, keys.fused_parts(stem), rows) for stem, (out, rows) in record.layers.items())
    concept = record.concept
    return Block(concept.name, concept.class_word, record.base, record.scheme, record.slot, shapes)
