"""Where a prompt holds a concept's name, and when two names are one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ("name", "text", "marked"),
    [
        ("<ali>", "a <al\u0131> and <AL\u0130>", "a <al\u0131> and <AL\u0130>"),
        ("<İpek>", "<ipek> <İPEK>", "<ipek> [<İpek>]"),
        ("<straße>", "on <STRASSE>, <Straße>", "on [<straße>], [<straße>]"),
        ("s", "ß and S", "ß and [s]"),
        ("sofia", "a \u017fofia", "a [sofia]"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ here", "[Σίσυφος] here"),
    ],
)
def test_one_rule_tells_what_is_the_same_name(name: str, text: str, marked: str) -> None:
    """Of letters that have several other cases, or two for one."""
    names = Names([name])
    assert names.replaced(text, lambda found: f"[{found}]") == marked
    assert names.within(text) == (text != marked)


@given(st.text(max_size=8), st.text(max_size=12), st.text(max_size=12))
def test_a_name_is_found_wherever_it_stands_alone_and_nothing_else_changes(name: str, before: str, after: str) -> None:
    names = Names([f"<{name}>"])
    text = f"{before}<{name}>{after}"
    assert "[]" in names.replaced(text, lambda _: "[]")
    assert names.replaced(text, lambda found: found).casefold() == text.casefold()


def test_the_first_alone_is_replaced_where_asked() -> None:
    assert NAMES.replaced("bob, bob <ada>", lambda _: "x", count=1) == "x, bob <ada>"


def test_no_names_change_nothing() -> None:
    assert Names([]).replaced("a <ada>", lambda _: "x") == "a <ada>"


def test_words_in_brackets_that_nobody_owns_are_told_once() -> None:
    assert NAMES.strange("<ADA> <eve> bob <eve> <lora:x:1> < 3 <b> 1<2>3") == ["<eve>", "<b>"]
    assert "<aDa>" in NAMES and "BOB" in NAMES and "<bob>" not in NAMES
