"""A study of drawn people goes on from its scores where the pictures they came from are gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.identity_study import work
from benchmarks.identity_study.plan import ALONE, Plan
from benchmarks.identity_study.work import Cell, Folders, PromptCase, keep_pictures
from benchmarks.people.scoring import book
from benchmarks.people.scoring.book import MixedError, ScoreBook
from benchmarks.people.scoring.scores import Scorer
from demo.cast import Picture


@dataclass(frozen=True)
class Member:
    name: str
    class_word: str = "man"
    prompts: Sequence[str] = ("a {} in a park",)

    def training(self, _: Path) -> list[Picture]:
        return []

    def held_out(self, _: Path) -> list[Image.Image]:
        return []


MEMBERS = (Member("<ada>"), Member("<ben>"))
PLAN = Plan(MEMBERS, 2, (2,), (0,), methods={})
CELL = Cell((), ALONE, (*PLAN.cases(MEMBERS[0]), *PLAN.cases(MEMBERS[1]), PromptCase(MEMBERS[0], "a man", (7,), True)))


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the concepts whose pictures were looked at, one by one."""
    seen: list[str] = []

    def score(_: Scorer, case: PromptCase, pictures: torch.Tensor) -> dict[str, list[float]]:
        seen.append(case.member.name)
        mean = float(pictures.mean()) / 3
        return {"image": [mean], "text": [2 * mean], "recognised": [1.0]}

    monkeypatch.setattr(Scorer, "_seen", score)
    return seen


def _scorer(folder: Path, precision: str = "fp32") -> Scorer:
    return Scorer(PLAN, Folders(folder, folder, folder), ScoreBook.read(folder / "scores.json", precision))


def _draw(scorer: Scorer) -> Path:
    path = CELL.path(scorer.folders)
    pictures = torch.arange(len(CELL.shots)).mul(40).to(torch.uint8)[:, None, None, None].expand(-1, 8, 8, 3)
    keep_pictures(path, pictures.contiguous(), 0.0)
    return path


def test_what_is_scored_needs_no_pictures(tmp_path: Path, looked: list[str]) -> None:
    first = _scorer(tmp_path)
    assert first.unscored([CELL]) == [CELL] and not first.ready([CELL])
    pictures = _draw(first)
    assert first.ready([CELL])
    found = first.scores([[CELL]])
    assert found["image"]["<ada>"] == [0.0, round(40 / 255 / 3, 4)] and len(found["image"]["<ben>"]) == 2
    assert looked == ["<ada>", "<ada>", "<ben>", "<ben>"], "a picture of the class word is no concept's"
    first.book.write()
    pictures.unlink()
    second = _scorer(tmp_path)
    assert second.ready([CELL]) and second.unscored([CELL]) == []
    assert second.scores([[CELL]]) == found == first.scores([[CELL]])
    assert len(looked) == 4


def test_scores_of_other_judges_are_none(tmp_path: Path, looked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = _scorer(tmp_path)
    _draw(first)
    first.scores([[CELL]])
    first.book.write()
    monkeypatch.setattr(book, "judges", lambda: "others")
    assert _scorer(tmp_path).unscored([CELL]) == [CELL]
    assert looked


@pytest.mark.usefixtures("looked")
def test_scores_of_another_precision_are_refused(tmp_path: Path) -> None:
    first = _scorer(tmp_path, "bf16")
    _draw(first)
    first.scores([[CELL]])
    first.book.write()
    before = (tmp_path / "scores.json").read_bytes()
    with pytest.raises(MixedError, match=r"computed in fp32, got bf16.*pass --precision bf16"):
        _scorer(tmp_path)
    assert (tmp_path / "scores.json").read_bytes() == before
    assert _scorer(tmp_path, "bf16").ready([CELL])


def test_a_study_computes_in_its_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(work, "_BASE", [])
    monkeypatch.setattr(work, "_FOLDERS", [])
    monkeypatch.setattr(work.folder_paths, "set_user_directory", lambda _: None)
    monkeypatch.setattr(work.Base, "load", lambda *given: asked.append(given))
    work._begin(Folders(tmp_path / "base", tmp_path, tmp_path, "bf16"), torch.get_num_threads())
    assert asked == [(tmp_path / "base", "bf16")]
