"""Weights that are several layers in one, such as Q, K and V: how many of their rows are which layer's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from comfy.ldm.flux.layers import SiLUActivation, SingleStreamBlock
from comfy.ldm.lumina.model import JointAttention
from torch import nn

from ...concept import keys
from ...concept.rows import Parts

Place = tuple[str, range]
"""A weight's name, and the rows of it that the host's key map calls a layer."""


def parts_of(network: nn.Module, pieces: Iterable[Place], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Parts]:
    """Weight name -> rows of each of its parts, of the weights whose names do not tell (concept.keys.fused_parts).

    The modules say it where they are known to, else the host's key map does by its `pieces`.
    """
    found = {**dict(_by_key_map(pieces, shapes)), **dict(_by_owner(network))}
    return {name: parts for name, parts in found.items() if not _told(name, parts)}


def _told(name: str, parts: Parts) -> bool:
    return len(parts) == keys.fused_parts(name) and len(set(parts)) == 1


def _by_key_map(pieces: Iterable[Place], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, Parts]]:
    ranges: dict[str, list[range]] = defaultdict(list)
    for name, rows in pieces:
        ranges[name].append(rows)
    for name, held in ranges.items():
        # For some architectures the host lists another one's rows, which leave some of the weight's without a name.
        if _covers(held, shapes[name][0]):
            cuts = sorted({row for rows in held for row in (rows.start, rows.stop)})
            yield name, tuple(stop - start for start, stop in pairwise(cuts))


def _covers(held: Iterable[range], rows: int) -> bool:
    end = 0
    for one in sorted(held, key=lambda one: one.start):
        if one.start > end:
            return False
        end = max(end, one.stop)
    return end == rows


def _single_stream(block: Any) -> tuple[str, Parts]:
    """Q, K, V and the feed-forward: of Flux.2 its gates and its values."""
    first = getattr(block, "mlp_hidden_dim_first", block.mlp_hidden_dim)
    return "linear1", (*[block.hidden_dim] * 3, *[block.mlp_hidden_dim] * (first // block.mlp_hidden_dim))


def _grouped(attention: Any) -> tuple[str, Parts]:
    """Q, and K and V for fewer heads."""
    heads = (attention.n_local_heads, attention.n_local_kv_heads, attention.n_local_kv_heads)
    return "qkv", tuple(number * attention.head_dim for number in heads)


def _gated(layers: Any) -> tuple[str, Parts] | None:
    """Gates and values of a feed-forward."""
    if not any(isinstance(layer, SiLUActivation) for layer in layers):
        return None
    return "0", (layers[0].out_features // 2,) * 2


_OWNERS: tuple[tuple[type[nn.Module], Callable[[Any], tuple[str, Parts] | None]], ...] = (
    (SingleStreamBlock, _single_stream),
    (JointAttention, _grouped),
    (nn.Sequential, _gated),
)


def _by_owner(network: nn.Module) -> Iterator[tuple[str, Parts]]:
    for path, module in network.named_modules():
        for kind, parts in _OWNERS:
            if isinstance(module, kind) and (found := parts(module)):
                yield f"{path}.{found[0]}.weight", found[1]
