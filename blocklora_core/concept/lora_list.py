"""A list of LoRA files as text, one a line: `zed.safetensors | 0.8 | on | <zed>`.

web/js/loader/grammar.js reads the same grammar; tests/lora_list.json holds both to it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

MOST = 10.0
"""Strengths go from -MOST to MOST."""

MOST_LETTERS = 1000
"""Of a file's name with its folders."""

MOST_LINE, MOST_FILES = 4000, 500
"""Letters of a line; files of a list, of which each is compared with each."""

MOST_TOLD = 20
"""Bad lines that an error names one by one."""

_NUMBER = re.compile(
    r"[+-]?(?:\d+[.,]?\d*(?:e[+-]?\d+)?|[.,]\d+(?:e[+-]?\d+)?|nan|inf(?:inity)?)", re.ASCII | re.IGNORECASE
)

_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


@dataclass(frozen=True)
class Entry:
    """A line of the list. number: of the line, from 1. file: as it stands there. strength: a factor. on: whether it
    takes part. words: what prompts call it, empty when the line does not say. clip: the strength on the text encoder,
    None for the same."""

    number: int
    file: str
    strength: float = 1.0
    on: bool = True
    words: str = ""
    clip: float | None = None


class ListError(ValueError):
    """Lines that cannot be used. problems: number of a line -> what is wrong with it."""

    def __init__(self, problems: dict[int, str]):
        self.problems = problems
        lines = [f"Line {number}: {problem}" for number, problem in sorted(problems.items())]
        more = ["There are more such lines."] if len(lines) > MOST_TOLD else []
        super().__init__("\n".join([*lines[:MOST_TOLD], *more]))


def parse_list(text: str) -> tuple[Entry, ...]:
    """The entries of a list; empty lines and those that begin with # are none.

    Strength, on or off, and words may be left out or left empty; spaces do not matter. A strength such as 0.8 / 0.5
    is the model's and the text encoder's. ListError, which names every bad line by its number.
    """
    entries, problems = read_list(text)
    if problems:
        raise ListError(problems)
    return entries


def read_list(text: str) -> tuple[tuple[Entry, ...], dict[int, str]]:
    """The entries as `parse_list` gives them, and the lines that are none: number -> what is wrong."""
    entries, problems = list[Entry](), dict[int, str]()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = _entry(number, line)
        except ValueError as error:
            problems[number] = str(error)
        else:
            entries += [entry] if entry else []
        if len(entries) > MOST_FILES:
            entries.pop()
            problems[number] = f"expected at most {MOST_FILES} files in a list."
    return tuple(entries), problems


def _entry(number: int, line: str) -> Entry | None:
    if len(line) > MOST_LINE and not line.lstrip().startswith("#"):
        raise ValueError(f"expected a line of at most {MOST_LINE} letters, got {len(line)}.")
    line = line.partition(" # ")[0].strip().removeprefix("\ufeff")
    if not line or line.startswith("#"):
        return None
    file, *fields = (field.strip() for field in line.split("|"))
    file = file.strip("\"'").strip()
    if not file:
        raise ValueError(f"expected a file before the first |, got {line[:60]!r}.")
    if len(file) > MOST_LETTERS:
        raise ValueError(f"expected a file's name of at most {MOST_LETTERS} letters, got {len(file)}.")
    if len(fields) > 3:
        raise ValueError("expected at most file | strength | on or off | words, got more parts.")
    entry = Entry(number, file)
    for at, field in enumerate(fields):
        if field:
            entry = _with(entry, at, field)
    return entry


def _with(entry: Entry, at: int, field: str) -> Entry:
    """`entry` with the field at place `at`. Where one before it was left out, it may stand further to the left."""
    if at == 2:
        return replace(entry, words=_joined(entry.words, field))
    strengths = _strengths(field)
    if at == 0 and strengths:
        if not all(math.isfinite(number) and abs(number) <= MOST for number in strengths):
            raise ValueError(f"expected a strength from -{MOST:g} to {MOST:g}, got {field}.")
        return replace(entry, strength=strengths[0], clip=None if len(strengths) == 1 else strengths[1])
    if field.lower() in _SWITCH:
        return replace(entry, on=_SWITCH[field.lower()])
    if strengths:
        raise ValueError(f"expected on or off in the third part, got {field!r}.")
    return replace(entry, words=_joined(entry.words, field))


def _joined(words: str, field: str) -> str:
    if words:
        raise ValueError(f"expected one part with words, got {words!r} and {field!r}.")
    return field


def _strengths(field: str) -> list[float]:
    """One strength, or the model's and the text encoder's; none where `field` is something else."""
    parts = [part.strip() for part in field.split("/")]
    if len(parts) > 2 or not all(map(_NUMBER.fullmatch, parts)):
        return []
    return [float(part.replace(",", ".")) for part in parts]
