"""The figures as text, and as a table for spreadsheets."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator

from .figures import ConceptFigures, Inspection
from .verdict import outlook, verdict

MOST_PAIRS = 45


def text(inspection: Inspection) -> str:
    """The report: each concept, each pair's verdict, and the paper's two figures over all layers."""
    lines = [f"{len(inspection.concepts)} concepts", *map(_concept, inspection.concepts), *_pairs(inspection)]
    return "\n".join([*lines, *_overall(inspection)])


def table(inspection: Inspection) -> str:
    """One line for each weight, comma-separated, with a header: names, shapes, shared rows, Fig. 4, norms."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [concept.name for concept in inspection.concepts]
    writer.writerow(["layer", "shape", "concepts", "shared_rows", "cosine", "sign_conflicts", *names])
    for layer in inspection.layers:
        norms = [f"{layer.norms[name]:.6g}" if name in layer.norms else "" for name in names]
        shape = "x".join(map(str, layer.shape))
        row = [layer.name, shape, len(layer.norms), layer.shared_rows, f"{layer.cosine:.6f}", f"{layer.conflicts:.6f}"]
        writer.writerow([*row, *norms])
    return out.getvalue()


def _concept(concept: ConceptFigures) -> str:
    low, high = concept.ranks
    held = "all rows" if concept.slot is None else f"slot {concept.slot}"
    grams = "with Grams" if concept.grams else "no Grams"
    rank = f"rank {low}" if low == high else f"rank {low} to {high}"
    return (
        f"  {concept.name}: {held} ({concept.rows:.1%} of the rows), {concept.layers} layers, {rank}, "
        f"norm {concept.norm:.3g}, {grams}{_interference(concept)}{_others(concept)}"
    )


def _others(concept: ConceptFigures) -> str:
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(concept.others.items()))
    return f"; and {counted} layers, which are not looked at here" if counted else ""


def _interference(concept: ConceptFigures) -> str:
    if concept.summed is None:
        return ""
    solved = "" if concept.solved is None else f"; fused at {concept.solved:.0%}: {outlook(concept.solved)}"
    summed = f"{concept.summed:.0%} of its own answer: {outlook(concept.summed)}"
    return f"; to its inputs all others together answer at {summed}{solved}"


def _pairs(inspection: Inspection) -> Iterator[str]:
    # The worst first: in a long list they are what the user looks for.
    ordered = sorted(inspection.pairs, key=lambda pair: -max(pair.summed or (math.inf,)))
    yield from (verdict(pair, inspection.solved) for pair in ordered[:MOST_PAIRS])
    if len(ordered) > MOST_PAIRS:
        yield f"{len(ordered) - MOST_PAIRS} pairs more, with less crosstalk."


def _overall(inspection: Inspection) -> Iterator[str]:
    layers = [layer for layer in inspection.layers if len(layer.norms) > 1]
    if layers:
        cosine = math.fsum(layer.cosine for layer in layers) / len(layers)
        conflicts = math.fsum(layer.conflicts for layer in layers) / len(layers)
        means = f"mean cosine {cosine:.3f}, signs conflict in {conflicts:.1%} of the entries"
        yield f"Over {len(layers)} common layers: {means}."
