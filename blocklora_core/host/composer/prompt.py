"""A region's prompt that knows where its concept stands, encoded by that concept's own text encoder if it has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...concept.concept import BlockLoRA, Stack
from ...merge.methods.sums import per_row
from ..comfy import ComfyClip, ComfyConditioning
from ..text.tokens import concept_vectors, encoder_tokenizers, layers_of, vector_of, with_concepts
from ..weights.adapters import on_model
from ..weights.names import clip_weights, on_weights
from ..weights.patching import add_to

CONCEPT_AT = "blocklora_concept_at"
"""Where a conditioning keeps the places of the concept's tokens, among those that one layer reads."""


def clip_of(clip: ComfyClip, lora: BlockLoRA) -> ComfyClip:
    """A clone of CLIP with the token and the text encoder's layers of one concept, at its strength for CLIP."""
    alone = with_concepts(clip, {lora.concept.name: lora.embeddings} if lora.embeddings else {})
    weights = clip_weights(clip)
    text = lora.text_only()
    fitting, adapters = on_weights(text, weights).lora, on_model(text, weights).lora.adapters
    add_to(alone.patcher, per_row((fitting.with_adapters(adapters),)))
    return alone


def member(stack: Stack, name: str) -> BlockLoRA:
    """The concept of that name. ValueError unless there is exactly one."""
    found = [lora for lora in stack if lora.concept.name == name]
    if len(found) != 1:
        names = ", ".join(lora.concept.name for lora in stack) or "nothing"
        raise ValueError(
            f"Concept Prompt: expected one concept {name!r} in the stack, got {names}. "
            "Write its name in `concept`, and say it in the text."
        )
    return found[0]


def concept_prompt(clip: ComfyClip, text: str, concept: str, lora: BlockLoRA | None = None) -> ComfyConditioning:
    """`text` encoded, with the places of `concept`, a name or any words of the text, kept in it (`concept_at`).

    lora: the concept, where CLIP does not know it: its own text encoder and token are used (tau_n of LoRA-Composer).
    ValueError when the words are not in the text.
    """
    own = clip if lora is None else clip_of(clip, lora)
    tokens = own.tokenize(text)
    places = _places(own, tokens, concept)
    if not places:
        raise ValueError(
            f"Concept prompt: expected the words {concept!r} in the prompt, got {text!r}. "
            "Write them in it as they stand in `concept`."
        )
    encoded: ComfyConditioning = own.encode_from_tokens_scheduled(tokens)
    return [[cross, {**extra, CONCEPT_AT: places}] for cross, extra in encoded]


def concept_at(conditioning: ComfyConditioning | None) -> tuple[int, ...]:
    """The places of the concept's tokens in a conditioning of `concept_prompt`; empty for any other."""
    return tuple(conditioning[0][1].get(CONCEPT_AT, ())) if conditioning else ()


def _places(clip: ComfyClip, tokens: Any, concept: str) -> tuple[int, ...]:
    alone = clip.tokenize(concept)
    for attribute, tokenizer in encoder_tokenizers(clip).values():
        key = attribute.removeprefix("clip_")
        if key not in tokens:
            continue
        layers = layers_of(concept_vectors(tokenizer).values())
        found = _found(tokens[key][::layers], _words(alone[key][0], tokenizer))
        if found:
            return found
    return ()


def _words(section: Sequence[tuple[Any, ...]], tokenizer: Any) -> list[Any]:
    """The tokens between start and end of a prompt."""
    inner = [token for token, *_ in section][tokenizer.tokens_start :]
    end = next((at for at, token in enumerate(inner) if _same(token, tokenizer.end_token)), len(inner))
    return inner[:end]


def _found(sections: Sequence[Sequence[tuple[Any, ...]]], words: list[Any]) -> tuple[int, ...]:
    if not words:
        return ()
    for number, section in enumerate(sections):
        row = [token for token, *_ in section]
        for start in range(len(row) - len(words) + 1):
            if all(map(_same, row[start : start + len(words)], words)):
                return tuple(range(number * len(row) + start, number * len(row) + start + len(words)))
    return ()


def _same(a: Any, b: Any) -> bool:
    one, other = vector_of(a), vector_of(b)
    if one is None or other is None:
        return one is other and bool(a == b)
    return one.shape == other.shape and torch.equal(one, other)
