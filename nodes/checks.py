"""What a node can say before it runs: the same rule, and the same words, as when it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def told_before(rule: Callable[..., Any], *values: Any) -> bool | str:
    """For `validate_inputs`: True, or what `rule` has against `values`. Where one is None, nothing is known of it yet:
    it comes from another node."""
    if None in values:
        return True
    try:
        rule(*values)
    except ValueError as error:
        return str(error)
    return True
