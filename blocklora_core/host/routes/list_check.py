"""A list of files looked at before it runs: what each line means, what stops it, and what would mix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ...concept.concept import Concept
from ...concept.lora_list import MOST_TOLD, Entry, read_list
from ...concept.names import fold
from ...files.catalogue.index import known
from ...files.catalogue.summary import Block, Summary
from ...files.shown import unheard
from ...files.untrusted.text import legible
from ..disk import lora_file
from ..use.lora_list import find_name
from .catalogue import problem_in


@dataclass(frozen=True)
class Line:
    """An entry whose file is there. name: of the file in the list of loras."""

    entry: Entry
    name: str
    path: Path
    summary: Summary | str

    @property
    def concept(self) -> str:
        """What prompts and reports call it, which the list's words may say."""
        with suppress(ValueError):
            return Concept(self.entry.words).name
        return "" if isinstance(self.summary, str) else self.summary.concept


def check_list(text: str) -> dict[int, dict[str, Any]]:
    """Number of a line -> its file; its problem, if it has one that stops a run; notes on words that do not call
    it, and on what it would mix with.

    A problem of a line that is off stops nothing, but is told. Headers are all that is read.
    """
    entries, problems = read_list(text)
    told: dict[int, dict[str, Any]] = {number: {"problem": problem} for number, problem in problems.items()}
    lines = []
    for entry in entries:
        try:
            lines.append(_line(entry, hint=len(told) < MOST_TOLD))
        except ValueError as error:
            told[entry.number] = {"problem": legible(str(error))}
    for line in lines:
        problem = line.summary if isinstance(line.summary, str) else line.summary.problem
        problem = problem_in(line.path, line.name, problem)
        told[line.entry.number] = {"file": line.name, "concept": line.concept, "problem": problem, "notes": []}
    on = [line for line in lines if line.entry.on]
    for number, note in (*_unheard(on), *_clashes(on)):
        told[number]["notes"].append(legible(note))
    return told


def _line(entry: Entry, hint: bool) -> Line:
    name = find_name(entry.file, hint)
    path = lora_file(name)
    return Line(entry, name.replace("\\", "/"), path, known(path))


def _unheard(lines: list[Line]) -> Iterator[tuple[int, str]]:
    for line in lines:
        named = not isinstance(line.summary, str) and line.summary.named
        if named and (note := unheard(line.concept, line.entry.words)):
            yield line.entry.number, note


def _clashes(lines: list[Line]) -> Iterator[tuple[int, str]]:
    """A note for the later of two lines that hold the same rows, or that one name calls."""
    for first, second in combinations(lines, 2):
        if isinstance(first.summary, str) or isinstance(second.summary, str):
            continue
        if first.path == second.path:
            yield second.entry.number, f"Line {first.entry.number} is the same file."
            continue
        ours, theirs = first.summary.block, second.summary.block
        if ours and theirs and ours.shares_rows(theirs):
            yield second.entry.number, _shared(first, theirs)
        if fold(first.concept) == fold(second.concept):
            yield second.entry.number, _called_alike(first)


def _shared(first: Line, block: Block) -> str:
    return (
        f"Slot {block.slot} of {block.scheme.slots}: {first.concept} of line {first.entry.number} has its rows too. "
        "They are kept apart only where both carry Grams; else the merge stops."
    )


def _called_alike(first: Line) -> str:
    return f"Line {first.entry.number} is called {first.concept} too, so this one is renamed: give it words of its own."
