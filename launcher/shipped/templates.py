"""The templates, in the order of a first acquaintance. All run on the user's own checkpoint."""

from __future__ import annotations

from .training import ONE, PAIR
from .using import CHECK, FIVE, MERGE, STYLE, TWO

TEMPLATES = (MERGE, TWO, FIVE, STYLE, ONE, PAIR, CHECK)
