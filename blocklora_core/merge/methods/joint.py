"""Shared by methods whose result belongs to all concepts at once: one more member holds one change of each weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...cancel import check
from ...concept.concept import BlockLoRA, Concept, Stack
from ...concept.layer import Layer
from .sums import per_row


def by_weight(stack: Stack) -> Iterator[tuple[str, list[Layer]]]:
    """Each weight with the layers that change it, strengths folded in.

    Layers come in the order of the concepts' names, so that the order of the stack does not even change the rounding.
    """
    ordered = sorted(per_row(stack), key=lambda lora: lora.concept.name)
    for name in sorted({name for lora in ordered for name in lora.layers}):
        check()
        yield name, [lora.layers[name] for lora in ordered if name in lora.layers]


def joint_stack(stack: Stack, title: str, layers: Mapping[str, Layer]) -> Stack:
    """The concepts, which keep what prompts need but no layers, and a plain member `title` that holds `layers`."""
    if not layers:
        return per_row(stack)
    concepts = tuple(lora.with_layers({}).with_strength(1.0) for lora in stack)
    return (*concepts, BlockLoRA(Concept(title), layers, base=next((lora.base for lora in stack if lora.base), "")))
