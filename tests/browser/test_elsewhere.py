"""A workflow with every widget filled, in an install under another folder name, without our JavaScript, and by API."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from launcher.server import Server, running
from launcher.workflow import execute, pictures
from tests.browser.canvas import Canvas
from tests.browser.conftest import SIZE, arguments_of, fill_base
from tests.browser.lora_files import put_people
from tests.hosting import CHECKPOINT, host_of
from tests.server.test_nodes import NODES

FOLDER = "some-other-name"
FILES = "# two\nscene/ada.safetensors | 0.75 | on | <ada>\nscene/zed.safetensors | 1 | on | <zed>\nscene/ada | 1 | off"
SCENE = {
    "boxes": [
        {"x": 0, "y": 0, "w": 0.5, "h": 1, "concept": "<ada>", "prompt": "{concept} in red", "feather": 0.1},
        {"x": 0.5, "y": 0.25, "w": 0.5, "h": 0.75, "concept": "<zed>", "negative": "hat", "weight": 0.75},
    ]
}
TRAINED = {
    "concept": "<amelia>", "class_word": "girl", "steps": 3, "batch_size": 1, "resolution": 64, "rank": 1,
    "preview_every": 0, "precision": "fp32", "seed": 7,
}  # fmt: skip
# Another value than the default, of the same kind; what the node adds to its widgets itself is no input.
FILL = """(type) => {
    const node = LiteGraph.createNode(type);
    node.pos = [0, 0];
    app.graph.add(node);
    const other = (widget) => {
        const { values, min = 0, max = 1e9, step2 = 1 } = widget.options ?? {};
        const choices = typeof values === "function" ? values(widget) : values;
        if (Array.isArray(choices)) return choices.at(-1) ?? widget.value;
        if (typeof widget.value === "boolean") return !widget.value;
        if (typeof widget.value !== "number") return `${widget.value} é <b>\\n"x"`;
        const next = widget.value + step2 <= max ? widget.value + step2 : Math.max(min, widget.value - step2);
        return Number(next.toPrecision(12));
    };
    const inputs = new Set(Object.values(node.constructor.nodeData.input_order ?? {}).flat());
    const filled = node.widgets?.filter((widget) => inputs.has(widget.name)) ?? [];
    for (const widget of filled) {
        widget.value = other(widget);
        widget.callback?.(widget.value);
    }
    return filled.length;
}"""
OURS = re.compile(r"/extensions/[^/]+/js/")


@pytest.fixture(scope="module")
def elsewhere(
    base: Path, comfyui_root: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Another ComfyUI with the same files, where this pack's folder has another name."""
    folder = tmp_path_factory.mktemp("elsewhere")
    fill_base(folder, comfyui_root)
    (folder / "custom_nodes" / FOLDER).symlink_to(repository, target_is_directory=True)
    put_people(base / "models" / "loras")
    shutil.copytree(base / "models" / "loras" / "scene", folder / "models" / "loras" / "scene")
    with running(
        host_of(comfyui_root, repository), folder / "comfyui.log", arguments_of(folder, repository)
    ) as started:
        yield started


def _visit(browser: Browser, server: Server, mode: str, bare: bool) -> Canvas:
    server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": mode == "nodes2"})
    page = browser.new_context(viewport=SIZE).new_page()
    visited = Canvas(page, server, mode)
    if bare:
        page.route(OURS, lambda route: route.abort())
    visited.open()
    return visited


@pytest.fixture(params=["with our JavaScript", "without"])
def visitor(request: pytest.FixtureRequest, browser: Browser, elsewhere: Server, mode: str) -> Iterator[Canvas]:
    """A page of that install. Without our JavaScript the host logs that it is missing."""
    bare = request.param == "without"
    visited = _visit(browser, elsewhere, mode, bare)
    assert visited.evaluate("Boolean(app.extensions.find((one) => one.name === 'blocklora.loader'))") is not bare
    yield visited
    assert bare or visited.errors == []
    visited.page.context.close()


def _queued(canvas: Canvas, workflow: dict[str, Any]) -> dict[str, Any]:
    canvas.load(workflow)
    prompt: dict[str, Any] = canvas.prompt()
    return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in prompt.items()}


def test_every_widget_of_every_node_keeps_its_value(canvas: Canvas, visitor: Canvas) -> None:
    canvas.open()  # its lists know the LoRAs that are there by now
    canvas.clear()
    filled = {kind: canvas.evaluate(FILL, kind) for kind in NODES}
    assert sum(filled.values()) > 100
    saved = json.loads(json.dumps(canvas.saved()))
    here = _queued(canvas, saved)
    assert {node["class_type"] for node in here.values()} == set(NODES)
    assert _queued(visitor, saved) == here


def _graph(canvas: Canvas) -> None:
    """Trains a concept, loads two, draws a scene of them; both pictures are saved."""
    loader = canvas.add("CheckpointLoaderSimple", (0, 0), {"ckpt_name": CHECKPOINT})
    images = canvas.add("BlockLoRAImages", (0, 200), {"folder": "blocklora_demo/zed", "default_caption": "a man"})
    train = canvas.add("BlockLoRATrain", (600, 0), TRAINED)
    asked = {"prompts": "a cat\na dog", "pictures": 1, "steps": 2, "size": 64}
    listed = canvas.add("BlockLoRALoader", (600, 900), {"files": FILES, **asked})
    told = {"width": 128, "height": 64, "prompt": "a park", "negative": "blurred", "mode": "composer"}
    scene = canvas.add("BlockLoRAScene", (1100, 900), {**told, "scene": json.dumps(SCENE)})
    merge = canvas.add("BlockLoRAMerge", (1100, 0), {"method": "per_row"})
    for output, name in (("MODEL", "model"), ("CLIP", "clip"), ("VAE", "vae")):
        canvas.link(loader, output, train, name)
    for name in ("images", "captions", "masks"):
        canvas.link(images, name, train, name)
    for output, name in (("MODEL", "model"), ("CLIP", "clip")):
        canvas.link(loader, output, listed, name)
        canvas.link(loader, output, merge, name)
        canvas.link(listed, output, scene, name)
    canvas.link(listed, "stack", scene, "stack")
    canvas.link(train, "stack", merge, "stack")
    words = canvas.add("CLIPTextEncode", (1500, 0), {"text": "<amelia> walking"})
    latent = canvas.add("EmptyLatentImage", (1500, 300), {"width": 64, "height": 64, "batch_size": 1})
    canvas.link(merge, "CLIP", words, "clip")
    first, second = (canvas.add("KSampler", (2000, y), {"seed": 3, "steps": 2, "cfg": 2.0}) for y in (0, 900))
    canvas.link(merge, "MODEL", first, "model")
    canvas.link(latent, "LATENT", first, "latent_image")
    for name in ("positive", "negative"):
        canvas.link(words, "CONDITIONING", first, name)
        canvas.link(scene, name, second, name)
    canvas.link(scene, "MODEL", second, "model")
    canvas.link(scene, "latent", second, "latent_image")
    for name, sampler in (("trained", first), ("scene", second)):
        decode = canvas.add("VAEDecode", (2400, 0))
        canvas.link(sampler, "LATENT", decode, "samples")
        canvas.link(loader, "VAE", decode, "vae")
        canvas.link(decode, "IMAGE", canvas.add("SaveImage", (2700, 0), {"filename_prefix": name}), "images")


Pictures = list[np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def kept() -> dict[str, Pictures]:
    """Prompt -> the pictures that this install made of it: in all modes it is the same one."""
    return {}


def _run(server: Server, prompt: dict[str, Any], output: Path) -> Pictures:
    # What it has kept of an earlier run, it does not report.
    server.post("/free", {"free_memory": True})
    found = pictures(server, str(execute(server, prompt)["prompt"][1]))
    paths = sorted(picture.path(output) for picture in found if picture.kind == "output")
    return [np.asarray(Image.open(path)) for path in paths]


def test_the_pictures_are_the_same(canvas: Canvas, visitor: Canvas, base: Path, kept: dict[str, Pictures]) -> None:
    _graph(canvas)
    saved = json.loads(json.dumps(canvas.saved()))
    # By API, here; as a page of the other install queues it, there.
    asked = _queued(canvas, saved)
    key = json.dumps(asked, sort_keys=True)
    ours = kept[key] = kept.get(key) or _run(canvas.server, asked, base / "output")
    theirs = _run(visitor.server, _queued(visitor, saved), visitor.server.log.parent / "output")
    assert len(ours) == len(theirs) == 2 and all(picture.std() > 1 for picture in ours)
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
