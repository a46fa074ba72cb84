"""Who stands in which box? `python run.py bench boxes`, on the demo's base.

Two, three and five concepts are asked for, each in a box of its own: by one prompt, by regional sampling, by
LoRA-Composer and by LoRA-Composer without each of its parts in turn. The demo's evaluator says which of fifteen
concepts each box shows. Trained files and pictures are kept in --work, which `bench identity` shares, so a run goes on
where it was stopped. Writes boxes.json and boxes_*.png to --out, puts the figures into regions.md there, and ends in
one JSON object: {"right": {setting: {"2": share of boxes, "3": ..., "5": ...}}}.

--seeds N           pictures of each setting and number of concepts
--settings A,B      these only
--workers N         processes; by default one for each core, or one where there is a GPU
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._shared import ROOT, finish, import_comfyui, machine, say

import_comfyui(gpu=True)

import torch  # noqa: E402  (ComfyUI is on the path only now)

from benchmarks._boxes_results import figures, sheet  # noqa: E402
from benchmarks._boxes_scenes import COUNTS, SETTINGS, Scene  # noqa: E402
from benchmarks._identity_plan import groups  # noqa: E402
from benchmarks._identity_results import references  # noqa: E402
from benchmarks._identity_train import Training  # noqa: E402
from benchmarks._identity_work import Crew, Place  # noqa: E402
from benchmarks._regions_docs import write  # noqa: E402
from blocklora_core.evaluation import Judge  # noqa: E402
from demo.cast import cast  # noqa: E402
from demo.evaluator import DemoEvaluator  # noqa: E402
from demo.prepare import CHECKPOINT  # noqa: E402

NAMES = ("<amelia>", "<zed>", "<felix>", "<nora>", "<omar>", "<rivet>", "<orbit>", "<dart>")
"""Six people of one class word, an alien and a car."""


def scenes(name: str, count: int, seeds: int) -> list[Scene]:
    """One for each group of concepts; the seeds are dealt out among them."""
    members = cast()
    trainings = {one.name: Training(SETTINGS[name].recipe, one, 0, at) for at, one in enumerate(members)}
    found = groups(len(NAMES), count)
    return [
        Scene(SETTINGS[name], tuple(trainings[NAMES[at]] for at in group), tuple(range(number, seeds, len(found))))
        for number, group in enumerate(found)
        if number < seeds
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Who stands in which box?")
    checkpoints = Path(os.environ["BLOCKLORA_COMFYUI"], "models", "checkpoints")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--workers", type=int, default=1 if torch.cuda.is_available() else os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, default=ROOT / ".comfyui" / "identity")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--checkpoint", type=Path, default=checkpoints / CHECKPOINT)
    parser.add_argument("--art", type=Path, default=ROOT / ".comfyui" / "art")
    chosen = parser.parse_args()
    names = chosen.settings.split(",")
    if unknown := set(names) - set(SETTINGS):
        sys.exit(f"--settings: expected some of {', '.join(SETTINGS)}, got {', '.join(sorted(unknown))}.")
    place, started = Place(chosen.checkpoint, chosen.art, chosen.work), time.perf_counter()
    asked = {(name, count): scenes(name, count, chosen.seeds) for name in names for count in COUNTS}
    every = [scene for listed in asked.values() for scene in listed]
    crew = Crew(place, chosen.workers)
    crew.work([training for scene in every for training in scene.trained], every)
    judge = Judge(DemoEvaluator.load(), references(cast(), place))
    settings = {
        name: {"title": SETTINGS[name].title}
        | {str(count): figures(judge, asked[name, count], place) for count in COUNTS}
        for name in names
    }
    results = {"settings": settings, "seeds": chosen.seeds, "seconds": round(time.perf_counter() - started)}
    write(chosen.out, "boxes", {**results, **machine()})
    for count in COUNTS:
        picture = sheet({name: asked[name, count] for name in names}, count, place)
        picture.save(chosen.out / f"boxes_{count}.png", optimize=True)
    say(f"figures are in {chosen.out}")
    right = {name: {str(count): found[str(count)]["right"][0] for count in COUNTS} for name, found in settings.items()}
    finish({"right": right, "seconds": results["seconds"]})


if __name__ == "__main__":
    main()
