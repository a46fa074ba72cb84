"""Several forwards of one model side by side: each stands still where it meets the others, one computes at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

import torch

Brought = TypeVar("Brought")
Result = TypeVar("Result")

Meet = Callable[[Brought], Brought]
"""Called by a run with what it brings to a meeting; returns what the meeting made of it."""

Run = Callable[[Meet[Brought]], Result]


def in_step(
    runs: Sequence[Run[Brought, Result]], meeting: Callable[[list[Brought]], Sequence[Brought]]
) -> list[Result]:
    """What each of `runs` returns. meeting: what all brought, in their order -> what each goes on with.

    An error of one ends all. RuntimeError when not all come to every meeting.
    """
    crew = [_Runner(run) for run in runs]
    try:
        for one in crew:
            one.start()
        while any(one.waits for one in crew):
            if not all(one.waits for one in crew):
                raise RuntimeError(
                    "Regions: the passes for different prompts do not take the same way through the model."
                )
            for one, answer in zip(crew, meeting([one.brought for one in crew]), strict=True):
                one.go_on(answer)
        return [one.result for one in crew]
    finally:
        for one in crew:
            one.stop()


class _StoppedError(BaseException):
    """Ends a run from inside; no handler of the host for errors takes it for one."""


_STOP = object()


class _Runner(Generic[Brought, Result]):
    """One run in a thread of its own, which computes only while its owner waits for it."""

    brought: Brought
    result: Result

    def __init__(self, run: Run[Brought, Result]):
        self._run, self.waits = run, False
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._told: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        # The host keeps who is computing in context variables.
        self._thread = Thread(target=copy_context().run, args=(self._work, _settings()), daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._listen()

    def go_on(self, answer: Brought) -> None:
        self._answers.put(answer)
        self._listen()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._answers.put(_STOP)
            self._thread.join()

    def _listen(self) -> None:
        what, value = self._told.get()
        self.waits = what == "brought"
        if what == "error":
            raise value
        setattr(self, what, value)

    def _meet(self, brought: Brought) -> Brought:
        self._told.put(("brought", brought))
        answer: Any = self._answers.get()
        if answer is _STOP:
            raise _StoppedError
        found: Brought = answer
        return found

    def _work(self, settings: Callable[[], Any]) -> None:
        try:
            with settings():
                result = self._run(self._meet)
            self._told.put(("result", result))
        except BaseException as error:  # noqa: BLE001  it goes on in the thread that waits
            self._told.put(("error", error))


def _settings() -> Callable[[], Any]:
    """What torch keeps by thread, as it is in this one."""
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None

    @contextmanager
    def settings() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(inference))
            stack.enter_context(torch.set_grad_enabled(gradients))
            if stream is not None:
                stack.enter_context(torch.cuda.device(stream.device))
                stack.enter_context(torch.cuda.stream(stream))
            yield

    return settings
