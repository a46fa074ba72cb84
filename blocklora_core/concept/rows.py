"""Who owns which rows of a weight: schemes, slots and overlaps.

This is the only place that computes row ownership. A weight has `m` output features, its rows; a scheme deals
them out to `slots` disjoint row blocks (BlockLoRA, arXiv 2503.08575, section 3: Delta W_i = (M_i * B_i)
A_i with pairwise disjoint row sets R_i).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Rows = tuple[range, ...]
"""Disjoint segments, ascending, in the order in which the block's rows are stored."""

Layout = Literal["contiguous", "interleaved"]

VERSION = 1
MOST_SLOTS = 256
"""Each slot still has a row of the narrowest layers of SD1.5, which have 320."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True)
class Scheme:
    """How rows are dealt to slots. Two files of one scheme and different slots never share a row.

    Raises ValueError for a version or layout that this code does not know and for a number of slots out of range.
    """

    version: int = VERSION
    slots: int = 16
    layout: Layout = "contiguous"

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(
                f"Row scheme version: expected {VERSION}, got {self.version!r}. Update the pack to use it."
            )
        if self.layout not in LAYOUTS:
            raise ValueError(f"Row layout: expected one of {', '.join(LAYOUTS)}, got {self.layout!r}.")
        if not _is_int(self.slots) or not 1 <= self.slots <= MOST_SLOTS:
            raise ValueError(f"Number of slots: expected a whole number from 1 to {MOST_SLOTS}, got {self.slots!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The scheme as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scheme:
        """Inverse of `to_dict`; ValueError when a field is missing or unknown."""
        expected = set(cls.__dataclass_fields__)
        if set(data) != expected:
            raise ValueError(f"Row scheme: expected the fields {_words(expected)}, got {_words(data)}.")
        return cls(**data)

    def rows(self, slot: int, out_features: int, parts: int = 1) -> Rows:
        """Rows of `slot` in a weight of `out_features` rows.

        `parts=2` (a GEGLU projection, whose first half holds values and second half gates) or 3 (a fused Q, K and
        V) applies the rule to each part, so that every slot gets all. Slots differ by at most one row a part; with
        fewer rows than slots some slots get none, `()`. ValueError when the slot or the shape is impossible.
        """
        self.check_slot(slot)
        if parts < 1 or out_features < 0 or out_features % parts:
            raise ValueError(f"Expected {parts} equal parts of a weight, got one of {out_features} rows.")
        size = out_features // parts
        held = _PARTS[self.layout](slot, size, self.slots)
        return tidy(_shift(held, part * size) for part in range(parts))

    def check_slot(self, slot: int) -> None:
        """ValueError unless `slot` is one of this scheme's."""
        if not _is_int(slot) or not 0 <= slot < self.slots:
            raise ValueError(f"Slot: expected a whole number from 0 to {self.slots - 1}, got {slot!r}.")


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
    return torch.cat([torch.arange(p.start, p.stop, p.step, device=device) for p in rows])


def contains(rows: Rows, row: int) -> bool:
    """Whether `row` is held."""
    return any(row in part for part in rows)


def overlap(a: Rows, b: Rows) -> Rows:
    """Rows held by both, exact and without listing rows; `()` when there is none."""
    return tidy(_meet(p, q) for p in a for q in b)


def positions(rows: Rows, subset: Rows) -> Tensor:
    """Where the rows of `subset` that `rows` holds are stored in `rows`: int64 (k,), ascending."""
    return torch.isin(index(rows), index(subset)).nonzero().flatten()


def tidy(parts: Iterable[range]) -> Rows:
    """Canonical form: no empty segment, ascending, neighbours joined. ValueError when segments interleave."""
    done: list[range] = []
    for part in sorted((_plain(p) for p in parts if len(p)), key=lambda p: p.start):
        if done and part.start <= done[-1][-1]:
            raise ValueError(f"Expected disjoint ascending rows, got {done[-1]} and {part}.")
        if done and done[-1].step == part.step == 1 and part.start == done[-1].stop:
            part = range(done.pop().start, part.stop)
        done.append(part)
    return tuple(done)


def describe(rows: Rows) -> str:
    """For reports and messages: "rows 20-39", "rows 3-303 in steps of 16", "row 7", "no rows"."""
    if not rows:
        return "no rows"
    word = "row" if count(rows) == 1 else "rows"
    return f"{word} {', '.join(map(_describe_part, rows))}"


def to_list(rows: Rows) -> list[list[int]]:
    """Rows as JSON-able [start, stop, step] triples."""
    return [[part.start, part.stop, part.step] for part in rows]


def _contiguous(slot: int, size: int, slots: int) -> range:
    return range(slot * size // slots, (slot + 1) * size // slots)


def _interleaved(slot: int, size: int, slots: int) -> range:
    return range(slot, size, slots)


_PARTS = {"contiguous": _contiguous, "interleaved": _interleaved}


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shift(part: range, by: int) -> range:
    return range(part.start + by, part.stop + by, part.step)


def _plain(part: range) -> range:
    # Equal row sets must compare equal: the stop is the last row + 1, and a single row has step 1.
    if part.step < 1 or part.start < 0:
        raise ValueError(f"Expected ascending rows from 0 up, got {part}.")
    return range(part[0], part[-1] + 1, part.step if len(part) > 1 else 1)


def _meet(a: range, b: range) -> range:
    # Common members of two progressions: they repeat every lcm(steps), so the first of them, if any, is among
    # the first b.step members of a that lie at or above b.start.
    skip = max(0, -(-(b.start - a.start) // a.step))
    start = next((x for x in a[skip : skip + b.step] if x in b), None)
    if start is None:
        return range(0)
    return range(start, min(a.stop, b.stop), math.lcm(a.step, b.step))


def _describe_part(part: range) -> str:
    if len(part) == 1:
        return str(part[0])
    steps = "" if part.step == 1 else f" in steps of {part.step}"
    return f"{part[0]}-{part[-1]}{steps}"
