"""Files that a stranger might write: none runs code, hangs, fills the memory or is read wrong.

Run as `python run.py bench fuzz [--cases N] [--states N]`. Case number and file belong together (tests/fuzz). Each file
is read by the core and, where it is taken, merged alone and with another; a worker process that a file hangs or kills
is replaced. The last line is one JSON object:
    cases        files tried
    refused      errors of the pack's own with the file's name, or of a merge
    right        read as the safetensors library reads it, and merged finite
    foreign      other exceptions; hangs: above ten seconds of work; over_memory: above 1 GB more; wrong: other numbers
                 than are in the file; nonfinite: merges that overflow without an error
    states       damaged training states: resumed, anew (refused with a reason), crashes, wrong
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import torch

from tests.fuzz.mutations import mutated, seeds
from tests.fuzz.states import damaged
from tests.fuzz.verdicts import verdict

WORDS = ("refused", "right", "foreign", "hangs", "over_memory", "wrong", "nonfinite")
WORK, STILL = 30.0, 300
"""Seconds that a worker may work without an answer, and that it may stand still: others may keep it waiting."""


def work(results: Connection, folder: str, numbers: range) -> None:
    """Sends (number, word, why) for each case."""
    torch.set_num_threads(1)
    sound = seeds()
    for number in numbers:
        results.send((number, *verdict(Path(folder), *mutated(number, sound))))


def run(cases: int) -> Counter[str]:
    """Counts by word; what is neither refused nor right is told on standard error."""
    found: Counter[str] = Counter()
    start = 0
    while start < cases:
        with tempfile.TemporaryDirectory() as folder:
            start = _rest(found, folder, range(start, cases))
    return found


def _rest(found: Counter[str], folder: str, numbers: range) -> int:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    worker = context.Process(target=work, args=(theirs, folder, numbers), daemon=True)
    worker.start()
    theirs.close()
    done = numbers.start
    try:
        while done < numbers.stop:
            if not _answers(mine, psutil.Process(worker.pid)):
                worker.kill()
                return _lost(found, done, "hangs", "killed")
            done, word, why = mine.recv()
            found[word] += 1
            if word not in ("refused", "right"):
                print(f"case {done}: {word}: {why}", file=sys.stderr)
            done += 1
    except EOFError:
        return _lost(found, done, "over_memory", "the worker died")
    worker.join()
    return done


def _answers(mine: Connection, worker: psutil.Process) -> bool:
    """Whether the worker answers in time; EOFError comes later where it has died."""
    worked = _worked(worker)
    for _ in range(STILL):
        if mine.poll(1.0):
            return True
        if _worked(worker) - worked > WORK:
            return False
    return False


def _worked(worker: psutil.Process) -> float:
    try:
        return sum(worker.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return 0.0


def _lost(found: Counter[str], number: int, word: str, why: str) -> int:
    found[word] += 1
    print(f"case {number}: {word}: {why}", file=sys.stderr)
    return number + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--states", type=int, default=500)
    options = parser.parse_args()
    found = run(options.cases)
    with tempfile.TemporaryDirectory() as folder:
        states = damaged(options.states, Path(folder))
    print(json.dumps({"cases": options.cases, **{word: found[word] for word in WORDS}, "states": states}))


if __name__ == "__main__":
    main()
