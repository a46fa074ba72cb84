"""LoRA files that people have, through a real server: one node, five files, three dialects."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.server.conftest import SAMPLER_STEPS, ComfyUI
from tests.server.test_workflows import LOADER, Graph, pixels, reports

LAYERS = ("attn1_to_q", "attn1_to_k", "attn1_to_v", "attn2_to_q")
BLOCK = "{}_blocks_{}_transformer_blocks_0_"


def kohya(layer: str) -> tuple[str, str, str]:
    return f"lora_unet_up_blocks_0_attentions_1_transformer_blocks_0_{layer}", ".lora_down.weight", ".lora_up.weight"


def diffusers(layer: str) -> tuple[str, str, str]:
    dotted = layer.replace("_to", ".to")
    return f"unet.up_blocks.0.attentions.1.transformer_blocks.0.{dotted}", ".lora_A.weight", ".lora_B.weight"


def generic(layer: str) -> tuple[str, str, str]:
    dotted = layer.replace("_to", ".to")
    return f"diffusion_model.output_blocks.1.1.transformer_blocks.0.{dotted}", ".lora.down.weight", ".lora.up.weight"


def write(path: Path, seed: int, metadata: dict[str, str] | None = None) -> None:
    """A plain LoRA of the demo base: four matrices of 320 x 320, no slot, no token, no Grams."""
    random, tensors = torch.Generator().manual_seed(seed), {}
    for layer in LAYERS:
        stem, down, up = (kohya, diffusers, generic)[seed % 3](layer)
        tensors[stem + down] = torch.randn(4, 320, generator=random) * 0.2
        tensors[stem + up] = torch.randn(320, 4, generator=random) * 0.2
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, path, metadata)


def graph(files: str, **inputs: object) -> Graph:
    sampling = {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    wires = {"model": ["2", 0], "positive": ["3", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    return {
        "1": LOADER,
        "2": {
            "class_type": "BlockLoRALoader",
            "inputs": {"model": ["1", 0], "clip": ["1", 1], "files": files, **inputs},
        },
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["2", 1], "text": "a web1 beside <nobody>"}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {"class_type": "KSampler", "inputs": {**wires, **sampling}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "loader"}},
    }


@pytest.fixture
def folder(comfyui: ComfyUI) -> Iterator[Path]:
    """Of files that no other test finds."""
    yield comfyui.loras / "web"
    shutil.rmtree(comfyui.loras / "web")


@pytest.mark.usefixtures("trained")
def test_the_workflow_for_loras_that_one_has(comfyui: ComfyUI, repository: Path) -> None:
    comfyui.forget()
    sampler = {"KSampler": {"steps": SAMPLER_STEPS}}
    outcome = comfyui.run_workflow(repository / "demo" / "workflows" / "merge_what_you_have.json", sampler)
    assert "2 concepts merged by fused" in reports(outcome)
    assert [pixels(path).shape for path in outcome.pictures] == [(128, 128, 3)] * 4
    assert all(pixels(path).std() > 1 for path in outcome.pictures)


def test_five_plain_files_of_three_dialects_collect_once(comfyui: ComfyUI, folder: Path) -> None:
    for seed in range(5):
        phrase = {"modelspec.trigger_phrase": "ohwx man"} if seed == 3 else None
        write(folder / f"web{seed}.safetensors", seed, phrase)
    files = (
        "# mine\nweb/web0.safetensors\nweb1 | 0.9\n web2|1|on|zwx\nweb3 | 1.0 | on\nweb4 | 1 | off\nweb/web4 | 0.5\n"
    )
    comfyui.forget()
    first = comfyui.run_graph(graph(files, pictures=2, steps=4))
    told = reports(first)
    assert "5 concepts merged by gradient_fusion" in told and told.count("collected now") == 5
    assert "'web0' (from the file's name)" in told and "'zwx' (from your list)" in told
    assert "'ohwx man' (from the file)" in told and "Prompts name <nobody>" in told
    comfyui.forget()
    started = time.perf_counter()
    second = comfyui.run_graph(graph(files, pictures=2, steps=4))
    seconds = time.perf_counter() - started
    assert reports(second).count("collected before") == 5
    merged = re.search(r"merged by gradient_fusion in ([\d.]+) s", reports(second))
    assert merged and float(merged[1]) < 1 and seconds < 60
    pictures = [pixels(outcome.pictures[-1]) for outcome in (first, second)]
    assert np.array_equal(*pictures) and pictures[0].std() > 1
    off = comfyui.run_graph(graph(files, keep_apart="off (plain sum, as chained loaders)"))
    assert "merged by task_sum" in reports(off) and not np.array_equal(pixels(off.pictures[-1]), pictures[0])
