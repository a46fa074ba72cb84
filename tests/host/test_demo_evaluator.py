"""The demo's evaluator: what the committed weights tell apart, and the parts of their training."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from blocklora_core.evaluation.confusion import accuracy, nearest
from blocklora_core.evaluation.scores import PREFIX, image_alignment
from demo.art import CLASSES, SIZE, Sprites
from demo.cast import FIFTEEN
from demo.evaluator.model import UNKNOWN, WEIGHTS, WIDTH, WORDS_AT_MOST, DemoEvaluator, Vocabulary
from demo.evaluator.training import (
    EvaluatorRecipe,
    Trainer,
    caption_loss,
    caption_of,
    describe,
    draw_batch,
    view_loss,
    wrong_pairs,
)
from demo.evaluator.views import ANCHORS, SCENES, Colouring, colourings
from launcher.layout import Layout
from tests.conftest import ROOT

GRID = ("cat", "tiger", "panda", "penguin", "man", "princess", "santa", "robot", "policeman", "apple", "pizza",
        "sunflower", "star", "rocket", "snowman", "heart")  # fmt: skip
CELL, COLUMNS = 128, 8


@pytest.fixture(scope="module")
def evaluator() -> DemoEvaluator:
    return DemoEvaluator.load()


@pytest.fixture(scope="module")
def art() -> Path:
    return Path(os.environ.get("BLOCKLORA_ART") or Layout(ROOT).art)


def _tensor(pictures: list[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])).float() / 255


def _soft(pictures: Tensor) -> Tensor:
    """As if each had gone through 12 x 12 pixels."""
    small = F.interpolate(pictures.movedim(-1, 1), (12, 12), mode="bilinear", antialias=True)
    return F.interpolate(small, (SIZE, SIZE), mode="bicubic").clamp(0, 1).movedim(1, -1)


def test_the_weights_are_small():
    assert WEIGHTS.stat().st_size < 2_000_000


@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 64), (512, 512), (40, 120)])
def test_pictures_of_any_size_become_unit_vectors(evaluator: DemoEvaluator, height: int, width: int):
    vectors = evaluator.images(torch.rand(3, height, width, 3))
    assert vectors.shape == (3, WIDTH)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_a_picture_is_seen_as_it_is_whatever_stands_beside_it(evaluator: DemoEvaluator):
    pictures = torch.rand(70, 96, 96, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(evaluator.images(pictures)[66:68], evaluator.images(pictures[66:68]))


def test_pictures_of_another_shape_are_refused(evaluator: DemoEvaluator):
    with pytest.raises(ValueError, match=r"\(B, H, W, 3\)"):
        evaluator.images(torch.rand(2, 3, 96, 96))


def test_captions_become_unit_vectors_and_depend_on_words_alone(evaluator: DemoEvaluator):
    captions = ["a girl on a blue background", "A girl, on a BLUE background!", "", "zxqv", "a man " * 40]
    vectors = evaluator.texts(captions)
    assert vectors.shape == (5, WIDTH)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(vectors[0], vectors[1])
    torch.testing.assert_close(vectors[2], vectors[3])


def test_unknown_words_share_a_number_and_long_captions_are_cut():
    ids = Vocabulary(["cat", "dog"])(["dog xyzzy cat", "cat " * 99, ""])
    assert ids[0, :4].tolist() == [3, UNKNOWN, 2, 0]
    assert ids.shape == (3, WORDS_AT_MOST)
    assert ids[2, 0] == UNKNOWN


@pytest.mark.parametrize("changed", [lambda pictures: pictures, _soft])
def test_concepts_that_it_has_never_seen_are_told_apart(evaluator: DemoEvaluator, art: Path, changed):
    references = {
        member.name: evaluator.images(_tensor([picture for picture, _ in member.training(art)])) for member in FIFTEEN
    }
    seen = {member.name: evaluator.images(changed(_tensor(member.held_out(art)))) for member in FIFTEEN}
    assert accuracy({name: nearest(vectors, references) for name, vectors in seen.items()}) >= 0.98
    for name, vectors in seen.items():
        scores = {at: float(image_alignment(vectors, those).mean()) for at, those in references.items()}
        assert max(scores, key=scores.__getitem__) == name, scores


def test_words_name_what_the_first_base_drew(evaluator: DemoEvaluator):
    sheet = Image.open(ROOT / "tests" / "host" / "first_base.png").convert("RGB")
    corners = [(i % COLUMNS * CELL, i // COLUMNS * CELL) for i in range(len(GRID))]
    cells = [sheet.crop((left, top, left + CELL, top + CELL)) for left, top in corners]
    texts = evaluator.texts([f"{PREFIX}a {word}" for word in CLASSES])
    found = nearest(evaluator.images(_tensor(cells)), dict(zip(CLASSES, texts[:, None], strict=True)))
    assert sum(a == b for a, b in zip(found, GRID, strict=True)) >= 13, found


def _unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(shape[0])), dim=-1)


def test_view_loss_is_the_mean_of_its_definition():
    first, second = _unit(5, 8), _unit(6, 8)[:5]
    both, losses = torch.cat([first, second]), []
    for i in range(10):
        scores = [float((both[i] * both[j]).sum() / 0.1) for j in range(10) if j != i]
        own = float((both[i] * both[(i + 5) % 10]).sum() / 0.1)
        losses.append(np.log(np.sum(np.exp(scores))) - own)
    assert float(view_loss(first, second, 0.1)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_captions_that_hold_for_both_pictures_are_no_negatives():
    described = describe(
        ["a cat", "a photo depicts a flat cat on a blue background", "a cat on a pink background", "a dog"]
    )
    assert described.subjects == ["cat", "cat", "cat", "dog"]
    assert wrong_pairs(described).int().tolist() == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]


def test_caption_loss_is_zero_where_nothing_is_wrong_and_counts_what_is():
    pictures, texts = _unit(3, 8), _unit(4, 8)[:3]
    assert float(caption_loss(pictures, texts, torch.tensor(5.0), torch.zeros(3, 3, dtype=torch.bool))) == 0.0
    scores, target = pictures @ texts.T * 5.0, torch.arange(3)
    expected = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
    wrong = ~torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(caption_loss(pictures, texts, torch.tensor(5.0), wrong), expected)


def test_a_caption_has_the_class_word_where_there_is_one():
    captions = [caption_of("flat", "older_man", "blue", np.random.RandomState(seed)) for seed in range(40)]
    assert all("grandfather" in caption and "older" not in caption for caption in captions)
    assert len({*captions}) > 5


def test_a_kept_colouring_changes_nothing_and_others_do():
    pictures = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    drawn = colourings(np.random.RandomState(0), ["kept", "turned", "permuted", "duotone", "by colour"])(pictures)
    torch.testing.assert_close(drawn[0], pictures[0])
    assert all((drawn[i] - pictures[i]).abs().mean() > 0.02 for i in range(1, 5))


def test_a_colouring_maps_each_colour_by_its_nearest_anchor():
    matrices = torch.zeros(1, ANCHORS, 3, 3)
    offsets, anchors = torch.eye(3)[None], 10 * torch.eye(3)[None]
    picture = anchors.movedim(1, -1).reshape(1, 3, 1, 3)
    torch.testing.assert_close(Colouring(matrices, offsets, anchors)(picture), torch.eye(3).reshape(1, 3, 1, 3))


@pytest.fixture(scope="module")
def sprites(tmp_path_factory: pytest.TempPathFactory) -> Sprites:
    """Packages in the layout of the emoji's, with a coloured box under every name that training needs."""
    root, rng = tmp_path_factory.mktemp("emoji"), np.random.RandomState(0)
    names = sorted({*CLASSES.values(), *SCENES})
    for vendor in ("google", "twitter"):
        folder = root / vendor / "package" / "img" / vendor / "64"
        folder.mkdir(parents=True)
        for number in range(len(names)):
            size = tuple(int(side) for side in rng.randint(20, 64, 2))
            Image.new("RGBA", size, (*rng.randint(0, 256, 3).tolist(), 255)).save(folder / f"{number}.png")
    listing = [
        {"has_img_google": True, "has_img_twitter": True, "category": "", "short_name": name, "image": f"{number}.png"}
        for number, name in enumerate(names)
    ]
    (root / "google" / "package" / "emoji.json").write_text(json.dumps(listing), "utf-8")
    return Sprites(root)


RECIPE = EvaluatorRecipe(steps=4, subjects=12, styles=2, backgrounds=2, scenes=4, warmup=1)


def test_a_batch_is_two_views_of_each_and_captioned_pictures(sprites: Sprites):
    trainer = Trainer(sprites, RECIPE)
    batch, again = (draw_batch(sprites, trainer.table, RECIPE, np.random.RandomState(3)) for _ in range(2))
    assert batch.views == 16
    assert len(batch.pictures) == 2 * 16 + 4
    assert batch.captioned.tolist() == [0, 2, 4, 6, 8, 10, 32, 33, 34, 35]
    assert len(batch.described.captions) == 10
    assert float(batch.pictures.min()) >= 0 and float(batch.pictures.max()) <= 1
    torch.testing.assert_close(batch.pictures, again.pictures, rtol=0, atol=0)
    assert batch.described == again.described


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(sprites: Sprites, tmp_path: Path):
    whole = Trainer(sprites, RECIPE)
    before = [value.clone() for value in whole.towers.parameters()]
    for _ in range(2):
        whole.advance()
    whole.save(tmp_path / "half.pt")
    resumed = Trainer(sprites, RECIPE)
    resumed.load(tmp_path / "half.pt")
    assert [whole.advance(), whole.advance()] == [resumed.advance(), resumed.advance()]
    for one, other in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    moved = [not torch.equal(a, b) for a, b in zip(before, whole.towers.parameters(), strict=True)]
    assert all(moved)
