"""Which concept is taken for which: every picture goes to the concept that has the reference nearest to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def nearest(generated: Tensor, references: Mapping[str, Tensor]) -> list[str]:
    """(G, D) pictures, concept -> (R, D) references -> the name of each picture's concept.

    All embeddings are of unit length. Of concepts that are equally near the first by name is taken, so that the order
    of the mapping does not matter. ValueError without references.
    """
    empty = [name for name, found in references.items() if not len(found)]
    if not references or empty:
        raise ValueError(f"Expected references of every concept, got none{' of ' + ', '.join(empty) if empty else ''}.")
    names = sorted(references)
    best = torch.stack([(generated @ references[name].T).amax(1) for name in names], 1)
    return [names[at] for at in best.argmax(1).tolist()]


def confusion(found: Mapping[str, Sequence[str]], names: Sequence[str]) -> Tensor:
    """Concept asked for -> the concepts recognised; (C, C) in the order of `names`, float64.

    Row = asked for, column = recognised, each row sums to 1. The row of a concept without pictures is all nan.
    ValueError for a name that is not in `names`.
    """
    place = {name: at for at, name in enumerate(names)}
    strangers = ({*found} | {name for row in found.values() for name in row}) - {*place}
    if strangers:
        raise ValueError(f"Confusion: expected names among {', '.join(names)}, got {', '.join(sorted(strangers))}.")
    counts = torch.zeros(len(names), len(names), dtype=torch.float64)
    for asked, recognised in found.items():
        for name in recognised:
            counts[place[asked], place[name]] += 1
    return counts / counts.sum(1, keepdim=True)


def hits(found: Mapping[str, Sequence[str]]) -> dict[str, list[float]]:
    """1 for each picture that was recognised as what was asked for, else 0: accuracy as scores, for `bootstrap`."""
    return {asked: [float(name == asked) for name in recognised] for asked, recognised in found.items()}


def accuracy(found: Mapping[str, Sequence[str]]) -> float:
    """Share of pictures recognised as what was asked for, the mean over concepts. nan without any."""
    shares = [sum(row) / len(row) for row in hits(found).values() if row]
    return sum(shares) / len(shares) if shares else float("nan")
