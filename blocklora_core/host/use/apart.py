"""Plain LoRAs kept apart without anybody's doing: those that carry no Grams get them before they are merged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ...concept.concept import BlockLoRA, Stack
from ...concept.gram import Gram, Grams
from ...concept.layer import Layer
from ...files.shown import FROM_FILE, called_by
from ...merge import AUTO
from ...merge.factors import as_product
from ...merge.merge import PLAIN_SUM
from ...merge.methods.fused import lacks_grams, needs_grams
from ..comfy import ComfyClip, ComfyModel
from ..train.collect import CollectJob, collect
from ..weights.names import Weights, in_form, known_stem, shape_of, weights_of
from ..weights.patching import fit
from .kept_grams import GramStore

ON = "on"

MOST_NUMBERS = 2**28
"""In one file's LoHa and LoKr as products: a gigabyte."""


@dataclass(frozen=True)
class Apart:
    """A stack whose plain LoRAs have Grams where that could be. report: a line about each, its trigger words first."""

    stack: Stack
    report: tuple[str, ...] = field(default=())


def keep_apart(stack: Stack, model: ComfyModel, clip: ComfyClip | None, job: CollectJob) -> Apart:
    """The stack, with Grams for each member that needs them to be kept apart and does not carry them.

    They are taken from those that were kept, else collected and kept. A member that cannot get any is left as it is,
    with the reason in the report: a merge adds it as chained loaders do. InterruptProcessingException when the user
    cancels; what was collected until then is kept.
    """
    if len(_active(stack)) > 1:
        weights = weights_of(model, clip)
        stack = tuple(solvable(in_form(lora, weights), weights) for lora in stack)
    due = _due(stack, model, clip)
    told = [f"{lora.concept.name}: {_called(lora)}" for lora in stack]
    if not due or clip is None:
        if due:
            told.append("No CLIP is connected, so plain LoRAs are added as chained loaders add them.")
        return Apart(stack, tuple(told))
    store, done = GramStore.of(model), list(stack)
    # Before anything is collected, which takes minutes: the files may be others by then.
    paths = {at: store.path(stack[at], job) for at in due}
    for at, path in list(paths.items()):
        grams = store.find(path, stack[at])
        if grams is not None:
            done[at] = replace(stack[at], grams=grams)
            told[at] += "; kept apart by Grams collected before"
            del paths[at]
    for at, outcome in _collected(stack, paths, model, clip, job, store):
        if isinstance(outcome, str):
            told[at] += f"; added as chained loaders do: {outcome}"
        else:
            done[at] = outcome
            told[at] += "; kept apart by Grams collected now"
    for at in _active(stack):
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(stack[at].kinds.items()))
        told[at] += f"; as chained loaders do: {kinds}" if kinds else ""
    return Apart(tuple(done), tuple(told))


def apart_or_summed(
    stack: Stack, model: ComfyModel, clip: ComfyClip | None, how: str, job: CollectJob
) -> tuple[Stack, str, tuple[str, ...]]:
    """The stack to merge, the method to merge it by, and what to tell. how: "on" keeps plain LoRAs apart; anything
    else adds them as chained loaders do."""
    if how != ON:
        return stack, PLAIN_SUM, tuple(f"{lora.concept.name}: {_called(lora)}" for lora in stack)
    apart = keep_apart(stack, model, clip, job)
    return apart.stack, AUTO, apart.report


def solvable(lora: BlockLoRA, weights: Weights) -> BlockLoRA:
    """`lora`, its LoHa and LoKr changes made layers where they are exactly a product of no more than MOST_NUMBERS."""
    products: dict[str, Layer] = {}
    for stem, adapter in lora.adapters.items():
        layer = as_product(adapter, shape_of(known_stem(stem, weights), weights))
        if layer is not None:
            products[stem] = layer
    if sum(layer.up.numel() + layer.down.numel() for layer in products.values()) > MOST_NUMBERS:
        return lora
    rest = {stem: adapter for stem, adapter in lora.adapters.items() if stem not in products}
    return lora.with_layers({**lora.layers, **products}).with_adapters(rest) if products else lora


def _active(stack: Stack) -> list[int]:
    return [at for at, lora in enumerate(stack) if lora.strength or lora.effective_strength_clip]


def _due(stack: Stack, model: ComfyModel, clip: ComfyClip | None) -> list[int]:
    """Places of the members that are to get Grams: where plain LoRAs meet others."""
    active = _active(stack)
    if len(active) < 2 or all(stack[at].slot is not None for at in active):
        return []
    weights = weights_of(model, clip)
    return [at for at in active if lacks_grams(fit(stack[at], weights).lora)]


def _called(lora: BlockLoRA) -> str:
    words = called_by(lora)
    if words == {FROM_FILE: lora.concept.name}:
        return "called by this name"
    return " or ".join(f"{said!r} (from {source})" for source, said in words.items())


def _collected(
    stack: Stack, paths: Mapping[int, Path], model: ComfyModel, clip: ComfyClip, job: CollectJob, store: GramStore
) -> list[tuple[int, BlockLoRA | str]]:
    """Place -> the member with its Grams, or why it has none. paths: where those of each are kept."""
    found: list[tuple[int, BlockLoRA | str]] = []

    def on_collected(number: int, lora: BlockLoRA) -> None:
        grams = _whole(lora)
        found.append((left[number], replace(lora, grams=grams)))
        try:
            if grams is not None:
                store.keep(paths[left[number]], grams)
        except OSError as error:
            logging.warning("BlockLoRA: the Grams of %s cannot be kept: %s", lora.label, error)

    left = list(paths)
    while left:
        before = len(found)
        try:
            collect(model, clip, tuple(stack[at] for at in left), job, on_collected)
            break
        except (ValueError, torch.OutOfMemoryError) as error:
            # The one after the last that went well; the others may still go well.
            failed = left[len(found) - before]
            reason = "out of memory; choose a smaller size" if isinstance(error, RuntimeError) else str(error)
            found.append((failed, reason))
            left = left[left.index(failed) + 1 :]
    return found


def _whole(lora: BlockLoRA) -> Grams | None:
    """The Grams of `lora`, and for layers that were never asked, those of no input at all."""
    if lora.grams is None:
        return None
    idle = [name for name in needs_grams(lora) if not lora.grams.covers([name])]
    silent = {f"idle {name}": Gram.silent(lora.layers[name].in_features) for name in idle}
    return Grams({**lora.grams.inputs, **silent}, {**lora.grams.input_of, **{name: f"idle {name}" for name in idle}})
