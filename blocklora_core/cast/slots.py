"""Who gets which slot: a colouring of the concepts in which no two that meet in a picture have one colour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from .member import CastError

Groups = Sequence[Sequence[str]]
"""Concepts that meet in one picture, by key."""


def deal(
    keys: Sequence[str], groups: Groups, slots: int, pinned: Mapping[str, int], taken: Collection[int] = ()
) -> dict[str, int]:
    """Key -> slot of `slots`, for every key. Nobody in a group shares a slot with another of it.

    pinned: slots that concepts have already; they keep them. taken: slots of concepts outside of the cast, which may
    meet anyone. Greedy, whoever meets the most others first (Welsh and Powell 1967): at most as many slots as the
    one who meets the most others meets, and one more. CastError, with the group, where that is too many.
    """
    used = [0] * len(groups)
    of = defaultdict[str, list[int]](list)
    for number, group in enumerate(groups):
        for key in dict.fromkeys(group):
            of[key].append(number)
    dealt = dict[str, int]()
    closed = sum(1 << slot for slot in {*taken} if slot < slots)
    for key, slot in pinned.items():
        _check_pinned(key, slot, of[key], groups, used, dealt)
        dealt[key] = slot
        _close(used, of[key], slot)
    every = (1 << slots) - 1
    for key in sorted((key for key in keys if key not in dealt), key=lambda key: (-_met(of[key], groups), key)):
        held = closed
        for number in of[key]:
            held |= used[number]
        free = every & ~held
        if not free:
            raise _too_few(key, slots, max((groups[number] for number in of[key]), key=len, default=()), len({*taken}))
        dealt[key] = (free & -free).bit_length() - 1
        _close(used, of[key], dealt[key])
    return {key: dealt[key] for key in keys}


def _met(numbers: Sequence[int], groups: Groups) -> int:
    return sum(len(groups[number]) - 1 for number in numbers)


def _close(used: list[int], numbers: Sequence[int], slot: int) -> None:
    for number in numbers:
        used[number] |= 1 << slot


def _check_pinned(
    key: str, slot: int, numbers: Sequence[int], groups: Groups, used: Sequence[int], dealt: Mapping[str, int]
) -> None:
    for number in numbers:
        if used[number] >> slot & 1:
            other = next(one for one in groups[number] if dealt.get(one) == slot)
            raise CastError(
                f"Slots: expected {other} and {key}, which meet in one picture, to have slots of their own, got slot "
                f"{slot} for both. Set another `slot` for one of them, or train it in another cast."
            )


def _too_few(key: str, slots: int, group: Sequence[str], taken: int) -> CastError:
    others = f"; {taken} are held by other files of the loras folder" if taken else ""
    return CastError(
        f"Slots: expected a free one for {key}, got none: {slots} slots, {max(len(group), 1)} concepts in its largest "
        f"group{others}. Set `slots` to a larger number under [train], or say in `together` who is used with whom."
    )
