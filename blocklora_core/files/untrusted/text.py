"""A stranger's text on its way into a message, a report or a prompt: not too long, and all of it shows."""

from __future__ import annotations

import re

MOST_LETTERS = 300

# Controls, which move a terminal's cursor; marks that turn text around; halves of letters. Lines may end.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def has_unseen(text: str) -> bool:
    """Whether `text` holds letters that do not show, ends of lines among them."""
    return "\n" in text or "\t" in text or _UNSEEN.search(text) is not None


def shortened(text: str, most: int = MOST_LETTERS) -> str:
    """`text`, or its two ends where it has more than `most` letters."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


def legible(text: str, most: int = MOST_LETTERS) -> str:
    """`text`, shortened, in which letters that do not show are written out, such as \\x1b."""
    return shortened(_UNSEEN.sub(lambda found: ascii(found[0])[1:-1], shortened(text, most)), most)


def words(text: str, most: int = MOST_LETTERS) -> str:
    """The first `most` letters of `text` as one line of words, as a prompt takes it."""
    return " ".join(_UNSEEN.sub(" ", text[: 4 * most]).split())[:most].strip()
