"""A server told to end while it trains: the state of the training is kept first."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ..page import server

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))

PATIENCE = 8.0
"""Seconds that the server waits for the training's next step: docker kills it ten seconds after its first word."""


class Stop:
    """Whether the server was told to end. The training looks after each step, and says when it has kept its state."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.kept = threading.Event()
        self.trains = threading.get_ident()
        self.before: dict[int, Any] = {}

    def install(self) -> None:
        """Listen; only the main thread may."""
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self.before[number] = signal.signal(number, self._hear)

    def remove(self) -> None:
        """Listen no more; only the main thread may."""
        for number, handler in self.before.items():
            # Another one may have been put in our place, and knows ours.
            if signal.getsignal(number) == self._hear:
                signal.signal(number, handler)
        self.before = {}

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        again, self.signal = self.signal is not None, number
        if threading.get_ident() == self.trains and not again:
            return  # between two lines of the training itself: it goes on to the end of its step
        if not again:
            logging.warning("BlockLoRA: the server is told to end; the training keeps its state after this step")
            self.kept.wait(PATIENCE)
        self.obey()

    def obey(self) -> None:
        """What the signal would have done without us."""
        if self.signal is not None and threading.current_thread() is threading.main_thread():
            number = self.signal
            self.remove()
            os.kill(os.getpid(), number)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Listen to the signals that end the server while the block runs, and never after it."""
    stop = Stop()
    _on_main_thread(stop.install)
    try:
        yield stop
    finally:
        stop.kept.set()
        _on_main_thread(stop.remove)


def _on_main_thread(action: Callable[[], None]) -> None:
    if threading.current_thread() is threading.main_thread():
        action()
        return
    # Nodes run beside the server, whose loop runs on the main thread.
    loop = getattr(server(), "loop", None)
    if loop is not None and loop.is_running():
        loop.call_soon_threadsafe(action)
