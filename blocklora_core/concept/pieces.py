"""Layers of pieces of one weight, such as Q, K and V where a model keeps them in one, made layers of that weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from .concept import Layer, ShapeError
from .rows import tidy


def placed(layer: Layer, rows: range, out_features: int) -> Layer:
    """`layer`, whose weight is the piece `rows` of one with `out_features` rows, as a layer of the whole.

    ShapeError when it was made for a piece of another size.
    """
    if layer.out_features != len(rows):
        raise ShapeError(f"expected {len(rows)} rows, the layer has {layer.out_features}.")
    moved = tidy(range(part.start + rows.start, part.stop + rows.start, part.step) for part in layer.rows)
    return replace(layer, rows=moved, out_features=out_features)


def joined(layers: Sequence[Layer]) -> Layer:
    """One layer that changes a weight as all `layers` of it do; its rank is the sum of theirs.

    ValueError when their rows overlap or interleave.
    """
    first, *others = ordered = sorted(layers, key=lambda layer: layer.rows[0].start if layer.rows else 0)
    if not others:
        return first
    return Layer(
        torch.block_diag(*(layer.up.flatten(1).float() * layer.scale for layer in ordered)),
        torch.cat([layer.down.float() for layer in ordered]),
        tidy(part for layer in ordered for part in layer.rows),
        first.out_features,
    )
