"""What regions cost a sampling step on a real SD1.5 UNet, against ComfyUI's stock ways.

Run as `python run.py bench regions [--quick] [--repeats N] [--ways ours,stock_masks] [--counts 2,5] [--out docs]`. The
UNet has SD1.5's shapes and random float32 weights; latents are 32 x 32 (pictures of 256 px); euler, CFG 7.5, prompts of
77 tokens. The sides are described in _regional_sides.py; they take turns of one short sampling. Of a sampling the
quickest step but the first counts as its step, and of all rounds the median: what a sampling does once, such as
projecting the regions' prompts, is in its first step, and told apart. --out puts the figures into docs/regions.md.

The last line is one JSON object:
    plain_seconds                    a step with one prompt
    ours_2_seconds, ours_2_first     a step with 2 regions, and the first step; so too 5 and 10 regions
    stock_masks_*, stock_areas_*, stock_hooks_*, per_region_*      the same for the others
    overhead_2, overhead_5, overhead_10      ours over plain
    composer_*                       the same for LoRA-Composer, every step guided
    composer_step_over_plain         a step of the sampler with 5 regions and a step of guidance, over plain
    composer_guidance_over_plain     the guidance alone: that step less ours_5, over plain
    speedup_vs_stock_5               stock masks with a hook LoRA for each region over ours
    speedup_vs_masks_5, speedup_vs_areas_5, speedup_vs_per_region_5      over ours
    plain_peak_gb, ours_5_peak_gb, composer_5_peak_gb, stock_hooks_5_peak_gb           peak memory of a process of its
                                     own that samples two steps, less what Python and the imported libraries take before
                                     the model is made
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.shared import finish, import_comfyui, machine, peak_memory, resident_memory, say, uncollected

import_comfyui()

import torch  # noqa: E402  (ComfyUI is on the path only now)

from benchmarks.boxes_study.docs import write  # noqa: E402
from benchmarks.common.models import SD15, TINY, build_model  # noqa: E402
from benchmarks.sides.regional import WAYS, Scene, plain  # noqa: E402

COUNTS, LATENT, QUICK_LATENT, STEPS = (2, 5, 10), 32, 8, 3
REFERENCE = 5
PEAKS = ("plain", f"ours_{REFERENCE}", f"composer_{REFERENCE}", f"stock_hooks_{REFERENCE}")
GB = 1e9
Side = tuple[str, int]


def make_scene(quick: bool) -> Scene:
    config = TINY if quick else SD15
    return Scene(build_model(config, torch.float32), config["context_dim"], latent_of(quick))


def latent_of(quick: bool) -> int:
    """Side of the latents."""
    return QUICK_LATENT if quick else LATENT


def name_of(side: Side) -> str:
    way, count = side
    return f"{way}_{count}" if count else way


def side_of(name: str) -> Side:
    way, _, count = name.rpartition("_")
    return (way, int(count)) if way else (name, 0)


def sampled(scene: Scene, side: Side, steps: int) -> list[float]:
    way, count = side
    job = (WAYS[way] if count else plain)(scene, count)
    return scene.steps(job, steps)


def timed(scene: Scene, sides: list[Side], repeats: int) -> dict[str, float]:
    """Seconds of a step and of the first step of every side, median of the rounds; a plain sampling warms up."""
    steps: dict[str, list[float]] = {name_of(side): [] for side in sides}
    firsts: dict[str, list[float]] = {name_of(side): [] for side in sides}
    sampled(scene, ("plain", 0), STEPS)
    for number in range(1, repeats + 1):
        for side in sides:
            first, *others = uncollected(lambda side=side: sampled(scene, side, STEPS))
            firsts[name_of(side)].append(first)
            steps[name_of(side)].append(min(others))
            say(f"round {number}/{repeats}: {name_of(side)} {min(others):.3f} s a step, the first {first:.3f} s")
    figures = {f"{name}_seconds": statistics.median(taken) for name, taken in steps.items()}
    return figures | {f"{name}_first": statistics.median(taken) for name, taken in firsts.items()}


def ratios(figures: dict[str, float], counts: list[int]) -> dict[str, float]:
    """What the sides that were timed cost, over one another."""

    def over(one: str, other: str) -> float | None:
        found = [figures.get(f"{name}_seconds") for name in (one, other)]
        return found[0] / found[1] if found[0] and found[1] else None

    named = {f"overhead_{count}": over(f"ours_{count}", "plain") for count in counts}
    others = {"stock": "stock_hooks", "masks": "stock_masks", "areas": "stock_areas", "per_region": "per_region"}
    for count in counts:
        for short, way in others.items():
            named[f"speedup_vs_{short}_{count}"] = over(f"{way}_{count}", f"ours_{count}")
    stepped, unguided = over(f"composer_{REFERENCE}", "plain"), over(f"ours_{REFERENCE}", "plain")
    named["composer_step_over_plain"] = stepped
    named["composer_guidance_over_plain"] = stepped - unguided if stepped and unguided else None
    return {name: ratio for name, ratio in named.items() if ratio is not None}


def measure_peak(side: str, quick: bool) -> None:
    """In a process of its own: print the gigabytes at the peak."""
    before = resident_memory()
    sampled(make_scene(quick), side_of(side), 2)
    print((peak_memory() - before) / GB, flush=True)


def peak_of(side: str, quick: bool) -> float:
    line = [sys.executable, __file__, "--peak", side, *(["--quick"] if quick else [])]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"measuring the memory of {side} failed:\n{done.stderr[-3000:]}")
    peak = float(done.stdout.splitlines()[-1])
    say(f"{side} peaks at {peak:.2f} GB")
    return peak


def run(quick: bool, repeats: int, ways: list[str], counts: list[int], out: Path | None) -> None:
    # Memory first: this process is still small, so that there is room for the others.
    peaks = {f"{side}_peak_gb": peak_of(side, quick) for side in (PEAKS[:2] if quick else PEAKS)}
    # Plain has a turn before each number of regions: all others are told as multiples of it.
    sides: list[Side] = [side for count in counts for side in (("plain", 0), *((way, count) for way in ways))]
    figures = timed(make_scene(quick), sides, repeats)
    settings: dict[str, Any] = {"steps": STEPS, "repeats": repeats, "quick": quick}
    found = {**figures, **ratios(figures, counts), **peaks, "latent": latent_of(quick), **settings}
    if out:
        write(out, "cost", {**found, **machine()})
    finish(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time regions against ComfyUI's stock ways.")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it works")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"which of {', '.join(WAYS)}")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="numbers of regions, at most 10")
    parser.add_argument("--out", type=Path, help="folder for regions.json; docs for the figures in regions.md")
    parser.add_argument("--peak", metavar="SIDE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        measure_peak(options.peak, options.quick)
    else:
        counts = [int(count) for count in options.counts.split(",")]
        run(options.quick, options.repeats, options.ways.split(","), counts, options.out)


if __name__ == "__main__":
    main()
