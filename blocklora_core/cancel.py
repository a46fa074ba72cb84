"""The user's cancel, heard in long computations: the host says how to ask, computations ask often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

T = TypeVar("T")

_SECONDS = 0.2
_LARGE = 10**9
"""Multiplications from which on one call to the linear algebra library may take longer than a second."""


def _nobody() -> None:
    pass


_listener: ContextVar[Callable[[], None]] = ContextVar("listener", default=_nobody)


@contextmanager
def listening(listener: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `check` calls `listener`, which raises what ends the computation."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def check() -> None:
    """Ends the computation when the user has cancelled it."""
    _listener.get()()


def patiently(work: Callable[[], T], cost: float) -> T:
    """`work()`, of `cost` multiplications, which asks nobody itself: a large one runs beside, while this one asks.

    What a cancelled computation was at goes on to its end beside, and is dropped.
    """
    check()
    if cost < _LARGE or _listener.get() is _nobody:
        return work()
    done: Future[T] = Future()
    inference = torch.is_inference_mode_enabled()

    def run() -> None:
        try:
            with torch.inference_mode(inference):
                done.set_result(work())
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
            done.set_exception(error)

    thread = threading.Thread(target=run, name="blocklora", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_SECONDS)
        check()
    return done.result()
