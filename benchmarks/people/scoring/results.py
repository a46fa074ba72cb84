"""From scores to figures: what `bench people` reports of each arm and setting. After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.identity_study.methods import Method
from benchmarks.identity_study.results import rounded
from benchmarks.people.arms import ARMS, DEFAULT
from benchmarks.people.protocol import PRIMARY
from benchmarks.people.scoring.contrasts import contrast, holm
from benchmarks.people.scoring.scores import METRICS, Scorer, Scores, joined
from blocklora_core.evaluation import bootstrap, retention

Figures = dict[str, Any]


def alone(scorers: Sequence[Scorer], method: Method) -> Scores:
    return joined([
        one.scores([one.plan.alone(one.plan.recipes[method.recipe], seed) for seed in one.plan.seeds])
        for one in scorers
    ])  # fmt: skip


def merged(scorers: Sequence[Scorer], method: Method) -> Scores:
    return joined([
        one.scores([one.plan.merged(method, seed, len(one.plan.members)) for seed in one.plan.seeds])
        for one in scorers
    ])  # fmt: skip


def measured(scorers: Sequence[Scorer]) -> dict[str, Figures]:
    """Of every method; all its pictures must be there."""
    plan = scorers[0].plan
    return {
        name: _figures(method, alone(scorers, method), merged(scorers, method), len(plan.seeds))
        for name, method in plan.methods.items()
    }


def _figures(method: Method, single: Scores, together: Scores, runs: int) -> Figures:
    found: Figures = {"title": method.title, "alone": {}, "merged": {}, "kept": {}}
    for metric in METRICS:
        found["alone"][metric] = rounded(bootstrap(list(single[metric].values()), runs=runs))
        found["merged"][metric] = rounded(bootstrap(list(together[metric].values()), runs=runs))
        kept = retention(together[metric], single[metric], runs=runs)
        found["kept"][metric] = rounded(kept) if kept else None
    return found


def best(arm: str, found: Mapping[str, Figures]) -> str:
    """The setting with the highest sum of the primary scores, all merged; of equal ones the first."""
    names = {setting: f"{arm}: {setting}" for setting in ARMS[arm].settings}
    return max(names, key=lambda setting: sum(found[names[setting]]["merged"][metric][0] for metric in PRIMARY))


def contrasts(scorers: Sequence[Scorer]) -> list[Figures]:
    """The default against every other arm by each primary score, with Holm's correction over all of them."""
    plan, runs = scorers[0].plan, len(scorers[0].plan.seeds)
    scores = {name: merged(scorers, plan.methods[name]) for name in ARMS}
    found = {
        (arm, metric): contrast(scores[DEFAULT][metric], scores[arm][metric], runs)
        for arm in ARMS
        if arm != DEFAULT
        for metric in PRIMARY
    }
    corrected = holm({f"{arm} {metric}": one.p for (arm, metric), one in found.items()})
    return [
        {
            "arm": arm, "metric": metric, "difference": rounded(one.difference), "p": round(one.p, 5),
            "p_holm": round(corrected[f"{arm} {metric}"], 5), "no_worse": one.no_worse,
        }
        for (arm, metric), one in found.items()
    ]  # fmt: skip
