"""What concepts and trainings take at the real sizes of SDXL, Flux.1 dev, Z-Image and Qwen-Image.

Run as `python run.py bench sizes [--quick] [--no-real]`. All but `real` is told on weights without memory, as Train
tells it before it loads a model: rank 4, one picture of 1024 px a step and one of the niche regularisation, AdamW,
gradient checkpointing. Without the text encoder and the VAE. GB are 1e9 bytes, MB 1e6.

The last line is one JSON object, a model a key:
    attention, all_linear       layers that learn and their share of the model's linear weights
    grams_*_gb                  the sketches of a collection in those layers
    grams_*_peak_gb             the same at most, while they become Grams
    file_*_mb, lora_*_mb        a saved concept with its Grams, and without
    model_bf16_gb, model_fp8_gb frozen weights
    training_*_gb               a training of those layers with the base in that format
    activations_*_gb            its part that is neither weights nor what learns
and `real`, for each model and format that was run with random weights on this machine's CPU:
    told_gb, step_gb            what a step of latents of that side was told to take, and the most that a process of
                                its own took above what Python and the libraries take
    with_collection_gb          the same with the collection after it
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common.shared import finish, import_comfyui, say

import_comfyui()

from comfy.cli_args import args  # noqa: E402  (ComfyUI is on the path only now)

# As on a GPU: attention that keeps no logits.
args.use_pytorch_cross_attention = True


from benchmarks.sizes.measure import Job, expected, file_bytes, sketches  # noqa: E402
from benchmarks.sizes.models import MODELS, QUICK, Sized  # noqa: E402
from benchmarks.sizes.real import DTYPES, measured, real  # noqa: E402

LAYERS = {"attention": "attention", "all_linear": "all linear"}
REAL = (("sdxl", "bf16", 32), ("flux", "fp8", 16))
"""Model, format and side of the latents of what is really run."""

GB, MB = 1e9, 1e6


def sizes(sized: Sized, side: int, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, layers in LAYERS.items():
        held = sketches(sized, layers)
        row |= {f"grams_{key}_gb": held.held / GB, f"grams_{key}_peak_gb": held.peak / GB}
        for dtype, kind in DTYPES.items():
            told, trainer = expected(sized, Job(layers, kind, side))
            row |= {f"model_{dtype}_gb": told.model / GB, f"training_{key}_{dtype}_gb": told.total / GB}
            row[f"activations_{key}_{dtype}_gb"] = None if told.activations is None else told.activations / GB
        lora, whole = file_bytes(trainer, held.grams, folder)
        row |= {f"lora_{key}_mb": lora / MB, f"file_{key}_mb": whole / MB}
        row[key] = {"layers": len(trainer.adapters.adapters), "share": round(trainer.port.share, 3)}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Sizes of concepts and trainings.")
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see that it works")
    parser.add_argument("--no-real", action="store_true", help="nothing is run with real weights")
    parser.add_argument("--real", nargs=3, metavar=("MODEL", "DTYPE", "SIDE"), help="only this, really run")
    parser.add_argument("--repeats", help="taken and not used: nothing here is timed")
    options = parser.parse_args()
    models = QUICK if options.quick else MODELS
    if options.real:
        name, dtype, side = options.real
        print(json.dumps(real((MODELS | QUICK)[name], dtype, int(side))))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name, sized in models.items():
            found[name] = sizes(sized, 16 if options.quick else 128, Path(folder))
            say(f"{name}: {found[name]}")
    runs = (("tiny", "bf16", 16),) if options.quick else () if options.no_real else REAL
    found["real"] = {f"{name} {dtype}": measured(name, dtype, side) for name, dtype, side in runs}
    say(f"real: {found['real']}")
    finish(found)


if __name__ == "__main__":
    main()
