"""The optimisers a run can use. All but AdamW come from packages that may be missing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

DEFAULT = "adamw"


class MissingOptimizerError(ValueError):
    """The chosen optimiser's package is not installed."""


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one rate."""

    parameters: Sequence[nn.Parameter]
    learning_rate: float


Groups = list[dict[str, Any]]
Maker = Callable[[ModuleType, Groups, float], torch.optim.Optimizer]


@dataclass(frozen=True)
class OptimizerKind:
    """An optimiser of the registry.

    module: where it is imported from; package: what pip installs, empty when it comes with torch.
    make: (module, parameter groups, weight decay) -> optimiser.
    one_rate: it finds the rate itself, so groups may not differ in it.
    averages: it averages the weights itself and needs no schedule.
    """

    module: str
    package: str
    make: Maker
    one_rate: bool = False
    averages: bool = False


def _adamw(module: ModuleType, groups: Groups, weight_decay: float) -> torch.optim.Optimizer:
    return module.AdamW(groups, weight_decay=weight_decay)


def _prodigy(module: ModuleType, groups: Groups, weight_decay: float) -> torch.optim.Optimizer:
    return module.Prodigy(groups, lr=max(group["lr"] for group in groups), weight_decay=weight_decay)


def _schedulefree(module: ModuleType, groups: Groups, weight_decay: float) -> torch.optim.Optimizer:
    made = module.AdamWScheduleFree(groups, weight_decay=weight_decay)
    made.train()
    return made


def _adamw8bit(module: ModuleType, groups: Groups, weight_decay: float) -> torch.optim.Optimizer:
    return module.AdamW8bit(groups, weight_decay=weight_decay)


OPTIMIZERS: Mapping[str, OptimizerKind] = {
    DEFAULT: OptimizerKind("torch.optim", "", _adamw),
    "prodigy": OptimizerKind("prodigyopt", "prodigyopt", _prodigy, one_rate=True),
    "schedulefree": OptimizerKind("schedulefree", "schedulefree", _schedulefree, averages=True),
    "adamw8bit": OptimizerKind("bitsandbytes.optim", "bitsandbytes", _adamw8bit),
}


def make_optimizer(name: str, groups: Sequence[Group], weight_decay: float) -> torch.optim.Optimizer:
    """The optimiser `name`, a key of OPTIMIZERS. MissingOptimizerError when its package is not installed."""
    kind = OPTIMIZERS[name]
    try:
        module = importlib.import_module(kind.module)
    except ImportError as error:
        raise MissingOptimizerError(
            f"Optimizer {name}: expected the Python package {kind.package}, got: {error}. "
            f"Install it where ComfyUI runs (pip install {kind.package}), or choose {DEFAULT}."
        ) from error
    ready: Groups = [
        {"params": list(group.parameters), "lr": group.learning_rate, "initial_lr": group.learning_rate}
        for group in groups
    ]
    return kind.make(module, ready, weight_decay)


def scale_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group learns at `factor` times the rate it was made with."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
