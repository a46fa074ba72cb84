"""The list of files as text: forgiving where it can be, and bad lines by their numbers."""

from __future__ import annotations

import pytest

from blocklora_core.concept.lora_list import Entry, ListError, parse_list

LINES = [
    ("zed.safetensors", Entry(1, "zed.safetensors")),
    ("  a/zed.safetensors |1.5| off |<zed>  ", Entry(1, "a/zed.safetensors", 1.5, False, "<zed>")),
    ("zed | 0,8", Entry(1, "zed", 0.8)),
    ("zed || | ohwx man", Entry(1, "zed", words="ohwx man")),
    ("zed | on", Entry(1, "zed")),
    ("zed | OFF | <zed>", Entry(1, "zed", on=False, words="<zed>")),
    ("zed | -0.5 | <zed>", Entry(1, "zed", -0.5, words="<zed>")),
    ("zed | ohwx", Entry(1, "zed", words="ohwx")),
    ("zed | 1 | yes | 1999", Entry(1, "zed", words="1999")),
    ('"my zed.safetensors" | 1', Entry(1, "my zed.safetensors")),
    ("zed#2.safetensors | 0.5 # the better one", Entry(1, "zed#2.safetensors", 0.5)),
    ("zed |", Entry(1, "zed")),
]


@pytest.mark.parametrize(("line", "entry"), LINES)
def test_a_line_says_what_it_seems_to_say(line: str, entry: Entry) -> None:
    assert parse_list(line) == (entry,)


def test_empty_lines_and_comments_are_none_and_numbers_count_them() -> None:
    text = "\ufeff# my list\n\n  # zed | 1\r\nada\n\t\nbob | 2\n"
    assert parse_list(text) == (Entry(4, "ada"), Entry(6, "bob", 2.0))
    assert parse_list("") == ()


BAD = [
    ("| 1", "expected a file before the first |"),
    ("zed | 1e9", "strength from -10 to 10, got 1e9"),
    ("zed | nan", "strength from -10 to 10, got nan"),
    ("zed | inf", "strength from -10 to 10, got inf"),
    ("zed | 1 | 0.5", "expected on or off in the third part, got '0.5'"),
    ("zed | 1 | on | a | b", "at most file"),
    ("zed | 1 | hero | villain", "one part with words, got 'hero' and 'villain'"),
]


@pytest.mark.parametrize(("line", "problem"), BAD)
def test_a_bad_line_is_named_by_its_number(line: str, problem: str) -> None:
    with pytest.raises(ListError) as caught:
        parse_list(f"ada\n# {line}\n{line}")
    assert str(caught.value).startswith("Line 3: ") and problem in str(caught.value)


def test_all_bad_lines_are_named_at_once() -> None:
    with pytest.raises(ListError) as caught:
        parse_list("zed | 99\nada\n| 1\n")
    assert set(caught.value.problems) == {1, 3}
