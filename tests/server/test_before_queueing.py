"""What cannot run is told before it is queued, in the words of the run, and what only a run can tell is not refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blocklora_core.files.io import load, save
from launcher.errors import LauncherError
from tests.server.conftest import ComfyUI, Outcome
from tests.server.test_workflows import LOADER, Graph, in_slot, preview, train_graph

SAMPLING = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}


@pytest.fixture(scope="module")
def people(comfyui: ComfyUI, trained: Outcome) -> None:
    """Files of two concepts in slots of their own, and one without Grams whose slot is the first's."""
    for number, (name, slot) in enumerate((("ann", 0), ("ben", 1), ("cat", 0))):
        lora = in_slot(load(trained.loras[number % 2]), slot, f"<{name}>")
        save(comfyui.loras / "queue" / f"{name}.safetensors", lora, overwrite=True)


def refused(comfyui: ComfyUI, graph: Graph) -> str:
    """Why the server does not queue it; nothing of it runs."""
    before = len(comfyui.server.get("/history"))
    with pytest.raises(LauncherError) as caught:
        comfyui.run_graph(graph)
    assert len(comfyui.server.get("/history")) == before
    return str(caught.value)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def loads(*names: str, **strengths: float) -> Graph:
    files = {
        name: node("BlockLoRALoad", lora_name=f"queue/{name}.safetensors", strength=strengths.get(name, 1.0))
        for name in names
    }
    stacked = {f"stack_{number}": [name, 0] for number, name in enumerate(names, 1)}
    return {"1": LOADER, **files, "s": node("BlockLoRAStack", **stacked)}


def merged(*names: str, method: str = "per_row", overlap: str = "error", **strengths: float) -> Graph:
    wires = {"model": ["1", 0], "clip": ["1", 1], "stack": ["s", 0]}
    merge = node("BlockLoRAMerge", **wires, method=method, overlap=overlap)
    return {**loads(*names, **strengths), "m": merge}


def scene(*boxes: dict[str, Any], mode: str = "regional", prompt: Any = "a park") -> Graph:
    wires = {"model": ["m", 0], "clip": ["m", 1], "stack": ["s", 0]}
    asked = {"width": 64, "height": 64, "prompt": prompt, "negative": "", "mode": mode}
    wired = {name: ["sc", number] for number, name in enumerate(("model", "positive", "negative", "latent_image"))}
    return {
        **merged("ann", "ben"),
        "sc": node("BlockLoRAScene", **wires, **asked, scene=json.dumps({"boxes": boxes})),
        "k": node("KSampler", **wired, **SAMPLING),
        "d": node("VAEDecode", samples=["k", 0], vae=["1", 2]),
        "p": node("PreviewImage", images=["d", 0]),
    }


def listed(files: str) -> Graph:
    return {"1": LOADER, "2": node("BlockLoRALoader", model=["1", 0], clip=["1", 1], files=files), **preview("2")}


def region(**box: float) -> Graph:
    place = {"x": 0.0, "y": 0.0, "width": 0.5, "height": 1.0, **box}
    told = {"concept": "", "weight": 1.0, "feather": 0.0, "priority": 0}
    prompt = node("CLIPTextEncode", clip=["1", 1], text="a cat")
    chain = node("BlockLoRARegion", positive=["t", 0], **place, **told)
    sampling = node("BlockLoRARegionalSampling", model=["1", 0], regions=["r", 0], overlap="mean", start=0.0, end=1.0)
    return {"1": LOADER, "t": prompt, "r": chain, "2": sampling, **preview("2")}


def missing() -> Graph:
    return {
        **merged("ann"),
        "ann": node("BlockLoRALoad", lora_name="nowhere.safetensors", strength=1.0),
        **preview("m"),
    }


WRONG = [
    (lambda: missing(), "LoRA file: expected one of the loras folder, got 'nowhere.safetensors'"),
    (lambda: listed("nowhere\nann | 99"), "Line 2: expected a strength from -10 to 10"),
    (lambda: listed("ann\nnowhere"), "Line 2: expected a file of the loras folder, got 'nowhere'"),
    (lambda: train_graph("nowhere", "<hero>"), "expected a folder below ComfyUI's input folder, got 'nowhere'"),
    (lambda: region(x=1.0), "Region's box: expected x, y, width, height of a part of the picture"),
    (lambda: scene({"concept": "<ann>"}, {"x": 0.5}), "Box 2: expected a concept or a prompt"),
    (lambda: scene({"concept": "<ann>"}, {"concept": "<eve>"}), "Box 2: expected a name among <ann>, <ben>, got <eve>"),
    (lambda: scene({"concept": "<ann>"}, prompt="with <eve>"), "Prompt of the picture: expected a name among <ann>"),
    (lambda: scene({"prompt": "a cat"}, mode="composer"), "Box 1: expected a concept, which composer looks for"),
    (lambda: {**merged("ann", "cat"), **preview("m")}, "Expected concepts with rows of their own, but <ann> ("),
]


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(("graph", "reason"), WRONG, ids=[reason[:30] for _, reason in WRONG])
def test_what_cannot_run_is_told_before_it_is_queued(comfyui: ComfyUI, graph: Any, reason: str) -> None:
    assert reason in refused(comfyui, graph())


RIGHT = [
    lambda: {**merged("ann", "ben"), **preview("m")},
    lambda: {**merged("ann", "cat", cat=0.0), **preview("m")},
    lambda: {**merged("ann", "cat", overlap="share"), **preview("m")},
    lambda: {**merged("ann", "cat", method="task_sum"), **preview("m")},
    lambda: scene({"concept": "<ANN>", "w": 0.5}, {"prompt": "a cat", "x": 0.5}),
    lambda: listed("# nothing is on\nnowhere | 1 | off"),
]


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("graph", RIGHT)
def test_what_can_run_is_queued(comfyui: ComfyUI, graph: Any) -> None:
    assert comfyui.run_graph(graph()).history["status"]["status_str"] == "success"


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("graph", [lambda: listed("queue/ann"), lambda: scene({"concept": "<ann>"})])
def test_a_cancel_of_nothing_stops_no_check(comfyui: ComfyUI, graph: Any) -> None:
    comfyui.server.post("/interrupt", {})
    assert comfyui.run_graph(graph()).history["status"]["status_str"] == "success"


TEXTS = [("BlockLoRAScene", "scene", '{"boxes": [{"concept": "<eve>"}]}'), ("BlockLoRAScene", "prompt", "with <eve>")]


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(("kind", "name", "text"), TEXTS)
def test_what_another_node_brings_is_told_by_the_run(comfyui: ComfyUI, kind: str, name: str, text: str) -> None:
    """The same words, once they are known."""
    graph = scene({"concept": "<ann>"})
    assert graph["sc"]["class_type"] == kind
    graph["t"] = node("PrimitiveStringMultiline", value=text)
    graph["sc"]["inputs"][name] = ["t", 0]
    before = len(comfyui.server.get("/history"))
    with pytest.raises(LauncherError, match="expected a name among <ann>, <ben>, got <eve>"):
        comfyui.run_graph(graph)
    assert len(comfyui.server.get("/history")) == before + 1
