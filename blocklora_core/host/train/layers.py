"""Which layers of a model a training adapts, by the names of their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from ...files.untrusted.patterns import Pattern

T = TypeVar("T")

_ATTENTION = (".attn1.", ".attn2.", ".attn.", "_attn.", ".attention.")
_FEED_FORWARD = (".ff.", "_mlp.", ".mlp.", ".feed_forward.")


def is_attention(weight_name: str) -> bool:
    """Whether a weight belongs to an attention block: the layers that all methods of the field adapt."""
    return any(part in weight_name for part in _ATTENTION)


def is_attention_or_feed_forward(weight_name: str) -> bool:
    """Attention, and the feed-forward parts beside it."""
    return is_attention(weight_name) or any(part in weight_name for part in _FEED_FORWARD)


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
