"""The reader of genes: it is asked what can be seen, learns it from cut-out figures, and tells people apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from demo.people import styles
from demo.people.genes import CLOTHES_COLOURS, HAIR_COLOURS
from demo.people.reader import training
from demo.people.reader.figures import SIDE, Figures, figures
from demo.people.reader.model import GeneReader
from demo.people.reader.questions import UNASKED, labels_of, questions_of
from demo.people.reader.reading import Identity, Reading
from demo.people.reader.training import Drawn, ReaderRecipe, accuracy, answer_loss, batch_of, rarity, train_reader, worn
from demo.people.scenes import TRAINING, Record, draw_scene

QUESTIONS = questions_of(styles.TRAINED)
BLIND = questions_of(styles.TRAINED, with_colours=False)
SHOWN = ("hair_colour", "clothes_colour")
HAIRS, CLOTHES = ("black", "red", "blond", "blue"), ("white", "black", "green", "pink")
RECORDS = [draw_scene(TRAINING, 3, number).record(f"{number}.png") for number in range(150)]


def people_of(record: Record) -> list[Record]:
    return [part for part in record["parts"] if part["kind"] == "person"]


def picture(hair: str, clothes: str) -> torch.Tensor:
    """A patch above and one below, 32 x 32."""
    drawn = Image.new("RGB", (32, 32), "#96befa")
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((6, 2, 26, 12), fill=f"#{HAIR_COLOURS[hair]}")
    draw.rectangle((4, 20, 28, 32), fill=f"#{CLOTHES_COLOURS[clothes]}")
    return torch.from_numpy(np.asarray(drawn).copy()).permute(2, 0, 1)


def simple(count: int, seed: int) -> Figures:
    """Figures of two patches, of which two genes can be read."""
    rng = np.random.RandomState(seed)
    chosen = [(str(rng.choice(HAIRS)), str(rng.choice(CLOTHES))) for _ in range(count)]
    genes = [dict(zip(SHOWN, colours, strict=True)) for colours in chosen]
    asked = torch.tensor([labels_of(QUESTIONS, "personas", found) for found in genes])
    asked[:, [question.gene not in SHOWN for question in QUESTIONS]] = UNASKED
    return Figures(torch.stack([picture(*colours) for colours in chosen]), asked)


def as_drawn(pictures: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
    return pictures


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> GeneReader:
    torch.manual_seed(0)
    recipe = ReaderRecipe(steps=150, batch=16, learning_rate=5e-3, warmup=5)
    state = tmp_path_factory.mktemp("reader") / "reader.state"
    found = simple(200, 1)
    tired = worn(found, as_drawn, 60)
    assert torch.equal(tired.pictures, found.pictures[:60])
    return train_reader(GeneReader(QUESTIONS, widths=(8, 16, 16, 24)), found, tired, recipe, state)


def test_every_gene_that_is_drawn_has_its_question_and_answer() -> None:
    for record in RECORDS:
        for part in people_of(record):
            told = labels_of(QUESTIONS, part["style"], part["genes"], record["ground"])
            answers = {q.gene: q.answers[label] for q, label in zip(QUESTIONS, told, strict=True) if label != UNASKED}
            shown = {"style": part["style"], "ground": record["ground"], **part["genes"]}
            alone = {
                gene
                for style in styles.TRAINED
                for gene, values in (style.identity | style.varying).items()
                if len(values) == 1
            }
            assert answers == {gene: value for gene, value in shown.items() if gene not in alone}


def test_the_colour_blind_are_not_asked_for_colours_and_do_not_see_them() -> None:
    assert {q.gene for q in QUESTIONS} - {q.gene for q in BLIND} == {"ground", "hair_colour", "skin", "clothes_colour"}
    net = GeneReader(BLIND, colour_blind=True, widths=(8, 8, 8, 8)).eval()
    gray = torch.full((1, 3, 32, 32), 0.4)
    tinted = gray + torch.tensor([0.587, -0.299, 0.0]).view(3, 1, 1) * 0.3  # of the same luminance
    for one, other in zip(net(gray), net(tinted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_figures_are_cut_from_scenes_unless_others_cover_them(tmp_path: Path) -> None:
    for record in RECORDS[:40]:
        drawn = Image.new("RGB", (record["width"], record["height"]), record["ground_colour"])
        for part in people_of(record):
            box = [part["x"], part["y"], part["x"] + part["size"], part["y"] + part["size"]]
            ImageDraw.Draw(drawn).rectangle(box, fill=f"#{HAIR_COLOURS[part['genes'].get('hair_colour', 'black')]}")
        drawn.save(tmp_path / record["file"])
    found = figures(RECORDS[:40], tmp_path, QUESTIONS)
    persons = sum(len(people_of(record)) for record in RECORDS[:40])
    assert persons * 0.7 < len(found.labels) <= persons and found.pictures.shape[1:] == (3, SIDE, SIDE)
    hair = [question.gene for question in QUESTIONS].index("hair_colour")
    for shown, label in zip(found.pictures, found.labels[:, hair], strict=True):
        if label != UNASKED:
            colour = QUESTIONS[hair].answers[label]
            assert shown[:, SIDE // 2, SIDE // 2].tolist() == [
                int(HAIR_COLOURS[colour][at : at + 2], 16) for at in (0, 2, 4)
            ]
    two = {
        **RECORDS[0],
        "parts": [
            {**people_of(RECORDS[0])[0], "x": 10, "size": 100},
            {**people_of(RECORDS[0])[0], "x": 30, "size": 100},
        ],
    }
    assert len(figures([two], tmp_path, QUESTIONS).labels) == 1


def test_it_learns_what_can_be_seen_and_reads_it_in_new_pictures(reader: GeneReader) -> None:
    told = accuracy(reader, simple(60, 2))
    assert set(told) >= {"all", *SHOWN} and told["all"] > 0.8
    cast = [
        Identity("personas", {"hair_colour": hair, "clothes_colour": "white"}) for hair in ("black", "red", "blond")
    ]
    shown = torch.stack([picture(identity.genes["hair_colour"], "white") for identity in cast]).float() / 255
    reading = Reading.of(reader, shown)
    assert reading.nearest(cast).tolist() == [0, 1, 2]
    assert reading.share_right(cast[1]).tolist() == pytest.approx([0.5, 1.0, 0.5])


def test_a_sitting_goes_on_where_the_last_one_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, recipe = simple(40, 3), ReaderRecipe(steps=6, batch=4, warmup=1, checkpoint_seconds=0)
    calls = iter(range(100))

    def killed(*of: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return batch_of(*of)

    def sitting(state: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        net = GeneReader(QUESTIONS, widths=(8, 8, 8, 8))
        return train_reader(net, found, found, recipe, tmp_path / state).state_dict()

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "batch_of", killed)
        sitting("killed")
    once, twice = sitting("once"), sitting("killed")
    assert all(torch.equal(value, twice[name]) for name, value in once.items())


def test_the_loss_asks_nothing_that_is_not_shown() -> None:
    logits = [torch.zeros(2, len(question.answers), requires_grad=True) for question in QUESTIONS]
    labels = torch.full((2, len(QUESTIONS)), UNASKED)
    labels[0, 0] = 1
    answer_loss(logits, labels).backward()
    assert logits[0].grad is not None and bool(logits[0].grad[0].any()) and not bool(logits[0].grad[1].any())
    assert all(part.grad is None or not bool(part.grad.any()) for part in logits[1:])


def test_a_step_has_a_lot_of_its_own() -> None:
    found, recipe = Drawn.of(simple(20, 4)), ReaderRecipe(batch=8)
    one, again, other = (batch_of(found, found, recipe, step) for step in (5, 5, 6))
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1]) and not torch.equal(one[0], other[0])


def test_a_figure_with_a_rare_answer_is_drawn_more_often() -> None:
    labels = torch.tensor([[0, UNASKED]] * 99 + [[1, UNASKED]])
    weights = rarity(labels)
    assert weights[-1] == 1 and torch.allclose(weights[:-1], torch.tensor(99.0, dtype=torch.float64).rsqrt())
    drawn = Drawn(Figures(torch.zeros(100, 3, 4, 4, dtype=torch.uint8), labels), weights.cumsum(0))
    chosen = drawn.choose(4000, torch.Generator().manual_seed(0))
    assert (chosen == 99).float().mean().item() == pytest.approx(1 / (1 + 99**0.5), abs=0.02)
    assert len(chosen.unique()) == 100
