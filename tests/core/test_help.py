"""The help pages quote messages as the code says them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = sorted((ROOT / "web" / "docs").glob("*.md"))
OF_OTHERS = {"Value not in list", "No space left on device"}
"""What ComfyUI and the system say."""
GAP = "\0"
"""What only a run knows: a page has ... or a number there."""


@cache
def sources() -> tuple[ast.Module, ...]:
    paths = (path for room in ("blocklora_core", "nodes") for path in sorted((ROOT / room).rglob("*.py")))
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in paths)


@cache
def constants() -> dict[str, str]:
    """Texts that modules give a name, such as what stands for a concept in prompts."""
    named = (node for module in sources() for node in module.body if isinstance(node, ast.Assign))
    return {ast.unparse(node.targets[0]): found[0] for node in named if GAP not in (found := texts(node.value))[0]}


def texts(node: ast.AST, known: dict[str, str] | None = None) -> list[str]:
    """What an expression may be as text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(parts) for parts in product(*(texts(part, known) for part in node.values))]
    if isinstance(node, ast.FormattedValue):
        return texts(node.value, known)
    if isinstance(node, ast.IfExp):
        return texts(node.body, known) + texts(node.orelse, known)
    return [(known or {}).get(ast.unparse(node), GAP)]


@cache
def messages() -> str:
    nodes = [node for module in sources() for node in ast.walk(module)]
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    written = (node for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr) and node not in docstrings)
    return "\n".join(text.replace("\n", " ") for node in written for text in texts(node, constants()))


def is_said(quote: str) -> bool:
    parts = map(re.escape, re.split(r"\.\.\.|\d+", quote))
    return re.search(".*".join(parts), messages()) is not None


def quotes(page: Path) -> Iterator[str]:
    """The messages in the table of errors. What stands before a colon may come from elsewhere in the code."""
    for row in page.read_text(encoding="utf-8").partition("## Errors")[2].splitlines():
        if row.startswith("| ") and not row.startswith("| Message"):
            for quote in row.split(" | ")[0].removeprefix("| ").split(", or: "):
                yield from quote.split(": ", 1)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_errors_in_the_help_are_those_that_the_code_tells(page: Path) -> None:
    assert [quote for quote in quotes(page) if quote not in OF_OTHERS and not is_said(quote)] == []


def test_what_nobody_says_is_noticed() -> None:
    assert is_said("expected ... in the prompt") and not is_said("expected concepts of one base architecture")
