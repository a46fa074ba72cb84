"""Changes of weights that are no low-rank change of rows: LoHa, LoKr, DoRA, OFT, GLoRA, whole differences.

They ride along in a stack as they are. What they do to a weight is the host's knowledge; here stands what a file must
hold of each kind, and whether a change is the same whatever the weight is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Alternatives = tuple[frozenset[str], ...]

DIFFERENCE = "full weight difference"

# Kind -> what it is made of: of each group one alternative must be there in full. Words are the last ones of names.
_PARTS: Mapping[str, tuple[Alternatives, ...]] = {
    "LoHa": ((frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),),),
    "LoKr": (
        (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"})),
        (frozenset({"lokr_w2"}), frozenset({"lokr_w2_a", "lokr_w2_b"})),
    ),
    "OFT": ((frozenset({"oft_blocks"}),),),
    "GLoRA": ((frozenset({"a1.weight", "a2.weight", "b1.weight", "b2.weight"}),),),
    "LoRA": ((frozenset({"lora_up.weight", "lora_down.weight"}), frozenset({"lora_A.weight", "lora_B.weight"})),),
    DIFFERENCE: (),
}

# Kinds, and words, whose change is a function of the weight.
_KINDS_OF_THE_WEIGHT = frozenset({"OFT", "GLoRA"})
_WORDS_OF_THE_WEIGHT = frozenset({"dora_scale", "set_weight"})

WHOLE = frozenset({"diff", "w_norm", "set_weight"})
"""Words that change a weight by themselves."""

KINDS = frozenset(_PARTS) - {"LoRA"}
"""Kinds that a stack can hold, besides DoRA, which is a scale on top of any of them or of a LoRA."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """A change of one weight of another kind than `Layer`.

    kind: its name in the field, for messages. tensors: by the last words of their names, as a file has them.
    strength: factor on the change.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    strength: float = 1.0

    @property
    def fixed(self) -> bool:
        """Whether the change is the same whatever the weight is, so that it can be computed without it."""
        base = self.kind.rpartition(" of ")[2]
        return base not in _KINDS_OF_THE_WEIGHT and not _WORDS_OF_THE_WEIGHT & set(self.tensors)

    @property
    def rank(self) -> int:
        """What alpha is divided by; 0 where no part tells."""
        parts = ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
        return next((len(self.tensors[word]) for word in parts if word in self.tensors), 0)

    def with_alpha(self, factor: Callable[[int], float]) -> Adapter:
        """The same adapter, its change factor(rank) times as large before any DoRA's scale. It has no alpha yet."""
        if self.rank:
            return replace(self, tensors={**self.tensors, "alpha": torch.tensor(factor(self.rank) * self.rank)})
        if "lokr_w1" in self.tensors:  # A whole LoKr, to which no loader applies an alpha.
            return replace(self, tensors={**self.tensors, "lokr_w1": self.tensors["lokr_w1"] * factor(0)})
        return self

    def scaled(self, factor: float) -> Adapter:
        """The same change, `factor` times as strong."""
        return self if factor == 1 else replace(self, strength=self.strength * factor)


def title(kind: str, words: Mapping[str, object]) -> str:
    """What to call an adapter of `kind` with the tensors `words`: "LoHa", "DoRA", "DoRA of LoHa"."""
    if "dora_scale" not in words:
        return kind
    return "DoRA" if kind == "LoRA" else f"DoRA of {kind}"


def missing(kind: str, words: Mapping[str, object]) -> list[str]:
    """Words that an adapter of `kind` lacks; none when it is complete."""
    if "b_norm" in words and "w_norm" not in words:
        return ["w_norm"]
    for alternatives in _PARTS[kind]:
        lacking = min((one - set(words) for one in alternatives), key=len)
        if lacking:
            return sorted(lacking)
    return []
