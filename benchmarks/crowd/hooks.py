"""Workers with a fault, put into the cast's command from outside: `python -m benchmarks.crowd.hooks FAULT cast ...`."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from functools import partial

from blocklora_core.__main__ import main
from blocklora_core.cast.pool import Answer
from blocklora_core.host.cast import command
from blocklora_core.host.cast.cluster import RemoteWorker, Setup, connected, unpacked

STATE_EVERY = 1.0
"""Seconds between two states, so that a training of seconds has some."""
STARVED = "<felix>"
ROOM = 2**26
"""Bytes that a starved worker may still ask for: less than a step takes."""


class OftenKept(RemoteWorker):
    """Keeps states more often than every two minutes."""

    def __init__(self, setup: Setup):
        super().__init__(setup)
        from blocklora_core.host.train.live import run

        run.KEPT_EVERY = STATE_EVERY


class Starved(RemoteWorker):
    """Has no memory for one of the concepts: the system refuses it more."""

    def do(self, work: str, *given: bytes) -> Answer:
        job = unpacked(given[0]) if given else None
        if getattr(job, "concept", None) is None or job.concept.name != STARVED:
            return super().do(work, *given)
        before = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            pages = int(file.read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
        try:
            return super().do(work, *given)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


FAULTS: Mapping[str, type[RemoteWorker]] = {"none": RemoteWorker, "kept": OftenKept, "starved": Starved}

if __name__ == "__main__":
    command.TOLD_EVERY = 1.0
    command.connected = partial(connected, worker=FAULTS[sys.argv.pop(1)])
    sys.exit(main())
