"""Trains the image-text model that judges drawn people: `python run.py bench pretrain alignment`.

The towers are demo/evaluator's. It learns from square pictures of the training corpus and their captions, a quarter of
each batch as they come out of the autoencoder with noise on the latents, and never sees a held-out person, object or
style. The last line tells how often the right one of 64 captions is nearest, on pictures of held-out people.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo.base import write_weights
from demo.evaluator.model import DemoEvaluator, Towers, Vocabulary, fit, split
from demo.evaluator.training import caption_loss
from demo.people.corpus import read_records
from demo.people.reader.stored import WEIGHTS
from demo.people.reader.training import Degrade, autoencoder_of, through
from demo.people.recipe.autoencoder import to_unit
from demo.people.recipe.stages import learning_rate
from demo.people.scenes import Record

STORED, WORDS = WEIGHTS / "people_evaluator.int8.xz", WEIGHTS / "people_evaluator.words.txt"
CHOICES = 64


@dataclass(frozen=True)
class AlignmentRecipe:
    steps: int = 1500
    batch: int = 128
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.02
    worn: float = 0.25  # share of a batch
    seed: int = 0


@dataclass(frozen=True)
class Captioned:
    """pictures (N, 3, SIDE, SIDE) uint8, as the towers see them."""

    pictures: Tensor
    captions: list[str]

    def some(self, places: Tensor) -> tuple[Tensor, list[str]]:
        return self.pictures[places].float() / 255, [self.captions[place] for place in places.tolist()]


def stored_evaluator() -> DemoEvaluator:
    return DemoEvaluator.load(STORED, WORDS)


def captioned(records: list[Record], pictures: Path, degrade: Degrade | None = None) -> Captioned:
    """The square ones, degraded if asked."""
    square = [record for record in records if record["width"] == record["height"]]
    generator, found = torch.Generator().manual_seed(0), []
    for start in range(0, len(square), 32):
        opened = [Image.open(pictures / record["file"]).convert("RGB") for record in square[start : start + 32]]
        shown = to_unit([np.asarray(one) for one in opened])
        shown = fit(degrade(shown, generator) if degrade else shown)
        found.append((shown * 255).round().clamp(0, 255).byte())
    return Captioned(torch.cat(found), [record["caption"] for record in square])


def batch_of(found: Captioned, tired: Captioned, recipe: AlignmentRecipe, step: int) -> tuple[Tensor, list[str]]:
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    few = round(recipe.batch * recipe.worn)
    parts = [
        side.some(torch.randint(len(side.captions), (count,), generator=generator))
        for side, count in ((tired, few), (found, recipe.batch - few))
    ]
    return torch.cat([pictures for pictures, _ in parts]), [caption for _, captions in parts for caption in captions]


def train(found: Captioned, tired: Captioned, recipe: AlignmentRecipe) -> tuple[Towers, list[str]]:
    """The towers and their vocabulary's words."""
    torch.manual_seed(recipe.seed)
    words = sorted({word for caption in found.captions for word in split(caption)} | set(split("a photo depicts")))
    vocabulary = Vocabulary(words)
    towers, scale = Towers(len(vocabulary)), torch.nn.Parameter(torch.tensor(2.3))
    towers.image.to(memory_format=torch.channels_last)
    trained = [*towers.parameters(), scale]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    losses = []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.warmup, recipe.learning_rate)
        pictures, captions = batch_of(found, tired, recipe, step)
        same = torch.tensor([[one == other for other in captions] for one in captions])
        vectors = towers.image(pictures.contiguous(memory_format=torch.channels_last))
        loss = caption_loss(vectors, towers.text(vocabulary(captions)), scale.exp().clamp(max=50.0), ~same)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 49:
            print(f"alignment {step + 1}/{recipe.steps} loss {np.mean(losses[-50:]):.3f}", flush=True)
    return towers, words


@torch.no_grad()
def named(evaluator: DemoEvaluator, shown: Captioned) -> float:
    """Share of pictures whose own caption is the nearest of CHOICES."""
    pictures = shown.pictures.float().movedim(1, -1) / 255
    hits = []
    for start in range(0, len(pictures) - CHOICES + 1, CHOICES):
        texts = evaluator.texts(shown.captions[start : start + CHOICES])
        nearest = (evaluator.images(pictures[start : start + CHOICES]) @ texts.T).argmax(1)
        hits.append((nearest == torch.arange(CHOICES)).float().mean().item())
    return round(float(np.mean(hits)), 4)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".comfyui") / "people", help="with the corpora of `people`")
    parser.add_argument("--steps", type=int, default=AlignmentRecipe.steps)
    parser.add_argument("--worn", type=int, default=2500, help="pictures that make a round trip before")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    degrade = through(autoencoder_of(options.work))
    folder = options.work / "train"
    records = read_records(folder / "scenes.jsonl")
    found = captioned(records, folder / "pictures")
    tired = captioned(records[: options.worn], folder / "pictures", degrade)
    towers, words = train(found, tired, AlignmentRecipe(steps=options.steps))
    write_weights(towers.state_dict(), STORED)
    WORDS.write_text("\n".join(words) + "\n", encoding="utf-8")
    held, evaluator = options.work / "held", stored_evaluator()
    unseen = read_records(held / "scenes.jsonl")
    ways: dict[str, Degrade | None] = {"drawn": None, "round trip": degrade}
    told = {how: named(evaluator, captioned(unseen, held / "pictures", way)) for how, way in ways.items()}
    print(json.dumps({"pictures": len(found.captions), **told}))
