"""web/js makes no HTML and no code out of text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

MOST_LINES = 300
SCRIPTS = sorted((ROOT / "web" / "js").rglob("*.js"))
MAKES_CODE = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTMLUnsafe|eval)\b"
    r"|\bnew Function\b|\bset(Timeout|Interval)\(\s*[\"'`]"
)


def test_there_are_scripts() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_text_stays_text(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert MAKES_CODE.findall(text) == []
    assert len(text.splitlines()) <= MOST_LINES
