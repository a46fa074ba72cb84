"""Where concepts are saved and found."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import folder_paths

from ..concept.concept import Concept, Stack
from ..files.io import save


def safe_name(concept: Concept) -> str:
    """The concept's name as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in concept.bare)


def loras_folder() -> Path:
    """The folder that new LoRA files go to."""
    return Path(folder_paths.get_folder_paths("loras")[0])


def lora_file(name: str) -> Path:
    """The file that a loras list calls `name`. ValueError when it is gone: not every host checks lists itself."""
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise ValueError(
            f"LoRA file: expected one of the loras folder, got {name!r}. Press R to refresh the list and choose again."
        )
    return Path(path)


def target_file(prefix: str, concept: Concept) -> Path:
    """Where `concept` is saved: below the loras folder, whose subfolders are made. ValueError for any other place."""
    root = loras_folder().resolve()
    path = (root / f"{prefix}{safe_name(concept)}.safetensors").resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"Prefix: expected a place inside the loras folder, got {prefix!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def free_file(path: Path) -> Path:
    """`path`, numbered where that is taken."""
    candidate, number = path, 2
    while candidate.exists():
        candidate = path.with_stem(f"{path.stem}_{number:02d}")
        number += 1
    return candidate


def save_stack(stack: Stack, prefix: str, overwrite: bool) -> tuple[Stack, list[Path]]:
    """Save each concept to `prefix` + its name; returns the stack with its sources, and the files written."""
    saved, paths = [], []
    for lora in stack:
        target = target_file(prefix, lora.concept)
        path = target if overwrite else free_file(target)
        save(path, lora, overwrite=overwrite)
        saved.append(dataclasses.replace(lora, source=path.name))
        paths.append(path)
    return tuple(saved), paths
