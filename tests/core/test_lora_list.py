"""The list of files as text: forgiving where it can be, and bad lines by their numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blocklora_core.concept.lora_list import Entry, ListError, parse_list
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
