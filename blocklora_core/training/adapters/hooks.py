"""Hooks on modules for as long as a block runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Hooks as `handles` registers them one after the other; gone when the block ends, however it ends."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield
