"""Figures of `bench identity` are put into a text by script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.boxes_study import docs as _regions_docs
from benchmarks.identity_study.docs import TABLES, Tables, filled
from benchmarks.people.docs import TABLES as PEOPLE
from benchmarks.people.docs import of_readme


def method(title: str, accuracy: float) -> dict[str, object]:
    figures = {
        "image": [0.9, 0.8, 1.0], "image_kept": [0.95, 0.9, 1.0], "accuracy": [accuracy, 0.1, 1.0],
        "text": [0.7, 0.6, 0.8], "drift": None,
    }  # fmt: skip
    return {"title": title, "alone": figures, "merged": {"2": figures, "15": figures}}


RESULTS = {"methods": {"methods": {"a": method("Method A", 0.5), "b": method("Method B", 0.75)}}}


def test_a_figure_is_put_in_its_place() -> None:
    text = "Kept: <!-- = methods.methods.b.merged.15.image_kept.0:.1% -->old<!-- / -->."
    assert "95.0%<!-- / -->." in filled(text, RESULTS)


def test_a_table_is_made_anew_the_best_first() -> None:
    text = filled("<!-- table methods -->\nold\n<!-- end -->\nafter", RESULTS)
    assert "old" not in text and text.endswith("after")
    assert text.index("Method B") < text.index("Method A")


def test_filling_again_changes_nothing() -> None:
    once = filled("<!-- table counts -->\n<!-- end -->", RESULTS)
    assert filled(once, RESULTS) == once


def test_an_unknown_figure_is_an_error() -> None:
    with pytest.raises(KeyError):
        filled("<!-- = methods.methods.c:.1% --><!-- / -->", RESULTS)


@pytest.mark.parametrize(("name", "tables"), [("evidence", TABLES), ("people", PEOPLE)])
def test_texts_say_what_was_measured(repository: Path, name: str, tables: Tables) -> None:
    results = json.loads((repository / "docs" / f"{name}.json").read_text(encoding="utf-8"))
    text = (repository / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert filled(text, results, tables) == text


def test_the_readme_says_what_was_measured(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert filled(text, of_readme(repository / "docs"), PEOPLE) == text


def test_the_text_of_regions_says_what_was_measured(repository: Path) -> None:
    text = (repository / "docs" / "regions.md").read_text(encoding="utf-8")
    assert filled(text, _regions_docs.read(repository / "docs"), _regions_docs.TABLES) == text
