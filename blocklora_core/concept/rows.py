"""Who owns which rows of a weight: schemes, slots and overlaps.

This is the only place that computes row ownership. A weight has `m` output features, its rows; a scheme deals
them out to `slots` disjoint row blocks (BlockLoRA, arXiv 2503.08575, section 3: Delta W_i = (M_i * B_i)
A_i with pairwise disjoint row sets R_i).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

Rows = tuple[range, ...]
"""Disjoint segments of neighbouring rows, ascending, in the order in which the block's rows are stored."""

Parts = tuple[int, ...]
"""How many rows each part of a weight has that is several layers in one, such as Q, K and V. `()`: its name tells."""

BY_NAME, BY_PARTS = VERSIONS = (1, 2)
"""Of schemes. Version 1 knows the parts of a weight from its name, all of one size; in version 2 files say them."""

MOST_SLOTS = 256
"""Each slot still has a row of the narrowest layers of SD1.5, which have 320."""
_LAYOUT = "contiguous"
"""Files say how rows lie. Version 0.1 could also deal out every so many, "interleaved"."""


@dataclass(frozen=True)
class Scheme:
    """How rows are dealt to slots. Two files of one scheme and different slots never share a row.

    Raises ValueError for a version that this code does not know and for a number of slots out of range.
    """

    version: int = BY_NAME
    slots: int = 16

    def __post_init__(self) -> None:
        if not _is_int(self.version) or self.version not in VERSIONS:
            known = " or ".join(map(str, VERSIONS))
            raise ValueError(f"Row scheme version: expected {known}, got {self.version!r}. Update the pack to use it.")
        if not _is_int(self.slots) or not 1 <= self.slots <= MOST_SLOTS:
            raise ValueError(f"Number of slots: expected a whole number from 1 to {MOST_SLOTS}, got {self.slots!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The scheme as JSON-able data."""
        return {"version": self.version, "slots": self.slots, "layout": _LAYOUT}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scheme:
        """Inverse of `to_dict`; ValueError when a field is missing, unknown or of a layout that is no more."""
        expected = {*cls.__dataclass_fields__, "layout"}
        if set(data) != expected:
            raise ValueError(f"Row scheme: expected the fields {_words(expected)}, got {_words(data)}.")
        if data["layout"] != _LAYOUT:
            raise ValueError(
                f"Row layout: expected {_LAYOUT}, got {data['layout']!r}, whose rows this version cannot merge. Load "
                "the file with the stock Load LoRA, or train the concept again."
            )
        return cls(data["version"], data["slots"])

    def rows(self, slot: int, out_features: int, parts: int | Parts = 1) -> Rows:
        """Rows of `slot` in a weight of `out_features` rows.

        parts: how many of one size, such as 2 of a GEGLU projection (values, then gates), or the size of each. The rule
        applies to each part, so that every slot gets its share of all. Slots differ by at most one row a part; with
        fewer rows than slots some slots get none, `()`. ValueError when the slot or the shape is impossible.
        """
        self.check_slot(slot)
        return tidy(
            range(start + slot * size // self.slots, start + (slot + 1) * size // self.slots)
            for start, size in _placed(sizes(out_features, parts))
        )

    def check_slot(self, slot: int) -> None:
        """ValueError unless `slot` is one of this scheme's."""
        if not _is_int(slot) or not 0 <= slot < self.slots:
            raise ValueError(f"Slot: expected a whole number from 0 to {self.slots - 1}, got {slot!r}.")


def sizes(out_features: int, parts: int | Parts) -> Parts:
    """The size of each part, given how many of one size there are, or the sizes. ValueError when they do not make
    `out_features` rows.
    """
    if isinstance(parts, tuple):
        if sum(parts) != out_features or min(parts, default=0) < 1:
            raise ValueError(f"Expected parts that make {out_features} rows, got {len(parts)} that make {sum(parts)}.")
        return parts
    if parts < 1 or out_features < 0 or out_features % parts:
        raise ValueError(f"Expected {parts} equal parts of a weight, got one of {out_features} rows.")
    return (out_features // parts,) * parts


def _placed(parts: Parts) -> Iterator[tuple[int, int]]:
    """(first row, rows) of each part."""
    return zip(accumulate(parts, initial=0), parts, strict=False)


def all_rows(out_features: int) -> Rows:
    """Every row: what a plain LoRA holds."""
    return tidy([range(out_features)])


def count(rows: Rows) -> int:
    """Number of rows held."""
    return sum(len(part) for part in rows)


def index(rows: Rows, device: torch.device | str | None = None) -> Tensor:
    """Row numbers in stored order: int64 (count(rows),)."""
    if not rows:
        return torch.empty(0, dtype=torch.long, device=device)
    return torch.cat([torch.arange(p.start, p.stop, device=device) for p in rows])


def contains(rows: Rows, row: int) -> bool:
    """Whether `row` is held."""
    return any(row in part for part in rows)


def overlap(a: Rows, b: Rows) -> Rows:
    """Rows held by both, exact and without listing rows; `()` when there is none."""
    return tidy(range(max(p.start, q.start), min(p.stop, q.stop)) for p in a for q in b)


def shared(held: Iterable[Rows]) -> int:
    """How many rows several of `held` hold, exact and without listing rows."""
    number = once = twice = 0  # once, twice: where the rows end that a segment, and that two, so far hold
    for part in sorted(chain.from_iterable(held), key=attrgetter("start")):
        several = min(part.stop, once)
        number += max(0, several - max(part.start, twice))
        once, twice = max(once, part.stop), max(twice, several)
    return number


def positions(rows: Rows, subset: Rows) -> Tensor:
    """Where the rows of `subset` that `rows` holds are stored in `rows`: int64 (k,), ascending."""
    return torch.isin(index(rows), index(subset)).nonzero().flatten()


def tidy(parts: Iterable[range]) -> Rows:
    """Canonical form: no empty segment, ascending, neighbours joined. ValueError when segments overlap or have gaps."""
    done: list[range] = []
    for part in sorted(filter(len, parts), key=lambda part: part.start):
        if part.step != 1 or part.start < 0:
            raise ValueError(f"Expected neighbouring rows from 0 up, got {part}.")
        if done and part.start < done[-1].stop:
            raise ValueError(f"Expected disjoint ascending rows, got {done[-1]} and {part}.")
        if done and part.start == done[-1].stop:
            part = range(done.pop().start, part.stop)
        done.append(part)
    return tuple(done)


def describe(rows: Rows) -> str:
    """For reports and messages: "rows 20-39", "rows 0-3, 8-11", "row 7", "no rows"."""
    if not rows:
        return "no rows"
    word = "row" if count(rows) == 1 else "rows"
    segments = (str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in rows)
    return f"{word} {', '.join(segments)}"


def to_list(rows: Rows) -> list[list[int]]:
    """Rows as JSON-able [start, stop, 1] triples: files keep the step that rows had in version 0.1."""
    return [[part.start, part.stop, 1] for part in rows]


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
