"""What `bench people` compares. Every arm may choose among eight settings, by the development cast alone.

All train as many steps on as many pictures and sample alike. After `import_comfyui`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from benchmarks.identity_study.methods import NO_GRAMS, TRIGGER, Method
from benchmarks.identity_study.sample import TOKENS, Merge
from benchmarks.identity_study.train import Recipe
from blocklora_core.host.evaluate.generate import Sampling
from blocklora_core.merge import Options

TOKEN: Mapping[str, float | str] = {
    "token": "layer-wise", "embedding_learning_rate": 0.006, "embedding_share": 1.0, "embedding_norm_limit": 2.0,
}  # fmt: skip
"""Of all arms that have one: ED-LoRA's, a pair of words for each cross-attention, which learns in all steps. At
Mix-of-Show's norm of .55 it would be frozen within a few of them, at this rate."""
COMMON = {"steps": 60, "batch_size": 2, **TOKEN}
SAMPLING = Sampling(steps=8, cfg=3.0, sampler="dpmpp_2m", scheduler="karras", size=128, batch=10)
NICHES: Mapping[str, Mapping[str, float | str]] = {
    "niche 1": {"niche_weight": 1.0},
    "niche 3": {"niche_weight": 3.0},
    "niche 0.3": {"niche_weight": 0.3},
    "niche 3, single token": {"niche_weight": 3.0, "token": "single"},
}
OWN_WEIGHTS, DAMPINGS = (3.0, 10.0), (0.01, 0.1)
FUSION_DAMPINGS, RATES, SCALES = (0.003, 0.01, 0.03, 0.1), (0.003, 0.006), (0.25, 0.5, 0.75, 1.0)
LAMBDAS = (0.1, 0.2, 0.3, 0.5)
SETTINGS = 8


def _recipe(adapter: str, erasure: float = 0.0, **fields: float | str) -> Recipe:
    return Recipe(adapter, erasure, fields={**COMMON, **fields})


RECIPES: Mapping[str, Recipe] = {
    **{f"block {name}": _recipe("row block", **fields) for name, fields in NICHES.items()},
    **{f"ed {name}": _recipe("plain LoRA", **fields) for name, fields in NICHES.items()},
    **{f"ed rate {rate:g}": _recipe("plain LoRA", learning_rate=rate) for rate in RATES},
    **{f"block erasure {share:g}": _recipe("row block", share) for share in LAMBDAS},
    **{f"web rate {rate:g}": _recipe("plain LoRA", learning_rate=rate, **TRIGGER, **NO_GRAMS) for rate in RATES},
}


@dataclass(frozen=True)
class Arm:
    """settings: name -> how it trains and merges, the pack's or the paper's own first."""

    title: str
    settings: Mapping[str, Method]


def _arm(title: str, settings: Iterator[tuple[str, str, Merge]]) -> Arm:
    return Arm(title, {name: Method(title, recipe, merge, seeds=True) for name, recipe, merge in settings})


def _fused() -> Iterator[tuple[str, str, Merge]]:
    for niche, own in product(NICHES, OWN_WEIGHTS):
        yield f"{niche}, own weight {own:g}", f"block {niche}", Merge("fused", Options(own_weight=own))


def _fusion(trainings: Iterable[str], dampings: Sequence[float]) -> Iterator[tuple[str, str, Merge]]:
    for training, damping in product(trainings, dampings):
        merge = Merge("gradient_fusion", Options(damping=damping))
        yield f"{training}, damping {damping:g}", f"ed {training}", merge


def _blocklora() -> Iterator[tuple[str, str, Merge]]:
    for share, (method, how) in product(LAMBDAS, (("affine", "sum of strengths 1"), ("per_row", "strengths 1"))):
        yield f"lambda {share:g}, {how}", f"block erasure {share:g}", Merge(method)


def _web() -> Iterator[tuple[str, str, Merge]]:
    for rate, scale in product(RATES[::-1], SCALES[::-1]):
        yield f"rate {rate:g}, scale {scale:g}", f"web rate {rate:g}", Merge("task_sum", Options(scale=scale))


DEFAULT, CONTROL = "default", "tokens"
ARMS: Mapping[str, Arm] = {
    DEFAULT: _arm("Row blocks, niche, fused", _fused()),
    "gradient_fusion": _arm(
        "ED-LoRA, gradient fusion", _fusion([f"rate {rate:g}" for rate in RATES[::-1]], FUSION_DAMPINGS)
    ),
    "niche_fusion": _arm("ED-LoRA and niche, closed form", _fusion(NICHES, DAMPINGS)),
    "blocklora": _arm("BlockLoRA (row blocks, erasure)", _blocklora()),
    "plain": _arm("Plain LoRAs, summed", _web()),
}


def default_recipe() -> Recipe:
    """How the default arm's first setting trains."""
    return RECIPES[next(iter(ARMS[DEFAULT].settings.values())).recipe]


Choose = Callable[[str], str]
"""An arm -> the name of one of its settings."""


def chosen_methods(choose: Choose) -> dict[str, Method]:
    """One for each arm, and the control: what the default's tokens do by themselves, which is in no contrast."""
    found = {name: arm.settings[choose(name)] for name, arm in ARMS.items()}
    control = Method("Control: the default's tokens, no row block", found[DEFAULT].recipe, Merge(TOKENS), seeds=True)
    return {**found, CONTROL: control}
