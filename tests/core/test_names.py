"""Where a prompt holds a concept's name, and when two names are one."""

from __future__ import annotations

import pytest

from blocklora_core.concept.names import Names

NAMES = Names(["<ada>", "<ada-2>", "Bob", "red.fox"])

TEXTS = [
    ("a <ada> here", "a [<ada>] here"),
    ("a <ADA> and <Ada-2>", "a [<ada>] and [<ada-2>]"),
    ("a<ada>b", "a[<ada>]b"),
    ("bob, BOB. Bob's", "[Bob], [Bob]. [Bob]'s"),
    ("bobby kabob bob-like so-bob bob_2", "bobby kabob bob-like so-bob bob_2"),
    ("(bob:1.2)", "([Bob]:1.2)"),
    ("bob", "[Bob]"),
    ("a redxfox and a red.fox", "a redxfox and a [red.fox]"),
    ("embedding:bob embedding:<ada>", "[Bob] [<ada>]"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "marked"), TEXTS)
def test_names_are_found_in_any_case_and_bare_ones_as_whole_words(text: str, marked: str) -> None:
    assert NAMES.replaced(text, lambda name: f"[{name}]", "embedding:") == marked


def test_no_names_change_nothing() -> None:
    assert Names([]).replaced("a <ada>", lambda _: "x") == "a <ada>"


def test_words_in_brackets_that_nobody_owns_are_told_once() -> None:
    assert NAMES.strange("<ADA> <eve> bob <eve> <lora:x:1> < 3 <b> 1<2>3") == ["<eve>", "<b>"]
    assert "<aDa>" in NAMES and "BOB" in NAMES and "<bob>" not in NAMES
