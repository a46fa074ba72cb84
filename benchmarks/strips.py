"""Training curves and sample strips on the demo's base, which `python run.py bench strips` makes.

Each concept is trained with and without erasure, with one token and with layer-wise ones (ED-LoRA); a sample is taken
every 25 steps from the same noise. Writes docs/strips.png (a row a run, a column every 25 steps), docs/curves.png, and
prints the figures as one JSON object.

--concepts amelia,zed,felix   --steps 200   --out FOLDER instead of docs/
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.shared import ROOT, finish, import_comfyui, say

import_comfyui()

import comfy.sd  # noqa: E402  (ComfyUI is on the path only now)
import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402

from blocklora_core.concept.concept import Concept  # noqa: E402
from blocklora_core.host.train.progress import to_image  # noqa: E402
from blocklora_core.host.train.train import TrainJob, TrainResult, train_concept  # noqa: E402
from blocklora_core.reports.curves import smooth  # noqa: E402
from blocklora_core.training import TrainConfig  # noqa: E402
from blocklora_core.training.regularisers.erasure import Erasure  # noqa: E402
from demo.concepts import CONCEPTS, DemoConcept  # noqa: E402
from demo.prepare import CHECKPOINT  # noqa: E402

EVERY, CELL, LABEL, LAST = 25, 72, 190, 20
INK, PAPER = (40, 44, 52), (255, 255, 255)
COLOURS = {"single": (38, 110, 220), "layer-wise": (214, 90, 30)}


@dataclass(frozen=True)
class Variant:
    """One way to train."""

    token: str
    erasure: float

    @property
    def name(self) -> str:
        return f"{self.token}, erasure {self.erasure:g}"


VARIANTS = tuple(Variant(token, erasure) for token in ("single", "layer-wise") for erasure in (0.0, 0.3))


def job(concept: DemoConcept, variant: Variant, steps: int, slot: int) -> TrainJob:
    found = list(concept.pictures())
    images = [to_image(picture) for picture, _ in found]
    config = TrainConfig.of(
        steps=steps, batch_size=4, rank=8, learning_rate=0.006, embedding_learning_rate=0.004, embedding_share=0.2,
        niche_weight=0.0, erasure=Erasure(variant.erasure), token=variant.token, preview_every=EVERY, preview_cfg=2.0,
        preview_steps=8, gram_pictures=1, gram_steps=1, seed=slot,
    )  # fmt: skip
    return TrainJob(
        Concept(concept.name, concept.class_word), images, [caption for _, caption in found], config, slot,
        resolution=0, layers="attention + feed-forward",
    )  # fmt: skip


Run = tuple[str, Variant, TrainResult]


def runs(chosen: list[DemoConcept], checkpoint: Path, steps: int) -> Iterator[Run]:
    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint))
        for slot, concept in enumerate(chosen):
            for variant in VARIANTS:
                started = time.perf_counter()
                result = train_concept(model, clip, vae, job(concept, variant, steps, slot))
                loss = np.mean(result.losses[-LAST:])
                say(f"{concept.name} {variant.name}: loss {loss:.4f}, {time.perf_counter() - started:.0f} s")
                yield concept.name, variant, result


def strips(done: list[Run], steps: int) -> Image.Image:
    columns = steps // EVERY
    sheet = Image.new("RGB", (LABEL + columns * CELL, 20 + len(done) * CELL), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        draw.text((LABEL + column * CELL + 24, 4), str((column + 1) * EVERY), fill=INK)
    for row, (name, variant, result) in enumerate(done):
        top = 20 + row * CELL
        draw.text((6, top + 22), f"{name}\n{variant.name}", fill=INK)
        for column, sample in enumerate(result.samples[:columns]):
            sheet.paste(sample.resize((CELL - 2, CELL - 2), Image.Resampling.LANCZOS), (LABEL + column * CELL, top))
    return sheet


def curves(done: list[Run], steps: int) -> Image.Image:
    """Running means over 20 steps: a plot a concept, erasure dotted."""
    names = list(dict.fromkeys(name for name, *_ in done))
    width, height = 330, 220
    sheet = Image.new("RGB", (width * len(names), height + 40), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = max(max(smooth(result.losses)[LAST:]) for *_, result in done) * 1.05
    for number, name in enumerate(names):
        left = number * width + 34
        draw.text((left, 4), name, fill=INK)
        draw.text((left - 32, 18), f"{top:.2f}", fill=INK)
        draw.line([(left, 20), (left, height), (left + width - 50, height)], fill=INK)
        for owner, variant, result in done:
            if owner == name:
                _line(
                    draw,
                    values=smooth(result.losses)[LAST:],
                    variant=variant,
                    left=left,
                    width=width - 50,
                    height=height,
                    top=top,
                )
    for number, variant in enumerate(VARIANTS):
        at = 34 + number * 220
        _stroke(draw, [(at, height + 22), (at + 30, height + 22)], variant)
        draw.text((at + 36, height + 15), variant.name, fill=INK)
    draw.text((sheet.width - 110, height + 2), f"{steps} steps", fill=INK)
    return sheet


def _line(draw: Any, values: list[float], variant: Variant, left: int, width: int, height: int, top: float) -> None:
    points = [
        (left + at * width / max(len(values) - 1, 1), height - value / top * (height - 20))
        for at, value in enumerate(values)
    ]
    _stroke(draw, points, variant)


def _stroke(draw: Any, points: list[tuple[float, float]], variant: Variant) -> None:
    if not variant.erasure:
        draw.line(points, fill=COLOURS[variant.token], width=2)
        return
    (x0, y0), (x1, y1) = points[0], points[-1]
    if len(points) == 2:
        points = [(x0 + (x1 - x0) * at / 10, y0 + (y1 - y0) * at / 10) for at in range(11)]
    for start in range(0, len(points) - 1, 6 if len(points) > 20 else 2):
        draw.line(points[start : start + (4 if len(points) > 20 else 2)], fill=COLOURS[variant.token], width=2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training curves and sample strips on the demo's base.")
    parser.add_argument("--concepts", default="amelia,zed,felix")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    checkpoints = Path(os.environ["BLOCKLORA_COMFYUI"], "models", "checkpoints")
    parser.add_argument("--checkpoint", type=Path, default=checkpoints / CHECKPOINT)
    chosen = parser.parse_args()
    wanted = [concept for concept in CONCEPTS if concept.name.strip("<>") in chosen.concepts.split(",")]
    done = list(runs(wanted, chosen.checkpoint, chosen.steps))
    chosen.out.mkdir(parents=True, exist_ok=True)
    strips(done, chosen.steps).save(chosen.out / "strips.png", optimize=True)
    curves(done, chosen.steps).save(chosen.out / "curves.png", optimize=True)
    finish({"steps": chosen.steps, "runs": [_figures(*run) for run in done]})


def _figures(name: str, variant: Variant, result: TrainResult) -> dict[str, Any]:
    return {
        "concept": name, "token": variant.token, "erasure": variant.erasure,
        "loss_first": round(float(np.mean(result.losses[:LAST])), 4),
        "loss_last": round(float(np.mean(result.losses[-LAST:])), 4), "seconds": round(result.seconds, 1),
    }  # fmt: skip


if __name__ == "__main__":
    main()
