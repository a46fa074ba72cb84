"""Do people keep their identity when merged? The test of docs/protocol.md, on drawn people that the base never saw.

`python run.py bench people STAGE`, in this order:

protocol      writes the configuration's hash into docs/protocol.md; commit it before the test
development   every arm's eight settings on the development cast; the best of each is kept in docs/people.json
test          each arm with that setting on the test cast, and the contrasts
boxes         people of the development cast, two to five in a picture, each in a box; what one prompt and regions do
style         people of the development cast in a style that was taught, too, on a ground that the prompt asks for
capacity      15 to 100 other people merged, by the default arm's first setting

Trained files and pictures are kept in --work, the pictures' scores in docs/people_scores.json, so that a stage goes on
where it was stopped; with the scores alone development, test and capacity do so on another machine, too. It measures
what is whole and says how many seeds that is. Drawing the casts needs Node. Writes docs/people.json, puts the figures
into docs/people.md and the README, and ends in one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common.shared import ROOT, finish, import_comfyui, machine, say, write_json

import_comfyui(gpu=True)

import torch  # noqa: E402  (ComfyUI is on the path only now)

from benchmarks.identity_study.docs import fill  # noqa: E402
from benchmarks.identity_study.figures import grid  # noqa: E402
from benchmarks.identity_study.methods import Method  # noqa: E402
from benchmarks.identity_study.plan import Plan  # noqa: E402
from benchmarks.identity_study.work import Cell, Folders, WorkerPool  # noqa: E402
from benchmarks.people import capacity, cast, protocol, stylised  # noqa: E402
from benchmarks.people.arms import ARMS, RECIPES, SAMPLING, chosen_methods  # noqa: E402
from benchmarks.people.boxes import measure  # noqa: E402
from benchmarks.people.cast import Drawn  # noqa: E402
from benchmarks.people.docs import TABLES, write_readme  # noqa: E402
from benchmarks.people.scoring.book import ScoreBook  # noqa: E402
from benchmarks.people.scoring.results import best, contrasts, measured  # noqa: E402
from benchmarks.people.scoring.scores import Scorer  # noqa: E402
from blocklora_core.host.train.precision import PRECISIONS  # noqa: E402
from demo.people.corpus import prepare_renderer  # noqa: E402
from demo.prepare import CHECKPOINT  # noqa: E402

DOCS = ROOT / "docs"
PROTOCOL, RESULTS, SCORES = DOCS / "protocol.md", DOCS / "people.json", DOCS / "people_scores.json"


def draw(groups: Sequence[Sequence[Drawn]], folders: Folders, renderer: Path) -> None:
    prepared = prepare_renderer(renderer)
    for member in (one for group in groups for one in group):
        member.draw(folders.art, prepared)


def plans(groups: Sequence[Sequence[Drawn]], pictures: int, seeds: int, methods: Mapping[str, Method]) -> list[Plan]:
    return [
        Plan(tuple(group), pictures, (len(group),), tuple(range(seeds)), methods, SAMPLING, RECIPES) for group in groups
    ]


def known() -> dict[str, Any]:
    """What was measured before."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    return found


def cells_of(plan: Plan) -> list[Cell]:
    """Every one that shows a concept."""
    return [cell for cell in plan.cells() if cell.trained]


def sheet(plan: Plan, folders: Folders, path: Path) -> None:
    """The first seed's pictures; those of another machine have their sheet already."""
    first = replace(plan, seeds=plan.seeds[:1])
    if all(cell.path(folders).is_file() for cell in cells_of(first)):
        grid(first, folders, list(plan.methods)).save(path, quality=88)


def work(pool: WorkerPool, scorers: Iterable[Scorer], minutes: float) -> None:
    """Train and sample what has no scores yet."""
    cells = [cell for one in scorers for cell in one.unscored(cells_of(one.plan))]
    cells.sort(key=lambda cell: max((one.seed for one in cell.trained), default=0))
    pool.work([training for cell in cells for training in cell.trained], cells, minutes * 60)


def development(pool: WorkerPool, chosen: argparse.Namespace) -> dict[str, Any]:
    """Each arm's settings, and which is the best: the highest sum of genes right and image alignment, all merged. Arms
    that are not whole yet are left out."""
    groups, pictures = [cast.development()], protocol.PICTURES["development"]
    of_arm = {arm: {f"{arm}: {key}": one for key, one in ARMS[arm].settings.items()} for arm in chosen.arms}
    book = ScoreBook.read(SCORES, chosen.precision)
    scorers = {
        arm: Scorer(plans(groups, pictures, 1, methods)[0], pool.folders, book) for arm, methods in of_arm.items()
    }
    work(pool, scorers.values(), chosen.minutes)
    found = {arm: measured([one]) for arm, one in scorers.items() if one.ready(cells_of(one.plan))}
    if not found:
        return {}
    book.write()
    digest, before = protocol.digest(), known().get("development", {})
    if before.get("configuration") != digest:
        before = {"settings": {}, "chosen": {}}
    settings = before["settings"] | {name: one for settings in found.values() for name, one in settings.items()}
    best_of = before["chosen"] | {arm: best(arm, settings) for arm in found}
    if set(best_of) == set(ARMS):
        methods = chosen_methods(best_of.__getitem__)
        chosen_plan = plans(groups, pictures, 1, {arm: methods[arm] for arm in ARMS})[0]
        sheet(chosen_plan, pool.folders, DOCS / "people_development.jpg")
    return {"configuration": digest, "settings": settings, "chosen": best_of}


def test(pool: WorkerPool, chosen: argparse.Namespace) -> dict[str, Any]:
    """Of as many seeds as are whole; nothing where none is."""
    settings = known().get("development", {}).get("chosen", {})
    if missing := set(ARMS) - set(settings):
        sys.exit(
            f"test: expected a setting of every arm, got none of {', '.join(sorted(missing))}: run development first."
        )
    methods = chosen_methods(settings.__getitem__)
    written = protocol.check(PROTOCOL)

    book = ScoreBook.read(SCORES, chosen.precision)

    def of(seeds: int) -> list[Scorer]:
        found = plans(cast.test(), protocol.PICTURES["test"], seeds, methods)
        return [Scorer(plan, pool.folders, book) for plan in found]

    work(pool, of(chosen.seeds), chosen.minutes)
    for seeds in range(chosen.seeds, 0, -1):
        scorers = of(seeds)
        if all(scorer.ready(cells_of(scorer.plan)) for scorer in scorers):
            found = measured(scorers)
            book.write()
            for at, scorer in enumerate(scorers):
                sheet(scorer.plan, pool.folders, DOCS / f"people_test_{at}.jpg")
            return {"configuration": written, "seeds": seeds, "arms": found, "contrasts": contrasts(scorers)}
    return {}


def boxes(pool: WorkerPool, chosen: argparse.Namespace) -> dict[str, Any]:
    return measure(pool, chosen.minutes, DOCS)


def crowd(pool: WorkerPool, chosen: argparse.Namespace) -> dict[str, Any]:
    book = ScoreBook.read(SCORES, chosen.precision)
    found = capacity.measure(pool, book, chosen.minutes)
    if found:
        book.write()
    return found


def style(pool: WorkerPool, chosen: argparse.Namespace) -> dict[str, Any]:
    return stylised.measure(pool, chosen.minutes, DOCS)


STAGES = {"development": development, "test": test, "boxes": boxes, "style": style, "capacity": crowd}
GROUPS: Mapping[str, Callable[[], Sequence[Sequence[Drawn]]]] = {
    "development": lambda: [cast.development()], "test": cast.test, "boxes": lambda: [cast.development()],
    "style": lambda: [(*cast.development(), *stylised.TAUGHT)], "capacity": lambda: [cast.crowd()],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    checkpoints = Path(os.environ["BLOCKLORA_COMFYUI"], "models", "checkpoints")
    parser.add_argument("stage", choices=("protocol", *STAGES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--arms", nargs="*", choices=tuple(ARMS), default=tuple(ARMS), help="of development, these only"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="start nothing new after so many")
    parser.add_argument("--workers", type=int, default=1 if torch.cuda.is_available() else os.cpu_count() or 1)
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="fp32", help="of all that is computed")
    parser.add_argument("--work", type=Path, default=ROOT / ".comfyui" / "people_study")
    parser.add_argument("--renderer", type=Path, default=ROOT / ".comfyui" / "people" / "node")
    parser.add_argument("--checkpoint", type=Path, default=checkpoints / CHECKPOINT)
    chosen = parser.parse_args()
    if chosen.stage == "protocol":
        finish({"configuration": protocol.write(PROTOCOL)})
        return
    folders = Folders(chosen.checkpoint, chosen.work / "art", chosen.work / chosen.precision, chosen.precision)
    pool = WorkerPool(folders, chosen.workers)
    draw(GROUPS[chosen.stage](), folders, chosen.renderer)
    started = time.perf_counter()
    found = STAGES[chosen.stage](pool, chosen)
    if not found:
        say("nothing is whole yet: run it again to go on")
        finish({"stage": chosen.stage, "whole": False})
        return
    found["run"] = {
        "seconds": round(time.perf_counter() - started), "work_seconds": round(pool.seconds),
        "precision": chosen.precision, **machine(),
    }  # fmt: skip
    results = {**known(), chosen.stage: found}
    write_json(RESULTS, results)
    fill(DOCS / "people.md", results, TABLES)
    write_readme(ROOT)
    finish({"stage": chosen.stage, "whole": True, "chosen": found.get("chosen"), "seeds": found.get("seeds", 1)})


if __name__ == "__main__":
    main()
