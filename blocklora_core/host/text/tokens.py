"""Concept tokens in ComfyUI's text side: prompts that contain a concept's name, stock "CLIP Text Encode" included."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from comfy.sd1_clip import SDTokenizer
from torch import Tensor

from ...concept.names import Names
from ..comfy import ComfyClip
from ..compat import embedding_found
from .layerwise import SECTION

TokenTable = Mapping[str, Mapping[str, Tensor]]
"""Concept name -> text encoder ("clip_l") -> (tokens, width), or (layers, tokens, width) when layer-wise."""

Section = list[tuple[Any, ...]]
"""What CLIP reads at a time, 77 tokens: (id, vector or entry of one, weight, ...) each."""


_FILE = re.compile(r"[\w./\\+-]*")


class _ConceptReader:
    """Reads prompts for a copy of an SDTokenizer: a concept's name becomes its embedding, wherever it stands as a
    word.

    Where a concept is layer-wise (ED-LoRA), every 77 tokens come once for each cross-attention layer, one after the
    other, each with that layer's vectors. The host encodes them like the parts of a long prompt, and
    `layerwise.LayerContext` gives every layer its own.
    """

    def __init__(self, tokenizer: SDTokenizer, vectors: Mapping[str, Tensor]):
        self.vectors = dict(vectors)
        self.names = Names(vectors)
        self.plain = tokenizer
        self.tokenizer = copy.copy(tokenizer)
        # On this copy alone: its own methods call these, which shadow those of its class.
        self.tokenizer.tokenize_with_weights = self._tokenize_with_weights
        self.tokenizer._try_get_embedding = self._try_get_embedding
        self.tokenizer.concept_reader = self
        if tokenizer.embedding_directory is None:
            # The host looks for embeddings only where there is a folder for them.
            self.tokenizer.embedding_directory = []

    def _tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any) -> list[Section]:
        # ComfyUI looks up "embedding:word" when the word stands alone, so the name is set off by spaces.
        text = "".join(self._named(part) for part in self._parts.split(text))
        sections: list[Section] = type(self.plain).tokenize_with_weights(self.tokenizer, text, *args, **kwargs)
        layers = layers_of(self.vectors.values())
        return [_of_layer(section, layer, self._entry) for section in sections for layer in range(layers)]

    @cached_property
    def _parts(self) -> re.Pattern[str]:
        """Parts `embedding:hero` from what is around it."""
        return re.compile(rf"({re.escape(self.tokenizer.embedding_identifier)}[^\s,()]+)")

    def _named(self, part: str) -> str:
        identifier = self.tokenizer.embedding_identifier
        if part.startswith(identifier):
            file = _FILE.match(part, len(identifier))[0].rstrip("./\\")  # type: ignore[index]
            # An embedding of the user's whose path holds a name as a word: people/ada, ada.safetensors.
            if file not in self.names and self.names.within(file):
                return part
        return self.names.replaced(part, lambda name: f" {identifier}{name} ", identifier)

    def _entry(self, vector: Tensor) -> Any:
        # Language models' tokenizers look at every token, and a tensor is no number to compare with. CLIP's get what
        # other packs know for an embedding.
        return vector if self.plain.max_length == SECTION else {"type": "embedding", "data": vector}

    def _try_get_embedding(self, embedding_name: str) -> tuple[Any, ...]:
        first, *others = embedding_name.split(maxsplit=1) or [""]
        if first in self.vectors:
            vectors = self.vectors[first]
            # The host takes the first dim for tokens.
            return embedding_found(vectors.transpose(0, 1) if vectors.ndim == 3 else vectors, first, " ".join(others))
        if self.plain.embedding_directory is None or not first:
            return embedding_found(None, first, " ".join(others))
        return type(self.plain)._try_get_embedding(self.plain, embedding_name)


def layers_of(vectors: Iterable[Tensor]) -> int:
    """For how many cross-attention layers embeddings differ: 1 unless some are layer-wise."""
    return max((vector.shape[0] for vector in vectors if vector.ndim == 3), default=1)


def _of_layer(section: Section, layer: int, entry: Callable[[Tensor], Any]) -> Section:
    return [(entry(_layer_of(token, layer)) if isinstance(token, Tensor) else token, *rest) for token, *rest in section]


def _layer_of(vector: Tensor, layer: int) -> Tensor:
    return vector[layer] if vector.ndim == 2 else vector


def vector_of(token: Any) -> Tensor | None:
    """The vector that a token is; None for a number."""
    data = token.get("data") if isinstance(token, dict) and token.get("type") == "embedding" else token
    return data if isinstance(data, Tensor) else None


def _reader_of(tokenizer: SDTokenizer) -> _ConceptReader | None:
    return getattr(tokenizer, "concept_reader", None)


def concept_vectors(tokenizer: SDTokenizer) -> Mapping[str, Tensor]:
    """Concept name -> embedding, of the concepts whose names the tokenizer understands."""
    reader = _reader_of(tokenizer)
    return reader.vectors if reader else {}


def _knowing(tokenizer: SDTokenizer, vectors: Mapping[str, Tensor]) -> SDTokenizer:
    reader = _reader_of(tokenizer)
    own = Names(vectors)
    known = {name: vector for name, vector in concept_vectors(tokenizer).items() if name not in own}
    known.update(vectors)
    _check_layers(known)
    return _ConceptReader(reader.plain if reader else tokenizer, known).tokenizer


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
        if not vectors:
            continue
        for name, vector in vectors.items():
            _check_width(name, encoder, vector, tokenizer.embedding_size)
        if not takes_vectors(tokenizer):
            raise ValueError(
                f"Concept token {next(iter(vectors))} for {encoder}: expected a tokenizer that takes embeddings, got "
                f"{type(tokenizer).__name__}, which reads letters alone. Train the concept with the token none."
            )
        setattr(known.tokenizer, attribute, _knowing(tokenizer, vectors))
    return known


def takes_vectors(tokenizer: SDTokenizer) -> bool:
    """Whether the prompts that `tokenizer` reads can hold embeddings: some take every letter for a word's."""
    reader = _ConceptReader(tokenizer, {"<x>": torch.zeros(1, tokenizer.embedding_size)}).tokenizer
    return any(vector_of(token) is not None for section in reader.tokenize_with_weights("<x>") for token, *_ in section)


def first_vector(tokens: Mapping[str, Sequence[Section]], layers: int) -> int | None:
    """Block, among the tokens that one layer reads, of the first vector in a tokenized prompt; None without any.

    layers: for how many layers every part of the prompt is there.
    """
    for sections in tokens.values():
        for number, section in enumerate(sections[::layers]):
            at = next((at for at, (token, *_) in enumerate(section) if vector_of(token) is not None), None)
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
    """The class word's token embedding, the mean over its tokens, per text encoder that can take one: (1, width)."""
    found = {}
    for encoder, (_, tokenizer) in encoder_tokenizers(clip).items():
        part = getattr(clip.cond_stage_model, encoder, None)
        if part is None or not hasattr(part.transformer, "get_input_embeddings") or not takes_vectors(tokenizer):
            continue
        table = part.transformer.get_input_embeddings().weight
        end = -1 if tokenizer.tokenizer_adds_end_token else None
        ids = tokenizer.tokenizer(class_word or "object")["input_ids"][tokenizer.tokens_start : end]
        found[encoder] = table[ids].float().mean(0, keepdim=True).detach().clone()
    return found
