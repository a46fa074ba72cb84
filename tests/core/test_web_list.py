"""The page reads a list of files as Python does, and changes a line without touching the others."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

from blocklora_core.concept.lora_list import MOST_FILES
from tests.conftest import ROOT
from tests.core.javascript import printed

TABLE: list[dict[str, Any]] = json.loads((ROOT / "tests" / "lora_list.json").read_text("utf-8"))
GRAMMAR = ROOT / "web" / "js" / "loader" / "grammar.js"
DEFAULTS = {"strength": 1, "clip": None, "on": True, "words": ""}

Run = Callable[[str], Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The value of a JavaScript expression in which g is the grammar and t the table."""
    folder = tmp_path_factory.mktemp("grammar")
    shutil.copy(GRAMMAR, folder / "grammar.mjs")

    def value(expression: str) -> Any:
        table = json.dumps([row["text"] for row in TABLE])
        script = f'import * as g from "./grammar.mjs"; const t = {table}; console.log(JSON.stringify({expression}));'
        return printed(folder / "run.mjs", script)

    return value


def test_it_reads_what_python_reads(run: Run) -> None:
    read = run("t.map((text) => g.parseList(text).map(({ entry, problem }) => [entry, problem]))")
    for row, lines in zip(TABLE, read, strict=True):
        entries = [{"number": at, **entry} for at, (entry, _) in enumerate(lines, 1) if entry]
        problems = {str(at): problem for at, (_, problem) in enumerate(lines, 1) if problem}
        assert set(problems) == set(row.get("problems", ())), row
        assert all(text in problems[at] for at, text in row.get("problems", {}).items()), row
        if "entries" in row:
            assert entries == [{**DEFAULTS, **entry} for entry in row["entries"]], row


def test_what_is_not_changed_stays_letter_by_letter(run: Run) -> None:
    assert run("t.map((text) => g.textOf(g.parseList(text)))") == [row["text"] for row in TABLE]


TEXT = "# mine\r\nada | 1 # the best\n\nbob|0,5|off\nodd | 99\ncid\n# end"


def edited(run: Run, edit: str) -> str:
    return str(run(f"(() => {{ let l = g.parseList({json.dumps(TEXT)}); {edit}; return g.textOf(l); }})()"))


def test_comments_and_unknown_lines_survive_every_edit(run: Run) -> None:
    assert edited(run, "l = g.changed(l, 1, { strength: 0.8, words: '<a>' })") == TEXT.replace(
        "ada | 1 # the best", "ada | 0.8 | on | <a> # the best"
    )
    assert edited(run, "l = g.changed(l, 3, { on: true, clip: 0 })") == TEXT.replace(
        "bob|0,5|off", "bob | 0.5 / 0 | on"
    )
    moved = "# mine\r\ncid\n\nada | 1 # the best\nbob|0,5|off\nodd | 99\n# end"
    assert edited(run, "l = g.moved(l, 5, 1)") == moved
    assert edited(run, "l = g.without(l, 3)") == TEXT.replace("bob|0,5|off\n", "")
    added = "g.withAdded(l, [{ file: 'a/dee.safetensors', strength: 1, clip: null, on: true, words: '' }])"
    assert edited(run, f"l = {added}") == f"{TEXT}\na/dee.safetensors | 1 | on\n"


def test_what_is_written_is_read_again(run: Run) -> None:
    odd = {"file": "x", "strength": -0.05, "clip": 10, "on": False, "words": " a | b\n # c "}
    assert run(f"g.format({json.dumps(odd)})") == "x | -0.05 / 10 | off | a , b c"
    assert run("['a.safetensors', 'a b#c', 'a # b', 'a|b', '#a', ' a', 'ä/<x>'].map(g.canName)") == [
        True, True, False, False, False, False, True,
    ]  # fmt: skip


def test_long_lines_and_lists_end_as_python_s_do(run: Run) -> None:
    long = "'a' + '\"'.repeat(1e5) + 'b\\n' + 'a' + ' '.repeat(1e5) + 'b\\n#' + ' '.repeat(1e5) + 'b\\n'"
    text = f"({long} + 'ada\\n'.repeat(502))"
    started = time.monotonic()
    lines = run(f"g.parseList({text}).map(({{ entry, problem }}) => [entry?.file, problem])")
    assert time.monotonic() - started < 20
    assert [problem for _, problem in lines[:4]] == [
        "expected a line of at most 4000 letters, got 100002.",
        "expected a line of at most 4000 letters, got 100002.",
        "",
        "",
    ]
    assert [file for file, _ in lines].count("ada") == MOST_FILES
    assert run(f"g.textOf(g.parseList({text})) === {text}")
