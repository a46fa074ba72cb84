"""Damaged training states: each goes on where the run was, or is refused with a reason."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import torch

from blocklora_core.concept.concept import Concept
from blocklora_core.training import Dataset, Example, Progress, TrainConfig, Trainer
from blocklora_core.training.state import load_state, run_inputs, save_state
from tests.core.fake_port import CHANNELS, SIDE, FakePort
from tests.fuzz.mutations import claimed, cut, flipped, header_spoilt, longer, metadata_spoilt, numbers_spoilt

CONFIG = TrainConfig.of(steps=4, batch_size=2, rank=2, preview_every=0, niche_weight=0.0, gram_steps=1)
WAYS = (flipped, flipped, cut, longer, claimed, header_spoilt, metadata_spoilt, numbers_spoilt)


class _StopError(Exception):
    pass


def trainer() -> Trainer:
    rng = torch.Generator().manual_seed(7)
    examples = [Example(torch.randn(CHANNELS, SIDE, SIDE, generator=rng), "a <hero>") for _ in range(3)]
    return Trainer(FakePort(), Dataset(examples, 2), Concept("<hero>", "man"), CONFIG)


def _stop(progress: Progress) -> None:
    if progress.step == 2:
        raise _StopError


def written(path: Path) -> Trainer:
    """A run broken off after its second step, its state at `path`."""
    broken = trainer()
    with contextlib.suppress(_StopError):
        broken.run(_stop)
    save_state(path, broken, run_inputs(broken))
    return broken


def damaged(count: int, folder: Path) -> dict[str, int]:
    """How many of `count` damaged states were resumed, refused with a reason, crashed, or resumed elsewhere."""
    path = folder / "a.state"
    broken, found = written(path), {"resumed": 0, "anew": 0, "crashes": 0, "wrong": 0}
    sound, inputs = path.read_bytes(), run_inputs(broken)
    wanted = [value.clone() for value in broken.learner.parameters]
    for number in range(count):
        rng = random.Random(f"state {number}")
        path.write_bytes(rng.choice(WAYS)(rng, sound) if number % 20 else sound)
        found[_outcome(path, inputs, wanted)] += 1
    return found


def _outcome(path: Path, inputs: dict[str, str], wanted: list[torch.Tensor]) -> str:
    fresh = trainer()
    try:
        done = load_state(path, fresh, inputs)
    except ValueError as error:
        return "anew" if str(error) else "crashes"
    except BaseException:  # noqa: BLE001 - what must not come out is what is looked for
        return "crashes"
    same = all(torch.equal(a, b) for a, b in zip(fresh.learner.parameters, wanted, strict=True))
    return "resumed" if done == 2 and same else "wrong"
