"""A LoRA file of another tool, opened, and what all readers do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ...concept.adapters import Adapter
from ...concept.concept import BlockLoRA, Concept
from .. import shown
from ..contents import STOCK, Others, TensorNames, sort_foreign
from ..record import bundled
from ..tensors import adapter_of, embedding_of, layer_of


@dataclass(frozen=True, eq=False)
class Source:
    """path; tensors: by name, those of nested dictionaries as "outer/inner"; entries: the file's metadata."""

    path: Path
    tensors: Mapping[str, Tensor]
    entries: Mapping[str, str] = field(default_factory=dict)

    @property
    def tensor_names(self) -> TensorNames:
        """Layer stem -> role -> tensor name; ValueError when something is no part of a LoRA."""
        return self._sorted[0]

    @property
    def others(self) -> Others:
        """Layer stem -> last words -> tensor name, of layers of other kinds."""
        return self._sorted[1]

    @cached_property
    def _sorted(self) -> tuple[TensorNames, Others]:
        return sort_foreign(self.tensors)


@dataclass(frozen=True)
class Format:
    """One tool's files. owns: whether a source is of this format; read: its reader, which raises ValueError."""

    name: str
    owns: Callable[[Source], bool]
    read: Callable[[Source], BlockLoRA]


def plain(source: Source) -> BlockLoRA:
    """Every layer under the stem that the file has, at alpha / rank, or 1 without an alpha."""
    if not source.tensor_names and not source.others:
        raise ValueError(f"Expected LoRA layers, got none among {len(source.tensors)} tensors.")
    concept, embeddings = _embeddings(source.tensors)
    return BlockLoRA(
        concept=concept or shown.foreign_concept(source.entries, source.path),
        layers={stem: layer_of(stem, roles, source.tensors) for stem, roles in sorted(source.tensor_names.items())},
        base=shown.foreign_base(source.entries),
        embeddings=embeddings,
        adapters=_adapters(source),
        metadata=dict(source.entries),
        source=str(source.path),
    )


def scaled(lora: BlockLoRA, source: Source, factor: Callable[[str, int], float]) -> BlockLoRA:
    """`lora`, each layer without an alpha of its own times factor(stem, rank)."""
    layers = {
        stem: layer if "alpha" in source.tensor_names[stem] else layer.scaled(factor(stem, layer.rank))
        for stem, layer in lora.layers.items()
    }
    return lora.with_layers(layers)


def noted(lora: BlockLoRA, note: str) -> BlockLoRA:
    """`lora` with a note on what its import could not keep."""
    return replace(lora, metadata={**lora.metadata, shown.NOTE: note})


def _adapters(source: Source) -> dict[str, Adapter]:
    return {stem: adapter_of(stem, words, source.tensors) for stem, words in sorted(source.others.items())}


def _embeddings(tensors: Mapping[str, Tensor]) -> tuple[Concept | None, dict[str, Tensor]]:
    found = {name: bundle for name in sorted(tensors) if (bundle := bundled(name))}
    concepts = sorted({concept for concept, _ in found.values()})
    if len(concepts) > 1:
        raise ValueError(f"Expected the embedding of one concept, got those of {', '.join(concepts)}. {STOCK}")
    embeddings = {encoder: embedding_of(name, tensors) for name, (_, encoder) in found.items()}
    return (Concept(concepts[0]) if concepts else None), embeddings
