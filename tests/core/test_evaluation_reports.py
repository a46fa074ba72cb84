"""References, the judge, given pictures, and the forms of a report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from blocklora_core.evaluation import (
    Annotation,
    ConceptScores,
    Evaluation,
    Judge,
    Measured,
    NoTextError,
    Reference,
    as_dict,
    as_seen,
    evaluate_pictures,
    evaluation_picture,
    parse_boxes,
    reference_of,
    summarise,
    table,
    text,
    whole_pictures,
    with_notes,
    with_reference,
)

COLOURS = {"<red>": (1.0, 0.0, 0.0), "<green>": (0.0, 1.0, 0.0), "<blue>": (0.0, 0.0, 1.0)}


class Eye:
    """Sees the mean colour; reads the colour of the last word."""

    def __init__(self, reads: bool = True):
        self.reads = reads
        self.read: list[str] = []

    def images(self, pictures: Tensor) -> Tensor:
        return torch.nn.functional.normalize(pictures.mean((1, 2)), dim=1)

    def texts(self, prompts: Sequence[str]) -> Tensor:
        if not self.reads:
            raise NoTextError("it cannot read.")
        self.read += prompts
        return torch.tensor([COLOURS[f"<{prompt.split()[-1]}>"] for prompt in prompts])


def plain(name: str, count: int = 1, side: int = 6) -> Tensor:
    return torch.tensor(COLOURS[name]).expand(count, side, side, 3)


REFERENCES = tuple(Reference(name, name.strip("<>"), (plain(name, 2), plain(name, 1, 9))) for name in COLOURS)


def scores(image: Sequence[float], found: Sequence[str], words: Sequence[float] = ()) -> ConceptScores:
    return ConceptScores(tuple(image), tuple(words), tuple(found))


def evaluation() -> Evaluation:
    alone = {name: scores([0.8, 0.8], [name] * 2, [0.7, 0.7]) for name in COLOURS}
    two = {
        "<red>": scores([0.6, 0.8], ["<red>", "<blue>"], [0.7, 0.5]),
        "<blue>": scores([0.8, 0.8], ["<blue>"] * 2, [0.7] * 2),
    }
    three = {name: scores([0.4, 0.4], ["<red>"] * 2, [0.5, 0.5]) for name in COLOURS}
    drift = dict.fromkeys(COLOURS, (0.05, 0.15))
    merges = (Measured("2 merged", two, 2, 0.25), Measured("3 merged", three, 3, 0.5, 2**21, drift))
    base = Measured("base", {name: scores([0.2, 0.2], ["<red>"] * 2, [0.9, 0.9]) for name in COLOURS}, 0)
    return Evaluation(tuple(COLOURS), merges, Measured("each alone", alone, 1), base, ("A note.",))


def test_references_of_one_concept_join() -> None:
    found = with_reference(with_reference((), REFERENCES[0]), REFERENCES[1])
    found = with_reference(found, Reference("<red>", "", (plain("<red>"),)))
    assert [(one.concept, one.class_word, len(one.pictures)) for one in found] == [
        ("<red>", "red", 3),
        ("<green>", "green", 2),
    ]
    assert reference_of(found, "<green>") is found[1]
    with pytest.raises(ValueError, match="expected one class word, got man and red"):
        with_reference(found, Reference("<red>", "man", (plain("<red>"),)))
    with pytest.raises(ValueError, match="<x>: expected reference pictures, got those of: <red>, <green>"):
        reference_of(found, "<x>")


def test_a_reference_has_a_name_and_a_picture() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        Reference("<red>", "", (torch.zeros(0, 4, 4, 3),))
    with pytest.raises(ValueError, match="the concept's name"):
        Reference("", "", (plain("<red>"),))


def test_the_judge_scores_and_reads_each_text_once() -> None:
    eye = Eye()
    judge = Judge(eye, REFERENCES)
    seen = judge.embed([plain("<red>", 2), plain("<blue>")])
    found = judge.score("<red>", seen, ["a red", "a blue", "a red"])
    assert found == scores([1, 1, 0], ["<red>", "<red>", "<blue>"], [2.5, 0, 0])
    assert eye.read == ["a red", "a blue"] and judge.notes == []


def test_without_a_text_side_there_are_no_text_scores_and_one_note() -> None:
    judge = Judge(Eye(reads=False), REFERENCES)
    for _ in range(2):
        assert judge.score("<red>", judge.embed([plain("<red>")]), ["a red"]).text == ()
    assert judge.notes == ["Text alignment was not measured: it cannot read."]


def test_means_over_concepts() -> None:
    found = evaluation()
    two = summarise(found.merges[0], found.alone)
    assert two.image.mean == pytest.approx(0.75) and two.accuracy.mean == pytest.approx(0.75)
    assert two.text is not None and two.text.mean == pytest.approx(0.65)
    assert two.mean == pytest.approx(0.7) and two.drift is None
    assert two.image_kept is not None and two.image_kept.mean == pytest.approx(0.75 / 0.8)
    assert two.accuracy_kept is not None and two.accuracy_kept.mean == pytest.approx(0.75)
    three = summarise(found.merges[1], found.alone)
    assert three.drift is not None and three.drift.mean == pytest.approx(0.1)
    assert summarise(found.merges[0], None).image_kept is None
    kept = {measured.title: summary.image_kept for measured, summary in found.summaries}
    assert [title for title, value in kept.items() if value] == ["2 merged", "3 merged"]
    assert found.largest is found.merges[1]


def test_the_report_in_words() -> None:
    report = text(evaluation())
    assert "2 merged (0.25 s): image 0.750" in report and "3 merged (0.50 s, 2 MiB on top of the base)" in report
    assert "<red>: image 0.700, text 0.600, recognised 1 of 2 (1 as <blue>), keeps 87.5%" in report
    assert "class drift +0.100" in report and report.endswith("A note.")
    assert "recognised" not in next(line for line in report.splitlines() if line.startswith("base"))


def test_the_table_has_a_line_for_each_setting_and_concept() -> None:
    rows = list(csv.DictReader(io.StringIO(table(evaluation()))))
    assert len(rows) == 4 + 4 + 3 + 4 and not any(None in row for row in rows)
    red, everything = (row for row in rows if row["setting"] == "2 merged" and row["concept"] in ("<red>", "all"))
    wanted = {"pictures": 2, "image": 0.7, "text": 0.6, "mean": 0.65, "accuracy": 0.5, "image_kept": 0.875}
    assert {name: float(red[name]) for name in wanted} == pytest.approx(wanted)
    assert red["drift"] == red["merge_seconds"] == ""
    wanted = {"pictures": 4, "image": 0.75, "text": 0.65, "mean": 0.7, "accuracy": 0.75, "merge_seconds": 0.25}
    assert {name: float(everything[name]) for name in wanted} == pytest.approx(wanted)


def test_the_dict_is_plain_and_holds_every_picture() -> None:
    found = as_dict(evaluation())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [one["merged"] for one in found["settings"]] == [0, 1, 2, 3]
    two = found["settings"][2]
    assert (
        two["confusion"]["<red>"] == {"<red>": 0.5, "<green>": 0, "<blue>": 0.5} and "<green>" not in two["confusion"]
    )
    assert two["pictures"]["<red>"] == {
        "image": [0.6, 0.8], "text": [0.7, 0.5], "found": ["<red>", "<blue>"], "drift": [],
    }  # fmt: skip
    assert two["means"]["image"]["low"] <= two["means"]["image"]["mean"] <= two["means"]["image"]["high"]
    assert found["settings"][3]["merge_peak_bytes"] == 2**21 and found["notes"] == ["A note."]


def heights(found: Evaluation) -> int:
    picture = evaluation_picture(found)
    assert picture.mode == "RGB" and len(picture.getcolors(2**20) or ()) > 5
    return picture.height


def test_the_picture_shows_what_was_measured() -> None:
    whole = evaluation()
    one = Evaluation(whole.names, whole.merges[:1], whole.alone)
    given = Evaluation(whole.names, whole.merges[:1])
    alone = Evaluation(whole.names, (), whole.alone)
    assert heights(whole) > heights(one) and heights(given) > heights(alone)
    assert heights(Evaluation(whole.names, whole.merges)) > heights(one)


def test_boxes_are_read() -> None:
    assert parse_boxes("0, 0.5, 0.25, 0.5, <red>, a red, bright\n\n 4,4,8,8,<blue>") == [
        Annotation("<red>", "a red, bright", (0.0, 0.5, 0.25, 0.5)),
        Annotation("<blue>", "", (4.0, 4.0, 8.0, 8.0)),
    ]
    for bad in (
        "0, 0, 1, <red>, a red",
        "0, 0, 1, 1",
        "a, b, c, d, <red>, e",
        "nan, 0, 1, 1, <red>",
        "0, 0, inf, 1, <red>",
    ):
        with pytest.raises(ValueError, match="expected x, y, width, height, <concept>, prompt in each line"):
            parse_boxes(bad)


def test_whole_pictures_take_one_line_or_one_each() -> None:
    assert whole_pictures(["<red>"], ["a", "b"], 2) == [
        Annotation("<red>", "a", picture=0),
        Annotation("<red>", "b", picture=1),
    ]
    assert whole_pictures([], ["a"], 2) == [] and whole_pictures(["<red>"], [], 1) == [
        Annotation("<red>", "", picture=0)
    ]
    with pytest.raises(ValueError, match="Concepts: expected one line for each of the 3 pictures, or one, got 2"):
        whole_pictures(["<red>", "<blue>"], [], 3)


def test_each_box_is_scored_against_its_own_concept_and_prompt() -> None:
    eye = Eye()
    left, right = plain("<red>", side=16)[0], plain("<blue>", side=16)[0]
    pictures = torch.stack([torch.cat([left, right], 1), torch.cat([right, left], 1)])
    shown = [
        *parse_boxes("0, 0, 0.5, 1, <red>, <blue> near {concept}\n16, 0, 16, 16, <blue>"),
        *whole_pictures(["<red>", "<blue>"], [], 2),
    ]
    found, parts = evaluate_pictures(pictures, shown, REFERENCES, Judge(eye, REFERENCES))
    (measured,) = found.merges
    assert eye.read == ["A photo depicts blue near red", "A photo depicts a blue", "A photo depicts a red"]
    half = pytest.approx(0.5**0.5)
    assert measured.concepts["<red>"].image == (1, 0, half) and measured.concepts["<red>"].text[:2] == (2.5, 0)
    assert measured.concepts["<blue>"].image == (1, 0, half)
    assert measured.concepts["<red>"].found[:2] == ("<red>", "<blue>")
    assert len(parts) == 6 and all(as_seen(part).shape == (1, 224, 224, 3) for part in parts)
    torch.testing.assert_close(as_seen(parts[0])[0, 0, 0], left[0, 0])
    assert with_notes(found, ["x"]).notes == ("x",)


def test_given_pictures_need_something_to_be_seen_and_references() -> None:
    judge = Judge(Eye(), REFERENCES)
    with pytest.raises(ValueError, match="expected the concept that each picture shows, or boxes, got neither"):
        evaluate_pictures(plain("<red>"), [], REFERENCES, judge)
    with pytest.raises(ValueError, match="<x>: expected reference pictures"):
        evaluate_pictures(plain("<red>"), [Annotation("<x>", "")], REFERENCES, judge)
