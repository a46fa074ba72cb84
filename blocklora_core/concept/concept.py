"""The value that travels between nodes, files and merges: one concept's low-rank row blocks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .adapters import Adapter
from .gram import Grams
from .rows import Rows, Scheme, all_rows, count, index, tidy

# Characters with a meaning in ComfyUI prompts: emphasis (a:1.2), escapes, wildcards {a|b}, and what
# separates words.
_PROMPT_SYNTAX = frozenset("():,\\{}|")


@dataclass(frozen=True)
class Concept:
    """What the adapter was taught.

    name: the token that stands for it in prompts, such as "<hero>".
    class_word: the ordinary word for its class, such as "man"; may be empty.
    """

    name: str
    class_word: str = ""

    def __post_init__(self) -> None:
        if not self.bare:
            raise ValueError(f"Concept name: expected a word such as <hero>, got {self.name!r}.")
        bad = sorted({c for c in self.name if c in _PROMPT_SYNTAX or c.isspace() or not c.isprintable()})
        if bad:
            raise ValueError(
                f"Concept name: expected one word without spaces or any of ( ) : , \\ {{ }} |, "
                f"got {self.name!r}. Remove {' '.join(map(repr, bad))}."
            )

    @property
    def bare(self) -> str:
        """The name without its angle brackets."""
        return self.name.strip("<>")


class ShapeError(ValueError):
    """A layer was made for a weight of another shape."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Low-rank change of some rows of one weight: delta[rows] = scale * up @ down.

    up: (|rows|, r) or (|rows|, r, 1, ...), the paper's B cut down to the rows it may change.
    down: (r, n) or (r, n, k, ...), the paper's A.
    rows: which rows of the weight; out_features: how many rows the weight has (m).
    Raises ValueError when these disagree.
    """

    up: Tensor
    down: Tensor
    rows: Rows
    out_features: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.up.ndim < 2 or self.down.ndim < 2 or any(size != 1 for size in self.up.shape[2:]):
            raise ValueError(
                f"Expected up (rows, r[, 1, 1]) and down (r, n[, kh, kw]), "
                f"got {tuple(self.up.shape)} and {tuple(self.down.shape)}."
            )
        if self.up.shape[1] != self.down.shape[0]:
            raise ValueError(f"Expected equal ranks, got up {self.up.shape[1]} and down {self.down.shape[0]}.")
        if self.rank < 1:
            raise ValueError("Expected a rank of at least 1, got 0.")
        if tidy(self.rows) != self.rows or self.up.shape[0] != count(self.rows):
            raise ValueError(f"Expected {count(self.rows)} rows in up, as rows says, got {self.up.shape[0]}.")
        if self.rows and self.rows[-1][-1] >= self.out_features:
            raise ValueError(f"Expected rows below {self.out_features}, got row {self.rows[-1][-1]}.")
        if not math.isfinite(self.scale):
            raise ValueError(f"Expected a finite scale, got {self.scale!r}.")

    @classmethod
    def of_dense(cls, delta: Tensor) -> Layer:
        """`delta` (m, n[, kh, kw]) as a layer of every row, exactly.

        The factor on the shorter side is an identity, so the rank is min(m, n kh kw) and the size at most double.
        """
        m, n = delta.flatten(1).shape
        identity, kernel = torch.eye(min(m, n)).to(delta), [1] * (delta.ndim - 2)
        up, down = (identity, delta) if m <= n else (delta, identity)
        return cls(up.reshape(m, -1, *kernel), down.reshape(-1, *delta.shape[1:]), all_rows(m), m)

    # Cached, as a merge asks every layer of every file and a tensor takes a microsecond to tell its shape.
    @cached_property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    @property
    def in_features(self) -> int:
        """n, the weight's dim 1: kernel sizes not counted."""
        return self.down.shape[1]

    @property
    def is_matrix(self) -> bool:
        """Whether the weight is a Linear's, not a convolution's."""
        return self.down.ndim == 2

    @cached_property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight that this layer changes: (m, n[, kh, kw])."""
        return (self.out_features, *self.down.shape[1:])

    def delta(self) -> Tensor:
        """Change of the held rows: (|rows|, n[, kh, kw]), in at least float32."""
        dtype = torch.promote_types(torch.promote_types(self.up.dtype, self.down.dtype), torch.float32)
        product = self.up.flatten(1).to(dtype) @ self.down.flatten(1).to(dtype)
        return (self.scale * product).reshape(-1, *self.down.shape[1:])

    def dense(self) -> Tensor:
        """Change of the whole weight: (m, n[, kh, kw]), zero outside the held rows."""
        delta = self.delta()
        if self.rows == all_rows(self.out_features):
            return delta
        full = delta.new_zeros(self.weight_shape)
        return full.index_copy_(0, index(self.rows, delta.device), delta)

    def full_up(self) -> Tensor:
        """`up` with zero rows outside the block: (m, r[, 1, 1])."""
        full = self.up.new_zeros((self.out_features, *self.up.shape[1:]))
        return full.index_copy_(0, index(self.rows, self.up.device), self.up)

    def fitted(self, shape: tuple[int, ...]) -> Layer:
        """The same layer for a weight of `shape`: trainers write the sizes of a 1x1 kernel out or leave them out.

        ShapeError when it is not the same weight.
        """
        if self.weight_shape == shape and self.up.ndim == 2:
            return self
        if _without_ones(self.weight_shape) != _without_ones(shape):
            raise ShapeError(f"expected shape {shape}, the layer's is {self.weight_shape}.")
        return replace(self, up=self.up.flatten(1), down=self.down.reshape(self.rank, *shape[1:]))

    def scaled(self, factor: float) -> Layer:
        """The same layer, `factor` times as strong."""
        return self if factor == 1 else replace(self, scale=self.scale * factor)

    def with_down(self, down: Tensor) -> Layer:
        """The same layer with another down."""
        return replace(self, down=down)

    def with_up(self, up: Tensor) -> Layer:
        """The same layer with another up for the same rows."""
        return replace(self, up=up)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    kernel = shape[2:]
    return shape[:2] if all(size == 1 for size in kernel) else shape


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

    def with_metadata(self, metadata: Mapping[str, str]) -> BlockLoRA:
        """The same concept with other foreign metadata."""
        return replace(self, metadata=metadata)

    def renamed_layers(self, names: Mapping[str, str]) -> BlockLoRA:
        """The same concept with layers, and the Grams that belong to them, renamed old -> new.

        Names that `names` leaves out stay. ValueError when two layers would get one name.
        """
        layers = {names.get(name, name): layer for name, layer in self.layers.items()}
        if len(layers) != len(self.layers):
            ((twice, _),) = Counter(names.get(name, name) for name in self.layers).most_common(1)
            raise ValueError(f"{self.label}: expected one layer for each weight, got several for {twice}.")
        return replace(self, layers=layers, grams=self.grams.renamed(names) if self.grams else None)


Stack = tuple[BlockLoRA, ...]
