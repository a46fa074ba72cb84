"""What a stack is and how its members stand to each other, in numbers. Strengths count everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from ...concept.concept import BlockLoRA, Stack
from ...concept.layer import Layer
from ...concept.rows import count, overlap, shared
from ...merge.diagnostics import cosine, inner_product, layer_cosines, layer_sign_conflicts
from ...merge.methods.fused import fused, needs_grams
from ...merge.methods.gradient_fusion import gradient_fusion
from ...merge.methods.sums import per_row
from ...merge.overlap import check_shapes
from .crosstalk import crosstalk, interference

PairCrosstalk = tuple[float, float]
"""How loudly the second of a pair answers to the first one's inputs, and the first to the second's: see crosstalk."""


@dataclass(frozen=True)
class ConceptFigures:
    """One concept. ranks: lowest and highest of a layer. norm: |Delta W| over all layers, in Frobenius norm.
    rows: share of the rows of its weights that it holds. grams: whether it carries them for all its linear layers.
    summed, solved: interference from all others in the plain sum and after the closed form; None without Grams.
    others: kind of adapter -> how many weights it changes that no figure here covers."""

    name: str
    slot: int | None
    layers: int
    ranks: tuple[int, int]
    norm: float
    rows: float
    grams: bool
    summed: float | None
    solved: float | None
    others: Mapping[str, int]


@dataclass(frozen=True)
class PairFigures:
    """Two concepts. layers: that both change. shared_rows, shared_layers: what rows both hold, and in how many layers.
    cosine: mean over the common layers, None without any. summed, solved: crosstalk in the plain sum and after the
    closed form (`fused`, or `gradient_fusion` where rows are shared) of the whole stack; None without Grams.
    matched: whether layers of one weight have one name in both, whatever their trainers call it.
    """

    first: str
    second: str
    layers: int
    shared_rows: int
    shared_layers: int
    cosine: float | None
    summed: PairCrosstalk | None
    solved: PairCrosstalk | None
    matched: bool = True


@dataclass(frozen=True)
class LayerFigures:
    """One weight. norms: concept -> |Delta W|. cosine, conflicts: Fig. 4 of the paper, 0 where one concept is alone."""

    name: str
    shape: tuple[int, ...]
    norms: Mapping[str, float]
    shared_rows: int
    cosine: float
    conflicts: float


@dataclass(frozen=True)
class Inspection:
    """The figures of a stack. solved: the method behind the pairs' `solved`, empty without Grams."""

    concepts: tuple[ConceptFigures, ...]
    pairs: tuple[PairFigures, ...]
    layers: tuple[LayerFigures, ...]
    solved: str


def inspect(stack: Stack, matched: bool = True) -> Inspection:
    """The figures of `stack`. matched: see PairFigures. ValueError for an empty one, or for weights whose shapes
    disagree."""
    if not stack:
        raise ValueError("Inspect: expected at least one concept, got an empty stack. Connect a Load or Train node.")
    check_shapes(stack, "Inspect")
    folded = per_row(stack)
    pairs = list(combinations(range(len(stack)), 2))
    sharing = any(_shared(folded[i], folded[j])[0] for i, j in pairs)
    method, solved = _solve(folded, sharing)
    return Inspection(
        tuple(_concept(folded, solved, at) for at in range(len(folded))),
        tuple(_pair(folded[i], folded[j], (solved[i], solved[j]) if solved else None, matched) for i, j in pairs),
        tuple(_layers(folded)),
        method,
    )


def _solve(stack: Stack, sharing: bool) -> tuple[str, Stack | None]:
    """The closed form that Merge offers for `stack`, and what it makes of it; nothing where Grams are lacking."""
    if len(stack) < 2 or not all(map(_has_grams, stack)):
        return "", None
    return ("gradient_fusion", gradient_fusion(stack)) if sharing else ("fused", fused(stack))


def _has_grams(lora: BlockLoRA) -> bool:
    return lora.grams is not None and lora.grams.covers(needs_grams(lora))


def _concept(stack: Stack, solved: Stack | None, at: int) -> ConceptFigures:
    lora = stack[at]
    layers = list(lora.layers.values())
    ranks = [layer.rank for layer in layers] or [0]
    held, whole = sum(count(layer.rows) for layer in layers), sum(layer.out_features for layer in layers)
    norm = math.sqrt(math.fsum(_norm(layer) ** 2 for layer in layers))
    return ConceptFigures(
        lora.concept.name,
        slot=lora.slot,
        layers=len(layers),
        ranks=(min(ranks), max(ranks)),
        norm=norm,
        rows=held / whole if whole else 0.0,
        grams=_has_grams(lora),
        summed=interference(stack, at),
        solved=interference(solved, at) if solved else None,
        others=lora.kinds,
    )


def _norm(layer: Layer) -> float:
    return math.sqrt(max(0.0, inner_product(layer, layer)))


def _shared(a: BlockLoRA, b: BlockLoRA) -> tuple[int, int]:
    """Rows that both hold, over all layers, and layers where they do."""
    rows = [count(overlap(a.layers[name].rows, b.layers[name].rows)) for name in _common(a, b)]
    return sum(rows), sum(map(bool, rows))


def _common(a: BlockLoRA, b: BlockLoRA) -> list[str]:
    return sorted(a.layers.keys() & b.layers.keys())


def _pair(a: BlockLoRA, b: BlockLoRA, solved: tuple[BlockLoRA, BlockLoRA] | None, matched: bool) -> PairFigures:
    names = _common(a, b)
    cosines = [cosine(a.layers[name], b.layers[name]) for name in names]
    mean = math.fsum(cosines) / len(cosines) if cosines else None
    after = _pair_crosstalk(*solved) if solved else None
    shared_rows, shared_layers = _shared(a, b)
    return PairFigures(
        a.concept.name,
        b.concept.name,
        layers=len(names),
        shared_rows=shared_rows,
        shared_layers=shared_layers,
        cosine=mean,
        summed=_pair_crosstalk(a, b),
        solved=after,
        matched=matched or a.layers.keys() <= b.layers.keys() or b.layers.keys() <= a.layers.keys(),
    )


def _pair_crosstalk(a: BlockLoRA, b: BlockLoRA) -> PairCrosstalk | None:
    there, back = crosstalk(a, b), crosstalk(b, a)
    return None if there is None or back is None else (there, back)


def _layers(stack: Stack) -> Iterable[LayerFigures]:
    cosines, conflicts = layer_cosines(stack), layer_sign_conflicts(stack)
    for name in sorted({name for lora in stack for name in lora.layers}):
        held = {lora.concept.name: lora.layers[name] for lora in stack if name in lora.layers}
        norms = {concept: _norm(layer) for concept, layer in held.items()}
        shape = next(iter(held.values())).weight_shape
        yield LayerFigures(
            name,
            shape=shape,
            norms=norms,
            shared_rows=shared(layer.rows for layer in held.values()),
            cosine=cosines.get(name, 0.0),
            conflicts=conflicts.get(name, 0.0),
        )
