"""Who stands in which box? `python run.py bench boxes`, on the demo's base.

Two, three and five concepts are asked for, each in a box of its own: by one prompt, by ComfyUI's areas, by regional
sampling, by LoRA-Composer and by LoRA-Composer without each of its parts in turn; side by side on wide pictures, and
two in a picture of the base's own size (_boxes_layouts.py). The demo's evaluator says which of fifteen concepts each
box shows. Trained files and pictures are kept in --work, which `bench identity` shares, so a run goes on
where it was stopped. Writes boxes.json and boxes_*.jpg to --out, puts the figures into regions.md there, and ends in
one JSON object: {"right": {setting: {"halves": share of boxes, "2": ..., "3": ..., "5": ...}}}.

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

from benchmarks.common.shared import ROOT, finish, import_comfyui, machine, say

import_comfyui(gpu=True)

import torch  # noqa: E402  (ComfyUI is on the path only now)

from benchmarks.boxes_study.docs import write  # noqa: E402
from benchmarks.boxes_study.layouts import LAYOUTS, Layout  # noqa: E402
from benchmarks.boxes_study.results import figures, sheet  # noqa: E402
from benchmarks.boxes_study.scenes import SETTINGS, Scene  # noqa: E402
from benchmarks.identity_study.plan import groups  # noqa: E402
from benchmarks.identity_study.results import references  # noqa: E402
from benchmarks.identity_study.train import Training  # noqa: E402
from benchmarks.identity_study.work import Folders, WorkerPool  # noqa: E402
from blocklora_core.evaluation import Judge  # noqa: E402
from demo.cast import cast  # noqa: E402
from demo.evaluator.model import DemoEvaluator  # noqa: E402
from demo.prepare import CHECKPOINT  # noqa: E402

NAMES = ("<amelia>", "<zed>", "<felix>", "<nora>", "<omar>", "<rivet>", "<orbit>", "<dart>")
"""Six people of one class word, an alien and a car."""


def scenes(name: str, layout: Layout, seeds: int) -> list[Scene]:
    """One for each group of concepts; the seeds are dealt out among them."""
    members = cast()
    recipe = SETTINGS[name].recipe
    trainings = {one.name: Training(recipe, layout.member(one), 0, at) for at, one in enumerate(members)}
    found = groups(len(NAMES), layout.count)
    dealt = [tuple(range(number, seeds, len(found))) for number in range(len(found))]
    return [
        Scene(SETTINGS[name], layout, tuple(trainings[NAMES[at]] for at in group), own)
        for group, own in zip(found, dealt, strict=True)
        if own
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
    folders, started = Folders(chosen.checkpoint, chosen.art, chosen.work), time.perf_counter()
    asked = {(name, key): scenes(name, layout, chosen.seeds) for name in names for key, layout in LAYOUTS.items()}
    every = [scene for listed in asked.values() for scene in listed]
    pool = WorkerPool(folders, chosen.workers)
    pool.work([training for scene in every for training in scene.trained], every)
    judge = Judge(DemoEvaluator.load(), references(cast(), folders))
    settings = {
        name: {"title": SETTINGS[name].title} | {key: figures(judge, asked[name, key], folders) for key in LAYOUTS}
        for name in names
    }
    results = {"settings": settings, "seeds": chosen.seeds, "seconds": round(time.perf_counter() - started)}
    write(chosen.out, "boxes", {**results, **machine()})
    for key in LAYOUTS:
        picture = sheet({name: asked[name, key] for name in names}, folders)
        picture.save(chosen.out / f"boxes_{key}.jpg", quality=90)
    say(f"figures are in {chosen.out}")
    right = {name: {key: found[key]["right"][0] for key in LAYOUTS} for name, found in settings.items()}
    finish({"right": right, "seconds": results["seconds"]})


if __name__ == "__main__":
    main()
