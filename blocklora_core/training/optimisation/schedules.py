"""Learning rates over the steps of a run: pure functions from a step to the factor that multiplies the rate.

Cosine and its restarts are those of SGDR (Loshchilov and Hutter 2017, arXiv 1608.03983), without growing cycles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Shape = Callable[[float, int], float]
"""(share of the steps after warm-up that is done, in [0, 1]; cycles) -> factor in [0, 1]."""


def _linear(done: float, _cycles: int) -> float:
    return 1 - done


def _constant(_done: float, _cycles: int) -> float:
    return 1.0


def _cosine(done: float, _cycles: int) -> float:
    return (1 + math.cos(math.pi * done)) / 2


def _cosine_restarts(done: float, cycles: int) -> float:
    # The end is the end of the last cycle, not the start of one more.
    return 0.0 if done >= 1 else _cosine(done * cycles % 1.0, 1)


SCHEDULES: Mapping[str, Shape] = {
    "linear": _linear,
    "constant": _constant,
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
}


def factor(name: str, step: int, steps: int, warmup_steps: int = 0, cycles: int = 1) -> float:
    """What multiplies the learning rate after `step` of `steps` optimiser steps: 0 to 1.

    In the first `warmup_steps` it climbs in a line and reaches 1 at step `warmup_steps`; not from 0, so that no step is
    wasted. The shape `name`, a key of SCHEDULES, takes up the rest. cycles: of cosine_restarts.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return SCHEDULES[name]((step - warmup_steps) / (steps - warmup_steps), cycles)
