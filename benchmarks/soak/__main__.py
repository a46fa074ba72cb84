"""Half an hour of what users do and what happens to them, on a real server, and what got lost.

Run as `python run.py bench soak [--minutes N] [--seed N]`. Actions are drawn from a fixed seed: trainings, cancels,
SIGTERM, Ctrl-C, kill -9, full disks, merges, regions, exports, deleted and damaged files. The folders stand on a disk
of 160 MiB where this user may mount one; else disks do not fill up. After each action every saved file is compared with
what it was. The last line is one JSON object:
    actions      how many; by_action: of each kind
    faults       errors that nobody expected, servers that ended or hung, leftovers
    lost         saved files that were gone or others, and steps that a resumed training had to make again
    rss_start    MiB of the first server after its first training and merge; rss_end: of the last server at the end
    rss_growth   MiB that a server took more at its end than after its fifth action, the most of all servers
    servers      how many there were, one after the other
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

from benchmarks.soak.actions import ACTIONS, Action, full_disk, merge, train
from benchmarks.soak.world import Fault, Lost, NodeError, World, scratch, small_disk

MIB = 2**20
WARM = 5
"""Actions after which a server has loaded all that it keeps."""


class Diary:
    """What was done and what was found."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.faults = self.lost = 0
        self.memory: dict[int, list[int]] = {}

    def act(self, world: World, action: Action) -> None:
        started = time.monotonic()
        self.done[action.__name__] += 1
        self._guarded(world, action, action.__name__)
        self._guarded(world, World.check, "check")
        memory, seconds = world.memory() // MIB, time.monotonic() - started
        self.memory.setdefault(world.lives, []).append(memory)
        print(f"{sum(self.done.values())} {action.__name__}: {seconds:.1f} s, {memory} MiB", flush=True)

    def _guarded(self, world: World, action: Action, name: str) -> None:
        try:
            action(world)
        except Lost as error:
            self.lost += 1
            print(f"LOST in {name}: {error}", file=sys.stderr, flush=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            self.faults += 1
            told = str(error) if isinstance(error, Fault | NodeError) else traceback.format_exc()
            print(f"FAULT in {name}: {told}", file=sys.stderr, flush=True)
            if world.server.process.poll() is not None:
                world.close()
                world.start()

    def result(self) -> dict[str, object]:
        lives = list(self.memory.values())
        growth = [life[-1] - life[WARM - 1] for life in lives if len(life) > WARM]
        return {
            "actions": sum(self.done.values()), "faults": self.faults, "lost": self.lost, "rss_start": lives[0][1],
            "rss_end": lives[-1][-1], "rss_growth": max(growth, default=0), "servers": len(lives),
            "by_action": dict(sorted(self.done.items())),
        }  # fmt: skip


def soak(minutes: float, seed: int) -> dict[str, object]:
    rng, diary = Random(seed), Diary()
    comfyui = Path(os.environ["BLOCKLORA_COMFYUI"])
    with scratch() as folder, small_disk(Path(folder, "disk")) as mounted:
        kinds = {action: weight for action, weight in ACTIONS.items() if mounted or action is not full_disk}
        world = World(comfyui, Path(folder), Path(folder, "disk"), rng)
        try:
            limit = time.monotonic() + 60 * minutes
            for action in (train, train, merge):
                diary.act(world, action)
            while time.monotonic() < limit:
                diary.act(world, rng.choices(list(kinds), list(kinds.values()))[0])
        finally:
            world.close()
    return diary.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Shells let what they start in the background ignore Ctrl-C, and servers would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(json.dumps({"minutes": options.minutes, "seed": options.seed, **soak(options.minutes, options.seed)}))


if __name__ == "__main__":
    main()
