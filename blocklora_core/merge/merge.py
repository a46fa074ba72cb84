"""One merge: check the stack, settle overlaps, apply a method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..concept import keys
from ..concept.bases import family
from ..concept.concept import BlockLoRA, Stack
from .densify import Convert, densified
from .finite import check_inputs, check_result
from .methods.fused import lacks_grams, needs_grams
from .methods.sums import strength_of
from .naming import distinct
from .options import Options
from .overlap import Overlap, OverlapResult, apply_overlap, check_shapes, count_shared
from .registry import AUTO, METHODS

DEFAULTS = Options()

PLAIN_SUM = "task_sum"
"""What chained stock loaders do."""


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
    `overlap` is `error` and members share rows, "auto" is `gradient_fusion`, which is made for that; where plain LoRAs
    among them have no Grams, those are added as chained loaders add them, and only the others are fused.
    overlap: see overlap.apply_overlap; methods that are made for shared rows leave them as they are.
    options: see Options.
    convert: makes adapters of other kinds layers, where the method needs that (see densify.densified).
    A layer at strength 0 takes no part at all: it holds no rows and weighs in no sum. Concepts that share a name get
    names of their own. Bases' names that differ are a note: the weights decide. Raises ValueError for an empty stack
    and what the method needs.
    """
    stack = tuple(stack)
    _check(stack)
    active, renamed = distinct(tuple(lora for member in stack if (lora := _active(member))))
    lacking = _lacking(active)
    if _adds_plain(active, method, overlap, lacking):
        resolved = count_shared(active)
        check_inputs(active)
        members, chosen = _fused_and_added(active, options)
    else:
        chosen = _resolve(active, method, overlap, lacking)
        active = densified(active, METHODS[chosen], convert)
        resolved = apply_overlap(active, overlap) if METHODS[chosen].needs_own_rows else count_shared(active)
        check_inputs(resolved.members)
        members = METHODS[chosen].apply(resolved.members, options)
    check_result(members, active)
    notes = tuple(_notes(stack, method=method, chosen=chosen, resolved=resolved, overlap=overlap, lacking=lacking))
    return Merged(chosen, len(active), members, resolved.shared_rows, (*renamed, *notes))


def check_rows(stack: Iterable[BlockLoRA], method: str, overlap: Overlap) -> None:
    """ValueError, as `merge` raises it, where members hold the same rows and may not. No weight's numbers are read."""
    stack = tuple(stack)
    _check(stack)
    active = tuple(lora for member in stack if (lora := _active(member)))
    lacking = _lacking(active)
    if overlap != "error" or _adds_plain(active, method, overlap, lacking):
        return
    if METHODS[_resolve(active, method, overlap, lacking)].needs_own_rows:
        apply_overlap(active, overlap)


def _lacking(stack: Stack) -> list[str]:
    """Members without Grams for all that needs them, by label."""
    return [lora.label for lora in stack if _unheard(lora)]


def _adds_plain(stack: Stack, method: str, overlap: Overlap, lacking: Sequence[str]) -> bool:
    """Whether plain LoRAs are added as chained loaders add them."""
    return method == AUTO and overlap == "error" and bool(lacking) and _must_share(stack)


def _fused_and_added(stack: Stack, options: Options) -> tuple[Stack, str]:
    """Members with Grams fused, where there are two, and the others added at their strengths; what that is called."""
    ready = tuple(lora for lora in stack if not _unheard(lora))
    if len(ready) < 2:
        return METHODS[PLAIN_SUM].apply(stack, options), PLAIN_SUM
    others = tuple(lora for lora in stack if lora not in ready)
    chosen = _resolve(ready, AUTO, "error", ())
    members = (*METHODS[chosen].apply(ready, options), *METHODS[PLAIN_SUM].apply(others, options))
    return members, f"{chosen} and {PLAIN_SUM}"


def _unheard(lora: BlockLoRA) -> bool:
    """Whether `lora` cannot be fused: its layers have no Grams, or it is made of adapters that cannot have any."""
    return lacks_grams(lora) or (bool(lora.adapters) and not needs_grams(lora))


def _must_share(stack: Stack) -> bool:
    """Whether rows are shared, and by nothing but plain LoRAs: they hold every row of what they change."""
    blocks = tuple(lora for lora in stack if lora.slot is not None)
    return len(blocks) < len(stack) and _share_rows(stack) and not _share_rows(blocks)


def _share_rows(stack: Stack) -> bool:
    changed = Counter(name for lora in stack for name in {*lora.layers, *lora.adapters})
    by_adapters = any(changed[name] > 1 for lora in stack for name in lora.adapters)
    return by_adapters or count_shared(stack).shared_rows > 0


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
    check_shapes(stack, "Merge")


def _bases_note(stack: Stack) -> Iterable[str]:
    """A note where files name different bases: their weights fit, so the names are wrong."""
    of: dict[str, list[str]] = {}
    for lora in stack:
        if lora.base:
            of.setdefault(family(lora.base), []).append(lora.label)
    if len(of) > 1:
        told = "; ".join(f"{', '.join(labels)}: {base}" for base, labels in of.items())
        yield f"The files name different bases ({told}). Their layers fit, so the names are taken for wrong."


def _resolve(stack: Stack, method: str, overlap: Overlap, lacking: Sequence[str]) -> str:
    """The method's own name. lacking: members without Grams, by label."""
    if method == AUTO and lacking:
        return "per_row"
    if method == AUTO:
        return "gradient_fusion" if overlap == "error" and count_shared(stack).shared_rows else "fused"
    if method not in METHODS:
        raise ValueError(f"Merge method: expected {AUTO} or one of {', '.join(METHODS)}, got {method!r}.")
    if METHODS[method].needs_grams and lacking and len(stack) > 1:
        raise ValueError(
            f"{method}: expected every file to carry its Grams, got none, or not for all layers, in "
            f"{', '.join(lacking)}. Give them some with BlockLoRA Collect Grams, or choose per_row."
        )
    return method


def _notes(
    stack: Stack, method: str, chosen: str, resolved: OverlapResult, overlap: Overlap, lacking: Sequence[str]
) -> Iterable[str]:
    yield from _bases_note(stack)
    off = [lora.label for lora in stack if _is_off(lora)]
    yield from (f"{label} has strength 0 and takes no part." for label in off)
    if method == AUTO and lacking and len(stack) - len(off) > 1:
        yield f"auto chose {chosen}: {', '.join(lacking)} carries no Grams for its layers."
    if resolved.shared_rows and chosen not in METHODS:
        yield f"{resolved.shared_rows} rows in {resolved.shared_layers} layers are held by several concepts."
    elif resolved.shared_rows:
        done = f"policy: {overlap}" if METHODS[chosen].needs_own_rows else f"{chosen} is made for that"
        yield f"{resolved.shared_rows} rows in {resolved.shared_layers} layers are held by several concepts; {done}."
