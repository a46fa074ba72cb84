"""Concept tokens in ComfyUI's text side: prompts that contain a concept's name, stock "CLIP Text Encode" included."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comfy.sd1_clip import SDTokenizer
from torch import Tensor

from .handles import ComfyClip

TokenTable = Mapping[str, Mapping[str, Tensor]]
"""Concept name -> text encoder ("clip_l") -> (tokens, width), or (layers, tokens, width) when layer-wise."""

Section = list[tuple[Any, ...]]
"""What CLIP reads at a time, 77 tokens: (id or vector, weight, ...) each."""


class _KnowsConcepts(SDTokenizer):
    """Mixed into a copy of an SDTokenizer: a concept's name becomes its embedding, wherever it stands in a prompt.

    Where a concept is layer-wise (ED-LoRA), every 77 tokens come once for each cross-attention layer, one after the
    other, each with that layer's vectors. The host encodes them like the parts of a long prompt, and
    `layerwise.LayerContext` gives every layer its own.
    """

    concept_vectors: dict[str, Tensor]
    user_embeddings: bool

    def tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any) -> Any:
        # ComfyUI looks up "embedding:word" when the word stands alone, so the name is set off by spaces.
        names = sorted(self.concept_vectors, key=len, reverse=True)
        pattern = f"(?:{re.escape(self.embedding_identifier)})?({'|'.join(map(re.escape, names))})"
        text = re.sub(pattern, lambda found: f" {self.embedding_identifier}{found[1]} ", text)
        sections: list[Section] = super().tokenize_with_weights(text, *args, **kwargs)
        layers = layers_of(self.concept_vectors.values())
        return [_of_layer(section, layer) for section in sections for layer in range(layers)]

    def _try_get_embedding(self, embedding_name: str) -> tuple[Tensor | None, str]:
        first, *others = embedding_name.split(maxsplit=1) or [""]
        rest = " ".join(others)
        if first in self.concept_vectors:
            vectors = self.concept_vectors[first]
            # The host takes the first dim for tokens.
            return (vectors.transpose(0, 1) if vectors.ndim == 3 else vectors), rest
        if not self.user_embeddings or not first:
            return None, rest
        return super()._try_get_embedding(embedding_name)


def layers_of(vectors: Iterable[Tensor]) -> int:
    """For how many cross-attention layers embeddings differ: 1 unless some are layer-wise."""
    return max((vector.shape[0] for vector in vectors if vector.ndim == 3), default=1)


def _of_layer(section: Section, layer: int) -> Section:
    return [(_vector_of(token, layer), *rest) for token, *rest in section]


def _vector_of(token: Any, layer: int) -> Any:
    return token[layer] if isinstance(token, Tensor) and token.ndim == 2 else token


def _knowing(tokenizer: SDTokenizer, vectors: Mapping[str, Tensor]) -> SDTokenizer:
    known = copy.copy(tokenizer)
    if not isinstance(tokenizer, _KnowsConcepts):
        known.__class__ = type("ConceptTokenizer", (_KnowsConcepts, type(tokenizer)), {})
        known.user_embeddings = tokenizer.embedding_directory is not None
        known.embedding_directory = tokenizer.embedding_directory if known.user_embeddings else []
    known.concept_vectors = {**getattr(tokenizer, "concept_vectors", {}), **vectors}
    _check_layers(known.concept_vectors)
    return known


def encoder_tokenizers(clip: ComfyClip) -> dict[str, tuple[str, SDTokenizer]]:
    """Text encoder ("clip_l") -> (attribute of the clip's tokenizer, SDTokenizer)."""
    parts = vars(clip.tokenizer).items()
    return {part.embedding_key: (name, part) for name, part in parts if isinstance(part, SDTokenizer)}


def with_concepts(clip: ComfyClip, table: TokenTable) -> ComfyClip:
    """A clone of CLIP whose prompts understand the concepts' names. The clip given is not touched.

    Raises ValueError when an embedding's width is not the text encoder's.
    """
    known = clip.clone()
    known.tokenizer = copy.copy(clip.tokenizer)
    for encoder, (attribute, tokenizer) in encoder_tokenizers(clip).items():
        vectors = {name: parts[encoder] for name, parts in table.items() if encoder in parts}
        for name, vector in vectors.items():
            _check_width(name, encoder, vector, tokenizer.embedding_size)
        if vectors:
            setattr(known.tokenizer, attribute, _knowing(tokenizer, vectors))
    return known


def first_vector(tokens: Mapping[str, Sequence[Section]], layers: int) -> int | None:
    """Place, among the tokens that one layer reads, of the first vector in a tokenized prompt; None without any.

    layers: for how many layers every part of the prompt is there.
    """
    for sections in tokens.values():
        for number, section in enumerate(sections[::layers]):
            at = next((at for at, (token, *_) in enumerate(section) if isinstance(token, Tensor)), None)
            if at is not None:
                return number * len(section) + at
    return None


def _check_layers(table: Mapping[str, Tensor]) -> None:
    counts = {name: vectors.shape[0] for name, vectors in table.items() if vectors.ndim == 3}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} for {count}" for name, count in counts.items())
        raise ValueError(
            f"Layer-wise concept tokens: expected one number of layers, got {listed}. "
            "They were trained on different bases: merge those of one base."
        )


def _check_width(name: str, encoder: str, vector: Tensor, width: int) -> None:
    if vector.shape[-1] != width:
        raise ValueError(
            f"Concept token {name} for {encoder}: expected vectors of {width} numbers, got {vector.shape[-1]}. "
            "The file was trained on another text encoder: connect the CLIP of its base model."
        )


def class_embeddings(clip: ComfyClip, class_word: str) -> dict[str, Tensor]:
    """The class word's token embedding, the mean over its tokens, per text encoder: (1, width)."""
    found = {}
    for encoder, (_, tokenizer) in encoder_tokenizers(clip).items():
        part = getattr(clip.cond_stage_model, encoder, None)
        if part is None or not hasattr(part.transformer, "get_input_embeddings"):
            continue
        table = part.transformer.get_input_embeddings().weight
        end = -1 if tokenizer.tokenizer_adds_end_token else None
        ids = tokenizer.tokenizer(class_word or "object")["input_ids"][tokenizer.tokens_start : end]
        found[encoder] = table[ids].float().mean(0, keepdim=True).detach().clone()
    return found
