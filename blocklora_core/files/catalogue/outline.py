"""A row block as its file's header tells it: whose rows it holds, and none of its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...concept.concept import BlockLoRA
from ...concept.gram import SCALES, Gram, Grams
from ...concept.layer import Layer
from ...concept.rows import count
from ..contents import sort_tensors
from ..record import Held, Record, read_record
from ..untrusted.header import METADATA, read_header

_NOWHERE = torch.device("meta")


def outline(path: Path) -> BlockLoRA | None:
    """What `load` would give, with layers and Grams that have shapes alone; None for a file that is no row block.

    ValueError when the header is not sound.
    """
    header = read_header(path)
    record = read_record(header.pop(METADATA, {}))
    if record is None or record.slot is None:
        return None
    layers = {
        stem: _layer(header[roles["up"]]["shape"], header[roles["down"]]["shape"], record.layers[stem])
        for stem, roles in sort_tensors(header).items()
        if stem in record.layers and {"up", "down"} <= roles.keys()
    }
    grams = None if record.grams is None else _grams(record, layers)
    return BlockLoRA(record.concept, layers, record.scheme, record.slot, record.base, grams=grams, source=str(path))


def _layer(up: list[int], down: list[int], held: Held) -> Layer:
    rows = torch.empty(count(held.rows), *up[1:], device=_NOWHERE)
    return Layer(rows, torch.empty(*down, device=_NOWHERE), held.rows, held.out, parts=held.parts)


def _grams(record: Record, layers: Mapping[str, Layer]) -> Grams:
    covered: Mapping[str, Any] = (record.grams or {}).get("layers", {})
    silent = Gram(torch.zeros(1, 0), torch.zeros(0, dtype=SCALES), torch.zeros(1, dtype=SCALES))
    return Grams({"": silent}, dict.fromkeys((name for name in layers if name in covered), ""))
