"""Training of the demo's evaluator: contrastive between two views of a thing, and between pictures and captions."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo.art import BACKGROUNDS, CLASSES, STYLES, Sprites, pair_scene, single_scene
from demo.evaluator.model import UNKNOWN, Towers, Vocabulary, fit
from demo.evaluator.views import SpriteTable, draw_instances, draw_views, soften
from demo.people.recipe.stages import learning_rate

TEMPLATES = ("", "", "", "a photo depicts", "a picture of", "an image of", "a photo of")
WORD_OF = {short_name: word for word, short_name in CLASSES.items()}


@dataclass(frozen=True)
class EvaluatorRecipe:
    """One step sees subjects + styles + backgrounds instances, each twice, and captioned scenes of the base."""

    steps: int = 1400
    subjects: int = 104
    styles: int = 12
    backgrounds: int = 12
    scenes: int = 24
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 100
    temperature: float = 0.1
    text_weight: float = 1.0
    unknown: float = 0.05
    average: float = 0.995
    seed: int = 0


@dataclass(frozen=True)
class Captioned:
    """Captions, and for each the words of what is shown and of the ground (None where it is not named)."""

    captions: list[str]
    subjects: list[str]
    grounds: list[str | None]


def vocabulary_words(sprites: Sprites) -> list[str]:
    """Every word of the captions that training draws, sorted."""
    parts = [*sprites.names, *CLASSES, *BACKGROUNDS, *STYLES, *TEMPLATES, "a on the left and right background"]
    return sorted({word for part in parts for word in re.findall("[a-z]+", part.lower())})


def caption_of(style: str, short_name: str, ground: str | None, rng: np.random.RandomState) -> str:
    """A caption as those of the base, with the class word where there is one and the emoji's name else."""
    name = WORD_OF.get(short_name, " ".join(re.findall("[a-z]+", short_name)))
    words = [TEMPLATES[rng.randint(len(TEMPLATES))], "a", style if rng.rand() < 0.3 else "", name]
    if ground and rng.rand() < 0.7:
        words += ["on", "a", ground, "background"]
    return " ".join(word for word in words if word)


def describe(captions: Sequence[str]) -> Captioned:
    grounds = [re.search(r"on a (\w+) background", caption) for caption in captions]
    fill = rf"\b({'|'.join((*STYLES, 'photo', 'depicts', 'picture', 'image', 'of', 'a', 'an'))})\b|on a \w+ background"
    subjects = [" ".join(re.sub(fill, " ", caption).split()) for caption in captions]
    return Captioned(list(captions), subjects, [found.group(1) if found else None for found in grounds])


def wrong_pairs(described: Captioned) -> Tensor:
    """(N, N) bool, true where caption j is wrong for picture i: another subject, or the same on another ground."""
    count = len(described.captions)
    wrong = torch.zeros(count, count, dtype=torch.bool)
    for i in range(count):
        for j in range(count):
            ours, theirs = described.grounds[i], described.grounds[j]
            wrong[i, j] = described.subjects[i] != described.subjects[j] or bool(ours and theirs and ours != theirs)
    return wrong


def view_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent over 2N unit vectors: each should find its other view among all others."""
    both = torch.cat([first, second])
    scores = (both @ both.T / temperature).masked_fill(torch.eye(len(both), dtype=torch.bool), -torch.inf)
    partner = torch.arange(len(both)).roll(len(first))
    return F.cross_entropy(scores, partner)


def caption_loss(pictures: Tensor, texts: Tensor, scale: Tensor, wrong: Tensor) -> Tensor:
    """CLIP's loss, without captions that are right for more than one picture among the negatives."""
    own = torch.eye(len(wrong), dtype=torch.bool)
    scores = (pictures @ texts.T * scale).masked_fill(~(wrong | own), -torch.inf)
    turned = (texts @ pictures.T * scale).masked_fill(~(wrong | own).T, -torch.inf)
    target = torch.arange(len(wrong))
    return (F.cross_entropy(scores, target) + F.cross_entropy(turned, target)) / 2


@dataclass(frozen=True)
class Batch:
    """Pictures: first views, second views, then scenes; the captions are of `captioned` of them."""

    pictures: Tensor
    views: int
    captioned: Tensor
    described: Captioned


def draw_batch(sprites: Sprites, table: SpriteTable, recipe: EvaluatorRecipe, rng: np.random.RandomState) -> Batch:
    instances = draw_instances(table, rng, recipe.subjects, recipe.styles, recipe.backgrounds)
    first, second = draw_views(table, instances, 0, rng), draw_views(table, instances, 1, rng)
    drawn = [(single_scene, pair_scene)[i % 4 == 3](sprites, rng) for i in range(recipe.scenes)]
    scenes = fit(torch.from_numpy(np.stack([scene.pixels for scene in drawn])).permute(0, 3, 1, 2).float() / 255)
    named = np.flatnonzero(instances.captioned)
    keys = [table.keys[instances.sprites[0, i]] for i in named]
    captions = [caption_of(*key, first.grounds[i], rng) for key, i in zip(keys, named, strict=True)]
    views = len(first.pictures)
    rows = [*named.tolist(), *range(2 * views, 2 * views + len(drawn))]
    pictures = soften(torch.cat([first.pictures, second.pictures, scenes]), rng)
    return Batch(pictures, views, torch.tensor(rows), describe([*captions, *(scene.caption for scene in drawn)]))


def _forget(ids: Tensor, share: float, rng: np.random.RandomState) -> Tensor:
    """Some words become the unknown one."""
    lost = torch.from_numpy(rng.rand(*ids.shape) < share) & (ids > UNKNOWN)
    return ids.masked_fill(lost, UNKNOWN)


class Trainer:
    """Model, averaged model and optimizer; each step's randomness depends on its number alone, so a run can go on."""

    def __init__(self, sprites: Sprites, recipe: EvaluatorRecipe):
        torch.manual_seed(recipe.seed)
        self.sprites, self.recipe, self.table = sprites, recipe, SpriteTable(sprites)
        self.words = vocabulary_words(sprites)
        self.vocabulary = Vocabulary(self.words)
        self.towers = Towers(len(self.vocabulary))
        self.towers.image.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.towers).requires_grad_(False)
        self.scale = torch.nn.Parameter(torch.tensor(2.3))
        self.trained = [*self.towers.parameters(), self.scale]
        self.optimizer = torch.optim.AdamW(self.trained, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
        self.step, self.seconds = 0, 0.0

    def losses(self, batch: Batch, rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        with torch.autocast("cpu", torch.bfloat16):
            vectors = self.towers.image(batch.pictures.contiguous(memory_format=torch.channels_last))
        texts = self.towers.text(_forget(self.vocabulary(batch.described.captions), recipe.unknown, rng))
        first, second = vectors[: batch.views], vectors[batch.views : 2 * batch.views]
        scale = self.scale.exp().clamp(max=50.0)
        named = caption_loss(vectors[batch.captioned], texts, scale, wrong_pairs(batch.described))
        return view_loss(first, second, recipe.temperature), named

    def advance(self) -> tuple[float, float]:
        recipe, rng = self.recipe, np.random.RandomState(self.recipe.seed * 1_000_003 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, recipe.steps, recipe.warmup, recipe.learning_rate)
        seen, named = self.losses(draw_batch(self.sprites, self.table, recipe, rng), rng)
        (seen + recipe.text_weight * named).backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        # Early on the average follows closely: what it started from is noise.
        weight = 1 - min(recipe.average, self.step / (self.step + 20))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.towers.parameters(), strict=True):
                mean.lerp_(now, weight)
        return seen.item(), named.item()

    def save(self, path: Path) -> None:
        state = {
            "step": self.step, "seconds": self.seconds, "towers": self.towers.state_dict(),
            "average": self.average.state_dict(), "scale": self.scale.data, "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        partial = path.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        self.towers.load_state_dict(state["towers"])
        self.average.load_state_dict(state["average"])
        self.scale.data = state["scale"]
        self.optimizer.load_state_dict(state["optimizer"])


def train_evaluator(trainer: Trainer, every: Callable[[int], None]) -> None:
    """Run the steps that are left; `every` is called after each with how many are done."""
    losses = []
    while trainer.step < trainer.recipe.steps:
        started = time.perf_counter()
        losses.append(trainer.advance())
        trainer.seconds += time.perf_counter() - started
        if trainer.step % 25 == 0:
            seen, named = np.mean(losses[-25:], 0)
            done = f"evaluator {trainer.step}/{trainer.recipe.steps}"
            print(f"{done} views {seen:.3f} captions {named:.3f} {trainer.seconds:.0f}s", flush=True)
        every(trainer.step)
