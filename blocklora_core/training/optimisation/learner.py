"""What turns gradients into weights: optimiser, schedule, clipping and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from .ema import Ema
from .optimizers import OPTIMIZERS, Group, make_optimizer, scale_rates
from .schedules import factor


class Learner:
    """Learns groups of parameters, each at its own rate."""

    def __init__(self, groups: Sequence[Group], config: TrainConfig):
        self.config = config
        self.parameters = [parameter for group in groups for parameter in group.parameters]
        self.kind = OPTIMIZERS[config.optimizer.name]
        self.optimizer = make_optimizer(config.optimizer.name, groups, config.optimizer.weight_decay)
        decay = config.optimizer.ema_decay
        self.ema = Ema(self.parameters, decay) if decay else None

    def clip(self) -> float:
        """Scale the gradients down to max_grad_norm together; their global norm before that."""
        limit = self.config.optimizer.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))

    def step(self, done: int) -> None:
        """One optimiser step with the gradients that are there, after `done` others."""
        schedule = self.config.schedule
        scale_rates(
            self.optimizer, factor(schedule.name, done, self.config.steps, schedule.warmup_steps, schedule.cycles)
        )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.parameters)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the learning ones, where there are any; exactly as before afterwards."""
        averages = self._averages()
        if averages is None:
            yield
            return
        learning = _copies(self.parameters)
        _put(self.parameters, averages)
        try:
            yield
        finally:
            _put(self.parameters, learning)

    def freeze(self, parameters: Sequence[nn.Parameter]) -> None:
        """`parameters` become their averages, so that the rest learns with what is kept, and learn no more."""
        with self.averaged():
            settled = _copies(parameters)
        _put(parameters, settled)
        resting = {id(parameter) for parameter in parameters}
        for group in self.optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in resting]
        for parameter in parameters:
            self.optimizer.state.pop(parameter, None)

    def _averages(self) -> list[Tensor] | None:
        if self.ema:
            return self.ema.values
        return self._own_averages(self.optimizer) if self.kind.averages else None

    def _own_averages(self, optimizer: Any) -> list[Tensor]:
        # eval() and train() undo each other only up to rounding, so the weights are put back.
        learning = _copies(self.parameters)
        optimizer.eval()
        averages = _copies(self.parameters)
        optimizer.train()
        _put(self.parameters, learning)
        return averages


def _copies(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


@torch.no_grad()
def _put(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
