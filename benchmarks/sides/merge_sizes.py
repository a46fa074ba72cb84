"""How merging grows with the number of concepts, from memory and from a warm disk, beside chained stock LoRAs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import torch

from benchmarks.common.models import CPU
from benchmarks.common.shared import Stopwatch, interleaved, medians
from blocklora_core.concept.concept import Stack
from blocklora_core.files.io import load
from blocklora_core.host.base import base_name
from blocklora_core.host.weights.patching import apply_merge

SIZES = (1, 2, 5, 15, 30, 60)
LoRA = Mapping[str, torch.Tensor]


def chain(model: Any, clip: Any, loras: Iterable[LoRA]) -> Any:
    """What a chain of LoraLoader does to MODEL and CLIP with files in memory."""
    for lora in loras:
        model, clip = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0)
    return model


def merged(stack: Stack, model: Any, clip: Any) -> Any:
    """Our merge by per_row."""
    return apply_merge(stack, model, clip, "per_row").model


def read_stock(path: Path) -> LoRA:
    """A file as LoraLoader reads it."""
    tensors: LoRA = comfy.utils.load_torch_file(str(path), safe_load=True)
    return tensors


def loaded_seconds(make: Callable[[], Any]) -> float:
    """Seconds of making a patched MODEL and ComfyUI's load of it; the unpatching that follows is not timed."""
    watch = Stopwatch()
    patcher = make()
    patcher.patch_model(device_to=CPU)
    taken = watch.seconds()
    patcher.unpatch_model(device_to=CPU)
    return taken


@dataclass(frozen=True)
class Growth:
    """One model and files of one scheme for it.

    clip: None for the UNet alone. stock_limit: the largest number of files for the stock chain.
    """

    model: Any
    clip: Any
    paths: Sequence[Path]
    stock_limit: int

    def rows(self, numbers: Sequence[int], repeats: int) -> list[dict[str, Any]]:
        """One row for each number of concepts: all sides take turns, medians count."""
        return [self._row(number, repeats) for number in numbers]

    def _row(self, number: int, repeats: int) -> dict[str, Any]:
        sides = self._sides(self.paths[:number])
        left_out = [] if number <= self.stock_limit else [name for name in sides if name.startswith("stock")]
        median = medians(interleaved({name: side for name, side in sides.items() if name not in left_out}, repeats))
        seconds = {name: round(median[name], 4) if name in median else None for name in sides}
        return {
            "base": base_name(self.model),
            "concepts": number,
            "ours_seconds": seconds["ours"],
            "stock_chain_seconds": seconds["stock"],
            "files_seconds": {"ours": seconds["ours from files"], "stock": seconds["stock from files"]},
            "clip": self.clip is not None,
            "repeats": repeats,
            "note": f"stock chain only up to {self.stock_limit}: it would take minutes" if left_out else "",
        }

    def _sides(self, paths: Sequence[Path]) -> dict[str, Callable[[], float]]:
        model, clip = self.model, self.clip
        stack, stock = tuple(map(load, paths)), list(map(read_stock, paths))
        makers: dict[str, Callable[[], Any]] = {
            "ours": lambda: merged(stack, model, clip),
            "stock": lambda: chain(model, clip, stock),
            "ours from files": lambda: merged(tuple(map(load, paths)), model, clip),
            # One at a time, as each loader in a chain holds its own file.
            "stock from files": lambda: chain(model, clip, map(read_stock, paths)),
        }
        return {name: partial(loaded_seconds, make) for name, make in makers.items()}
