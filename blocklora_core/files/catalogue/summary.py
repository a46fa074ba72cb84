"""What one LoRA file says about itself, read from its header.

Pickles have no header: nothing but their names is known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...concept import keys
from ...concept.concept import Concept
from ...concept.rows import BY_NAME, Parts, Rows, Scheme, overlap, sizes
from .. import shown
from ..contents import sort_foreign
from ..formats import pickles
from ..record import Record, bundled, parts_of, read_record
from ..untrusted.header import METADATA, read_header

Apart = Literal["rows", "grams", "collect", "added"]
"""How a merge keeps a file apart: by rows of its own, by Grams that it carries, by Grams that are collected once; or
not at all, as its layers are of other kinds and are added as chained loaders do."""


MOST_SHAPES = 1024
"""Of a file's layers, each counted once: models have a few dozen."""


class Shape(NamedTuple):
    """Rows of some of a file's weights. named, parts: of the weights by schemes of version 1, and by the file's own."""

    named: Parts
    parts: Parts
    rows: Rows

    def dealt(self, scheme: Scheme, known: Iterable[Parts]) -> set[Parts]:
        """The parts by which `scheme` may deal out the weights' rows. known: those of other files and of a model."""
        if scheme.version == BY_NAME:
            return {self.named}
        # A file of version 1 does not say which of those known, or whether any, are its weight's: it may be any.
        return {self.parts, *(parts for parts in known if sum(parts) == sum(self.parts))}


@dataclass(frozen=True)
class Block:
    """A row block. shapes: each once."""

    concept: str
    class_word: str
    base: str
    scheme: Scheme
    slot: int
    shapes: frozenset[Shape]

    @property
    def told_parts(self) -> frozenset[Parts]:
        """Parts of its weights that their names do not tell."""
        return frozenset(shape.parts for shape in self.shapes if shape.parts != shape.named)

    def slots_in(self, scheme: Scheme, known: frozenset[Parts] = frozenset()) -> set[int]:
        """Slots of `scheme` whose rows the block holds. Row index sets decide where it is of another scheme.

        known: parts of weights that other files or a model tell.
        """
        return {self.slot} if self.scheme == scheme else _slots_in(self, scheme, known)

    def shares_rows(self, other: Block) -> bool:
        """Whether both hold some row of one base; a file that names no base may be for any."""
        same = not self.base or not other.base or self.base == other.base
        return same and other.slot in self.slots_in(other.scheme, other.told_parts)


@lru_cache(maxsize=2**14)
def _slots_in(block: Block, scheme: Scheme, known: frozenset[Parts]) -> set[int]:
    others = known if block.scheme.version == BY_NAME else frozenset[Parts]()
    dealt = {(shape.rows, parts) for shape in block.shapes for parts in shape.dealt(scheme, others)}
    return {
        slot
        for slot in range(scheme.slots)
        if any(overlap(rows, scheme.rows(slot, sum(parts), parts)) for rows, parts in dealt)
    }


@dataclass(frozen=True)
class Summary:
    """words: what prompts need to call the concept, empty when the file does not tell. images: pictures that it was
    trained on, None when unknown. block: None for a plain LoRA. problem: why the file is no LoRA that can be read.
    named: whether its name alone calls it."""

    concept: str
    base: str
    words: str
    images: int | None
    apart: Apart
    block: Block | None = None
    problem: str = ""
    named: bool = False


def read_summary(path: Path) -> Summary | str:
    """The file's summary, or why it cannot be read."""
    if path.suffix.lower() in pickles.SUFFIXES:
        return Summary(shown.foreign_concept({}, path).name, "", "", None, "collect")
    try:
        header = read_header(path)
        entries = header.pop(METADATA, {})
        record = read_record(entries)
        return _foreign(path, header, entries) if record is None else _own(record)
    except Exception as error:  # noqa: BLE001 - one bad file never stops the others
        return str(error)


def _own(record: Record) -> Summary:
    named = bool(record.embeddings) or record.slot is not None
    apart: Apart = "rows" if record.slot is not None else "grams" if record.grams is not None else "collect"
    name = record.concept.name
    images = _count(record.training.get("images"))
    return Summary(name, record.base, name if named else "", images, apart, _block(record), named=named)


def _foreign(path: Path, names: Mapping[str, Any], entries: Mapping[str, str]) -> Summary:
    name, words = shown.foreign_concept(entries, path).name, shown.recorded_words(entries)
    embedding = next((bundle[0] for one in sorted(names) if (bundle := bundled(one))), None)
    if embedding is not None:
        name = words = Concept(shown.word(embedding)).name
    images = _count(entries.get("ss_num_train_images"))
    named = embedding is not None
    summary = Summary(name, shown.foreign_base(entries), words, images, "collect", named=named)
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
    concept, scheme = record.concept, record.scheme
    shapes = frozenset(
        Shape(_named(stem, held.out), sizes(held.out, parts_of(stem, scheme, held.parts)), held.rows)
        for stem, held in record.layers.items()
    )
    if len(shapes) > MOST_SHAPES:
        raise ValueError(f"expected at most {MOST_SHAPES} shapes of layers, got {len(shapes)}. It is no model's LoRA.")
    return Block(concept.name, concept.class_word, record.base, scheme, record.slot, shapes)


def _named(stem: str, rows: int) -> Parts:
    parts = keys.fused_parts(stem)
    return sizes(rows, 1 if rows % parts else parts)
