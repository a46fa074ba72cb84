"""The bundled workflows, run as a user runs them; only steps are fewer."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora_core.files.io import load, save
from blocklora_core.files.record import rows_of
from launcher.errors import LauncherError
from tests.hosting import CHECKPOINT
from tests.server.conftest import SAMPLER_STEPS, STEPS, ComfyUI, Outcome

# Newer hosts check lists before they run anything.
NOT_IN_LIST = "value_not_in_list"
Graph = dict[str, dict[str, Any]]
LOADER = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float32)


def check_pictures(outcome: Outcome) -> None:
    """Four of each concept and four of both, of the right sizes, none blank; the concepts differ."""
    named = {kind: sorted(p for p in outcome.pictures if p.name.startswith(kind)) for kind in ("amelia", "zed", "both")}
    assert [len(paths) for paths in named.values()] == [4, 4, 4]
    for kind, paths in named.items():
        for path in paths:
            assert pixels(path).shape == (256, 384 if kind == "both" else 256, 3)
            assert pixels(path).std() > 1
    for a, b in zip(named["amelia"], named["zed"], strict=True):
        assert np.abs(pixels(a) - pixels(b)).mean() > 1


def reports(outcome: Outcome) -> str:
    return "\n".join(line for node in outcome.history["outputs"].values() for line in node.get("text", ()))


def test_train_merge_sample(trained: Outcome) -> None:
    check_pictures(trained)
    assert [path.name for path in trained.loras] == ["amelia.safetensors", "zed.safetensors"]
    amelia, zed = map(load, trained.loras)
    assert (amelia.concept.name, zed.concept.name) == ("<amelia>", "<zed>")
    assert amelia.slot != zed.slot
    for lora in (amelia, zed):
        assert lora.training["steps_done"] == STEPS
        assert lora.grams is not None and lora.grams.covers(lora.layers)
    assert "2 concepts merged by fused" in reports(trained)


@pytest.mark.usefixtures("trained")
def test_merge_and_sample(comfyui: ComfyUI, repository: Path) -> None:
    workflow = repository / "demo" / "workflows" / "merge_and_sample.json"
    comfyui.forget()
    outcome = comfyui.run_workflow(workflow, {"KSampler": {"steps": SAMPLER_STEPS}})
    check_pictures(outcome)
    assert "2 concepts merged by fused" in reports(outcome)


def stock_graph(lora: str) -> Graph:
    """Load Checkpoint, Load LoRA, CLIP Text Encode, KSampler: no node of ours."""
    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    sampling = {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    wires = {"model": ["2", 0], "positive": ["3", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    return {
        "1": LOADER,
        "2": {
            "class_type": "LoraLoader",
            "inputs": {"model": ["1", 0], "clip": ["1", 1], "lora_name": lora, **strengths},
        },
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["2", 1], "text": "a girl"}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {"class_type": "KSampler", "inputs": {**wires, **sampling}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "stock_lora"}},
    }


@pytest.mark.usefixtures("trained")
def test_the_stock_lora_loader_takes_our_file(comfyui: ComfyUI) -> None:
    outcome = comfyui.run_graph(stock_graph("blocklora/amelia.safetensors"))
    assert pixels(outcome.pictures[0]).shape == (64, 64, 3)
    # The layers all fit; what a stock loader has no use for, it says so once each.
    log = comfyui.server.log.read_text("utf-8", errors="replace")
    # Newer hosts say the level of a line first.
    unread = set(re.findall(r"lora key not loaded: (.*)", log))
    assert unread == {"blocklora.grams", "bundle_emb.amelia.clip_l"}


def merge_graph(lora: str) -> Graph:
    wires = {"model": ["1", 0], "clip": ["1", 1], "stack": ["2", 0]}
    return {
        "1": LOADER,
        "2": {"class_type": "BlockLoRALoad", "inputs": {"lora_name": lora, "strength": 1.0}},
        "3": {"class_type": "BlockLoRAMerge", "inputs": {**wires, "method": "auto", "overlap": "error"}},
    }


def in_slot(lora: BlockLoRA, slot: int, name: str) -> BlockLoRA:
    """The same concept under another name, its layers moved to the rows of `slot`."""
    assert lora.scheme
    layers = {
        stem: replace(layer, rows=rows_of(stem, layer.out_features, lora.scheme, slot))
        for stem, layer in lora.layers.items()
    }
    return replace(lora, concept=Concept(name, "man"), layers=layers, slot=slot, metadata={})


def fifteen_graph(names: list[str], method: str) -> Graph:
    """A Load for each file, two Stacks chained, and Merge."""
    graph: Graph = {"1": LOADER}
    stacked = {}
    for number, name in enumerate(names):
        graph[f"l{number}"] = {"class_type": "BlockLoRALoad", "inputs": {"lora_name": name, "strength": 1.0}}
        stacked[number] = [f"l{number}", 0]
    first = {f"stack_{number + 1}": stacked[number] for number in range(8)}
    rest = {f"stack_{number - 6}": stacked[number] for number in range(8, len(names))}
    graph["s1"] = {"class_type": "BlockLoRAStack", "inputs": first}
    graph["s2"] = {"class_type": "BlockLoRAStack", "inputs": {"stack_1": ["s1", 0], **rest}}
    wires = {"model": ["1", 0], "clip": ["1", 1], "stack": ["s2", 0]}
    graph["m"] = {"class_type": "BlockLoRAMerge", "inputs": {**wires, "method": method, "overlap": "error"}}
    return graph


@pytest.mark.parametrize("method", ["per_row", "fused"])
def test_fifteen_concepts_merge(comfyui: ComfyUI, trained: Outcome, method: str) -> None:
    """The files hold what was really trained, moved to fifteen slots."""
    names = []
    for slot in range(15):
        path = comfyui.loras / "fifteen" / f"c{slot}.safetensors"
        lora = in_slot(load(trained.loras[slot % 2]), slot, f"<c{slot}>")
        names.append(save(path, lora, overwrite=True).relative_to(comfyui.loras))
    graph = fifteen_graph([name.as_posix() for name in names], method) | preview("m")
    assert re.search(rf"15 concepts merged by {method} in [\d.]+ s", reports(comfyui.run_graph(graph)))


def test_a_missing_file_fails_with_the_reason(comfyui: ComfyUI) -> None:
    with pytest.raises(LauncherError, match=f"LoRA file: expected one of the loras folder, got 'nowhere|{NOT_IN_LIST}"):
        comfyui.run_graph(merge_graph("nowhere.safetensors") | preview("3"))


def test_a_damaged_file_fails_with_the_reason(comfyui: ComfyUI, trained: Outcome) -> None:
    damaged = comfyui.loras / "damaged.safetensors"
    damaged.write_bytes(trained.loras[0].read_bytes()[:-100])
    try:
        with pytest.raises(LauncherError, match=r"BlockLoRALoad: .*truncated or damaged: download or copy it again"):
            comfyui.run_graph(merge_graph("damaged.safetensors") | preview("3"))
    finally:
        damaged.unlink()


def preview(node: str) -> Graph:
    """A SaveImage that makes the server run the graph up to the MODEL of `node`: one step of sampling."""
    sampling = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    wires = {"model": [node, 0], "positive": ["91", 0], "negative": ["91", 0], "latent_image": ["92", 0]}
    return {
        "91": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
        "92": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "93": {"class_type": "KSampler", "inputs": {**wires, **sampling}},
        "94": {"class_type": "VAEDecode", "inputs": {"samples": ["93", 0], "vae": ["1", 2]}},
        "95": {"class_type": "PreviewImage", "inputs": {"images": ["94", 0]}},
    }


def train_graph(folder: str, concept: str) -> Graph:
    settings = {"class_word": "man", "slot": 0, "steps": 1, "batch_size": 1, "rank": 1, "learning_rate": 0.001}
    settings |= {"erasure": 0.0, "niche": 0.0, "seed": 1, "concept": concept}
    wires = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "images": ["2", 0], "captions": ["2", 1]}
    return {
        "1": LOADER,
        "2": {"class_type": "BlockLoRAImages", "inputs": {"folder": folder, "default_caption": ""}},
        "3": {"class_type": "BlockLoRATrain", "inputs": {**wires, **settings}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 2]}},
    }


def test_a_missing_folder_fails_with_the_reason(comfyui: ComfyUI) -> None:
    reason = "expected a folder below ComfyUI's input folder, got 'nowhere'"
    with pytest.raises(LauncherError, match=f"{reason}|{NOT_IN_LIST}"):
        comfyui.run_graph(train_graph("nowhere", "<hero>"))


def test_a_concept_name_of_two_words_fails_with_the_reason(comfyui: ComfyUI) -> None:
    with pytest.raises(LauncherError, match="BlockLoRATrain: Concept name: expected one word without spaces"):
        comfyui.run_graph(train_graph("blocklora_demo/amelia", "<my hero>"))
