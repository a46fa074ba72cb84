"""A few of the fuzzer's files on every run; `python run.py bench fuzz` makes thousands."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.fuzz.mutations import mutated, seeds
from tests.fuzz.states import damaged
from tests.fuzz.verdicts import verdict


def test_a_hostile_file_is_refused_by_name_or_read_right(tmp_path: Path) -> None:
    sound = seeds()
    found = {number: verdict(tmp_path, *mutated(number, sound)) for number in range(200)}
    bad = {number: outcome for number, outcome in found.items() if outcome[0] not in ("refused", "right")}
    assert not bad
    assert Counter(word for word, _ in found.values())["right"] >= 4


def test_a_damaged_state_is_resumed_right_or_refused(tmp_path: Path) -> None:
    found = damaged(60, tmp_path)
    assert found["crashes"] == found["wrong"] == 0
    assert found["anew"] >= 50


def test_the_same_number_makes_the_same_file() -> None:
    sound = seeds()
    assert [mutated(number, sound) for number in range(20)] == [mutated(number, sound) for number in range(20)]
