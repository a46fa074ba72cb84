"""PEFT adapters: `base_model.model.<module>.lora_A.weight`, their scale in adapter_config.json beside the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...concept.concept import BlockLoRA
from .. import dialects
from ..untrusted.header import read_whole
from ..untrusted.json_text import MOST_LETTERS
from .scaling import parse_config, scaling_of
from .source import Source, noted, plain, scaled

PREFIX = "base_model.model."
NO_CONFIG = (
    "No adapter_config.json lay beside the file, so its scale is unknown and taken as 1. Put the file into a folder "
    "with it, or correct the strength."
)


def config_file(path: Path) -> Path:
    """Where the configuration of the adapter in `path` lies, if there is one."""
    return path.with_name("adapter_config.json")


def owns(source: Source) -> bool:
    """Whether a layer has PEFT's prefix."""
    return any(stem.startswith(PREFIX) for stem in (*source.tensor_names, *source.others))


def read(source: Source) -> BlockLoRA:
    """Scales from the configuration; without one they are 1, with a note."""
    lora = plain(source)
    config = config_file(source.path)
    if config.is_file():
        rule = scaling_of(parse_config(read_whole(config, MOST_LETTERS).decode("utf-8")))
        lora = scaled(lora, source, lambda stem, rank: rule.factor(stem.removeprefix(PREFIX), rank))
    elif not _have_alphas(source):
        lora = noted(lora, NO_CONFIG)
    return lora.renamed_layers({stem: dialects.to_host(stem) for stem in (*lora.layers, *lora.adapters)})


def _have_alphas(source: Source) -> bool:
    parts: list[Mapping[Any, str]] = [*source.tensor_names.values(), *source.others.values()]
    return all("alpha" in words for words in parts)
