"""Which Linears of a model a training adapts, by name."""

from __future__ import annotations

from collections.abc import Callable

_ATTENTION = (".attn1.", ".attn2.", ".attn.", "_attn.", ".attention.")
_FEED_FORWARD = (".ff.", "_mlp.", ".mlp.", ".feed_forward.")


def is_attention(weight_name: str) -> bool:
    """Whether a weight belongs to an attention block: the layers that all methods of the field adapt."""
    return any(part in weight_name for part in _ATTENTION)


def is_attention_or_feed_forward(weight_name: str) -> bool:
    """Attention, and the feed-forward parts beside it."""
    return is_attention(weight_name) or any(part in weight_name for part in _FEED_FORWARD)


LAYER_CHOICES: dict[str, Callable[[str], bool]] = {
    "attention": is_attention,
    "attention + feed-forward": is_attention_or_feed_forward,
}
"""What the Train node offers -> whether a weight of that name is adapted."""
