"""What is to be done with a cast: who gets which slot, who is trained, what it will cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..concept.rows import Scheme
from .inputs import is_current, is_there
from .journal import DEALT, FAILED, Entry
from .member import Cast, CastError, Member
from .slots import deal

TO_TRAIN, CHANGED, BROKEN_OFF, FINISHED, AGAIN = "to train", "changed", "broken off", "finished", "failed before"


@dataclass(frozen=True)
class Known:
    """What a plan is made with.

    base: the checkpoint's mark. folder: where the cast's files lie. entries: of the journal. taken: slot -> names of
    concepts in the loras folders and in trainings under way.
    """

    base: str
    folder: Path
    entries: Mapping[str, Entry] = field(default_factory=dict)
    taken: Mapping[int, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One concept of a plan. slot: None for a plain LoRA. state: one of this module's words."""

    member: Member
    slot: int | None
    state: str
    entry: Entry | None = None


@dataclass(frozen=True)
class Plan:
    """rows: in the order of the cast. slots: of the scheme, 0 for a cast of plain LoRAs."""

    cast: Cast
    rows: tuple[Row, ...]
    slots: int

    @property
    def to_train(self) -> list[Row]:
        return [row for row in self.rows if row.state != FINISHED]

    @property
    def states(self) -> Counter[str]:
        return Counter(row.state for row in self.rows)

    @property
    def seconds_a_step(self) -> float | None:
        """As the finished ones took, None before the first."""
        done = [(row.entry.seconds, row.member.config.steps) for row in self.rows if row.entry and row.entry.seconds]
        return sum(seconds for seconds, _ in done) / sum(steps for _, steps in done) if done else None

    @property
    def bytes_a_concept(self) -> float | None:
        """As large as the finished ones are, None before the first."""
        sizes = [row.entry.bytes for row in self.rows if row.entry and row.entry.bytes]
        return sum(sizes) / len(sizes) if sizes else None

    @property
    def memory(self) -> int:
        """The most that a training took, in bytes; 0 before the first."""
        return max((row.entry.memory for row in self.rows if row.entry), default=0)


def plan(cast: Cast, known: Known) -> Plan:
    """Slots for all, and what is to do. Changes nothing. CastError where slots do not suffice or schemes differ."""
    scheme = scheme_of(cast)
    slots = _dealt(cast, scheme, known) if scheme else {}
    rows = []
    for member in cast.members:
        slot, entry = slots.get(member.key), known.entries.get(member.concept.name)
        rows.append(Row(member, slot, _state(member, slot, entry, known), entry))
    return Plan(cast, tuple(rows), scheme.slots if scheme else 0)


def scheme_of(cast: Cast) -> Scheme | None:
    """The one scheme of those who have one."""
    schemes = {member.config.adapter.scheme for member in cast.members} - {None}
    if len(schemes) > 1:
        numbers = ", ".join(sorted(str(scheme.slots) for scheme in schemes if scheme))
        raise CastError(f"Cast {cast.name}, key slots: expected one number for all that merge, got {numbers}.")
    return next(iter(schemes), None)


def _dealt(cast: Cast, scheme: Scheme, known: Known) -> dict[str, int]:
    ours = [member for member in cast.members if member.config.adapter.scheme]
    names = {member.concept.name for member in ours}
    held = {name: slot for slot, owners in known.taken.items() for name in owners if name in names}
    pinned = {member.key: slot for member in ours if (slot := _pin(member, scheme, known, held)) is not None}
    foreign = [slot for slot, owners in known.taken.items() if set(owners) - names]
    keys = {member.key for member in ours}
    groups: Sequence[Sequence[str]] = [[key for key in group if key in keys] for group in cast.groups]
    return deal([member.key for member in ours], groups, scheme.slots, pinned, foreign)


def _pin(member: Member, scheme: Scheme, known: Known, held: Mapping[str, int]) -> int | None:
    """The slot that a concept has: as its user says, as it was dealt before, as its file holds."""
    if member.slot is not None:
        return member.slot
    entry = known.entries.get(member.concept.name)
    slot = entry.slot if entry is not None and entry.slot is not None else held.get(member.concept.name)
    return slot if slot is not None and 0 <= slot < scheme.slots else None


def _state(member: Member, slot: int | None, entry: Entry | None, known: Known) -> str:
    if entry is None:
        return TO_TRAIN
    if entry.event in (DEALT, FAILED):
        return BROKEN_OFF if entry.event == DEALT else AGAIN
    if not is_there(entry, known.folder):
        return TO_TRAIN
    return FINISHED if is_current(entry, member, known.base, slot) else CHANGED
