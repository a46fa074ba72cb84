"""What `bench boxes` samples: several concepts, each asked for in a box of its own. After `import_comfyui`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks._identity_methods import NICHE, NO_GRAMS, RECIPES
from benchmarks._identity_sample import SAMPLING
from benchmarks._identity_train import Base, Recipe, Training
from benchmarks._identity_work import Place, keep_pictures, named_by
from blocklora_core.composer.options import PRESETS, ComposerOptions
from blocklora_core.host.composer import apply_composer
from blocklora_core.host.concept_prompt import concept_prompt
from blocklora_core.host.generate import Sampler, Sampling
from blocklora_core.host.patching import apply_merge
from blocklora_core.host.regional import RegionalSampling, apply_regions
from blocklora_core.lora import Stack
from blocklora_core.regions import Box, Region
from demo.art import SIZE

COUNTS = (2, 3, 5)
GAP = 16
"""Pixels between two boxes."""

INJECTED = Recipe("plain LoRA", fields={**NICHE, **NO_GRAMS}, pattern=r"attn2\.to_(k|v|out)")
"""LoRA-Composer's own way: K, V and out of cross-attention act in the region."""
PRESET = PRESETS["paper"]
PARTS: Mapping[str, Mapping[str, Any]] = {
    "injection": {"injection": False}, "enhancement": {"enhancement": 0.0}, "fill": {"fill": 0.0},
    "region loss": {"region": 0.0}, "isolation": {"isolation": False}, "re-initialisation": {"reinitialise": False},
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One line of the table. merged: concepts by the default recipe, fused; else each stays in its box. regional:
    whether boxes have prompts of their own. composer: LoRA-Composer on top."""

    title: str
    merged: bool = True
    regional: bool = True
    composer: ComposerOptions | None = None

    @property
    def recipe(self) -> Recipe:
        return RECIPES["default"] if self.merged else INJECTED


SETTINGS: Mapping[str, Setting] = {
    "plain": Setting("Merged, one prompt names all", regional=False),
    "regional": Setting("Merged, regional sampling"),
    "isolated": Setting(
        "Merged, regional sampling, boxes apart in self-attention",
        composer=replace(PRESET, enhancement=0.0, fill=0.0, region=0.0, reinitialise=False),
    ),
    "merged": Setting("Merged, LoRA-Composer without injection", composer=PRESET),
    "merged_code": Setting("The same with the code's weights", composer=PRESETS["code"]),
    "full": Setting("Not merged, LoRA-Composer in full", False, composer=PRESET),
    **{
        f"without_{name.replace(' ', '_')}": Setting(f"... without {name}", False, composer=replace(PRESET, **off))
        for name, off in PARTS.items()
    },
}


def boxes(count: int) -> list[Box]:
    """Boxes of SIZE pixels in a row."""
    width = picture_size(count)[1]
    return [Box(number * (SIZE + GAP) / width, 0.0, SIZE / width, 1.0) for number in range(count)]


def picture_size(count: int) -> tuple[int, int]:
    """Height and width."""
    return SIZE, count * (SIZE + GAP) - GAP


@dataclass(frozen=True)
class Scene:
    """Pictures of the trained concepts side by side, one a seed."""

    setting: Setting
    trained: tuple[Training, ...]
    seeds: tuple[int, ...]

    @property
    def names(self) -> list[str]:
        return [training.member.name for training in self.trained]

    @property
    def sampling(self) -> Sampling:
        return replace(SAMPLING, size=picture_size(len(self.trained)))

    def path(self, place: Place) -> Path:
        setting = self.setting
        files = [training.path(place.art, place.files).name for training in self.trained]
        composer = setting.composer and asdict(setting.composer)
        return place.pictures / named_by([files, setting.regional, composer, self.seeds, asdict(self.sampling)])

    def make(self, base: Base, place: Place) -> None:
        path = self.path(place)
        if path.is_file():
            return
        stack = tuple(training.file(base, place.art, place.files) for training in self.trained)
        started = time.perf_counter()
        sampler, prompt = self._merged(base, stack) if self.setting.merged else self._apart(base, stack)
        pictures = sampler.pictures([prompt] * len(self.seeds), self.seeds)
        keep_pictures(path, pictures, time.perf_counter() - started)

    def _merged(self, base: Base, stack: Stack) -> tuple[Sampler, str]:
        applied = apply_merge(stack, base.model, base.clip, "fused", "error")
        model, setting = applied.model, self.setting
        regions = self._regions([concept_prompt(applied.clip, _alone(name), name) for name in self.names])
        if setting.composer:
            model = apply_composer(model, regions, setting.composer).model
        elif setting.regional:
            model = apply_regions(model, RegionalSampling(regions))
        return Sampler(model, applied.clip, base.vae, self.sampling), _together(self.names)

    def _apart(self, base: Base, stack: Stack) -> tuple[Sampler, str]:
        prompts = [concept_prompt(base.clip, _alone(lora.concept.name), lora.concept.name, lora) for lora in stack]
        assert self.setting.composer
        model = apply_composer(base.model, self._regions(prompts), self.setting.composer, stack=stack).model
        words = [training.member.class_word for training in self.trained]
        return Sampler(model, base.clip, base.vae, self.sampling), _together(words)

    def _regions(self, prompts: Sequence[Any]) -> tuple[Region, ...]:
        placed = zip(boxes(len(self.trained)), prompts, self.names, strict=True)
        return tuple(Region(box, prompt, None, name) for box, prompt, name in placed)


def _alone(name: str) -> str:
    return f"a {name} on a white background"


def _together(names: Sequence[str]) -> str:
    return f"{' and '.join(f'a {name}' for name in names)} on a white background"
