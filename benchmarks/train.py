"""How fast and in how much memory a concept trains on a real SD1.5 UNet, against ComfyUI's own trainer.

Run as `python run.py bench train [--quick] [--repeats N]`. The UNet has SD1.5's shapes and random weights; pictures
are 128 px, so latents 16 x 16; rank 4, AdamW. Eight settings: fp32 and bf16, batch 1 and 4, gradient checkpointing of
every side off and on. The base is held in the setting's precision (for bf16 that is ComfyUI's --bf16-unet), and every
side computes in it. The sides are described in sides/trainers.py; they take turns of one step, and the quickest step of
each counts, as other work on the machine only ever adds to it. The built-in trainer of newer hosts makes a model of its
own for each training, which its peak then counts.

The last line is one JSON object with `settings`, for each of them:
    stock_step_seconds              a step of TrainLoraNode as it ships: every Linear, conv, norm and bias is adapted
    stock_same_layers_step_seconds  the same, restricted to the weights that ours adapts
    ours_step_seconds               a bare step of ours: the attention Linears, with erasure; like the built-in one
                                    without a second batch, and with frozen text
    default_step_seconds            a step of ours as Train's defaults have it: niche regularisation on a second batch,
                                    and a token that learns through SD1.5's text encoder
    floor_seconds                   forward and backward of the frozen model alone
    speedup, speedup_same_layers    stock over ours, bare
    speedup_default                 stock over ours by default
    over_floor                      ours over floor
    stock_peak_gb, ours_peak_gb, default_peak_gb
                                    peak memory of a process of its own that trains two steps: its peak resident memory
                                    less what Python and the imported libraries take before the model is made. So the
                                    model's weights count, as they do in torch.cuda.max_memory_allocated,
                                    and by default those of the text encoder, which neither of the others holds
    peak_ratio, default_peak_ratio  ours over stock
    stock_extra_gb, ours_extra_gb   the same less the model's weights as loaded
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import astuple
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.shared import finish, import_comfyui, peak_memory, resident_memory, say, uncollected

import_comfyui()

from benchmarks.common.models import SD15, TINY, build_model  # noqa: E402  (ComfyUI is on the path only now)
from benchmarks.sides.trainers import ERASED, LATENT, RANK, Setting, Sides  # noqa: E402
from blocklora_core.host.train.precision import PRECISIONS  # noqa: E402

SETTINGS = [Setting(*chosen) for chosen in product(("fp32", "bf16"), (1, 4), (False, True))]
PEAKS, PEAK_STEPS = ("stock", "ours", "default"), 2
GB = 1e9


def make_sides(quick: bool, precision: str) -> Sides:
    # As wide a context as the text encoder's, which is the same in both.
    config = TINY | {"context_dim": SD15["context_dim"]} if quick else SD15
    return Sides(lambda: build_model(config, PRECISIONS[precision]), config["context_dim"])


def time_setting(sides: Sides, setting: Setting, keys: set[str], repeats: int) -> dict[str, float]:
    """Side -> seconds of its quickest step. The first round only warms up."""
    quickest: dict[str, float] = {}
    for number in range(repeats + 1):
        turn = {
            "stock": uncollected(lambda: sides.stock(setting, 1)),
            "stock_same_layers": uncollected(lambda: sides.stock(setting, 1, keys)),
            **uncollected(lambda: sides.ours_and_floor(setting, 1)),
            # The first of its steps encodes the prompts in store.
            "default": uncollected(lambda: sides.ours_default(setting, 2)),
        }
        seconds = {side: min(taken) for side, taken in turn.items()}
        say(f"{setting.name}, round {number}/{repeats}: " + ", ".join(f"{k} {v:.2f} s" for k, v in seconds.items()))
        if number:
            quickest = {side: min(taken, quickest.get(side, taken)) for side, taken in seconds.items()}
    return quickest


def measure_peak(side: str, setting: Setting, quick: bool) -> None:
    """In a process of its own: print the gigabytes of the model, and of all at the peak."""
    before = resident_memory()
    sides = make_sides(quick, setting.precision)
    model = resident_memory() - before
    train: dict[str, Callable[[], object]] = {
        "stock": lambda: sides.stock(setting, PEAK_STEPS),
        "ours": lambda: sides.ours_and_floor(setting, PEAK_STEPS, floor=False),
        "default": lambda: sides.ours_default(setting, PEAK_STEPS),
    }
    train[side]()
    print(json.dumps({"model": model / GB, "peak": (peak_memory() - before) / GB}), flush=True)


def peak_of(side: str, setting: Setting, quick: bool) -> dict[str, float]:
    index = str(SETTINGS.index(setting))
    line = [sys.executable, __file__, "--peak", side, index, *(["--quick"] if quick else [])]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"measuring the memory of {side}, {setting.name}, failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    say(f"{setting.name}: {side} peaks at {found['peak']:.2f} GB, of which the model {found['model']:.2f} GB")
    return found


def row(setting: Setting, seconds: dict[str, float], peaks: dict[str, dict[str, float]]) -> dict[str, Any]:
    stock, ours, default = (peaks[side] for side in PEAKS)
    precision, batch, checkpointing = astuple(setting)
    numbers = {
        "stock_step_seconds": seconds["stock"],
        "stock_same_layers_step_seconds": seconds["stock_same_layers"],
        "ours_step_seconds": seconds["ours"],
        "default_step_seconds": seconds["default"],
        "floor_seconds": seconds["floor"],
        "speedup": seconds["stock"] / seconds["ours"],
        "speedup_same_layers": seconds["stock_same_layers"] / seconds["ours"],
        "speedup_default": seconds["stock"] / seconds["default"],
        "over_floor": seconds["ours"] / seconds["floor"],
        "stock_peak_gb": stock["peak"],
        "ours_peak_gb": ours["peak"],
        "default_peak_gb": default["peak"],
        "peak_ratio": ours["peak"] / stock["peak"],
        "default_peak_ratio": default["peak"] / stock["peak"],
        "stock_extra_gb": stock["peak"] - stock["model"],
        "ours_extra_gb": ours["peak"] - ours["model"],
    }
    rounded = {name: round(value, 4) for name, value in numbers.items()}
    described = {"precision": precision, "batch": batch, "gradient_checkpointing": checkpointing}
    return {"name": setting.name, **described, **rounded}


def run(quick: bool, repeats: int) -> None:
    # Memory first: this process is still small, so that there is room for the others.
    settings = SETTINGS[-1:] if quick else SETTINGS
    peaks = [{side: peak_of(side, setting, quick) for side in PEAKS} for setting in settings]
    rows: list[dict[str, Any]] = []
    for precision in dict.fromkeys(setting.precision for setting in settings):
        sides = make_sides(quick, precision)
        chosen = [pair for pair in zip(settings, peaks, strict=True) if pair[0].precision == precision]
        keys = sides.keys(chosen[0][0])
        rows += [row(setting, time_setting(sides, setting, keys, repeats), peak) for setting, peak in chosen]
    finish(
        {
            "settings": rows,
            "linears": len(keys),
            "latent": LATENT,
            "rank": RANK,
            "erasure": ERASED,
            "repeats": repeats,
            "quick": quick,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time training against ComfyUI's own trainer.")
    parser.add_argument("--quick", action="store_true", help="tiny shapes and one setting, to see that it works")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "SETTING"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        side, index = options.peak
        measure_peak(side, SETTINGS[int(index)], options.quick)
    else:
        run(options.quick, options.repeats)


if __name__ == "__main__":
    main()
