"""A merge put onto ComfyUI's MODEL and CLIP: one clone and one call to add_patches each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.utils
import torch

from ...concept.adapters import Adapter
from ...concept.concept import BlockLoRA, Stack
from ...concept.layer import Layer
from ...files.shown import calling_phrases
from ...merge import AUTO, DEFAULTS, Merged, Options, Overlap, merge
from ...merge.finite import check_weights
from ...merge.methods.fused import lacks_grams
from ..comfy import ComfyClip, ComfyModel
from ..interrupt import cancellable
from ..text.layerwise import read_layerwise
from ..text.named import NamingClip, Readers, calls_of
from ..text.tokens import layers_of, with_concepts
from .adapters import as_layer, on_model, patch_of
from .names import Fit, Weights, known_stem, on_weights, weights_in, weights_of

_NAMES = "blocklora_concepts"


def merged_names(model: ComfyModel) -> tuple[str, ...]:
    """The names of the concepts that were merged into MODEL."""
    return tuple(model.attachments.get(_NAMES, ()))


@dataclass(frozen=True)
class Applied:
    """A patched MODEL and CLIP, and what was done. called: whose text encoder's part reads the prompts that name them
    alone."""

    model: ComfyModel
    clip: ComfyClip | None
    merged: Merged
    model_layers: int
    clip_layers: int
    tokens: tuple[str, ...]
    unused: Mapping[str, list[str]] = field(default_factory=dict)
    called: tuple[str, ...] = ()


class NothingFitsError(ValueError):
    """A file has no layer that the connected model has."""


def add_to(patcher: ComfyModel, stack: Stack) -> int:
    """Add the layers whose weights `patcher`'s model owns in one call; returns how many layers were patched."""
    by_weight = _by_weight(patcher, stack)
    patches = {name: patch_of(changes) for name, changes in by_weight.items()}
    missing = set(patches) - set(patcher.add_patches(patches) if patches else ())
    if missing:
        raise NothingFitsError(f"Expected weights to patch, the host knows no {min(missing)}.")
    return sum(map(len, by_weight.values()))


def _by_weight(patcher: ComfyModel, stack: Stack) -> dict[str, list[Layer | Adapter]]:
    own = weights_in(patcher).shapes
    by_weight: dict[str, list[Layer | Adapter]] = {}
    for lora in stack:
        if own.keys().isdisjoint([*lora.layers, *lora.adapters]):
            continue
        for name, layer in lora.layers.items():
            if layer.rows and name in own:
                by_weight.setdefault(name, []).append(layer)
        for name, adapter in lora.adapters.items():
            if name in own:
                by_weight.setdefault(name, []).append(adapter)
    return by_weight


def fit(lora: BlockLoRA, weights: Weights) -> Fit:
    """`lora` on the model's weights. What the stock loader leaves out, with a line in its log, is left out and told.

    NothingFitsError when it has no layer in common with the model, when most do not fit, and when one of a row block
    does not: its rows were dealt out for a weight of another size.
    """
    stems = [*lora.layers, *lora.adapters]
    strange = {stem: known for stem in stems if (known := known_stem(stem, weights)) != stem}
    named = lora.renamed_layers(strange) if strange else lora
    layers, others = on_weights(named, weights), on_model(named, weights)
    found = Fit(
        layers.lora.with_adapters(others.lora.adapters),
        [*layers.unknown, *others.unknown],
        [*layers.misfits, *others.misfits],
    )
    fitting = len(found.lora.layers) + len(found.lora.adapters)
    if found.misfits and (lora.slot is not None or fitting < len(found.misfits)):
        base = f" ({lora.base})" if lora.base else ""
        raise NothingFitsError(
            f"{lora.label}: {found.misfits[0]} It was trained for another base{base}: load that checkpoint."
        )
    if stems and not fitting:
        raise NothingFitsError(
            f"{lora.label}: none of its {len(stems)} layers is in this model ({stems[0]}). "
            f"It was trained for {lora.base or 'another base'}: load that checkpoint."
        )
    return found


def resolve(stack: Stack, model: ComfyModel, clip: ComfyClip | None) -> tuple[Stack, dict[str, list[str]]]:
    """The stack with layers named by the model's weights, and of each file what was left out: stems that found no
    weight, and why others do not fit.

    Raises NothingFitsError when a file is of another base (see `fit`).
    """
    weights = weights_of(model, clip)
    # Whoever changes one strength, or joins one more, merges the others as they were.
    fits = [weights.fits.get(lora) or weights.fits.setdefault(lora, fit(lora, weights)) for lora in stack]
    unused = {found.lora.label: [*found.unknown, *found.misfits] for found in fits}
    return tuple(found.lora for found in fits), {label: left for label, left in unused.items() if left}


def _check_limits(members: Stack, model: ComfyModel, clip: ComfyClip | None) -> None:
    limits = {}
    for patcher in [model, *([clip.patcher] if clip is not None else [])]:
        own = weights_in(patcher).shapes
        for name in own.keys() & set().union(*(lora.layers for lora in members)):
            weight = comfy.utils.get_attr(patcher.model, name)
            # Eight bits are scaled by their layer, and rounded to the largest number.
            if weight.dtype in (torch.float16, torch.bfloat16, torch.float32):
                limits[name] = torch.finfo(weight.dtype).max
    check_weights(members, limits)


def apply_merge(
    stack: Stack,
    model: ComfyModel,
    clip: ComfyClip | None,
    method: str = "auto",
    overlap: Overlap = "error",
    options: Options = DEFAULTS,
) -> Applied:
    """Merge `stack` into clones of MODEL and CLIP (which may be None); the ones given are not touched."""
    resolved, unused = resolve(stack, model, clip)
    options = replace(options, device=model.load_device)
    called = _called(resolved) if clip is not None and method == AUTO and overlap == "error" else ()
    whole = tuple(lora.model_only() if at in called else lora for at, lora in enumerate(resolved))
    with cancellable():
        merged = merge(whole, method, overlap, options, as_layer)
    _check_limits(merged.members, model, clip)
    patched = model.clone()
    patched.set_attachments(_NAMES, (*merged_names(model), *(lora.concept.name for lora in merged.members)))
    model_layers = add_to(patched, merged.members)
    tokens = {lora.concept.name: lora.embeddings for lora in merged.members if lora.embeddings}
    clip_layers = 0
    layers = layers_of(vectors for parts in tokens.values() for vectors in parts.values())
    if layers > 1:
        read_layerwise(patched, layers)
    if clip is not None:
        clip = with_concepts(clip, tokens)
        clip_layers = add_to(clip.patcher, merged.members)
    if called:
        clip = _read_by_name(tuple(resolved[at] for at in called), model, clip, options)
    return Applied(
        patched,
        clip,
        merged=merged,
        model_layers=model_layers,
        clip_layers=clip_layers,
        tokens=tuple(tokens),
        unused=unused,
        called=tuple(stack[at].concept.name for at in called),
    )


def _called(stack: Stack) -> tuple[int, ...]:
    """Places of the plain LoRAs whose text encoder's part only reads prompts that name them: of several that are kept
    apart, those whose words are known."""
    active = [at for at, lora in enumerate(stack) if lora.strength or lora.effective_strength_clip]
    return tuple(at for at in active if len(active) > 1 and _answers_when_called(stack[at]))


def _answers_when_called(lora: BlockLoRA) -> bool:
    plain = lora.slot is None and not lora.embeddings and not lora.adapters
    has_both = bool(lora.text_only().layers) and bool(lora.model_only().layers)
    return plain and has_both and not lacks_grams(lora) and bool(calling_phrases(lora))


def _read_by_name(called: Stack, model: ComfyModel, clip: ComfyClip, options: Options) -> ComfyClip:
    texts = tuple(lora.text_only() for lora in called)

    def patches(places: tuple[int, ...]) -> dict[str, Any]:
        with cancellable():
            members = merge((texts[at] for at in places), AUTO, "error", options).members
        _check_limits(members, model, clip)
        return {name: patch_of(changes) for name, changes in _by_weight(clip.patcher, members).items()}

    calls = (calls_of(clip, calling_phrases(lora)) for lora in called)
    return NamingClip.over(clip, Readers(calls, patches))
