"""Trains the reader on a corpus' figures, as drawn and as an autoencoder and a sampler would leave them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from demo.people.corpus import read_records
from demo.people.reader.figures import Figures, figures
from demo.people.reader.model import GeneReader
from demo.people.reader.questions import UNASKED
from demo.people.reader.stored import NAMES, new_reader, path_of, write_reader
from demo.people.recipe.layout import stored_autoencoder
from demo.people.recipe.stages import Clock, half_precision, learning_rate, load_state, save_state

Degrade = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""Pictures (B, 3, H, W) in [0, 1] -> the same as they would come out of a model."""


@dataclass(frozen=True)
class ReaderRecipe:
    steps: int = 5000
    batch: int = 32
    learning_rate: float = 1.5e-3
    warmup: int = 100
    weight_decay: float = 0.02
    worn: float = 0.3  # share of a batch
    colour_blind: bool = False
    seed: int = 0
    checkpoint_seconds: float = 240.0


def answer_loss(told: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over all questions that are asked; told: (B, answers) each; labels (B, questions)."""
    losses = [
        F.cross_entropy(logits.float(), labels[:, place], ignore_index=UNASKED, reduction="sum")
        for place, logits in enumerate(told)
    ]
    return torch.stack(losses).sum() / (labels != UNASKED).sum()


def worn(found: Figures, degrade: Degrade, count: int, seed: int = 0) -> Figures:
    """The first `count` figures, degraded: once for all steps, as a round trip takes longer than a step."""
    generator, parts = torch.Generator().manual_seed(seed), []
    for part in found.pictures[:count].split(32):
        parts.append((degrade(part.float() / 255, generator) * 255).round().byte())
    return Figures(torch.cat(parts), found.labels[:count])


def rarity(labels: torch.Tensor) -> torch.Tensor:
    """(N,) how often to draw each figure, from labels (N, questions): a beard that one figure in a hundred wears would
    hardly be learnt. Mean, over the questions asked, of the answer's count to the power of -1/2."""
    weights = torch.zeros(labels.shape, dtype=torch.float64)
    for place in range(labels.shape[1]):
        asked = labels[:, place] != UNASKED
        answers = labels[asked, place]
        weights[asked, place] = torch.bincount(answers).double()[answers].rsqrt()
    return weights.sum(1) / (labels != UNASKED).sum(1)


@dataclass(frozen=True)
class Drawn:
    """Figures, and how often each is drawn."""

    figures: Figures
    often: torch.Tensor

    @classmethod
    def of(cls, found: Figures) -> Drawn:
        return cls(found, rarity(found.labels).cumsum(0))

    def choose(self, count: int, generator: torch.Generator) -> torch.Tensor:
        lots = torch.rand(count, generator=generator, dtype=torch.float64) * self.often[-1]
        return torch.searchsorted(self.often, lots).clamp(max=len(self.often) - 1)


def batch_of(found: Drawn, tired: Drawn, recipe: ReaderRecipe, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures in [0, 1] and labels; a step's lot is its own, so that sittings do not matter."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    few = round(recipe.batch * recipe.worn)
    sides = [(tired, few), (found, recipe.batch - few)]
    chosen = [(side.figures, side.choose(count, generator)) for side, count in sides]
    pictures = torch.cat([side.pictures[places] for side, places in chosen])
    return pictures.float() / 255, torch.cat([side.labels[places] for side, places in chosen])


def train_reader(
    reader: GeneReader, found: Figures, tired: Figures, recipe: ReaderRecipe, state_file: Path
) -> GeneReader:
    """Go on from the state file, if there is one, to the recipe's last step."""
    reader.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(reader.parameters(), weight_decay=recipe.weight_decay)
    state: dict[str, Any] = load_state(state_file) or {"step": 0, "seconds": 0.0}
    if state["step"]:
        reader.load_state_dict(state["reader"])
        optimizer.load_state_dict(state["optimizer"])
    clock, losses = Clock(state["seconds"], recipe.checkpoint_seconds), []
    drawn, drawn_tired = Drawn.of(found), Drawn.of(tired)

    def keep(step: int) -> None:
        stored = {"reader": reader.state_dict(), "optimizer": optimizer.state_dict()}
        save_state({"step": step, "seconds": clock.seconds(), **stored}, state_file)

    for step in range(state["step"], recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.warmup, recipe.learning_rate)
        pictures, labels = batch_of(drawn, drawn_tired, recipe, step)
        with half_precision("cpu"):
            told = reader(pictures.contiguous(memory_format=torch.channels_last))
        loss = answer_loss(told, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 49:
            print(
                f"reader {step + 1}/{recipe.steps} loss {np.mean(losses[-50:]):.3f} {clock.seconds():.0f}s", flush=True
            )
        if clock.due():
            keep(step + 1)
    keep(recipe.steps)
    return reader.eval()


def autoencoder_of(work: Path) -> Any:
    """The work folder's, or else the committed one."""
    vae = stored_autoencoder()
    if (trained := work / "autoencoder.pt").is_file():
        vae.load_state_dict(torch.load(trained, weights_only=True))
    return vae.eval().requires_grad_(False)


def through(vae: Any, latent_noise: float = 0.25) -> Degrade:
    """A round trip through the autoencoder, with noise of up to `latent_noise` deviations on the latents."""

    @torch.no_grad()
    def degrade(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        with half_precision("cpu"):
            latents = vae.encode(pictures * 2 - 1).float()
            amount = latent_noise * latents.std() * torch.rand(len(latents), 1, 1, 1, generator=generator)
            decoded = vae.decode(latents + amount * torch.randn(latents.shape, generator=generator))
        return (decoded.float() / 2 + 0.5).clamp(0, 1)

    return degrade


@torch.no_grad()
def accuracy(reader: GeneReader, found: Figures, degrade: Degrade | None = None) -> Mapping[str, float]:
    """Gene -> share of answers that are right, over all styles; `all` is the mean over answers."""
    generator, hits = torch.Generator().manual_seed(0), dict[str, list[torch.Tensor]]()
    for pictures, labels in zip(found.pictures.split(32), found.labels.split(32), strict=True):
        shown = pictures.float() / 255
        told = reader(degrade(shown, generator) if degrade else shown)
        for place, question in enumerate(reader.questions):
            asked = labels[:, place] != UNASKED
            hits.setdefault(question.gene, []).append(told[place][asked].argmax(1) == labels[asked, place])
    every = torch.cat([hit for found_hits in hits.values() for hit in found_hits])
    shares = {gene: torch.cat(found_hits).float().mean().item() for gene, found_hits in hits.items()}
    return {"all": every.float().mean().item(), **shares}


def main(arguments: list[str] | None = None) -> None:
    """One sitting; last line: one JSON object with how far the reader can be trusted on people it never saw."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--work", type=Path, default=Path(".comfyui") / "people", help="with the corpora of `people`")
    parser.add_argument("--steps", type=int, default=ReaderRecipe.steps)
    parser.add_argument("--pictures", type=int, default=30000)
    parser.add_argument("--worn", type=int, default=3000, help="figures that make a round trip before")
    parser.add_argument("--colour-blind", action="store_true")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    degrade = through(autoencoder_of(options.work))
    torch.manual_seed(ReaderRecipe.seed)
    reader = new_reader(options.colour_blind)
    found = {}
    for name, limit in (("train", options.pictures), ("held", None)):
        folder = options.work / name
        records = read_records(folder / "scenes.jsonl")[:limit]
        found[name] = figures(records, folder / "pictures", reader.questions)
    recipe = ReaderRecipe(steps=options.steps, colour_blind=options.colour_blind)
    name = NAMES[options.colour_blind]
    tired = worn(found["train"], degrade, options.worn)
    train_reader(reader, found["train"], tired, recipe, options.work / f"{name}.state")
    write_reader(reader, path_of(options.colour_blind))
    trusted = {"drawn": accuracy(reader, found["held"]), "round trip": accuracy(reader, found["held"], degrade)}
    print(json.dumps({"figures": len(found["train"].labels), "held_out": len(found["held"].labels), **trusted}))
