"""How many people fit in one merge? A hundred, whom no setting was chosen by. After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain
from typing import Any

from benchmarks.identity_study.plan import ALONE, Plan
from benchmarks.identity_study.results import rounded
from benchmarks.identity_study.sample import TOKENS, Merge
from benchmarks.identity_study.train import Recipe, Training
from benchmarks.identity_study.work import Cell, PromptCase, WorkerPool
from benchmarks.people import cast
from benchmarks.people.arms import SAMPLING, default_recipe
from benchmarks.people.scoring.book import ScoreBook
from benchmarks.people.scoring.scores import Scorer
from blocklora_core.concept.rows import Scheme
from blocklora_core.evaluation import bootstrap

COUNTS, SHOWN, PICTURES = (15, 30, 60, 100), 15, 4
"""How many are merged; how many of them, always the same, are looked at, and in how many pictures each."""
FEW, ENOUGH = 16, 128
"""Slots: the default scheme's, which more people than that share, and one for everybody."""
METRICS = ("genes", "image", "by_genes")


@dataclass(frozen=True)
class Way:
    title: str
    slots: int
    merge: Merge


WAYS: Mapping[str, Way] = {
    "auto": Way(f"{FEW} slots, `auto`", FEW, Merge("auto")),
    "own": Way(f"{ENOUGH} slots, `fused`", ENOUGH, Merge("fused")),
    "sum": Way(f"{FEW} slots, summed", FEW, Merge("task_sum")),
    "tokens": Way("Control: tokens, no row block", FEW, Merge(TOKENS)),
}


@dataclass(frozen=True)
class Crowd:
    """recipe: how everybody is trained, but for the slots."""

    recipe: Recipe
    people: Sequence[cast.Drawn]

    @cached_property
    def plan(self) -> Plan:
        return Plan(tuple(self.people), PICTURES, (), (0,), {}, SAMPLING, {})

    @cached_property
    def cases(self) -> Sequence[Sequence[PromptCase]]:
        return [self.plan.cases(one) for one in self.people[:SHOWN]]

    def trainings(self, slots: int) -> tuple[Training, ...]:
        return self.plan.trainings(replace(self.recipe, scheme=Scheme(slots=slots)), 0)

    def alone(self, slots: int) -> list[Cell]:
        trained = self.trainings(slots)
        return [Cell((trained[at],), ALONE, tuple(cases), SAMPLING) for at, cases in enumerate(self.cases)]

    def merged(self, way: Way, count: int) -> Cell:
        return Cell(self.trainings(way.slots)[:count], way.merge, tuple(chain(*self.cases)), SAMPLING)

    def runs(self, way: Way) -> dict[str, list[Cell]]:
        merged = {str(count): [self.merged(way, count)] for count in COUNTS}
        return {"alone": self.alone(way.slots), **merged}


@cache
def crowd() -> Crowd:
    return Crowd(default_recipe(), cast.crowd())


def measure(pool: WorkerPool, book: ScoreBook, minutes: float) -> dict[str, Any]:
    """Every way at every number; nothing until all pictures are there."""
    asked = {name: crowd().runs(way) for name, way in WAYS.items()}
    cells = [cell for runs in asked.values() for listed in runs.values() for cell in listed]
    scorer = Scorer(crowd().plan, pool.folders, book)
    due = scorer.unscored(cells)
    pool.work([training for cell in due for training in cell.trained], due, minutes * 60)
    if not scorer.ready(cells):
        return {}
    ways = {
        name: {"title": WAYS[name].title, **{of: _figures(scorer, listed) for of, listed in runs.items()}}
        for name, runs in asked.items()
    }
    return {"ways": ways, "shown": SHOWN, "pictures": PICTURES}


def _figures(scorer: Scorer, cells: Sequence[Cell]) -> dict[str, Any]:
    found = scorer.scores([cells])
    return {metric: rounded(bootstrap(list(found[metric].values()))) for metric in METRICS}
