"""One merge: check the stack, settle overlaps, apply a method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..concept import keys
from ..concept.concept import BlockLoRA, Stack
from .densify import Convert, opened
from .methods.fused import lacks_grams
from .methods.sums import strength_of
from .naming import distinct
from .options import Options
from .overlap import Overlap, Settled, check_shapes, left, settle
from .registry import AUTO, METHODS

DEFAULTS = Options()


@dataclass(frozen=True, eq=False)
class Merged:
    """A finished merge.

    method: the name of the method that was applied. concepts: how many took part. members: their plain sum is the
        merge, strengths folded in. Methods whose result belongs to all concepts at once (TIES, KnOTS) add a plain
        member of their own name, which holds all layers.
    shared_rows: rows, over all layers, that several members held. notes: what the user should know.
    """

    method: str
    concepts: int
    members: Stack
    shared_rows: int
    notes: tuple[str, ...]


def merge(
    stack: Iterable[BlockLoRA],
    method: str = AUTO,
    overlap: Overlap = "error",
    options: Options = DEFAULTS,
    convert: Convert | None = None,
) -> Merged:
    """Merges any number of concepts.

    method: a key of METHODS, or "auto": `fused` where every member has Grams for its layers, else `per_row`. Where
    members with Grams share rows and `overlap` is `error`, "auto" is `gradient_fusion`, which is made for that.
    overlap: see overlap.settle; methods that are made for shared rows leave them as they are. options: see Options.
    convert: makes adapters of other kinds layers, where the method needs that (see opening.opened).
    A layer at strength 0 takes no part at all: it holds no rows and weighs in no sum. Concepts that share a name get
    names of their own. Raises ValueError for an empty stack, different base models, and what the method needs.
    """
    stack = tuple(stack)
    _check(stack)
    active, renamed = distinct(tuple(lora for member in stack if (lora := _active(member))))
    lacking = [lora.label for lora in active if lora.adapters or lacks_grams(lora)]
    chosen = _resolve(active, method, overlap, lacking)
    active = opened(active, METHODS[chosen], convert)
    settled = settle(active, overlap) if METHODS[chosen].needs_own_rows else left(active)
    members = METHODS[chosen].apply(settled.members, options)
    notes = tuple(_notes(stack, method, chosen, settled, overlap, lacking))
    return Merged(chosen, len(active), members, settled.shared_rows, (*renamed, *notes))


def _active(lora: BlockLoRA) -> BlockLoRA | None:
    if _is_off(lora):
        return None
    if 0.0 not in (lora.strength, lora.effective_strength_clip):
        return lora
    return lora.only(lambda name: strength_of(lora, keys.is_text(name)) != 0.0)


def _is_off(lora: BlockLoRA) -> bool:
    return lora.strength == 0.0 and lora.effective_strength_clip == 0.0


def _check(stack: Stack) -> None:
    if not stack:
        raise ValueError("Merge: expected at least one concept, got an empty stack. Connect a Load or Train node.")
    _check_bases(stack)
    check_shapes(stack, "Merge")


def _check_bases(stack: Stack) -> None:
    known = [lora for lora in stack if lora.base]
    for a, b in combinations(known, 2):
        if a.base != b.base:
            raise ValueError(
                f"Merge: expected concepts of one base architecture, got {a.label} for {a.base} and "
                f"{b.label} for {b.base}. Merge them separately."
            )


def _resolve(stack: Stack, method: str, overlap: Overlap, lacking: Sequence[str]) -> str:
    """The method's own name. lacking: members without Grams, by label."""
    if method == AUTO and lacking:
        return "per_row"
    if method == AUTO:
        return "gradient_fusion" if overlap == "error" and left(stack).shared_rows else "fused"
    if method not in METHODS:
        raise ValueError(f"Merge method: expected {AUTO} or one of {', '.join(METHODS)}, got {method!r}.")
    if METHODS[method].needs_grams and lacking and len(stack) > 1:
        raise ValueError(
            f"{method}: expected every file to carry its Grams, got none, or not for all layers, in "
            f"{', '.join(lacking)}. Give them some with BlockLoRA Collect Grams, or choose per_row."
        )
    return method


def _notes(
    stack: Stack, method: str, chosen: str, settled: Settled, overlap: Overlap, lacking: Sequence[str]
) -> Iterable[str]:
    off = [lora.label for lora in stack if _is_off(lora)]
    yield from (f"{label} has strength 0 and takes no part." for label in off)
    if method == AUTO and lacking and len(stack) - len(off) > 1:
        yield f"auto chose {chosen}: {', '.join(lacking)} carries no Grams for its layers."
    if settled.shared_rows:
        done = f"policy: {overlap}" if METHODS[chosen].needs_own_rows else f"{chosen} is made for that"
        yield f"{settled.shared_rows} rows in {settled.shared_layers} layers are held by several concepts; {done}."
