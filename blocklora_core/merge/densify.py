"""Adapters of other kinds (LoHa, DoRA, ...) made layers where a method cannot take them as they are.

Most methods only weigh, so an adapter rides along at its weight. Rows that are shared out, and methods that compare
entries, need the change itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ..cancel import check
from ..concept.adapters import Adapter
from ..concept.concept import BlockLoRA, Stack
from ..concept.layer import Layer
from .registry import Method

Convert = Callable[[str, Adapter], Layer]
"""Weight name and adapter -> the same change, dense, at strength 1; ValueError when there is none."""

ELSEWHERE = "Merge with task_sum, or leave it out and put ComfyUI's own Load LoRA before Merge for it."


def densified(stack: Stack, method: Method, convert: Convert | None) -> Stack:
    """`stack` with the adapters that `method` cannot take as they are made layers.

    convert: the host's; None where there is no host. ValueError for an adapter whose change depends on the weight.
    """
    blocked = _blocked(stack, method)
    why = "compares the entries of all changes" if method.needs_layers else "shares out rows that several concepts hold"
    return tuple(_densified(lora, blocked & set(lora.adapters), f"{method.name} {why}", convert) for lora in stack)


def layers_alone(lora: BlockLoRA, why: str, convert: Convert) -> BlockLoRA:
    """`lora` with all its adapters made layers. why: for messages, who needs that; ValueError as in `densified`."""
    return _densified(lora, set(lora.adapters), why, convert)


def _blocked(stack: Stack, method: Method) -> set[str]:
    """Weights whose adapters must become layers."""
    adapted = {name for lora in stack for name in lora.adapters}
    if method.needs_layers or not method.needs_own_rows or not adapted:
        return adapted if method.needs_layers else set()
    holders = Counter(name for lora in stack for name in {*lora.layers, *lora.adapters})
    return {name for name in adapted if holders[name] > 1}


def _densified(lora: BlockLoRA, names: set[str], why: str, convert: Convert | None) -> BlockLoRA:
    if not names:
        return lora
    layers = dict(lora.layers)
    for name in sorted(names):
        check()
        if name in layers:
            raise ValueError(f"{lora.label}: expected one change of {name}, got a LoRA and an adapter. {ELSEWHERE}")
        layers[name] = _layer(lora, name, why, convert)
    kept = {name: adapter for name, adapter in lora.adapters.items() if name not in names}
    return lora.with_layers(layers).with_adapters(kept)


def _layer(lora: BlockLoRA, name: str, why: str, convert: Convert | None) -> Layer:
    adapter = lora.adapters[name]
    if convert is None or not adapter.fixed:
        raise ValueError(
            f"{why}, and {lora.label} changes {name} by a {adapter.kind}, which has no entries "
            f"of its own without the weight. {ELSEWHERE}"
        )
    try:
        return convert(name, adapter).scaled(adapter.strength)
    except ValueError as error:
        raise ValueError(f"{why}, but {lora.label}: {error} {ELSEWHERE}") from error
