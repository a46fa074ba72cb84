"""Which layers of a model a training adapts, by their place in the blocks that the model repeats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from ...files.untrusted.patterns import Pattern

T = TypeVar("T")

# Place in a repeated block: what follows the innermost list of blocks and the block's number.
_IN_BLOCK = re.compile(r".*(?:^|\.)\w*(?:block|layer|refiner)\w*\.\d+\.(.+)\.weight$", re.IGNORECASE)

# What turns the step, or a text's vector, into scales and shifts, and what lies around the blocks of a stage.
_BESIDE = re.compile(
    r"modulation|ada_?ln|norm|emb|guidance|(^|[._])mod([A-Z]\w*)?\.|(^|\.)(proj_in|proj_out|skip\w*)$", re.IGNORECASE
)
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)

# Single-stream blocks (Flux, HunyuanVideo) hold Q, K, V and the feed-forward in two Linears of the block itself.
_FUSED = re.compile(r"linear_?\d")


def _place(weight_name: str) -> str:
    """The weight's name within its repeated block; empty where it is in none, or beside the path of the tokens."""
    found = _IN_BLOCK.match(weight_name)
    if found is None or _BESIDE.search(found[1]) or "guidance" in weight_name:
        return ""
    return found[1]


def is_attention(weight_name: str) -> bool:
    """Whether a weight belongs to the attention of a repeated block: the layers that all methods of the field adapt."""
    place = _place(weight_name)
    return bool(_ATTENTION.search(place) or _FUSED.fullmatch(place))


def is_attention_or_feed_forward(weight_name: str) -> bool:
    """Attention, and the feed-forward parts beside it: all of a block that the tokens pass through."""
    return bool(_place(weight_name))


def _every(_weight_name: str) -> bool:
    return True


@dataclass(frozen=True)
class LayerChoice:
    """label: for messages. wanted: whether a weight of that name is adapted. convolutions: or Linears only."""

    label: str
    wanted: Callable[[str], bool]
    convolutions: bool = False


_ALL = (
    LayerChoice("attention", is_attention),
    LayerChoice("attention + feed-forward", is_attention_or_feed_forward),
    LayerChoice("all linear", _every),
    LayerChoice("linear + convolution", _every, convolutions=True),
)

LAYER_CHOICES: dict[str, LayerChoice] = {choice.label: choice for choice in _ALL}
"""What the Train node offers."""


def layer_choice(name: str, pattern: str = "") -> LayerChoice:
    """The choice of that name, or of the weights whose name `pattern` matches anywhere, where it is not empty.

    ValueError when the name is unknown or `pattern` is no regular expression.
    """
    if not pattern:
        if name not in LAYER_CHOICES:
            raise ValueError(f"Layers: expected one of {', '.join(LAYER_CHOICES)}, got {name!r}.")
        return LAYER_CHOICES[name]
    expression = _told(pattern, lambda: Pattern(pattern))
    return LayerChoice(
        f"the pattern {pattern!r}", lambda name: _told(pattern, lambda: expression.search(name)), convolutions=True
    )


def _told(pattern: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except ValueError as error:
        raise ValueError(
            f"Layer pattern: expected a regular expression such as attn2\\.to_[kv], got {pattern[:80]!r}: {error}."
        ) from error


def nothing_chosen(choice: LayerChoice, base: str, names: Iterable[str]) -> ValueError:
    """The error for a choice of none of the layers `names` that `base` has."""
    example = next(iter(names), None)
    return ValueError(
        f"Layers: expected some of {base} by {choice.label}, got none. "
        + (f"Its weights are named like {example}." if example else "It has no layer that can be adapted.")
    )
