"""One scene, by BlockLoRA Scene and by the nodes that it stands for: the same picture, to the last bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.server.conftest import ComfyUI
from tests.server.test_workflows import LOADER, Graph, pixels

SIZE = {"width": 192, "height": 96}
PROMPTS = {"<amelia>": "a <amelia>, on a white background", "<zed>": "<zed> at night"}
PLACES = {"<amelia>": (0.0, 0.0, 0.45, 1.0), "<zed>": (0.4, 0.25, 0.6, 0.75)}
WEIGHTS = {"<amelia>": (1.0, 0.1), "<zed>": (0.75, 0.0)}
SCENE, BAD = "on a white background", "blurred"
BOXES = [
    {**dict(zip("xywh", PLACES["<amelia>"], strict=True)), "concept": "<amelia>", "feather": 0.1},
    {
        **dict(zip("xywh", PLACES["<zed>"], strict=True)),
        "concept": "<zed>",
        "prompt": "{concept} at night",
        "negative": "hat",
        "weight": 0.75,
    },
]
SAMPLING = {"seed": 5, "steps": 3, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
PARTS = ("injection", "enhancement", "fill", "region", "isolation", "reinitialise")


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def merged() -> Graph:
    files = {
        name: node("BlockLoRALoad", lora_name=f"blocklora/{name}.safetensors", strength=1.0)
        for name in ("amelia", "zed")
    }
    stack = node("BlockLoRAStack", stack_1=["amelia", 0], stack_2=["zed", 0])
    wires = {"model": ["1", 0], "clip": ["1", 1], "stack": ["s", 0]}
    return {"1": LOADER, **files, "s": stack, "m": node("BlockLoRAMerge", **wires, method="per_row", overlap="error")}


def sampled(graph: Graph, model: Any, positive: Any, negative: Any, latent: Any) -> Graph:
    wires = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    decoded = node("VAEDecode", samples=["k", 0], vae=["1", 2])
    saved = node("SaveImage", images=["d", 0], filename_prefix="scene")
    return {**graph, "k": node("KSampler", **wires, **SAMPLING), "d": decoded, "p": saved}


def drawn(mode: str, unmerged: bool) -> Graph:
    source = "1" if unmerged else "m"
    wires = {"model": [source, 0], "clip": [source, 1], "stack": ["s", 0]}
    told = {"prompt": SCENE, "negative": BAD, "scene": json.dumps({"boxes": BOXES}), "mode": mode, "batch_size": 2}
    graph = {**merged(), "sc": node("BlockLoRAScene", **wires, **SIZE, **told)}
    return sampled(graph, *(["sc", number] for number in range(4)))


def chained(mode: str, unmerged: bool) -> Graph:
    """By Region and Regional Sampling, or Composer."""
    source, stack = ("1", {"stack": ["s", 0]}) if unmerged else ("m", {})
    graph, chain = merged(), {}
    for name, (x, y, width, height) in PLACES.items():
        (weight, feather), prompt = WEIGHTS[name], f"prompt {name}"
        words = {"clip": [source, 1], "text": PROMPTS[name]}
        composed = node("BlockLoRAConceptPrompt", **words, concept=name, **stack)
        graph[prompt] = composed if mode == "composer" else node("CLIPTextEncode", **words)
        place = {"x": x, "y": y, "width": width, "height": height, "weight": weight, "feather": feather, "priority": 0}
        bad = {"negative": ["hat", 0]} if name == "<zed>" else {}
        graph[name] = node("BlockLoRARegion", positive=[prompt, 0], **place, concept=name, **bad, **chain)
        chain = {"regions": [name, 0]}
    texts = {"hat": "hat", "positive": SCENE, "negative": BAD}
    graph |= {key: node("CLIPTextEncode", clip=[source, 1], text=text) for key, text in texts.items()}
    together = {"model": [source, 0], **chain, "overlap": "priority"}
    if mode == "composer":
        graph["r"] = node("BlockLoRAComposer", **together, preset="gentle", **dict.fromkeys(PARTS, True), **stack)
    else:
        graph["r"] = node("BlockLoRARegionalSampling", **together, start=0.0, end=1.0)
    graph["e"] = node("EmptyLatentImage", **SIZE, batch_size=2)
    return sampled(graph, ["r", 0], ["positive", 0], ["negative", 0], ["e", 0])


WAYS = [("regional", False), ("composer", False), ("composer", True)]


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(("mode", "unmerged"), WAYS)
def test_a_scene_is_the_picture_of_the_nodes_it_stands_for(comfyui: ComfyUI, mode: str, unmerged: bool) -> None:
    ours, theirs = (comfyui.run_graph(make(mode, unmerged)) for make in (drawn, chained))
    assert len(ours.pictures) == len(theirs.pictures) == 2
    for one, other in zip(sorted(ours.pictures), sorted(theirs.pictures), strict=True):
        assert np.array_equal(pixels(one), pixels(other)) and pixels(one).std() > 1


@pytest.mark.usefixtures("trained")
def test_bounding_boxes_of_newer_hosts_move_the_boxes(comfyui: ComfyUI) -> None:
    info = comfyui.server.get("/object_info/BlockLoRAScene")["BlockLoRAScene"]["input"]
    if "PrimitiveBoundingBox" not in comfyui.server.get("/object_info"):
        assert "bounding_boxes" not in info["optional"]
        return
    # A page would make a widget of the type's name, with a box that nobody drew.
    assert info["optional"]["bounding_boxes"][1]["forceInput"] is True
    graph = drawn("regional", unmerged=False)
    told = graph["sc"]["inputs"]
    told["scene"] = json.dumps({"boxes": [{**BOXES[0], "x": 0.5}]})
    told["bounding_boxes"] = ["b", 0]
    graph["b"] = node("PrimitiveBoundingBox", x=0, y=0, width=96, height=96)
    moved = comfyui.run_graph(graph)
    del told["bounding_boxes"]
    told["scene"] = json.dumps({"boxes": [{**BOXES[0], "x": 0.0, "w": 0.5}]})
    for one, other in zip(sorted(moved.pictures), sorted(comfyui.run_graph(graph).pictures), strict=True):
        assert np.array_equal(pixels(one), pixels(other))
