"""PEFT's rule for how strong an adapter is: one configuration, or one for each module that a pattern names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..untrusted.json_text import finite, parse_json
from ..untrusted.patterns import Budget, Pattern

MOST_PATTERNS = 4096

# Kind of adapter -> what its configuration calls alpha.
_ALPHAS: Mapping[str, str] = {"LORA": "lora_alpha", "LOHA": "alpha", "LOKR": "alpha"}

# Settings that change what the tensors mean -> what to call the adapter.
_REFUSED: Mapping[str, str] = {"fan_in_fan_out": "transposed LoRA"}

_CONVERT = "No loader of ComfyUI reads it under PEFT's names: export it with kohya's."

# Ways to start a training that also change the base weights: without that change the LoRA is of no use.
_BASE_CHANGING = ("pissa", "olora", "corda")


@dataclass(frozen=True)
class Scaling:
    """scale = alpha / rank, or alpha / sqrt(rank) when rank-stabilised.

    The rank is that of a layer's tensors, which rank patterns have already shaped; `rank` where they have none.
    """

    alpha: float
    stabilised: bool = False
    patterns: tuple[tuple[Pattern, float], ...] = ()
    rank: float = 1.0

    def factor(self, module: str, rank: int) -> float:
        """The scale of the layer `module`, named as in the model that was adapted."""
        # A pattern names the end of a module's name, from its start or a dot on.
        starts = [0, *(at + 1 for at, letter in enumerate(module) if letter == ".")]
        try:
            alpha = next((alpha for pattern, alpha in self.patterns if pattern.ends_from(module, starts)), self.alpha)
        except ValueError as error:
            raise ValueError(f"Expected quick patterns in alpha_pattern: {error}. Export the adapter again.") from error
        divisor = rank or self.rank
        return alpha / (math.sqrt(divisor) if self.stabilised else divisor)


def scaling_of(config: Mapping[str, Any]) -> Scaling:
    """The rule in a PEFT LoRA configuration; ValueError when it describes something else."""
    kind = config.get("peft_type") or "LORA"
    if kind not in _ALPHAS:
        raise ValueError(f"Expected the configuration of a LoRA, LoHa or LoKr, got peft_type {kind!r}. {_CONVERT}")
    found = [name for setting, name in _REFUSED.items() if config.get(setting)]
    if found:
        raise ValueError(f"Expected a LoRA, got one of another kind: {', '.join(found)}. {_CONVERT}")
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(_BASE_CHANGING):
        raise ValueError(
            f"Expected a LoRA for an unchanged base model, got one that {start} moved away from it. Export it with "
            "PEFT's path_initial_model_for_weight_conversion."
        )
    return Scaling(
        _number(_ALPHAS[kind], config.get(_ALPHAS[kind])),
        bool(config.get("use_rslora")),
        _patterns(config.get("alpha_pattern") or {}),
        max(_number("r", config.get("r", 1)), 1.0),
    )


def parse_config(text: str) -> dict[str, Any]:
    """A JSON object; ValueError for anything else."""
    try:
        config = parse_json(text)
    except ValueError as error:
        raise ValueError(f"Expected JSON in the PEFT configuration, got: {error}. Export the adapter again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"Expected a JSON object in the PEFT configuration, got {type(config).__name__}.")
    return config


def _patterns(given: object) -> tuple[tuple[Pattern, float], ...]:
    if not isinstance(given, dict) or len(given) > MOST_PATTERNS:
        raise ValueError(
            f"Expected an object for alpha_pattern of at most {MOST_PATTERNS} patterns, got {str(given)[:80]}. "
            "Export the adapter again."
        )
    budget = Budget()
    return tuple((_pattern(text, budget), _number(f"alpha_pattern {text}", alpha)) for text, alpha in given.items())


def _pattern(text: str, budget: Budget) -> Pattern:
    try:
        return Pattern(text, budget)
    except ValueError as error:
        raise ValueError(f"Expected a regular expression in alpha_pattern, got {text[:80]!r}: {error}.") from error


def _number(what: str, value: object) -> float:
    try:
        return finite(value)
    except ValueError as error:
        raise ValueError(f"Expected a number for {what[:80]} in the PEFT configuration: {error}.") from error
