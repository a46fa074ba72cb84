"""Do fifteen merged concepts keep their identity? `python run.py bench identity`, on the demo's base.

Every method trains the same concepts (demo/cast.py) on the same pictures, merges them and samples each: alone, and with
1, 2, 4, 9 and 14 others. A small image-text model that never saw the concepts (demo/evaluator.py) says how like their
held-out pictures they are, and which concept each picture shows. The protocol is Mix-of-Show's. Trained files and
pictures are kept in --work, so a run goes on where it was stopped. Writes evidence.json and figures to --out, puts the
figures into evidence.md there (and, when that is docs, into the README), and ends in one JSON object: {"methods":
{name: {"image_single", "image_merged", "retention", "accuracy_single", "accuracy_merged"}}}.

--quick             six people, three methods, one seed; writes to --work
--methods A,B       these only   --seeds N   --pictures N   of each concept and setting
--plain             in their place LoRAs as people have them, whose figures join those in --out
--many              also 15, 30 and 60 concepts merged in 64 slots
--workers N         processes; by default one for each core, or one where there is a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.shared import ROOT, finish, import_comfyui, machine, say, write_json

import_comfyui(gpu=True)

import torch  # noqa: E402  (ComfyUI is on the path only now)

from benchmarks.identity_study.docs import fill  # noqa: E402
from benchmarks.identity_study.figures import draw, grid  # noqa: E402
from benchmarks.identity_study.loudness import loudness  # noqa: E402
from benchmarks.identity_study.methods import MANY, METHODS, PLAIN, QUICK  # noqa: E402
from benchmarks.identity_study.plan import Plan  # noqa: E402
from benchmarks.identity_study.results import Scorer, short  # noqa: E402
from benchmarks.identity_study.work import Folders, WorkerPool  # noqa: E402
from benchmarks.people.docs import write_readme  # noqa: E402
from demo.cast import cast  # noqa: E402
from demo.prepare import CHECKPOINT  # noqa: E402

COUNTS = (2, 3, 5, 10, 15)
MANY_COUNTS = (15, 30, 60)
PEOPLE = 6


def plans(chosen: argparse.Namespace) -> dict[str, Plan]:
    if chosen.quick:
        methods = {name: METHODS[name] for name in QUICK}
        return {"methods": Plan(cast(PEOPLE), chosen.pictures or 4, (PEOPLE,), (0,), methods)}
    if chosen.plain:
        return {"plain": Plan(cast(), chosen.pictures or 4, COUNTS, (0,), PLAIN)}
    names = chosen.methods.split(",") if chosen.methods else list(METHODS)
    unknown = set(names) - set(METHODS)
    if unknown:
        sys.exit(f"--methods: expected some of {', '.join(METHODS)}, got {', '.join(sorted(unknown))}.")
    methods = {name: METHODS[name] for name in names}
    found = {"methods": Plan(cast(), chosen.pictures or 4, COUNTS, tuple(range(chosen.seeds)), methods)}
    if chosen.many:
        found["many"] = Plan(cast(MANY_COUNTS[-1]), 2, MANY_COUNTS, (0,), MANY)
    return found


def measured(plan: Plan, folders: Folders) -> dict[str, Any]:
    """What is complete, and how far the evaluator can be trusted with these concepts."""
    scorer = Scorer(plan, folders)
    found = {name: figures for name, method in plan.methods.items() if (figures := scorer.method(method))}
    confusions = {name: scorer.confusion(plan.methods[name]) for name in found}
    whole = {name: plan.methods[name] for name in found}
    return {
        "evaluator": scorer.trusted(), "methods": found, "confusion": confusions, "loudness": loudness(scorer, whole),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Do merged concepts keep their identity?")
    checkpoints = Path(os.environ["BLOCKLORA_COMFYUI"], "models", "checkpoints")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--methods", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=0)
    parser.add_argument("--many", action="store_true")
    parser.add_argument("--workers", type=int, default=1 if torch.cuda.is_available() else os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, default=ROOT / ".comfyui" / "identity")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--checkpoint", type=Path, default=checkpoints / CHECKPOINT)
    parser.add_argument("--art", type=Path, default=ROOT / ".comfyui" / "art")
    chosen = parser.parse_args()
    folders = Folders(chosen.checkpoint, chosen.art, chosen.work)
    pool = WorkerPool(folders, chosen.workers)
    started = time.perf_counter()
    results: dict[str, Any] = {}
    chosen_plans = plans(chosen)
    for name, plan in chosen_plans.items():
        cells = list(plan.cells())
        pool.work([training for cell in cells for training in cell.trained], cells)
        results[name] = measured(plan, folders)
    run = {
        "seconds": round(time.perf_counter() - started), "work_seconds": round(pool.seconds),
        "workers": chosen.workers, **machine(),
    }  # fmt: skip
    out = chosen.out or (chosen.work / "quick" if chosen.quick else ROOT / "docs")
    out.mkdir(parents=True, exist_ok=True)
    first, plan = next(iter(chosen_plans.items()))
    if chosen.plain:
        grid(plan, folders, list(plan.methods)).save(out / "evidence_plain.jpg", quality=88)
        results["plain"]["run"] = run
    else:
        results["run"] = run
        draw(results, plan, folders, out)
    results = {**_known(out), **results}
    write_json(out / "evidence.json", results)
    fill(out / "evidence.md", results)
    if out.resolve() == ROOT / "docs":
        write_readme(ROOT)
    say(f"figures are in {out}")
    finish({"methods": short(results[first]["methods"], len(plan.members)), **run})


def _known(out: Path) -> dict[str, Any]:
    """What was measured before, by other plans."""
    path = out / "evidence.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


if __name__ == "__main__":
    main()
