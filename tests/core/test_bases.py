"""Names of base architectures: whatever trainers call one, it is one name here."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from blocklora_core.concept.bases import BASES, family, known_as
from blocklora_core.files.io import load, save
from tests.core.samples import QUERY

# As kohya, modelspec, OneTrainer and ai-toolkit write them.
SAYINGS = {
    "sd15": ["sd_v1", "stable-diffusion-v1", "stable-diffusion-v1/lora", "sd_1.5", "SD 1.5", "sd15"],
    "sd20": ["sd_v2", "sd_v2_768_v", "stable-diffusion-v2-512", "stable-diffusion-v2-768-v/lora", "sd_2.1"],
    "sdxl": ["sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "stable-diffusion-xl-v1-base/lora", "sdxl_1.0", "Pony"],
    "sdxlrefiner": ["stable-diffusion-xl-v1-refiner"],
    "sd3": ["sd3", "sd3m", "stable-diffusion-3-medium", "stable-diffusion-3-medium/lora"],
    "sd35medium": ["stable-diffusion-3.5-medium", "sd3.5m"],
    "sd35large": ["stable-diffusion-3.5-large/lora", "sd3.5"],
    "flux": ["flux1", "flux-1-dev", "flux-1-dev/lora", "Flux.1-dev", "flux-1-schnell", "flux.1", "flux_kontext"],
    "wan21_t2v": ["wan2.1", "Wan"],
    "": ["", "model.safetensors", "v1-5-pruned"],
}


@pytest.mark.parametrize(("base", "text"), [(base, text) for base, texts in SAYINGS.items() for text in texts])
def test_every_trainer_s_name_of_a_base_is_one_name(base: str, text: str) -> None:
    assert known_as(text.partition("/")[0]) == base


@pytest.mark.parametrize("base", sorted(BASES))
def test_what_is_written_of_a_base_is_read_as_that_base(base: str) -> None:
    assert known_as(BASES[base].kohya) == known_as(BASES[base].modelspec) == known_as(base) == base


def test_a_size_and_a_variant_of_one_layout_are_of_one_family() -> None:
    assert family("sd15-26M") == "sd15" and family("fluxschnell") == "flux" and family("own") == "own"


@pytest.mark.parametrize("metadata", [{"ss_base_model_version": "x", "modelspec.architecture": "flux-1-dev/lora"}])
def test_a_file_s_base_is_the_first_field_that_is_known(tmp_path: Path, metadata: dict[str, str]) -> None:
    tensors = {f"{QUERY}.lora_down.weight": torch.ones(2, 6), f"{QUERY}.lora_up.weight": torch.ones(8, 2)}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", metadata)
    lora = load(tmp_path / "a.safetensors")
    assert lora.base == "flux"
    assert load(save(tmp_path / "b.safetensors", lora)).base == "flux"
