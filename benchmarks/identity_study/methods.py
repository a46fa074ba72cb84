"""What `bench identity` compares: how concepts are trained, and how they are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.identity_study.sample import LOADER, LOADER_FUSED, Merge
from benchmarks.identity_study.train import Recipe
from blocklora_core.concept.rows import Scheme
from blocklora_core.merge import Options

NICHE = {"niche_weight": 3.0}
NICHE_1 = {"niche_weight": 1.0}
TRIGGER = {"token": "none"}
NO_GRAMS = {"gram_pictures": 1, "gram_steps": 1}
"""For what is merged without Grams anyway."""

LAMBDA = 0.3
"""The erasure of the methods that have one; the paper names none."""
LAMBDAS = (0.0, 0.1, 0.2, 0.3, 0.5)

RECIPES: Mapping[str, Recipe] = {
    "default": Recipe(fields=NICHE),
    "niche 1": Recipe(fields=NICHE_1),
    "block": Recipe(erasure=LAMBDA),
    "ed": Recipe("plain LoRA"),
    "plain": Recipe("plain LoRA", fields={**TRIGGER, **NO_GRAMS}),
    "web": Recipe("plain LoRA", fields={**TRIGGER, **NO_GRAMS, "text_learning_rate": 0.003, "steps": 60}),
    "orthogonal": Recipe("orthogonal adaptation", fields=NO_GRAMS),
    "ed niche": Recipe("plain LoRA", fields=NICHE),
    "dense erasure": Recipe("plain LoRA", erasure=LAMBDA, fields=NO_GRAMS),
    "block niche": Recipe(erasure=LAMBDA, fields=NICHE_1),
    "many": Recipe(fields=NICHE, scheme=Scheme(slots=64)),
    **{f"block {value:g}": Recipe(erasure=value) for value in LAMBDAS if value != LAMBDA},
}
"""Name -> how its concepts are trained. Equal recipes under two names are trained once."""


FUSED = Merge("fused", Options(own_weight=10.0))
"""With the own weight that the first base's study settled on for niche regularisation."""


@dataclass(frozen=True)
class Method:
    """One line of the table. counts: measured at every number of concepts, else with all; seeds: trained with every
    seed, else with the first."""

    title: str
    recipe: str
    merge: Merge
    counts: bool = False
    seeds: bool = False


METHODS: Mapping[str, Method] = {
    "default": Method("The pack's default: row blocks, niche, fused", "default", FUSED, True, True),
    "blocklora": Method("BlockLoRA (row blocks, erasure, sum)", "block", Merge("per_row"), True, True),
    "blocklora_fused": Method("Fused BlockLoRA (row blocks, erasure)", "block", Merge("fused"), True, True),
    "average": Method("Plain LoRA, averaged", "plain", Merge("weighted_average"), True),
    "sum": Method("Plain LoRA, summed", "plain", Merge("task_sum")),
    "ed_average": Method("ED-LoRA, averaged", "ed", Merge("weighted_average"), True, True),
    "orthogonal": Method("Orthogonal Adaptation", "orthogonal", Merge("orthogonal"), True),
    "gradient_fusion": Method("ED-LoRA, gradient fusion", "ed", Merge("gradient_fusion"), True, True),
    "ties": Method("ED-LoRA, TIES", "ed", Merge("ties")),
    "knots": Method("ED-LoRA, KnOTS", "ed", Merge("knots")),
    "no_erasure": Method("BlockLoRA without erasure", "block 0", Merge("per_row")),
    "no_row_blocks": Method("BlockLoRA without row blocks", "dense erasure", Merge("task_sum")),
    "affine": Method("BlockLoRA, averaged as in its paper", "block", Merge("affine")),
    "niche": Method("Row blocks and niche, summed", "default", Merge("per_row")),
    "niche_fusion": Method("Row blocks and niche, gradient fusion", "default", Merge("gradient_fusion")),
    "niche_1": Method("The default, but niche 1", "niche 1", FUSED, seeds=True),
    "own_3": Method("The default, but own weight 3", "default", Merge("fused", Options(own_weight=3.0)), seeds=True),
    "niche_1_own_3": Method(
        "The default, but niche 1 and own weight 3", "niche 1", Merge("fused", Options(own_weight=3.0)), seeds=True
    ),
    "own_30": Method("The default, but own weight 30", "default", Merge("fused", Options(own_weight=30.0)), seeds=True),
    "loud_own_10": Method("Row blocks alone, fused with own weight 10", "block 0", FUSED),
    "damping": Method(
        "The default, but damping 0.1", "default", Merge("fused", Options(own_weight=10.0, damping=0.1)), seeds=True
    ),
    "erasure_niche_fused": Method("Row blocks, erasure and niche 1, fused", "block niche", FUSED),
    "plain_niche_sum": Method("ED-LoRA and niche, summed", "ed niche", Merge("task_sum")),
    "plain_niche_average": Method("ED-LoRA and niche, averaged", "ed niche", Merge("weighted_average")),
    "plain_niche_fusion": Method("ED-LoRA and niche, gradient fusion", "ed niche", Merge("gradient_fusion")),
    **{
        f"erasure_{value:g}{suffix}": Method(
            f"Row blocks, erasure {value:g}, {how}", "block" if value == LAMBDA else f"block {value:g}", Merge(method)
        )
        for value in LAMBDAS
        for suffix, how, method in (("", "summed", "per_row"), ("_fused", "fused", "fused"))
    },
}
MANY = {"many": Method("The default in 64 slots", "many", Merge("fused"), True)}
"""Measured with up to sixty concepts."""
PLAIN: Mapping[str, Method] = {
    "loader": Method("BlockLoRA Loader, kept apart", "web", Merge(LOADER)),
    "loader_fused": Method("The same, all text encoders fused into one", "web", Merge(LOADER_FUSED)),
    "sum": Method("Chained stock loaders", "web", Merge("task_sum")),
    "average": Method("Average", "web", Merge("weighted_average")),
    "ties": Method("TIES", "web", Merge("ties")),
}
"""LoRAs as people have them: all rows, a trigger word, the text encoder trained too at half the rate, as is usual; no
token, no niche, no Grams."""

QUICK = ("default", "blocklora", "average")
