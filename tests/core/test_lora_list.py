"""The list of files as text: forgiving where it can be, and bad lines by their numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blocklora_core.concept.lora_list import MOST_FILES, MOST_LINE, MOST_TOLD, Entry, ListError, parse_list, read_list
from tests.conftest import ROOT

# What the page's own reader is held to as well: see test_web.py.
TABLE: list[dict[str, Any]] = json.loads((ROOT / "tests" / "lora_list.json").read_text("utf-8"))
GOOD = [row for row in TABLE if "entries" in row]
BAD = [row for row in TABLE if "problems" in row]


@pytest.mark.parametrize("row", GOOD, ids=lambda row: repr(row["text"]))
def test_a_line_says_what_it_seems_to_say(row: dict[str, Any]) -> None:
    assert parse_list(row["text"]) == tuple(Entry(**entry) for entry in row["entries"])


@pytest.mark.parametrize("row", BAD, ids=lambda row: repr(row["text"]))
def test_all_bad_lines_are_named_by_their_numbers(row: dict[str, Any]) -> None:
    with pytest.raises(ListError) as caught:
        parse_list(row["text"])
    assert {str(number) for number in caught.value.problems} == set(row["problems"])
    for number, problem in row["problems"].items():
        assert problem in caught.value.problems[int(number)] and f"Line {number}: " in str(caught.value)


LONG = [
    "a" * MOST_LINE + "b",
    "a | 1 | on | " + "'" * MOST_LINE,
    "a" + " " * MOST_LINE + "b",
    "# " + " " * MOST_LINE + "b",
]
"""What a list may not hold, and a comment, which says nothing."""


@pytest.mark.parametrize("line", LONG, ids=["name", "quotes", "spaces", "comment"])
def test_lines_have_an_end(line: str) -> None:
    entries, problems = read_list(f"{line}\nada")
    assert [entry.file for entry in entries] == ["ada"]
    assert (1 in problems) is not line.startswith("#")


def test_a_list_has_an_end() -> None:
    entries, problems = read_list("ada\n" * (MOST_FILES + 2))
    assert len(entries) == MOST_FILES and set(problems) == {MOST_FILES + 1, MOST_FILES + 2}


def test_an_error_has_an_end() -> None:
    with pytest.raises(ListError) as caught:
        parse_list("| 1\n" * 10_000)
    assert len(caught.value.problems) == 10_000 and len(str(caught.value).splitlines()) == MOST_TOLD + 1
