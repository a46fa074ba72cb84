"""Does crosstalk foretell bleeding? `python run.py bench bleed FILE FILE ...`, with files of the demo's concepts.

The first two files are merged, then the first three and so on, by per_row and by fused; of every concept --pictures are
sampled by the prompt "a <name> on a white background", 20 steps. A picture counts as its concept's when the nearest
training picture, of all concepts given, is that concept's (12 x 12 pixels, mean squared distance). `apart` is how far
the pictures are from their concept's nearest training picture, over what it is when the concept is alone. Beside them
stands the interference that BlockLoRA Inspect reports for the concept. Writes --out FOLDER/bleed.png, a row a merge,
and ends in one JSON object.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.shared import ROOT, finish, import_comfyui, say

import_comfyui()

import comfy.sd  # noqa: E402  (ComfyUI is on the path only now)
import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

import nodes  # noqa: E402
from blocklora_core.concept.concept import BlockLoRA, Stack  # noqa: E402
from blocklora_core.files.io import load  # noqa: E402
from blocklora_core.host.weights.names import on_weights, weights_of  # noqa: E402
from blocklora_core.host.weights.patching import apply_merge  # noqa: E402
from blocklora_core.reports.inspection import inspect  # noqa: E402
from demo.concepts import CONCEPTS, pictures  # noqa: E402
from demo.prepare import CHECKPOINT  # noqa: E402

SIDE, STEPS, CFG, SEED, THUMB = 96, 20, 3.0, 5, 12
Samples = list[Image.Image]
Known = dict[str, list[np.ndarray[Any, Any]]]


def sample(base: Any, stack: Stack, method: str, name: str, count: int) -> Samples:
    """Pictures of one concept from a merge."""
    model, clip, vae = base
    applied = apply_merge(stack, model, clip, method)
    encode = nodes.CLIPTextEncode().encode
    positive = encode(applied.clip, f"a {name} on a white background")[0]
    negative = encode(applied.clip, "")[0]
    latent = {"samples": torch.zeros(count, 4, SIDE // 8, SIDE // 8)}
    done = nodes.common_ksampler(applied.model, SEED, STEPS, CFG, "euler", "normal", positive, negative, latent)[0]
    found = vae.decode(done["samples"]).clamp(0, 1)
    return [Image.fromarray((picture * 255).byte().numpy()) for picture in found]


def thumb(picture: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture.resize((THUMB, THUMB), Image.Resampling.BOX)).astype(np.float32) / 255


def references(art: Path, names: Sequence[str]) -> Known:
    """Concept name -> its training pictures on white, small."""
    known = {concept.name: concept for concept in CONCEPTS}
    return {
        name: [thumb(picture) for title, picture, _ in pictures(art, known[name]) if title.endswith("white")]
        for name in names
    }


def nearest(picture: Image.Image, known: Known) -> str:
    here = thumb(picture)
    return min(known, key=lambda name: min(float(((here - other) ** 2).mean()) for other in known[name]))


def share(found: Samples, name: str, known: Known) -> float:
    return sum(nearest(picture, known) == name for picture in found) / len(found)


def distance(found: Samples, name: str, known: Known) -> float:
    """Mean distance of the pictures from the concept's nearest training picture."""
    return float(np.mean([min(float(((thumb(one) - other) ** 2).mean()) for other in known[name]) for one in found]))


Row = tuple[str, Samples]


def measure(
    base: Any, stack: Stack, known: Known, alone: dict[str, float], count: int, rows: list[Row]
) -> Iterator[Any]:
    """For each method and concept: interference, the share of pictures that is right, and how far they are."""
    figures = inspect(stack).concepts
    for method, values in (("per_row", [one.summed for one in figures]), ("fused", [one.solved for one in figures])):
        shown: Samples = []
        for lora, interference in zip(stack, values, strict=True):
            name = lora.concept.name
            found = sample(base, stack, method, name, count)
            shown += found
            result = {
                "merged": len(stack), "method": method, "concept": name, "interference": round(interference or 0.0, 3),
                "right": share(found, name, known), "apart": round(distance(found, name, known) / alone[name], 2),
            }  # fmt: skip
            say(str(result))
            yield result
        rows.append((f"{len(stack)} {method}", shown))


def sheet(rows: Sequence[Row]) -> Image.Image:
    picture = Image.new("RGB", (max(len(found) for _, found in rows) * SIDE, len(rows) * SIDE), "white")
    for at, (_, found) in enumerate(rows):
        for column, one in enumerate(found):
            picture.paste(one, (column * SIDE, at * SIDE))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description="Does crosstalk foretell bleeding?")
    checkpoints = Path(os.environ["BLOCKLORA_COMFYUI"], "models", "checkpoints")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--checkpoint", type=Path, default=checkpoints / CHECKPOINT)
    parser.add_argument("--art", type=Path, default=ROOT / ".comfyui" / "art")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    chosen = parser.parse_args()
    with torch.inference_mode():
        base = comfy.sd.load_checkpoint_guess_config(str(chosen.checkpoint))[:3]
        weights = weights_of(base[0], base[1])
        loras: list[BlockLoRA] = [load(file) for file in chosen.files]
        assert all(not on_weights(lora, weights).unknown for lora in loras), "files of another base"
        known = references(chosen.art, [lora.concept.name for lora in loras])
        rows: list[Row] = []
        alone = {}
        for lora in loras:
            found = sample(base, (lora,), "per_row", lora.concept.name, chosen.pictures)
            alone[lora.concept.name] = distance(found, lora.concept.name, known)
        stacks = [tuple(loras[:size]) for size in range(2, len(loras) + 1)]
        results = [row for stack in stacks for row in measure(base, stack, known, alone, chosen.pictures, rows)]
    chosen.out.mkdir(parents=True, exist_ok=True)
    sheet(rows).save(chosen.out / "bleed.png", optimize=True)
    finish({"pictures": chosen.pictures, "results": results})


if __name__ == "__main__":
    main()
