"""The paper's Fig. 4 for ten plain LoRAs and ten BlockLoRAs: `python run.py bench figure4`.

By default it trains both tens on the demo's base, from the same pictures, with the same seeds and steps and neither
erasure nor niche regularisation, so that they differ in their rows alone. The demo has six people; the other four
concepts are these with their hues turned. --plain FOLDER and --blocks FOLDER take trained files instead
(all .safetensors in them, of one base). Writes docs/figure4.png and ends in one JSON object with the means over layers:

    cosine_plain, cosine_blocks           mean over layers of the mean cosine over all pairs
    highest_cosine_plain                  of a layer
    conflicts_plain, conflicts_blocks     mean share of entries where both signs occur

--concepts N   --steps N   --out FOLDER
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.shared import ROOT, finish, import_comfyui, say

import_comfyui()

import comfy.sd  # noqa: E402  (ComfyUI is on the path only now)
import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402

from blocklora_core.concept.concept import Concept, Stack  # noqa: E402
from blocklora_core.files.io import load  # noqa: E402
from blocklora_core.host.train.progress import to_image  # noqa: E402
from blocklora_core.host.train.train import TrainJob, train_concept  # noqa: E402
from blocklora_core.merge.diagnostics import layer_cosines, layer_sign_conflicts  # noqa: E402
from blocklora_core.training import ADAPTERS, TrainConfig  # noqa: E402
from blocklora_core.training.regularisers.erasure import Erasure  # noqa: E402
from demo.concepts import CONCEPTS, DemoConcept  # noqa: E402
from demo.prepare import CHECKPOINT  # noqa: E402

MOST = 10
TURN = 128
WIDTH, HEIGHT, MARGIN = 460, 260, 40
INK, PAPER = (60, 64, 72), (255, 255, 255)
KINDS = {"plain": ("ten plain LoRAs", (214, 90, 30)), "blocks": ("ten BlockLoRAs", (38, 110, 220))}

Figures = dict[str, dict[str, float]]


def concepts(count: int) -> list[tuple[DemoConcept, bool]]:
    """The demo's people, then the same with their hues turned, under names of their own."""
    turned = [(replace(concept, name=f"<{concept.folder}2>"), True) for concept in CONCEPTS]
    return [*((concept, False) for concept in CONCEPTS), *turned][:count]


def recoloured(picture: Image.Image) -> Image.Image:
    """`picture` with its hues turned by half a circle; white, grey and black stay."""
    hue, *rest = picture.convert("HSV").split()
    return Image.merge("HSV", [hue.point(lambda value: (value + TURN) % 256), *rest]).convert("RGB")


def job(concept: DemoConcept, turned: bool, slot: int, steps: int, adapter: str) -> TrainJob:
    found = [(recoloured(picture) if turned else picture, caption) for picture, caption in concept.pictures()]
    images = [to_image(picture) for picture, _ in found]
    config = TrainConfig.of(
        steps=steps, batch_size=4, rank=4, learning_rate=0.003, embedding_learning_rate=0.004, embedding_share=0.2,
        niche_weight=0.0, erasure=Erasure(0.0), preview_every=0, gram_pictures=1, gram_steps=1, seed=slot,
        **ADAPTERS[adapter],
    )  # fmt: skip
    return TrainJob(
        Concept(concept.name, concept.class_word), images, [caption for _, caption in found], config,
        slot if config.adapter.scheme else -1, resolution=0, layers="attention + feed-forward",
    )  # fmt: skip


def trained(chosen: argparse.Namespace) -> dict[str, Stack]:
    with torch.inference_mode():
        base = comfy.sd.load_checkpoint_guess_config(str(chosen.checkpoint))[:3]
        return {
            kind: tuple(_trained(base, chosen, adapter))
            for kind, adapter in (("plain", "plain LoRA"), ("blocks", "row block"))
        }


def _trained(base: Any, chosen: argparse.Namespace, adapter: str) -> Iterator[Any]:
    for slot, (concept, turned) in enumerate(concepts(chosen.concepts)):
        result = train_concept(*base, job(concept, turned=turned, slot=slot, steps=chosen.steps, adapter=adapter))
        say(f"{adapter} {concept.name}: loss {np.mean(result.losses[-20:]):.4f}, {result.seconds:.0f} s")
        yield result.lora


def from_folder(folder: Path) -> Stack:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) < 2:
        sys.exit(f"{folder}: expected at least two .safetensors files, got {len(files)}.")
    return tuple(load(file) for file in files)


def figures(stack: Stack) -> Figures:
    """The two figures, layer by layer; text layers come first in their alphabet, so the order is the names'."""
    return {"cosine": layer_cosines(stack), "conflicts": layer_sign_conflicts(stack)}


def plot(found: Mapping[str, Figures]) -> Image.Image:
    sheet = Image.new("RGB", (2 * WIDTH, HEIGHT + 30), PAPER)
    draw = ImageDraw.Draw(sheet)
    titles = {
        "cosine": "Cosine of two concepts' changes, mean over pairs",
        "conflicts": "Entries where signs conflict",
    }
    for number, (figure, title) in enumerate(titles.items()):
        _panel(draw, number * WIDTH, title, {kind: list(found[kind][figure].values()) for kind in found})
    for number, (title, colour) in enumerate(KINDS.values()):
        draw.line((MARGIN + number * 180, HEIGHT + 14, MARGIN + 24 + number * 180, HEIGHT + 14), fill=colour, width=3)
        draw.text((MARGIN + 32 + number * 180, HEIGHT + 8), title, fill=INK)
    return sheet


def _panel(draw: ImageDraw.ImageDraw, left: int, title: str, lines: Mapping[str, Sequence[float]]) -> None:
    values = [value for line in lines.values() for value in line]
    high, low = max(*values, 0.1) * 1.05, min(*values, 0.0)
    x0, x1, y0, y1 = left + MARGIN, left + WIDTH - 12, 26, HEIGHT - 24

    def height(value: float) -> float:
        return y1 - (value - low) / (high - low) * (y1 - y0)

    draw.text((x0, 6), title, fill=INK)
    draw.line((x0, y0, x0, y1), fill=INK)
    draw.line((x0, height(0), x1, height(0)), fill=INK)
    for value in (low, 0.0, high):
        draw.text((left + 6, height(value) - 6), f"{value:.2f}", fill=INK)
    draw.text(((x0 + x1) / 2 - 20, y1 + 6), "layers", fill=INK)
    for kind, line in lines.items():
        across = (x1 - x0) / max(len(line) - 1, 1)
        draw.line([(x0 + at * across, height(value)) for at, value in enumerate(line)], fill=KINDS[kind][1], width=2)


def mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description="The paper's Fig. 4 on the demo's base.")
    checkpoints = Path(os.environ["BLOCKLORA_COMFYUI"], "models", "checkpoints")
    parser.add_argument("--plain", type=Path)
    parser.add_argument("--blocks", type=Path)
    parser.add_argument("--concepts", type=int, default=MOST, choices=range(2, MOST + 1), metavar="2..10")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--checkpoint", type=Path, default=checkpoints / CHECKPOINT)
    chosen = parser.parse_args()
    if (chosen.plain is None) != (chosen.blocks is None):
        sys.exit("Expected both --plain and --blocks, or neither.")
    folders = {"plain": chosen.plain, "blocks": chosen.blocks}
    stacks = {kind: from_folder(folder) for kind, folder in folders.items()} if chosen.plain else trained(chosen)
    found = {kind: figures(stack) for kind, stack in stacks.items()}
    chosen.out.mkdir(parents=True, exist_ok=True)
    plot(found).save(chosen.out / "figure4.png", optimize=True)
    plain, blocks = found["plain"], found["blocks"]
    finish(
        {
            "concepts": [len(stack) for stack in stacks.values()], "layers": len(plain["cosine"]),
            "cosine_plain": mean(plain["cosine"]), "cosine_blocks": mean(blocks["cosine"]),
            "highest_cosine_plain": max(plain["cosine"].values()),
            "conflicts_plain": mean(plain["conflicts"]), "conflicts_blocks": mean(blocks["conflicts"]),
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
