"""`python -m blocklora_core cast FOLDER COMMAND`: a cast planned, trained, merged, evaluated, with no page."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...cast.journal import FAILED, Entry
from ...cast.member import Cast, CastError
from ...cast.reading import read_cast
from ...cast.table import show
from ...files.untrusted.text import legible
from .headless import find_comfyui, start

if TYPE_CHECKING:
    # Importing these imports ComfyUI, which is found first.
    from ..evaluate.generate import Sampling
    from .base import Loaded


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The `cast` command's own arguments."""
    cast = commands.add_parser("cast", help="many concepts: plan, train, status, merge, evaluate")
    cast.add_argument("folder", type=Path, metavar="FOLDER", help="a folder of folders with pictures, or a TOML file")
    cast.add_argument("action", choices=[*_ACTIONS], nargs="?", default="plan", help="plan changes nothing (default)")
    cast.add_argument("--base", required=True, metavar="CHECKPOINT", help="a file of the checkpoints folder, or a path")
    cast.add_argument("--comfyui", type=Path, metavar="PATH", help="ComfyUI; found by itself from custom_nodes")
    cast.add_argument("--cpu", action="store_true", help="no GPU")
    cast.add_argument("--only", nargs="+", default=[], metavar="CONCEPT", help="merge, evaluate: these folders' alone")
    cast.add_argument("--method", default="auto", help="merge, evaluate: as in BlockLoRA Merge")
    out = cast.add_mutually_exclusive_group()
    out.add_argument("--file", metavar="NAME", help="merge: one LoRA of this name in the loras folder")
    out.add_argument("--sheet", type=Path, metavar="PNG", help="merge: a picture of each, from one merged model")
    cast.add_argument("--prompt", default="a photo of {}", help="merge --sheet: {} stands for the concept")
    cast.add_argument("--vision", metavar="FILE", help="evaluate: a file of the clip_vision folder, or a path")
    cast.add_argument("--pictures", type=int, default=20, help="evaluate: of each concept")
    cast.add_argument("--steps", type=int, default=20, help="merge --sheet, evaluate: of the sampler")
    cast.add_argument("--size", type=int, help="merge --sheet, evaluate: pixels; without it the model's usual size")
    cast.add_argument("--seed", type=int, default=0, help="merge --sheet, evaluate: of the noise")


def run(options: argparse.Namespace) -> int:
    """The exit status: 0, 1 for what was wrong, 2 where concepts failed, 130 when it was broken off."""
    logging.basicConfig(level=logging.WARNING)
    try:
        cast = read_cast(options.folder)
        start(find_comfyui(options.comfyui), options.cpu)
        from .base import load_base

        return _ACTIONS[options.action](cast, load_base(options.base), options)
    except KeyboardInterrupt:
        print("Broken off; the same command goes on where it stopped.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(legible(str(error), 2000), file=sys.stderr)
        return 1


def _plan(cast: Cast, base: Loaded, _options: argparse.Namespace) -> int:
    from .base import make_plan

    show(make_plan(cast, base))
    return 0


def _train(cast: Cast, base: Loaded, _options: argparse.Namespace) -> int:
    from .train import train_cast

    done = train_cast(cast, base, _tell)
    show(done.plan)
    for concept, why in done.failed.items():
        print(f"{legible(concept)} failed: {legible(why, 2000)}", file=sys.stderr)
    return 2 if done.failed else 0


def _tell(entry: Entry) -> None:
    how = "failed" if entry.event == FAILED else f"{entry.event} in {entry.seconds:.0f} s, slot {entry.slot}"
    print(f"{legible(entry.concept)} {how}", flush=True)


def _merge(cast: Cast, base: Loaded, options: argparse.Namespace) -> int:
    from .results import Wanted, to_file, to_sheet

    wanted = Wanted(options.only, options.method, _sampling(base, options))
    if options.sheet:
        print(to_sheet(cast, base, wanted, options.prompt, options.sheet))
        return 0
    if not options.file:
        raise CastError("merge: expected --file NAME or --sheet PNG, got neither.")
    exported = to_file(cast, base, wanted, options.file)
    print(f"{exported.path}: {exported.layers} layers, {exported.path.stat().st_size / 1e6:.1f} MB")
    return 0


def _evaluate(cast: Cast, base: Loaded, options: argparse.Namespace) -> int:
    from ...evaluation import text
    from ..evaluate.job import EvaluateJob
    from .results import Wanted, evaluated

    if not options.vision:
        raise CastError("evaluate: expected --vision FILE, the CLIP vision model that compares pictures, got none.")
    job = EvaluateJob(pictures=options.pictures, sampling=_sampling(base, options))
    print(text(evaluated(cast, base, Wanted(options.only, options.method), options.vision, job)))
    return 0


def _sampling(base: Loaded, options: argparse.Namespace) -> Sampling:
    from ..base import usual_size
    from ..evaluate.generate import Sampling

    return Sampling(steps=options.steps, size=options.size or usual_size(base.model), seed=options.seed)


_ACTIONS: Mapping[str, Callable[[Cast, Loaded, argparse.Namespace], int]] = {
    "plan": _plan,
    "train": _train,
    "status": _plan,
    "merge": _merge,
    "evaluate": _evaluate,
}
