"""Work on the concepts of a cast: what it is, and who does it. One process after the other, or workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """One piece of work. concept: whose. work: what a worker is asked for, by name. make: gives what the worker gets,
    when it is its turn: pictures take memory."""

    concept: str
    work: str
    make: Callable[[], tuple[Any, ...]]


@dataclass(frozen=True)
class Outcome:
    """What became of a task. error: why it failed, else empty."""

    task: Task
    result: Any = None
    error: str = ""


class Progress(NamedTuple):
    """So many steps of so many."""

    done: int
    of: int


OnProgress = Callable[[str, Progress], None]
"""Told now and then how far a concept is."""


def unheard(_concept: str, _progress: Progress) -> None:
    """Nobody listens."""


class Executor(Protocol):
    """Who does the work."""

    @property
    def size(self) -> int:
        """Tasks that are done at a time."""

    def share(self, value: T) -> T:
        """`value` as tasks give it that are many: sent once, where it must be sent."""

    def run(self, tasks: Iterable[Task], on_progress: OnProgress = unheard) -> Generator[Outcome, None, None]:
        """What becomes of each task, as it comes; one that fails stops no other. Closed before its end, as by an
        exception of the user's, it cancels what is under way, which keeps what was learnt."""


def told(error: BaseException) -> str:
    """What a journal is to hold of `error`."""
    return str(error)[:2000] or type(error).__name__
