"""The value that travels between nodes, files and merges: one concept's low-rank row blocks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from . import keys
from .adapters import Adapter
from .gram import Grams
from .layer import Layer
from .rows import Scheme

# Characters with a meaning in ComfyUI prompts: emphasis (a:1.2), escapes, wildcards {a|b}, and what
# separates words.
_PROMPT_SYNTAX = frozenset("():,\\{}|")

# Names and class words come from files too: what pages, attributes and paths are made of stays out of both.
_MARKUP = frozenset('&"`=/\\')

MOST_LETTERS = 512
"""Of a name, or of a class word; a file's name holds fewer."""


@dataclass(frozen=True)
class Concept:
    """What the adapter was taught.

    name: the token that stands for it in prompts, such as "<hero>".
    class_word: the ordinary word for its class, such as "man"; may be empty.
    ValueError for a name or class word that prompts, pages or paths would read as anything else than words.
    """

    name: str
    class_word: str = ""

    def __post_init__(self) -> None:
        if not self.bare:
            raise ValueError(f"Concept name: expected a word such as <hero>, got {self.name[:MOST_LETTERS]!r}.")
        _check("Concept name", self.name, _PROMPT_SYNTAX | _MARKUP | {"'", " "})
        _check("Class word", self.class_word, _MARKUP | {"<", ">"})

    @property
    def bare(self) -> str:
        """The name without its angle brackets."""
        return self.name.strip("<>")


def _check(what: str, text: str, refused: frozenset[str]) -> None:
    if len(text) > MOST_LETTERS:
        raise ValueError(f"{what}: expected at most {MOST_LETTERS} letters, got {len(text)}. Shorten it.")
    bad = sorted({c for c in text if c in refused or not c.isprintable()})
    if bad:
        raise ValueError(
            f"{what}: expected {'one word without spaces or' if ' ' in refused else 'plain words without'} any of "
            f"{' '.join(sorted(refused - {' '}))}, got {text!r}. Remove {' '.join(map(repr, bad))}."
        )


@dataclass(frozen=True, eq=False)
class BlockLoRA:
    """One trained concept.

    layers: by name; in a file kohya's or ComfyUI's key stem, on a model ComfyUI's weight name.
    scheme, slot: who owns which rows; both None for a plain LoRA, which holds every row.
    base: the base architecture, such as "sd15"; empty when unknown.
    embeddings: per text encoder ("clip_l"), (tokens, width), in order V_rand, V_class; layer-wise ones
        (cross-attention layers, tokens, width).
    grams: fingerprint of the inputs that the concept sees, for the `fused` merge.
    training: JSON-able configuration of the training run; metadata: foreign metadata, kept.
    strength, strength_clip: how strongly a merge applies the model's and the text encoders' layers; a
        strength_clip of None means the same as strength.
    source: where it came from, for messages.
    adapters: changes of other kinds (LoHa, DoRA, ...), named as layers are.
    Raises ValueError for half a slot or a strength that is not finite.
    """

    concept: Concept
    layers: Mapping[str, Layer]
    scheme: Scheme | None = None
    slot: int | None = None
    base: str = ""
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)
    grams: Grams | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    strength: float = 1.0
    strength_clip: float | None = None
    source: str = ""
    adapters: Mapping[str, Adapter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.scheme is None) != (self.slot is None):
            raise ValueError(f"Expected a scheme and a slot, or neither, got {self.scheme} and {self.slot}.")
        if self.scheme is not None and self.slot is not None:
            self.scheme.check_slot(self.slot)
        strengths = (self.strength, self.effective_strength_clip)
        if not all(map(math.isfinite, strengths)):
            raise ValueError(f"Expected finite strengths, got {strengths[0]} and {strengths[1]}.")

    @property
    def effective_strength_clip(self) -> float:
        """Strength of the text encoders' layers."""
        return self.strength if self.strength_clip is None else self.strength_clip

    @cached_property
    def reach(self) -> float:
        """No number of any layer's change at strength 1 is larger than this; not finite where one of a layer's tensors
        is not."""
        bounds = [abs(layer.scale) * layer.reach for layer in self.layers.values()]
        # max() would pass over what is not a number.
        return max(bounds, default=0.0) if math.isfinite(sum(bounds)) else math.inf

    @property
    def kinds(self) -> Counter[str]:
        """Kind of adapter other than a LoRA -> how many weights it changes."""
        return Counter(adapter.kind for adapter in self.adapters.values())

    @property
    def label(self) -> str:
        """Name and source, for messages."""
        return f"{self.concept.name} ({self.source})" if self.source else self.concept.name

    def with_strength(self, strength: float, strength_clip: float | None = None) -> BlockLoRA:
        """The same concept at another strength."""
        return replace(self, strength=strength, strength_clip=strength_clip)

    def renamed(self, name: str) -> BlockLoRA:
        """The same concept under another name in prompts; ValueError when it is none."""
        return replace(self, concept=Concept(name, self.concept.class_word))

    def with_layers(self, layers: Mapping[str, Layer]) -> BlockLoRA:
        """The same concept with other layers."""
        return replace(self, layers=layers)

    def with_adapters(self, adapters: Mapping[str, Adapter]) -> BlockLoRA:
        """The same concept with other changes of other kinds."""
        return replace(self, adapters=adapters)

    def only(self, wanted: Callable[[str], bool]) -> BlockLoRA:
        """The same concept with those of its layers and adapters alone whose names are `wanted`."""
        layers = {name: layer for name, layer in self.layers.items() if wanted(name)}
        adapters = {name: adapter for name, adapter in self.adapters.items() if wanted(name)}
        return self.with_layers(layers).with_adapters(adapters)

    def text_only(self) -> BlockLoRA:
        """The same concept with what changes text encoders alone."""
        return self.only(keys.is_text)

    def model_only(self) -> BlockLoRA:
        """The same concept without what changes text encoders."""
        return self.only(lambda name: not keys.is_text(name))

    def with_metadata(self, metadata: Mapping[str, str]) -> BlockLoRA:
        """The same concept with other foreign metadata."""
        return replace(self, metadata=metadata)

    def renamed_layers(self, names: Mapping[str, str]) -> BlockLoRA:
        """The same concept with layers and adapters, and the Grams that belong to them, renamed old -> new.

        Names that `names` leaves out stay. ValueError when two layers would get one name.
        """
        renamed = Counter(names.get(name, name) for name in [*self.layers, *self.adapters])
        if renamed and max(renamed.values()) > 1:
            ((twice, _),) = renamed.most_common(1)
            raise ValueError(f"{self.label}: expected one layer for each weight, got several for {twice}.")
        return replace(
            self,
            layers={names.get(name, name): layer for name, layer in self.layers.items()},
            adapters={names.get(name, name): adapter for name, adapter in self.adapters.items()},
            grams=self.grams.renamed(names) if self.grams else None,
        )


Stack = tuple[BlockLoRA, ...]
