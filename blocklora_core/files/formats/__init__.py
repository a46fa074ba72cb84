"""LoRA files of other tools, read as plain LoRAs: every row held, scheme and slot None.

Layers get the stems that ComfyUI's key maps have. What a format cannot express here is refused with the reason, or
kept in part with a note in the metadata (`metadata.NOTE`); nothing is left out in silence.
"""

from __future__ import annotations

from pathlib import Path

from ...concept.concept import BlockLoRA
from . import diffusers, kohya, mix_of_show, peft
from .source import Format, Source

__all__ = ["FORMATS", "Format", "Source", "files_of", "read"]

# Tried in this order: the last takes what is left.
FORMATS: tuple[Format, ...] = (
    Format("Mix-of-Show", mix_of_show.owns, mix_of_show.read),
    Format("PEFT", peft.owns, peft.read),
    Format("diffusers", diffusers.owns, diffusers.read),
    Format("kohya", kohya.owns, kohya.read),
)


def read(source: Source) -> BlockLoRA:
    """The concept in another tool's file. ValueError when it holds anything else than a LoRA that we can express."""
    return next(form for form in FORMATS if form.owns(source)).read(source)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that reading `path` reads: itself, and PEFT's configuration where one lies beside it."""
    config = peft.config_file(path)
    return (path, config) if config.is_file() else (path,)
