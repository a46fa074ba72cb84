"""Our merges beside those of peft, which a user would otherwise take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from blocklora_core.concept.concept import Stack
from blocklora_core.merge import Options, merge
from tests.core.samples import KEY, QUERY, SHAPES, Recipe

# Beside a ComfyUI of the user's own, nothing is installed that would bring another torch.
peft = pytest.importorskip("peft")
from peft.utils import merge_utils  # noqa: E402

SITES = {"query": QUERY, "key": KEY}
RANK = 2


def stack_of(*strengths: float) -> Stack:
    recipe = Recipe(None, {name: SHAPES[name] for name in SITES.values()}, RANK)
    return tuple(recipe.make(f"<c{i}>", seed=i, strength=s) for i, s in enumerate(strengths))


class Sites(nn.Module):
    """The adapted Linears, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        for site, name in SITES.items():
            out_features, in_features = SHAPES[name]
            setattr(self, site, nn.Linear(in_features, out_features, bias=False))


def adapted(stack: Stack) -> peft.PeftModel:
    """A peft model with one adapter a concept."""
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(SITES))
    model = peft.get_peft_model(Sites(), config, adapter_name="0")
    for i, lora in enumerate(stack):
        if i:
            model.add_adapter(str(i), config)
        for site, name in SITES.items():
            tuner = getattr(model.base_model.model, site)
            tuner.lora_A[str(i)].weight.data.copy_(lora.layers[name].down)
            tuner.lora_B[str(i)].weight.data.copy_(lora.layers[name].up)
    return model


def change(stack: Stack, name: str) -> Tensor:
    return torch.stack([lora.layers[name].dense() for lora in stack if name in lora.layers]).sum(0)


@pytest.mark.parametrize("density", [0.2, 0.5, 0.99])
def test_ties_is_peft_s_ties(density: float) -> None:
    stack = stack_of(1.0, 0.5, 2.0, 1.0)
    members = merge(stack, "ties", options=Options(density=density)).members
    for name in SITES.values():
        changes = [lora.strength * lora.layers[name].dense() for lora in stack]
        expected = merge_utils.ties(changes, torch.ones(len(changes)), density)
        torch.testing.assert_close(change(members, name), expected, rtol=1e-5, atol=1e-6)


def test_task_sum_is_peft_s_concatenation_which_is_exact() -> None:
    strengths = (1.0, 0.5, 2.0)
    stack = stack_of(*strengths)
    model = adapted(stack)
    model.add_weighted_adapter(["0", "1", "2"], list(strengths), "merged", combination_type="cat")
    members = merge(stack, "task_sum").members
    for site, name in SITES.items():
        expected = getattr(model.base_model.model, site).get_delta_weight("merged")
        torch.testing.assert_close(change(members, name), expected, rtol=1e-5, atol=1e-5)


def test_peft_s_linear_merge_is_our_average_plus_what_it_mixes_up() -> None:
    # peft sums ups and downs apart, so each concept's up also meets the other's down.
    a, b = stack_of(1.0, 1.0)
    model = adapted((a, b))
    model.add_weighted_adapter(["0", "1"], [0.5, 0.5], "merged", combination_type="linear")
    members = merge((a, b), "weighted_average").members
    for site, name in SITES.items():
        p, q = a.layers[name], b.layers[name]
        crossed = 0.5 * (p.up @ q.down + q.up @ p.down)
        expected = getattr(model.base_model.model, site).get_delta_weight("merged")
        torch.testing.assert_close(change(members, name) + crossed, expected, rtol=1e-5, atol=1e-5)
