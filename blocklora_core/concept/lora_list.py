"""A list of LoRA files as text, one a line: `zed.safetensors | 0.8 | on | <zed>`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MOST = 10.0
"""Strengths go from -MOST to MOST."""

MOST_LETTERS = 1000
"""Of a file's name with its folders."""

_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


@dataclass(frozen=True)
class Entry:
    """A line of the list. number: of the line, from 1. file: as it stands there. strength: a factor. on: whether it
    takes part. words: what prompts call it, empty when the line does not say."""

    number: int
    file: str
    strength: float = 1.0
    on: bool = True
    words: str = ""


class ListError(ValueError):
    """Lines that cannot be used. problems: number of a line -> what is wrong with it."""

    def __init__(self, problems: dict[int, str]):
        self.problems = problems
        super().__init__("\n".join(f"Line {number}: {problem}" for number, problem in sorted(problems.items())))


def parse_list(text: str) -> tuple[Entry, ...]:
    """The entries of a list; empty lines and those that begin with # are none.

    Strength, on or off, and words may be left out or left empty; spaces do not matter. ListError, which names every
    bad line by its number.
    """
    entries, problems = [], {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = _entry(number, line)
        except ValueError as error:
            problems[number] = str(error)
        else:
            entries += [entry] if entry else []
    if problems:
        raise ListError(problems)
    return tuple(entries)


def _entry(number: int, line: str) -> Entry | None:
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
    strength = _number(field)
    if at == 0 and strength is not None:
        if not math.isfinite(strength) or abs(strength) > MOST:
            raise ValueError(f"expected a strength from -{MOST:g} to {MOST:g}, got {field}.")
        return replace(entry, strength=strength)
    if at < 2 and field.lower() in _SWITCH:
        return replace(entry, on=_SWITCH[field.lower()])
    if at == 2 or strength is None:
        return replace(entry, words=_joined(entry.words, field))
    raise ValueError(f"expected on or off in the third part, got {field!r}.")


def _joined(words: str, field: str) -> str:
    if words:
        raise ValueError(f"expected one part with words, got {words!r} and {field!r}.")
    return field


def _number(field: str) -> float | None:
    try:
        return float(field.replace(",", "."))
    except ValueError:
        return None
