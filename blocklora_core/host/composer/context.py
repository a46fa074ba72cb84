"""LoRA-Composer's one entry among ComfyUI's transformer_options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..text.layerwise import Block
from .maps import Recorder

KEY = "blocklora_composer"

Pending = dict[Block, list[tuple[slice, Tensor, Tensor]]]
"""By block, what attn2_output_patch adds to its cross-attention: rows of the batch, cells, (b, n, C)."""


class Guide(Protocol):
    """The part of run.Run that a prediction calls."""

    def guide(self, guider: Any, x: Tensor, sigma: Tensor, model_options: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, eq=False)
class Context:
    """What the wrappers of one sampling tell each other.

    run: of the sampling; None where nothing moves its latents. recorder: of a forward's maps; None where nobody reads
    them. pending: of one call of the model; None outside.
    """

    run: Guide | None = None
    recorder: Recorder | None = None
    pending: Pending | None = None


def context_of(options: Mapping[str, Any]) -> Context:
    """The context in the host's transformer_options; an empty one where there is none."""
    found: Context = options.get(KEY) or Context()
    return found
