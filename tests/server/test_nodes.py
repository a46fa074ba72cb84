"""What the server tells about our nodes: their definitions and their help pages."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest

from tests.server.conftest import ComfyUI

NODES = (
    "BlockLoRALoader",
    "BlockLoRAImages",
    "BlockLoRATrainSettings",
    "BlockLoRATrain",
    "BlockLoRATrainCast",
    "BlockLoRASave",
    "BlockLoRALoad",
    "BlockLoRAStack",
    "BlockLoRAMerge",
    "BlockLoRACollectGrams",
    "BlockLoRASamplingModes",
    "BlockLoRAScene",
    "BlockLoRARegion",
    "BlockLoRARegionalSampling",
    "BlockLoRAConceptPrompt",
    "BlockLoRAComposer",
    "BlockLoRAComposerOptions",
    "BlockLoRAExport",
    "BlockLoRAInspect",
    "BlockLoRASlots",
    "BlockLoRAReferences",
    "BlockLoRAEvaluate",
    "BlockLoRAEvaluatePictures",
)
ROOMS = ("BlockLoRA/Train", "BlockLoRA/Use", "BlockLoRA/Regions", "BlockLoRA/Study")


@pytest.fixture(scope="module")
def infos(comfyui: ComfyUI) -> dict[str, Any]:
    found: dict[str, Any] = comfyui.server.get("/object_info")
    return {name: info for name, info in found.items() if name.startswith("BlockLoRA")}


def inputs(info: dict[str, Any]) -> dict[str, Any]:
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def page(comfyui: ComfyUI, node: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{comfyui.server.url}/extensions/blocklora/docs/{node}.md", timeout=30) as answer:
        text: str = answer.read().decode("utf-8")
    return text


def test_these_are_our_nodes(infos: dict[str, Any]) -> None:
    assert set(infos) == set(NODES)


@pytest.mark.parametrize("node", NODES)
def test_every_input_and_output_has_a_tooltip(infos: dict[str, Any], node: str) -> None:
    info = infos[node]
    assert info["description"] and info["category"] in ROOMS
    for name, (_kind, options) in inputs(info).items():
        assert options.get("tooltip"), name
    assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"])


@pytest.mark.parametrize("node", NODES)
def test_the_help_page_names_every_input_and_output(comfyui: ComfyUI, infos: dict[str, Any], node: str) -> None:
    text = page(comfyui, node)
    assert text.startswith("# ") and text.encode("cp1252")
    names = {name.rstrip("0123456789") for name in [*inputs(infos[node]), *infos[node]["output_name"]]}
    assert not [name for name in sorted(names) if f"`{name}" not in text]
