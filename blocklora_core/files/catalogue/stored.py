"""A summary as a line of the index file, and back."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NamedTuple

from ...concept.rows import Parts, Scheme, to_list
from .summary import Block, Shape, Summary


class Times(NamedTuple):
    """What tells a file from itself once it was written to."""

    size: int
    modified: int
    changed: int


class Kept(NamedTuple):
    """What is known of a file that has these times: its summary, or why it cannot be read."""

    times: Times
    found: Summary | str


def line_of(name: str, kept: Kept) -> bytes:
    """One line, its end included."""
    found = kept.found
    told: Any = found
    if isinstance(found, Summary):
        block = None if found.block is None else _block_told(found.block)
        told = [found.concept, found.base, found.words, found.images, found.apart, block, found.problem, found.named]
    return json.dumps([name, *kept.times, told], separators=(",", ":")).encode() + b"\n"


def parsed(line: bytes) -> tuple[str, Kept] | None:
    """The file's name and what is known of it; None for a line that is torn or none of ours."""
    try:
        name, size, modified, changed, told = json.loads(line)
        if isinstance(told, str):
            return name, Kept(Times(size, modified, changed), told)
        concept, base, words, images, apart, block, problem, named = told
        held = None if block is None else _block(*block)
        found = Summary(concept, base, words, images, apart, held, problem, named)
        return name, Kept(Times(size, modified, changed), found)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _block_told(block: Block) -> list[Any]:
    shapes = [[shape.named, shape.parts, to_list(shape.rows)] for shape in block.shapes]
    # As text within the text: files of one slot have the same, which is then parsed once.
    return [block.concept, block.class_word, block.base, [block.scheme.version, block.scheme.slots], block.slot,
            json.dumps(sorted(shapes), separators=(",", ":"))]  # fmt: skip


def _block(concept: str, class_word: str, base: str, scheme: tuple[int, int], slot: int, shapes: str) -> Block:
    return Block(concept, class_word, base, _scheme(*scheme), slot, _shapes(shapes))


@lru_cache(maxsize=64)
def _scheme(version: int, slots: int) -> Scheme:
    return Scheme(version, slots)


@lru_cache(maxsize=2**12)
def _shapes(text: str) -> frozenset[Shape]:
    return frozenset(Shape(_parts(named), _parts(parts), _rows(rows)) for named, parts, rows in json.loads(text))


def _parts(told: list[int]) -> Parts:
    return tuple(map(int, told))


def _rows(told: list[list[int]]) -> tuple[range, ...]:
    return tuple(range(start, stop) for start, stop, _ in told)
