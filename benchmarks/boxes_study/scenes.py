"""What `bench boxes` samples: several concepts, each asked for in a box of its own. After `import_comfyui`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import node_helpers

from benchmarks.boxes_study.layouts import Layout
from benchmarks.identity_study.methods import NICHE, NO_GRAMS, RECIPES
from benchmarks.identity_study.sample import SAMPLING
from benchmarks.identity_study.train import Base, Recipe, Training
from benchmarks.identity_study.work import Folders, keep_pictures, named_by
from blocklora_core.concept.concept import BlockLoRA, Stack
from blocklora_core.host.comfy import ComfyClip, ComfyConditioning
from blocklora_core.host.composer.composer import apply_composer
from blocklora_core.host.composer.prompt import concept_prompt
from blocklora_core.host.evaluate.generate import Sampler, Sampling, encode
from blocklora_core.host.regions.regional import RegionalSampling, apply_regions
from blocklora_core.host.weights.patching import apply_merge
from blocklora_core.regions import Region
from blocklora_core.regions.composer.options import CODE, PAPER, ComposerOptions

BACKGROUND = "a white background"
FAINT = 0.1
"""How strongly the background is asked for beside ComfyUI's areas."""

INJECTED = Recipe("plain LoRA", fields={**NICHE, **NO_GRAMS}, pattern=r"attn2\.to_(k|v|out)")
"""LoRA-Composer's own way: K, V and out of cross-attention act in the region."""
PARTS: Mapping[str, Mapping[str, Any]] = {
    "injection": {"injection": False}, "enhancement": {"enhancement": 0.0}, "fill": {"fill": 0.0},
    "region loss": {"region": 0.0}, "isolation": {"isolation": False}, "re-initialisation": {"reinitialise": False},
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One line of the table. merged: concepts by the default recipe, fused; else each stays in its box. prompts: one
    for all, regions, or ComfyUI's areas. composer: LoRA-Composer on top."""

    title: str
    merged: bool = True
    prompts: Literal["one", "regions", "areas"] = "regions"
    composer: ComposerOptions | None = None

    @property
    def recipe(self) -> Recipe:
        return RECIPES["default"] if self.merged else INJECTED


SETTINGS: Mapping[str, Setting] = {
    "plain": Setting("Merged, one prompt names all", prompts="one"),
    "areas": Setting("Merged, ComfyUI's areas", prompts="areas"),
    "regional": Setting("Merged, regional sampling"),
    "isolated": Setting(
        "Merged, regional sampling, boxes apart in self-attention",
        composer=replace(PAPER, enhancement=0.0, fill=0.0, region=0.0, reinitialise=False),
    ),
    "merged": Setting("Merged, LoRA-Composer without injection, gentle", composer=PAPER),
    "merged_code": Setting("The same, strong (the code's weights)", composer=CODE),
    "full": Setting("Not merged, LoRA-Composer in full", False, composer=PAPER),
    **{
        f"without_{name.replace(' ', '_')}": Setting(f"... without {name}", False, composer=replace(PAPER, **off))
        for name, off in PARTS.items()
    },
}

STEPS = (10.0, 20.0, 40.0, 80.0)
SWEEP: Mapping[str, Setting] = {
    **{
        f"step_{size:g}": Setting(f"The paper's weights, step {size:g}", composer=replace(PAPER, step_size=size))
        for size in STEPS
    },
    "strong": Setting("The code's weights, step 20", composer=CODE),
}
"""How hard LoRA-Composer guides: half as hard as its paper's weights with its code's step, to its code's weights, eight
times and more as hard: `--sweep`."""


@dataclass(frozen=True)
class Scene:
    """Pictures of the trained concepts, each in its box, one a seed. drawn: what prompts say before each name."""

    setting: Setting
    layout: Layout
    trained: tuple[Training, ...]
    seeds: tuple[int, ...]
    background: str = BACKGROUND
    how: Sampling = SAMPLING
    drawn: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(training.member.name for training in self.trained)

    @property
    def sampling(self) -> Sampling:
        return replace(self.how, size=self.layout.size)

    def path(self, folders: Folders) -> Path:
        setting = self.setting
        files = [training.path(folders.art, folders.files).name for training in self.trained]
        composer = setting.composer and asdict(setting.composer)
        asked = [self._alone, *map(astuple, self.layout.boxes)]
        return folders.pictures / named_by([files, setting.prompts, composer, asked, self.seeds, asdict(self.sampling)])

    def make(self, base: Base, folders: Folders) -> None:
        path = self.path(folders)
        if path.is_file():
            return
        stack = tuple(training.file(base, folders.art, folders.files) for training in self.trained)
        started = time.perf_counter()
        sampler, prompt = self._merged(base, stack) if self.setting.merged else self._apart(base, stack)
        pictures = sampler.pictures([prompt] * len(self.seeds), self.seeds)
        keep_pictures(path, pictures, time.perf_counter() - started)

    def _merged(self, base: Base, stack: Stack) -> tuple[Sampler, str | ComfyConditioning]:
        applied = apply_merge(stack, base.model, base.clip, "fused", "error")
        model, setting = applied.model, self.setting
        prompts = self._prompts(applied.clip, [None] * len(stack))
        whole: str | ComfyConditioning = self._together(self.names)
        if setting.composer:
            model = apply_composer(model, self._regions(prompts), setting.composer).model
        elif setting.prompts == "regions":
            model = apply_regions(model, RegionalSampling(self._regions(prompts)))
        elif setting.prompts == "areas":
            whole = self._areas(encode(applied.clip, self.background), prompts)
        return Sampler(model, applied.clip, base.vae, self.sampling), whole

    def _apart(self, base: Base, stack: Stack) -> tuple[Sampler, str | ComfyConditioning]:
        prompts = self._prompts(base.clip, stack)
        assert self.setting.composer
        model = apply_composer(base.model, self._regions(prompts), self.setting.composer, stack=stack).model
        words = tuple(training.member.class_word for training in self.trained)
        return Sampler(model, base.clip, base.vae, self.sampling), self._together(words)

    def _areas(self, whole: ComfyConditioning, prompts: Sequence[ComfyConditioning]) -> ComfyConditioning:
        """Every box by Conditioning (Set Area with Percentage), over a faint background that fills the gaps."""
        values = [{"area": ("percentage", box.height, box.width, box.y, box.x)} for box in self.layout.boxes]
        asked = [(whole, {"strength": FAINT}), *zip(prompts, values, strict=True)]
        return [one for prompt, value in asked for one in node_helpers.conditioning_set_values(prompt, value)]

    def _regions(self, prompts: Sequence[ComfyConditioning]) -> tuple[Region, ...]:
        placed = zip(self.layout.boxes, prompts, self.names, strict=True)
        return tuple(Region(box, prompt, None, name) for box, prompt, name in placed)

    def _prompts(self, clip: ComfyClip, own: Sequence[BlockLoRA | None]) -> list[ComfyConditioning]:
        """Each box's prompt. own: the concepts that CLIP does not know."""
        asked = zip(self._alone, self.names, own, strict=True)
        return [concept_prompt(clip, text, name, lora) for text, name, lora in asked]

    @property
    def _alone(self) -> list[str]:
        return [f"{phrase} on {self.background}" for phrase in self.layout.phrases(self._called(self.names))]

    def _called(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(" ".join, zip(self.drawn, names, strict=True))) if self.drawn else names

    def _together(self, names: tuple[str, ...]) -> str:
        return f"{' and '.join(self.layout.phrases(self._called(names)))} on {self.background}"
