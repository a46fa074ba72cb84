"""How well BlockLoRA Inspect foresees a merge: what the files say of interference, beside what the pictures show. After
`import_comfyui`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from benchmarks.identity_study.methods import RECIPES, Method
from benchmarks.identity_study.results import Scorer
from benchmarks.identity_study.work import Cell
from blocklora_core.concept.concept import Stack
from blocklora_core.files.io import load
from blocklora_core.merge.methods.fused import fused
from blocklora_core.merge.methods.sums import per_row
from blocklora_core.reports.inspection.crosstalk import interference

EDGES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0, 1.3, 2.0, 10.0)
METHODS_SEEN = ("default", "blocklora", "blocklora_fused", "niche")
"""Row blocks with Grams, merged by sum and by fused."""


class Seen(NamedTuple):
    """One concept in one merge: interference of all others, image alignment over that alone, shares recognised."""

    interference: float
    kept: float
    recognised: float
    alone: float


def loudness(scorer: Scorer, methods: Mapping[str, Method]) -> list[dict[str, Any]]:
    """Means of all concepts and merges of the first seed whose interference lies from `low` to below `high`."""
    seen = [one for name in METHODS_SEEN if name in methods for one in _of_method(scorer, methods[name])]
    bins = []
    for low, high in pairwise(EDGES):
        inside = [one for one in seen if low <= one.interference < high]
        if inside:
            means = Seen(*np.mean(inside, axis=0).round(4).tolist())
            least = round(min(one.kept for one in inside), 4)
            bins.append({"low": low, "high": high, "count": len(inside), **means._asdict(), "least_kept": least})
    return bins


def _of_method(scorer: Scorer, method: Method) -> Iterator[Seen]:
    plan, seed = scorer.plan, scorer.plan.seeds[0]
    alone = {name: found for cell in plan.alone(RECIPES[method.recipe], seed) for name, found in _shown(scorer, cell)}
    for count in plan.counts_of(method, seed):
        for cell in plan.merged(method, seed, count):
            stack = _merged(scorer, cell)
            places = {lora.concept.name: at for at, lora in enumerate(stack)}
            for name, (image, recognised) in _shown(scorer, cell):
                heard = interference(stack, places[name])
                if heard is not None:
                    yield Seen(heard, image / alone[name][0], recognised, alone[name][1])


def _shown(scorer: Scorer, cell: Cell) -> Sequence[tuple[str, tuple[float, float]]]:
    """Concept, mean image alignment and share recognised."""
    scores = scorer.scores(cell).items()
    return [(name, (float(np.mean(one.image)), one.found.count(name) / len(one.found))) for name, one in scores]


def _merged(scorer: Scorer, cell: Cell) -> Stack:
    folders = scorer.folders
    stack = per_row(tuple(load(training.path(folders.art, folders.files)) for training in cell.trained))
    return fused(stack) if cell.merge.method == "fused" else stack
