"""Tasks dealt to workers that fail, are lost and are cancelled: a pool on an engine without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from blocklora_core.cast import pool
from blocklora_core.cast.pool import TRIES, Answer, LostError, Pool, UnfitError
from blocklora_core.cast.tasks import Executor, Progress, Task


@dataclass
class Engine:
    """Two workers, by number. A task's answer is what its function gives; it ends when it is waited for."""

    size: int = 2
    hired: int = 0
    living: set[int] = field(default_factory=set)
    cancelled: list[int] = field(default_factory=list)
    given: list[tuple[int, str, Callable[[], Any]]] = field(default_factory=list)
    most: int = 0
    unfit: set[int] = field(default_factory=set)
    room: int = 99

    def share(self, value: Any) -> Any:
        return value

    def hire(self) -> tuple[int, int]:
        self.hired += 1
        self.living.add(self.hired)
        self.most = max(self.most, len(self.living))
        return self.hired, -self.hired

    def give(self, worker: int, work: str, given: tuple[Any, ...]) -> int:
        self.given.append((worker, work, given[0] if given else lambda: worker))
        return len(self.given) - 1

    def wait(self, given: Sequence[int], _seconds: float) -> Collection[int]:
        # Whoever has room starts at once, the others never.
        started = [key for key in given if -self.room <= key < 0]
        return [] if self.cancelled else started or [key for key in given if key >= 0][:1]

    def answer(self, given: int) -> Answer:
        if given < 0:
            if -given in self.unfit:
                raise UnfitError("host: no comfy")
            return Answer()
        return Answer(self.given[given][2]())

    def progress(self, worker: int) -> Progress | None:
        return Progress(worker, 9)

    def cancel(self, worker: int) -> None:
        self.cancelled.append(worker)

    def dismiss(self, worker: int) -> None:
        self.living.remove(worker)


def task(name: str, does: Callable[[], Any]) -> Task:
    return Task(name, "train", partial(tuple, [does]))


def lose(often: int, then: str) -> Callable[[], str]:
    """Loses its worker so often, then gives `then`."""
    tries = iter(range(often))

    def does() -> str:
        if next(tries, None) is not None:
            raise LostError("memory ran out\nthere")
        return then

    return does


def test_workers_are_kept_and_everyone_is_done_once() -> None:
    engine, heard = Engine(), list[tuple[str, Progress]]()
    executor: Executor = Pool(engine)
    tasks = [task(f"<{name}>", partial(str.upper, name)) for name in "abcde"]
    outcomes = list(executor.run(tasks, lambda *told: heard.append(told)))
    assert sorted((one.task.concept, one.result, one.error) for one in outcomes) == [
        (f"<{name}>", name.upper(), "") for name in "abcde"
    ]
    assert (engine.hired, engine.most) == (2, 2)
    assert {name for name, _ in heard} <= {f"<{name}>" for name in "abcde"}
    assert heard


def test_a_lost_worker_s_task_goes_to_another_one() -> None:
    engine = Engine()
    outcomes = list(Pool(engine).run([task("<a>", lose(TRIES - 1, "A")), task("<b>", lose(0, "B"))]))
    assert {one.task.concept: one.result for one in outcomes} == {"<a>": "A", "<b>": "B"}
    # Those that were lost are gone, those that worked are kept.
    assert engine.hired == len(engine.living) + TRIES - 1


def test_a_task_that_loses_every_worker_fails_and_stops_nobody() -> None:
    outcomes = list(Pool(Engine()).run([task("<a>", lose(99, "")), task("<b>", lose(0, "B"))]))
    told = {one.task.concept: one for one in outcomes}
    assert (told["<b>"].result, told["<a>"].result) == ("B", None)
    assert f"{TRIES} workers" in told["<a>"].error
    assert "memory ran out" in told["<a>"].error


def test_a_worker_that_cannot_start_keeps_its_place_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(unfit={1})
    here = Pool(engine)
    outcomes = list(here.run([task(f"<{name}>", partial(str.upper, name)) for name in "abc"]))
    assert {one.task.concept: one.result for one in outcomes} == {"<a>": "A", "<b>": "B", "<c>": "C"}
    assert (engine.hired, here.size, caplog.text.count("no comfy")) == (2, 1, 1)
    here.close()
    assert engine.living == set()


def test_tasks_go_to_workers_that_have_started_whoever_else_was_hired() -> None:
    """A machine that went for good, or --workers above what there is room for."""
    engine = Engine(room=1)
    here = Pool(engine)
    outcomes = list(here.run([task(f"<{name}>", partial(str.upper, name)) for name in "abc"]))
    assert [one.result for one in outcomes] == ["A", "B", "C"]
    assert {worker for worker, _, _ in engine.given} == {1}
    here.close()
    assert engine.living == set()


def test_where_no_worker_can_start_the_reason_is_told_once() -> None:
    here = Pool(Engine(size=1, unfit={1}))
    with pytest.raises(ValueError, match="no comfy") as told:
        here.ask("facts")
    assert str(told.value).count("no comfy") == 1
    assert [one.error for one in here.run([task("<a>", lose(0, "A"))])] == ["no worker could start: host: no comfy"]


def test_a_task_that_cannot_be_made_takes_no_worker() -> None:
    def unreadable() -> tuple[Any, ...]:
        raise OSError("no pictures")

    engine = Engine()
    (outcome,) = Pool(engine).run([Task("<a>", "train", unreadable)])
    assert (outcome.error, engine.given) == ("no pictures", [])


def test_what_is_under_way_is_cancelled_and_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE", 3.0)
    engine = Engine()
    running = Pool(engine).run([task(f"<{name}>", lose(0, name)) for name in "abcd"])
    next(running)
    running.close()
    assert len(engine.cancelled) == 1
    assert not engine.living & {*engine.cancelled}


def test_workers_end_with_the_pool() -> None:
    engine = Engine()
    here = Pool(engine)
    assert here.ask("facts") == 1
    assert engine.living == {1}
    here.close()
    assert engine.living == set()
