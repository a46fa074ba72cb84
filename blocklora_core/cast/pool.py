"""Tasks dealt to the workers of a cluster: to whoever is free, again where a worker is lost, and all ended together."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from .tasks import OnProgress, Outcome, Progress, Task, told, unheard

W = TypeVar("W")
K = TypeVar("K")
T = TypeVar("T")

TRIES = 3
"""Workers that a task may lose before it is the task that is at fault, or that may be lost before they have started."""
POLL = 1.0
"""Seconds between two questions how far the workers are."""
PATIENCE = 30.0
"""Seconds that cancelled workers have to end their step and keep what was learnt."""


class LostError(Exception):
    """A worker is gone, and what it was at with it."""


class UnfitError(Exception):
    """A worker cannot start; says where and why."""


class Answer(NamedTuple):
    """What a worker has to say of a task. error: why it failed, else empty. unfit: whether the worker would fail at
    any, as it could not start."""

    result: Any = None
    error: str = ""
    unfit: bool = False


class Engine(Protocol[W, K]):
    """What a cluster can do. W: a worker, K: a task that a worker has; both are the engine's own."""

    @property
    def size(self) -> int:
        """Workers that it has room for."""

    def share(self, value: T) -> T:
        """`value`, sent to the workers once, however many tasks are given it."""

    def hire(self) -> tuple[W, K]:
        """A worker, which begins to load the base once there is room for it, and what ends when it has."""

    def give(self, worker: W, work: str, given: tuple[Any, ...]) -> K:
        """Have a worker begin."""

    def wait(self, given: Sequence[K], seconds: float) -> Collection[K]:
        """Those that ended, after at most so long."""

    def answer(self, given: K) -> Answer:
        """How one ended. LostError when its worker is gone, UnfitError when it could not start."""

    def progress(self, worker: W) -> Progress | None:
        """How far a worker is, None where it has not said."""

    def cancel(self, worker: W) -> None:
        """Have a worker end what it is at, as a user's cancel does."""

    def dismiss(self, worker: W) -> None:
        """End a worker."""


@dataclass(frozen=True)
class _Given(Generic[W]):
    task: Task
    worker: W
    lost: int


class Pool(Generic[W, K]):
    """An executor on an engine. Workers are hired when they are needed, and keep their base until `close`. Only those
    that have started are given tasks: a cluster may have no room for all, or lose a machine for good."""

    def __init__(self, engine: Engine[W, K]):
        self.engine = engine
        self._idle: list[W] = []
        self._starting: dict[K, W] = {}
        # Those that cannot start keep their places, so that no other one is put there.
        self._unfit: list[W] = []
        self._why_unfit, self._lost_at_start = "", 0

    @property
    def size(self) -> int:
        return self.engine.size - len(self._unfit)

    def share(self, value: T) -> T:
        return self.engine.share(value)

    def run(self, tasks: Iterable[Task], on_progress: OnProgress = unheard) -> Generator[Outcome, None, None]:
        waiting = deque((task, 0) for task in tasks)
        given: dict[K, _Given[W]] = {}
        try:
            while waiting or given:
                self._hire(len(waiting), len(given))
                while waiting and not self.size:
                    yield Outcome(waiting.popleft()[0], error=f"no worker could start: {self._why_unfit}")
                while waiting and self._idle:
                    failed = self._begin(*waiting.popleft(), given)
                    if failed is not None:
                        yield failed
                for key in self.engine.wait([*given, *self._starting], POLL):
                    if key in self._starting:
                        self._started(key)
                    elif (outcome := self._end(given.pop(key), key, waiting)) is not None:
                        yield outcome
                for one in given.values():
                    if (progress := self.engine.progress(one.worker)) is not None:
                        on_progress(one.task.concept, progress)
        finally:
            self._cancel(given)

    def ask(self, work: str) -> Any:
        """What a worker answers to a question about itself. ValueError with its error, or when it is lost."""
        outcome = next(self.run([Task("", work, tuple)]))
        if outcome.error:
            raise ValueError(f"Cluster: expected a worker that loads the base, got: {outcome.error}")
        return outcome.result

    def close(self) -> None:
        """End all workers."""
        for worker in (*self._idle, *self._starting.values(), *self._unfit):
            self.engine.dismiss(worker)
        self._idle, self._starting, self._unfit = [], {}, []

    def _hire(self, waiting: int, given: int) -> None:
        while len(self._idle) + len(self._starting) + given < min(self.size, waiting + given):
            worker, key = self.engine.hire()
            self._starting[key] = worker

    def _started(self, key: K) -> None:
        worker = self._starting.pop(key)
        try:
            self.engine.answer(key)
        except (UnfitError, LostError) as error:
            self._lost_at_start += isinstance(error, LostError)
            if isinstance(error, LostError) and self._lost_at_start < TRIES:
                self.engine.dismiss(worker)
                return
            self._unfit.append(worker)
            self._why_unfit = told(error)
            if self.size:
                logging.warning("BlockLoRA: a worker could not start, the others go on without it: %s", error)
        else:
            self._idle.append(worker)
            self._lost_at_start = 0

    def _begin(self, task: Task, lost: int, given: dict[K, _Given[W]]) -> Outcome | None:
        try:
            made = task.make()
        except Exception as error:  # noqa: BLE001  (of whatever kind: the others are done nevertheless)
            return Outcome(task, error=told(error))
        worker = self._idle.pop()
        given[self.engine.give(worker, task.work, made)] = _Given(task, worker, lost)
        return None

    def _end(self, one: _Given[W], key: K, waiting: deque[tuple[Task, int]]) -> Outcome | None:
        try:
            answer = self.engine.answer(key)
        except LostError as error:
            self.engine.dismiss(one.worker)
            if one.lost + 1 < TRIES:
                logging.warning("BlockLoRA: the worker of %s is lost, another goes on: %s", one.task.concept, error)
                waiting.appendleft((one.task, one.lost + 1))
                return None
            return Outcome(one.task, error=f"{TRIES} workers were lost with it, the last one so: {told(error)}")
        self._idle.append(one.worker)
        return Outcome(one.task, answer.result, answer.error)

    def _cancel(self, given: dict[K, _Given[W]]) -> None:
        if not given:
            return
        for one in given.values():
            self.engine.cancel(one.worker)
        left, waited = set(given), 0.0
        while left and waited < PATIENCE:
            left -= {*self.engine.wait([*left], POLL)}
            waited += POLL
        for one in given.values():
            self.engine.dismiss(one.worker)
