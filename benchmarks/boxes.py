"""Who stands in which box? `python run.py bench boxes`, on the demo's base.

Two, three and five concepts are asked for, each in a box of its own: by one prompt, by ComfyUI's areas, by regional
sampling, by LoRA-Composer and by LoRA-Composer without each of its parts in turn; side by side on wide pictures, and
two in a picture of the base's own size (_boxes_layouts.py). The demo's evaluator says which of fifteen concepts each
box shows. Trained files and pictures are kept in --work, which `bench identity` shares, so a run goes on
where it was stopped. Writes boxes.json and boxes_*.jpg to --out, puts the figures into regions.md there, and ends in
one JSON object: {"right": {setting: {"halves": share of boxes, "2": ..., "3": ..., "5": ...}}}.

--sweep             instead, how hard LoRA-Composer should guide: a row of step sizes, on noise apart from the table's
                    to choose by, and on the table's to judge by; writes boxes_steps.json, and no pictures
--leave-out N ...   of a sweep: groups of concepts that take no part
--seeds N           pictures of each setting and number of concepts
--settings A,B      these only
--workers N         processes; by default one for each core, or one where there is a GPU
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.shared import ROOT, finish, import_comfyui, machine, say

import_comfyui(gpu=True)

import torch  # noqa: E402  (ComfyUI is on the path only now)

from benchmarks.boxes_study.docs import write  # noqa: E402
from benchmarks.boxes_study.layouts import LAYOUTS, Layout  # noqa: E402
from benchmarks.boxes_study.results import figures, sheet  # noqa: E402
from benchmarks.boxes_study.scenes import SETTINGS, SWEEP, Scene, Setting  # noqa: E402
from benchmarks.identity_study.plan import groups  # noqa: E402
from benchmarks.identity_study.results import references  # noqa: E402
from benchmarks.identity_study.train import Training  # noqa: E402
from benchmarks.identity_study.work import Folders, WorkerPool  # noqa: E402
from blocklora_core.evaluation import Judge  # noqa: E402
from blocklora_core.regions.composer.options import PRESETS  # noqa: E402
from demo.cast import cast  # noqa: E402
from demo.evaluator.model import DemoEvaluator  # noqa: E402
from demo.prepare import CHECKPOINT  # noqa: E402

NAMES = ("<amelia>", "<zed>", "<felix>", "<nora>", "<omar>", "<rivet>", "<orbit>", "<dart>")
"""Six people of one class word, an alien and a car."""


SWEPT = "halves"
"""The layout of a sweep: where guidance is of use."""
APART = 1000
"""The first seed of the noise that a sweep chooses by."""

Asked = Mapping[tuple[str, str], list[Scene]]
"""Setting and layout -> what is sampled."""


def scenes(setting: Setting, layout: Layout, seeds: Sequence[int], left_out: Collection[int] = ()) -> list[Scene]:
    """One for each group of concepts; the seeds are dealt out among them. left_out: numbers of groups."""
    members = cast()
    trainings = {one.name: Training(setting.recipe, layout.member(one), 0, at) for at, one in enumerate(members)}
    found = groups(len(NAMES), layout.count)
    dealt = [tuple(seeds[number :: len(found)]) for number in range(len(found))]
    return [
        Scene(setting, layout, tuple(trainings[NAMES[at]] for at in group), own)
        for number, (group, own) in enumerate(zip(found, dealt, strict=True))
        if own and number not in left_out
    ]


def sample(asked: Asked, folders: Folders, workers: int) -> None:
    """What is not kept from before."""
    every = [scene for listed in asked.values() for scene in listed]
    WorkerPool(folders, workers).work([training for scene in every for training in scene.trained], every)


def measured(asked: Asked, settings: Mapping[str, Setting], folders: Folders) -> dict[str, dict[str, Any]]:
    """Setting -> its title, and the figures of each layout."""
    judge = Judge(DemoEvaluator.load(), references(cast(), folders))
    found: dict[str, dict[str, Any]] = {name: {"title": setting.title} for name, setting in settings.items()}
    for (name, key), listed in asked.items():
        found[name][key] = figures(judge, listed, folders)
    return found


def table(settings: Mapping[str, Setting], options: argparse.Namespace, folders: Folders) -> dict[str, Any]:
    """Every setting in every layout, with pictures of them."""
    seeds = range(options.seeds)
    asked = {
        (name, key): scenes(one, layout, seeds) for name, one in settings.items() for key, layout in LAYOUTS.items()
    }
    sample(asked, folders, options.workers)
    for key in LAYOUTS:
        picture = sheet({name: asked[name, key] for name in settings}, folders)
        options.out.mkdir(parents=True, exist_ok=True)
        picture.save(options.out / f"boxes_{key}.jpg", quality=90)
    return {"settings": measured(asked, settings, folders)}


def sweep(settings: Mapping[str, Setting], options: argparse.Namespace, folders: Folders) -> dict[str, Any]:
    """Every strength of guidance on noise to choose by, and the presets on noise to judge by."""
    presets = {name: one for name, one in settings.items() if one.composer in PRESETS.values()}
    found: dict[str, Any] = {}
    for part, arms, first in (("settings", settings, APART), ("judged", presets, 0)):
        seeds = range(first, first + options.seeds)
        asked = {(name, SWEPT): scenes(one, LAYOUTS[SWEPT], seeds, options.leave_out) for name, one in arms.items()}
        found["groups"] = [list(scene.names) for scene in next(iter(asked.values()))]
        found["pictures"] = sum(len(scene.seeds) for scene in next(iter(asked.values())))
        sample(asked, folders, options.workers)
        found[part] = measured(asked, arms, folders)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Who stands in which box?")
    checkpoints = Path(os.environ["BLOCKLORA_COMFYUI"], "models", "checkpoints")
    parser.add_argument("--sweep", action="store_true", help="strengths of LoRA-Composer's guidance instead")
    parser.add_argument(
        "--leave-out", type=int, nargs="*", default=(), help="of a sweep: numbers of groups of concepts"
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--settings", default="", help="by default all")
    parser.add_argument("--workers", type=int, default=1 if torch.cuda.is_available() else os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, default=ROOT / ".comfyui" / "identity")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--checkpoint", type=Path, default=checkpoints / CHECKPOINT)
    parser.add_argument("--art", type=Path, default=ROOT / ".comfyui" / "art")
    chosen = parser.parse_args()
    known = SWEEP if chosen.sweep else SETTINGS
    names = chosen.settings.split(",") if chosen.settings else list(known)
    if unknown := set(names) - set(known):
        sys.exit(f"--settings: expected some of {', '.join(known)}, got {', '.join(sorted(unknown))}.")
    folders, started = Folders(chosen.checkpoint, chosen.art, chosen.work), time.perf_counter()
    found = (sweep if chosen.sweep else table)({name: known[name] for name in names}, chosen, folders)
    results = {**found, "seeds": chosen.seeds, "seconds": round(time.perf_counter() - started)}
    write(chosen.out, "steps" if chosen.sweep else "boxes", {**results, **machine()})
    say(f"figures are in {chosen.out}")
    right = {
        name: {key: value["right"][0] for key, value in one.items() if key in LAYOUTS}
        for name, one in found["settings"].items()
    }
    finish({"right": right, "seconds": results["seconds"]})


if __name__ == "__main__":
    main()
