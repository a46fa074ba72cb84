"""A LoRA file of another tool, opened, and what all readers do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from torch import Tensor

from ...concept.adapters import Adapter
from ...concept.concept import BlockLoRA, Concept
from ...concept.layer import Layer
from .. import shown
from ..contents import Others, Sorted, TensorNames, sort_foreign
from ..record import bundled
from ..tensors import OddLayerError, adapter_of, embedding_of, layer_of
from ..untrusted.text import legible


@dataclass(frozen=True, eq=False)
class Source:
    """path; tensors: by name, those of nested dictionaries as "outer/inner"; entries: the file's metadata."""

    path: Path
    tensors: Mapping[str, Tensor]
    entries: Mapping[str, str] = field(default_factory=dict)

    @property
    def tensor_names(self) -> TensorNames:
        """Layer stem -> role -> tensor name; ValueError when something is no part of a LoRA."""
        return self._sorted.names

    @property
    def others(self) -> Others:
        """Layer stem -> last words -> tensor name, of layers of other kinds."""
        return self._sorted.others

    @property
    def left(self) -> tuple[str, ...]:
        """Tensor names that belong to no whole layer."""
        return self._sorted.left

    @cached_property
    def _sorted(self) -> Sorted:
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
    (layers, odd), (others, odd_others) = _layers(source), _adapters(source)
    odd += odd_others
    if odd and len(odd) > len(layers) + len(others):
        _refuse(source)
    lora = BlockLoRA(
        concept=shown.foreign_concept(source.entries, source.path),
        layers=layers,
        base=shown.foreign_base(source.entries),
        adapters=others,
        metadata=dict(source.entries),
        source=str(source.path),
    )
    lora = _with_embedding(lora, source.tensors)
    left = [*source.left, *odd]
    if left:
        lora = noted(lora, f"{len(left)} tensors are part of no whole layer and are left out, e.g. {left[0]}.")
    return lora


def scaled(lora: BlockLoRA, source: Source, factor: Callable[[str, int], float]) -> BlockLoRA:
    """`lora`, each layer and adapter without an alpha of its own times factor(stem, rank)."""
    layers = {
        stem: layer if "alpha" in source.tensor_names[stem] else layer.scaled(factor(stem, layer.rank))
        for stem, layer in lora.layers.items()
    }
    others = {
        stem: adapter if "alpha" in adapter.tensors else adapter.with_alpha(partial(factor, stem))
        for stem, adapter in lora.adapters.items()
    }
    return lora.with_layers(layers).with_adapters(others)


def noted(lora: BlockLoRA, note: str) -> BlockLoRA:
    """`lora` with one more note on what its import could not keep."""
    notes = f"{lora.metadata.get(shown.NOTE, '')} {legible(note)}".strip()
    return replace(lora, metadata={**lora.metadata, shown.NOTE: notes})


def _layers(source: Source) -> tuple[dict[str, Layer], list[str]]:
    """The layers, and tensors of those that cannot be multiplied, which the stock loader leaves out too."""
    layers, odd = dict[str, Layer](), list[str]()
    for stem, roles in sorted(source.tensor_names.items()):
        try:
            layers[stem] = layer_of(stem, roles, source.tensors)
        except OddLayerError:
            odd.append(roles["up"])
    return layers, odd


def _adapters(source: Source) -> tuple[dict[str, Adapter], list[str]]:
    """The same of other kinds: odd are those that lack a part."""
    found, odd = dict[str, Adapter](), list[str]()
    for stem, words in sorted(source.others.items()):
        try:
            found[stem] = adapter_of(stem, words, source.tensors)
        except OddLayerError:
            odd.append(next(iter(words.values())))
    return found, odd


def _refuse(source: Source) -> None:
    """The error of the first odd layer, raised."""
    for stem, roles in sorted(source.tensor_names.items()):
        layer_of(stem, roles, source.tensors)
    for stem, words in sorted(source.others.items()):
        adapter_of(stem, words, source.tensors)


def _with_embedding(lora: BlockLoRA, tensors: Mapping[str, Tensor]) -> BlockLoRA:
    """`lora` with the first embedding that is bundled with it, under a name that prompts can hold."""
    found = {name: bundle for name in sorted(tensors) if (bundle := bundled(name))}
    names = sorted({name for name, _ in found.values()})
    if not names:
        return lora
    first, *others = names
    embeddings = {encoder: embedding_of(name, tensors) for name, (of, encoder) in found.items() if of == first}
    lora = replace(lora, concept=Concept(shown.word(first)), embeddings=embeddings)
    if lora.concept.name != first:
        lora = noted(lora, f"Prompts call its embedding {lora.concept.name}, as no name can be {first!r}.")
    if others:
        lora = noted(lora, f"Of its embeddings only that of {first!r} is kept; left out: {', '.join(others)}.")
    return lora
