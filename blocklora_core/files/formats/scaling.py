"""PEFT's rule for how strong an adapter is: one configuration, or one for each module that a pattern names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Settings that change what the tensors mean -> what to call the adapter.
_REFUSED: Mapping[str, str] = {"use_dora": "DoRA", "fan_in_fan_out": "transposed LoRA"}

_CONVERT = "No loader of ComfyUI reads it under PEFT's names: export it with kohya's."

# Ways to start a training that also change the base weights: without that change the LoRA is of no use.
_BASE_CHANGING = ("pissa", "olora", "corda")


@dataclass(frozen=True)
class Scaling:
    """scale = alpha / rank, or alpha / sqrt(rank) when rank-stabilised.

    The rank is that of a layer's tensors, which rank patterns have already shaped.
    """

    alpha: float
    stabilised: bool = False
    patterns: Mapping[str, float] = field(default_factory=dict)

    def factor(self, module: str, rank: int) -> float:
        """The scale of the layer `module`, named as in the model that was adapted."""
        alpha = next((alpha for pattern, alpha in self.patterns.items() if _names(pattern, module)), self.alpha)
        return alpha / (math.sqrt(rank) if self.stabilised else rank)


def scaling_of(config: Mapping[str, Any]) -> Scaling:
    """The rule in a PEFT LoRA configuration; ValueError when it describes something else."""
    kind = config.get("peft_type") or "LORA"
    if kind != "LORA":
        raise ValueError(f"Expected the configuration of a LoRA, got peft_type {kind!r}. {_CONVERT}")
    found = [name for setting, name in _REFUSED.items() if config.get(setting)]
    if found:
        raise ValueError(f"Expected a LoRA, got one of another kind: {', '.join(found)}. {_CONVERT}")
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(_BASE_CHANGING):
        raise ValueError(
            f"Expected a LoRA for an unchanged base model, got one that {start} moved away from it. Export it with "
            "PEFT's path_initial_model_for_weight_conversion."
        )
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"Expected an object for alpha_pattern, got {patterns!r}. Export the adapter again.")
    return Scaling(
        _number("lora_alpha", config.get("lora_alpha")),
        bool(config.get("use_rslora")),
        {_pattern(name): _number(f"alpha_pattern {name}", alpha) for name, alpha in patterns.items()},
    )


def parse_config(text: str) -> dict[str, Any]:
    """A JSON object; ValueError for anything else."""
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ValueError(f"Expected JSON in the PEFT configuration, got: {error}. Export the adapter again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"Expected a JSON object in the PEFT configuration, got {type(config).__name__}.")
    return config


def _names(pattern: str, module: str) -> bool:
    return re.match(rf"(?:.*\.)?(?:{pattern})$", module) is not None


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"Expected a regular expression in alpha_pattern, got {text!r}: {error}.") from error
    return text


def _number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"Expected a number for {what} in the PEFT configuration, got {value!r}.")
    return float(value)
