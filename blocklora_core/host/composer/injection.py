"""Region-aware LoRA injection (LoRA-Composer section 3.3): concepts that nobody merged, each in its own region.

Weights stay as they are. A concept's low-rank changes of to_k and to_v act on its region's prompt, once in a sampling;
its change of to_out acts on its region's pixels. Queries are the base's, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...concept.concept import BlockLoRA, Stack
from ...merge.methods.sums import per_row
from ...regions import KeysValues, Regions
from ...training.adapters.fixed import FixedLayer
from ..comfy import ComfyModel
from ..regions.cross import project
from ..regions.prompts import Side
from ..text.layerwise import Block, cross_attention_blocks
from ..weights.fixed import fixed_layers, modules_of
from ..weights.patching import resolve

PROJECTIONS = ("to_k", "to_v", "to_out")
"""Of a cross-attention, what a concept changes in its region."""


@dataclass(frozen=True, eq=False)
class Injection:
    """Layers by block, number of the region, and part. left_out: concept -> how many of its layers act nowhere."""

    layers: Mapping[tuple[Block, int, str], FixedLayer]
    left_out: Mapping[str, int]

    def project(self, module: Any, block: Block, region: int, side: Side, text: Tensor) -> KeysValues:
        """Eq. 2: keys and values of a region's prompt by the base's weights and its concept's changes."""
        k, v = project(module, block, region, side, text)
        for part, projected in (("to_k", k), ("to_v", v)):
            if (block, region, part) in self.layers:
                self.layers[block, region, part].add_to(projected, text)
        return k, v

    def out(self, block: Block, region: int, own: Tensor) -> Tensor | None:
        """What the concept adds after to_out to its region's pixels, of their attention `own` (B, n, C)."""
        layer = self.layers.get((block, region, "to_out"))
        if layer is None:
            return None
        return layer.add_to(own.new_zeros(*own.shape[:-1], layer.module.out_features), own)


def injection(stack: Stack, model: ComfyModel, regions: Regions) -> Injection:
    """The concepts of `stack`, each for the regions that name it.

    ValueError for a concept without a region, for one that changes no cross-attention's K, V or out, and for what does
    not fit the model.
    """
    wanted = {region.concept for region in regions}
    lacking = [lora.concept.name for lora in stack if lora.concept.name not in wanted]
    if lacking:
        raise ValueError(
            f"Composer: expected a region for every concept of the stack, got none for {', '.join(lacking)}. "
            "Write the concept's name in its region, or leave it out of the stack."
        )
    resolved, _ = resolve(tuple(lora.model_only() for lora in stack), model, None)
    modules = modules_of(model, None)
    parts = _parts(model.model.diffusion_model)
    layers: dict[tuple[Block, int, str], FixedLayer] = {}
    left_out = {}
    for lora in per_row(resolved):
        mine = [number for number, region in enumerate(regions) if region.concept == lora.concept.name]
        found = _in_cross_attention(lora, modules, parts)
        layers |= {(block, number, part): layer for (block, part), layer in found.items() for number in mine}
        left_out[lora.concept.name] = len(lora.layers) + len(lora.adapters) - len(found)
    return Injection(layers, {name: count for name, count in left_out.items() if count})


def _parts(network: nn.Module) -> dict[nn.Module, tuple[Block, str]]:
    """Which part of which cross-attention a module is."""
    found = {}
    for block, attention in cross_attention_blocks(network).items():
        for part, module in zip(PROJECTIONS, (attention.to_k, attention.to_v, attention.to_out[0]), strict=True):
            found[module] = (block, part)
    return found


def _in_cross_attention(
    lora: BlockLoRA, modules: dict[str, nn.Module], parts: Mapping[nn.Module, tuple[Block, str]]
) -> dict[tuple[Block, str], FixedLayer]:
    other = [name for name in lora.adapters if modules.get(name) in parts]
    if other:
        raise ValueError(
            f"{lora.label}: expected a LoRA, got {lora.adapters[other[0]].kind} for {other[0]}. "
            "Merge this file with BlockLoRA Merge instead of giving it to the Composer."
        )
    chosen = {name: layer for name, layer in lora.layers.items() if modules.get(name) in parts}
    fixed = fixed_layers(lora.with_layers(chosen), modules, text=False).layers
    if not fixed:
        raise ValueError(
            f"{lora.label}: expected changes of a cross-attention's to_k, to_v or to_out, got none among "
            f"{len(lora.layers)} layers. Merge this file with BlockLoRA Merge instead of giving it to the Composer."
        )
    return {parts[layer.module.module]: layer for layer in fixed}
