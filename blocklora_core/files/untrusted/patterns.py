"""Regular expressions of strangers, matched without backtracking.

Python's own matcher may try exponentially many ways to fail. This one follows all ways at once (Thompson, Regular
Expression Search Algorithm, 1968): a set of places in the text, one bit each, goes through the expression part by
part. So the cost is bounded by the sizes of both, and a budget of steps bounds it for nested repeats too. It only
tells whether something matches: greedy and lazy repeats are the same to it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

try:
    from re import _parser as parser  # type: ignore[attr-defined]
except ImportError:  # Python 3.10
    import sre_parse as parser

MOST_LETTERS = 1000
MOST_STEPS = 2_000_000

_PLAIN = re.compile(r"[\w.-]+")


@dataclass
class Budget:
    """Steps that all matching together may take."""

    left: int = MOST_STEPS

    def spend(self, steps: int) -> None:
        """ValueError when there are no such many left."""
        self.left -= steps
        if self.left < 0:
            raise ValueError("it takes too many steps to match")


class Pattern:
    """A regular expression of Python's syntax, without groups that look back at what another matched.

    ValueError when it is none, too long, or uses what this matcher does not know.
    """

    def __init__(self, text: str, budget: Budget | None = None):
        if len(text) > MOST_LETTERS:
            raise ValueError(f"it has more than {MOST_LETTERS} letters")
        self.budget = budget or Budget()
        # Most patterns of files are names, hundreds of them; a dot there stands for any letter.
        self.plain = text if _PLAIN.fullmatch(text) else None
        try:
            tree = parser.parse(text)
            self.parts = list(tree)
            _check(self.parts)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(str(error)) from error
        self.ignores_case = bool(tree.state.flags & re.IGNORECASE)

    def search(self, text: str) -> bool:
        """Whether the pattern matches anywhere in `text`. ValueError when the budget is spent."""
        matching = _Matching(text, self.budget, self.ignores_case)
        return matching.through(self.parts, matching.everywhere) != 0

    def ends_from(self, text: str, starts: Collection[int]) -> bool:
        """Whether the pattern matches all of `text` from one of `starts` on. ValueError when the budget is spent."""
        if self.plain is not None:
            self.budget.spend(1)
            start = len(text) - len(self.plain)
            return start in starts and all(map(_fits, self.plain, text[start:]))
        matching = _Matching(text, self.budget, self.ignores_case)
        places = matching.through(self.parts, sum(1 << start for start in set(starts)))
        return places >> len(text) != 0


class _Matching:
    """One text. A set of places in it is a number: bit i is the place before letter i."""

    def __init__(self, text: str, budget: Budget, ignores_case: bool):
        self.text, self.budget, self.ignores_case = text, budget, ignores_case
        self.everywhere = (1 << (len(text) + 1)) - 1
        self.letters: dict[int, int] = {}
        self.before: dict[str, int] = defaultdict(int)
        budget.spend(1 + len(text) // 8)
        for at, letter in enumerate(text):
            self.before[letter] |= 1 << at

    def through(self, parts: Any, places: int) -> int:
        """Where matches of `parts`, one after the other, that start at `places` may end."""
        for number in range(len(parts)):
            kind, value = parts[number]
            self.budget.spend(1)
            # The tree outlives the matching, so no other node can take this one's number.
            places = _THROUGH[str(kind)](self, value, places, id(parts[number]))
            if not places:
                break
        return places

    def letter(self, node: int, test: Callable[[str], bool], places: int) -> int:
        """One letter that passes `test`, in upper or lower case where that is not to matter."""
        if node not in self.letters:
            self.letters[node] = sum(at for letter, at in self.before.items() if self._passes(letter, test))
        return (places & self.letters[node]) << 1

    def _passes(self, letter: str, test: Callable[[str], bool]) -> bool:
        return any(map(test, {letter, letter.lower(), letter.upper()})) if self.ignores_case else test(letter)

    def repeated(self, least: int, most: int, parts: Any, places: int) -> int:
        """`parts` from `least` to `most` times. More rounds than letters only repeat what matches nothing."""
        least, most = (min(times, len(self.text) + 1) for times in (least, most))
        found = 0 if least else places
        for done in range(1, most + 1):
            places = self.through(parts, places)
            if not places or (done > least and not places & ~found):
                break
            found |= places if done >= least else 0
        return found

    def asserted(self, direction: int, parts: Any, places: int) -> int:
        """Those of `places` ahead of which `parts` match, or where a match of them ends."""
        if direction < 0:
            return places & self.through(parts, self.everywhere)
        each = (1 << at for at in range(len(self.text) + 1))
        return sum(place for place in each if place & places and self.through(parts, place))

    def is_word(self, at: int) -> bool:
        """Whether the letter at `at` is one of a word's."""
        return 0 <= at < len(self.text) and _is_word(self.text[at])

    def holds(self, where: str) -> int:
        """The places that are `where` says."""
        size = len(self.text)
        if where in ("AT_BOUNDARY", "AT_NON_BOUNDARY"):
            edges = sum(1 << at for at in range(size + 1) if self.is_word(at - 1) != self.is_word(at))
            return edges if where == "AT_BOUNDARY" else self.everywhere & ~edges
        last = 1 << size
        newline = last >> 1 if where == "AT_END" and self.text.endswith("\n") else 0
        return 1 if where.startswith("AT_BEGINNING") else last | newline


def _fits(own: str, letter: str) -> bool:
    return own in (".", letter)


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


_CATEGORIES: dict[str, Callable[[str], bool]] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_NOT_DIGIT": lambda letter: not letter.isdecimal(),
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_NOT_SPACE": lambda letter: not letter.isspace(),
    "CATEGORY_WORD": _is_word,
    "CATEGORY_NOT_WORD": lambda letter: not _is_word(letter),
}


def _in_class(items: Any, letter: str) -> bool:
    negated = str(items[0][0]) == "NEGATE"
    return any(_is_item(str(kind), value, letter) for kind, value in items[negated:]) != negated


def _is_item(kind: str, value: Any, letter: str) -> bool:
    if kind == "CATEGORY":
        return _CATEGORIES[str(value)](letter)
    low, high = value if kind == "RANGE" else (value, value)
    return bool(low <= ord(letter) <= high)


def _repeat(matching: _Matching, value: Any, places: int, _node: int) -> int:
    least, most, parts = value
    return matching.repeated(int(least), int(most), parts, places)


def _branch(matching: _Matching, value: Any, places: int, _node: int) -> int:
    found = 0
    for way in value[1]:
        found |= matching.through(way, places)
    return found


_THROUGH: dict[str, Callable[[_Matching, Any, int, int], int]] = {
    "LITERAL": lambda m, code, places, node: m.letter(node, lambda letter: ord(letter) == code, places),
    "NOT_LITERAL": lambda m, code, places, node: m.letter(node, lambda letter: ord(letter) != code, places),
    "ANY": lambda m, _, places, node: m.letter(node, lambda letter: letter != "\n", places),
    "IN": lambda m, items, places, node: m.letter(node, lambda letter: _in_class(items, letter), places),
    "AT": lambda m, where, places, _: places & m.holds(str(where)),
    "BRANCH": _branch,
    "SUBPATTERN": lambda m, value, places, _: m.through(value[3], places),
    "MAX_REPEAT": _repeat,
    "MIN_REPEAT": _repeat,
    "ASSERT": lambda m, value, places, _: m.asserted(value[0], value[1], places),
    "ASSERT_NOT": lambda m, value, places, _: places & ~m.asserted(value[0], value[1], places),
}


def _check(parts: Any) -> None:
    """ValueError for a part of another kind, anywhere in the tree."""
    for number in range(len(parts)):
        kind, value = parts[number]
        if str(kind) not in _THROUGH:
            raise ValueError(f"its part {str(kind).lower()} is not supported here")
        for inner in _inner(str(kind), value):
            _check(inner)


def _inner(kind: str, value: Any) -> list[Any]:
    if kind == "BRANCH":
        return list(value[1])
    at = {"SUBPATTERN": 3, "MAX_REPEAT": 2, "MIN_REPEAT": 2, "ASSERT": 1, "ASSERT_NOT": 1}
    return [value[at[kind]]] if kind in at else []
