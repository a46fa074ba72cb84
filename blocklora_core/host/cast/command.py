"""`python -m blocklora_core cast FOLDER COMMAND`: a cast planned, trained, merged, evaluated, with no page."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...cast.journal import FAILED, Entry
from ...cast.member import Cast, CastError
from ...cast.reading import read_cast
from ...cast.table import show
from ...cast.tasks import Executor, Progress
from ...files.untrusted.text import legible
from .cluster import AUTO, Cluster, Setup, connected
from .headless import find_comfyui, start

if TYPE_CHECKING:
    # Importing these imports ComfyUI, which is found first.
    from ..evaluate.generate import Sampling
    from .base import Facts, Loaded

TOLD_EVERY = 10.0
"""Seconds between two words about how far a concept is."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The `cast` command's own arguments."""
    cast = commands.add_parser("cast", help="many concepts: plan, train, status, collect, merge, evaluate")
    cast.add_argument("folder", type=Path, metavar="FOLDER", help="a folder of folders with pictures, or a TOML file")
    cast.add_argument("action", choices=[*_ACTIONS], nargs="?", default="plan", help="plan changes nothing (default)")
    cast.add_argument("--base", required=True, metavar="CHECKPOINT", help="a file of the checkpoints folder, or a path")
    cast.add_argument("--comfyui", type=Path, metavar="PATH", help="ComfyUI; found by itself from custom_nodes")
    cast.add_argument("--cpu", action="store_true", help="no GPU")
    cast.add_argument(
        "--states", type=Path, metavar="FOLDER", help="where states of trainings wait; without it ComfyUI's user folder"
    )
    cast.add_argument("--only", nargs="+", default=[], metavar="CONCEPT", help="merge, evaluate: these folders' alone")
    cast.add_argument("--method", default="auto", help="merge, evaluate: as in BlockLoRA Merge")
    out = cast.add_mutually_exclusive_group()
    out.add_argument("--file", metavar="NAME", help="merge: one LoRA of this name in the loras folder")
    out.add_argument("--sheet", type=Path, metavar="PNG", help="merge: a picture of each, from one merged model")
    cast.add_argument("--prompt", default="a photo of {}", help="merge --sheet: {} stands for the concept")
    cast.add_argument("--vision", metavar="FILE", help="evaluate: a file of the clip_vision folder, or a path")
    cast.add_argument("--pictures", type=int, default=20, help="evaluate: of each concept")
    cast.add_argument("--steps", type=int, default=20, help="merge --sheet, evaluate, collect: of the sampler")
    cast.add_argument("--cfg", type=float, default=7.5, help="merge --sheet, evaluate: of the sampler")
    cast.add_argument("--size", type=int, help="merge --sheet, evaluate, collect: pixels; without it the model's usual")
    cast.add_argument("--seed", type=int, default=0, help="merge --sheet, evaluate, collect: of the noise")
    ray = cast.add_argument_group("on several GPUs or machines, by Ray: train, collect, evaluate")
    ray.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help=f"HOST:6379, ray://HOST:10001, or {AUTO} for RAY_ADDRESS, else this machine alone",
    )
    ray.add_argument("--gpus", type=float, default=1.0, help="of each worker; .5 for two on one GPU")
    ray.add_argument("--workers", type=int, default=0, help="at most; without it as many as there is room for")


@dataclass
class _Session:
    """One command: its cast, its base, who does the work."""

    cast: Cast
    options: argparse.Namespace
    comfyui: Path
    _told: dict[str, float] = field(default_factory=dict)

    @cached_property
    def base(self) -> Loaded:
        from .base import load_base

        return load_base(self.options.base)

    @contextmanager
    def executor(self) -> Iterator[tuple[Facts, Executor]]:
        """Who does the work, and what they work on."""
        from .worker import FACTS, InTurn

        given = self.options
        if given.cluster is None:
            yield self.base.facts, InTurn(self.base)
            return
        setup = Setup(self.comfyui, given.base, given.cpu, given.states)
        with connected(Cluster(given.cluster, given.gpus, given.workers), setup) as pool:
            print("waiting for the first worker", flush=True)
            facts = pool.ask(FACTS)
            print(f"{pool.size} workers at a time", flush=True)
            yield facts, pool

    def sampling(self, base: Facts) -> Sampling:
        from ..evaluate.generate import Sampling

        given = self.options
        return Sampling(steps=given.steps, cfg=given.cfg, size=given.size or base.size, seed=given.seed)

    def on_progress(self, concept: str, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._told.get(concept, float("-inf")) >= TOLD_EVERY:
            self._told[concept] = now
            print(f"{legible(concept)} {progress.done} of {progress.of}", flush=True)


def run(options: argparse.Namespace) -> int:
    """The exit status: 0, 1 for what was wrong, 2 where concepts failed, 130 when it was broken off."""
    logging.basicConfig(level=logging.WARNING)
    try:
        cast, comfyui = read_cast(options.folder), find_comfyui(options.comfyui)
        # What drives a cluster needs no GPU itself.
        start(comfyui, options.cpu or options.cluster is not None, options.states)
        return _ACTIONS[options.action](_Session(cast, options, comfyui))
    except KeyboardInterrupt:
        print("Broken off; the same command goes on where it stopped.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(legible(str(error), 2000), file=sys.stderr)
        return 1


def _plan(session: _Session) -> int:
    from .base import make_plan

    show(make_plan(session.cast, session.base.facts))
    return 0


def _train(session: _Session) -> int:
    from .train import train_cast

    with session.executor() as (facts, executor):
        done = train_cast(session.cast, facts, executor, _tell, session.on_progress)
    show(done.plan)
    return _failures(done.failed)


def _tell(entry: Entry) -> None:
    # Of a training that went on from a state nobody knows all seconds.
    took = f" in {entry.seconds:.0f} s" if entry.seconds else ""
    how = FAILED if entry.event == FAILED else f"{entry.event}{took}, slot {entry.slot}"
    print(f"{legible(entry.concept)} {how}", flush=True)


def _failures(failed: Mapping[str, str]) -> int:
    for concept, why in failed.items():
        print(f"{legible(concept)} failed: {legible(why, 2000)}", file=sys.stderr)
    return 2 if failed else 0


def _collect(session: _Session) -> int:
    from ..train.collect import CollectJob
    from .results import collected

    given = session.options
    with session.executor() as (facts, executor):
        job = CollectJob(steps=given.steps, size=given.size or facts.size, seed=given.seed)
        return _failures(collected(session.cast, facts, executor, job, _tell, session.on_progress))


def _merge(session: _Session) -> int:
    from .results import Wanted, to_file, to_sheet

    cast, base, options = session.cast, session.base, session.options
    wanted = Wanted(options.only, options.method, session.sampling(base.facts))
    if options.sheet:
        print(to_sheet(cast, base, wanted, options.prompt, options.sheet))
        return 0
    if not options.file:
        raise CastError("merge: expected --file NAME or --sheet PNG, got neither.")
    exported = to_file(cast, base, wanted, options.file)
    print(f"{exported.path}: {exported.layers} layers, {exported.path.stat().st_size / 1e6:.1f} MB")
    for name, word in exported.embeddings.items():
        print(f"{legible(name)}: write {word} in stock prompts")
    for line in exported.left_out():
        print(legible(line, 2000))
    return 0


def _evaluate(session: _Session) -> int:
    from ...evaluation import text
    from ..evaluate.job import EvaluateJob
    from .results import Wanted, evaluated

    options = session.options
    if not options.vision:
        raise CastError("evaluate: expected --vision FILE, the CLIP vision model that compares pictures, got none.")
    with session.executor() as (facts, executor):
        job = EvaluateJob(pictures=options.pictures, sampling=session.sampling(facts))
        wanted = Wanted(options.only, options.method)
        print(text(evaluated(session.cast, facts, executor, wanted, options.vision, job, session.on_progress)))
    return 0


_ACTIONS: Mapping[str, Callable[[_Session], int]] = {
    "plan": _plan,
    "train": _train,
    "status": _plan,
    "collect": _collect,
    "merge": _merge,
    "evaluate": _evaluate,
}
