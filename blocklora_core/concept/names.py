"""Concepts' names in prompts: one rule of what is the same name, and where a text holds one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

# What looks like a concept's name whoever owns it.
_BRACKETED = re.compile(r"<[^\W\d_][\w.+-]*>")


def fold(name: str) -> str:
    """The form in which names are compared: prompts do not tell upper from lower case (CLIP's tokenizer folds it)."""
    return name.casefold()


class Names:
    """Concepts' names, as prompts are read: in any case, `<ada>` anywhere, `ada` as a whole word alone."""

    def __init__(self, names: Iterable[str]):
        self._of = {fold(name): name for name in names}
        # The longest first, so that <ada-2> is not <ada>.
        self._pattern = "|".join(map(_pattern, sorted(self._of, key=len, reverse=True)))

    def __contains__(self, name: str) -> bool:
        return fold(name) in self._of

    def within(self, text: str) -> bool:
        """Whether `text` holds one of the names."""
        return next(self._found(text), None) is not None

    def replaced(self, text: str, replace: Callable[[str], str], prefix: str = "", count: int | None = None) -> str:
        """`text` with each name in it, and `prefix` where it stands before one, replaced by replace(the name).

        count: the first so many alone.
        """
        parts, end = [], 0
        for start, stop, name in islice(self._found(text, prefix), count):
            parts += [text[end:start], replace(name)]
            end = stop
        return "".join([*parts, text[end:]])

    def _found(self, text: str, prefix: str = "") -> Iterator[tuple[int, int, str]]:
        """Where each name, with `prefix` before it or not, begins and ends in `text`, and the name."""
        if not self._of:
            return
        pattern = f"({self._pattern})"
        if prefix:
            pattern = f"(?:{re.escape(fold(prefix))})?{pattern}"
        folded, at = _folded(text)
        for found in re.finditer(pattern, folded):
            start, stop = found.span()
            # Not from or to within what is one letter of the text, such as the sharp s.
            if at[start - 1] != at[start] and at[stop - 1] != at[stop]:
                yield at[start], at[stop], self._of[found[1]]

    def strange(self, text: str) -> list[str]:
        """Words in angle brackets that `text` holds and that are none of the names."""
        return [word for word in dict.fromkeys(_BRACKETED.findall(text)) if word not in self]


def unowned(texts: Iterable[str], names: Iterable[str]) -> list[str]:
    """Words in angle brackets that `texts` hold and that are none of `names`."""
    known = Names(names)
    return list(dict.fromkeys(word for text in texts for word in known.strange(text)))


def bracketed(texts: Iterable[str]) -> list[str]:
    """All words in angle brackets that `texts` hold."""
    return unowned(texts, ())


def _folded(text: str) -> tuple[str, list[int]]:
    """`text` as names are compared, and from which letter of it each comes; a last one for the end.

    Folded, a letter may be two: no letter's place in the one is its place in the other.
    """
    letters = [fold(letter) for letter in text]
    at = [number for number, folded in enumerate(letters) for _ in folded]
    return "".join(letters), [*at, len(text)]


def _pattern(name: str) -> str:
    if name.startswith("<") or name.endswith(">"):
        return re.escape(name)
    return rf"(?<!\w)(?<!\w-){re.escape(name)}(?!\w|-\w)"
