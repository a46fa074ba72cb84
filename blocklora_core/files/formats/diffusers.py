"""diffusers' files: a component (`unet.`, `text_encoder.`, `transformer.`), then the module's dotted name."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ...concept.concept import BlockLoRA
from .. import dialects
from .scaling import Scaling, parse_config, scaling_of
from .source import Source, plain, scaled

# Newer versions of diffusers keep the PEFT configuration here, each setting under its component: "unet.lora_alpha".
_CONFIG = "lora_adapter_metadata"


def owns(source: Source) -> bool:
    """Whether a layer is named by component or by diffusers' UNet blocks."""
    return _CONFIG in source.entries or any(
        dialects.to_host(stem) != stem for stem in (*source.tensor_names, *source.others)
    )


def read(source: Source) -> BlockLoRA:
    """alpha / rank where the file says so, else 1."""
    lora = plain(source)
    rules = _rules(source.entries.get(_CONFIG, "{}"))
    lora = scaled(lora, source, lambda stem, rank: _factor(rules, stem, rank))
    return lora.renamed_layers({stem: dialects.to_host(stem) for stem in (*lora.layers, *lora.adapters)})


def _factor(rules: dict[str, Scaling], stem: str, rank: int) -> float:
    component, _, module = stem.partition(".")
    return rules[component].factor(module, rank) if component in rules else 1.0


def _rules(text: str) -> dict[str, Scaling]:
    configs: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in parse_config(text).items():
        component, dot, setting = name.partition(".")
        if dot:
            configs[component][setting] = value
    return {component: scaling_of(config) for component, config in configs.items()}
