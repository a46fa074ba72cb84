"""The pack in a real server: its nodes are there, and a graph runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.errors import LauncherError
from tests.server.conftest import ComfyUI

# UI form, as the front end saves it: an empty picture, scaled, saved.
STOCK = {
    "last_node_id": 3,
    "last_link_id": 2,
    "nodes": [
        {
            "id": 1,
            "type": "EmptyImage",
            "title": "A blue picture",
            "mode": 0,
            "inputs": [],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
            "widgets_values": [32, 16, 1, 255],
        },
        {
            "id": 2,
            "type": "ImageScaleBy",
            "mode": 0,
            "inputs": [{"name": "image", "type": "IMAGE", "link": 1}],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [2]}],
            "widgets_values": ["nearest-exact", 2.0],
        },
        {
            "id": 3,
            "type": "SaveImage",
            "mode": 0,
            "inputs": [{"name": "images", "type": "IMAGE", "link": 2}],
            "outputs": [],
            "widgets_values": ["stock"],
        },
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    "version": 0.4,
}


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    path = tmp_path / "stock.json"
    path.write_text(json.dumps(STOCK), encoding="utf-8")
    return path


def test_a_ui_workflow_runs_and_its_picture_is_found(comfyui: ComfyUI, stock: Path) -> None:
    outcome = comfyui.run_workflow(stock)
    assert [path.name for path in outcome.pictures] == ["stock_00001_.png"]
    assert outcome.pictures[0].is_file()


def test_overrides_reach_the_node_that_is_named(comfyui: ComfyUI, stock: Path) -> None:
    outcome = comfyui.run_workflow(stock, {"A blue picture": {"width": 8}, "SaveImage": {"filename_prefix": "o"}})
    graph = outcome.history["prompt"][2]
    assert graph["1"]["inputs"]["width"] == 8
    assert [path.name for path in outcome.pictures] == ["o_00001_.png"]


def test_a_failing_node_raises_with_its_error(comfyui: ComfyUI, stock: Path) -> None:
    with pytest.raises(LauncherError, match="ImageScaleBy"):
        comfyui.run_workflow(stock, {"ImageScaleBy": {"scale_by": 8.0, "upscale_method": "nowhere"}})


def test_the_pack_is_loaded(comfyui: ComfyUI) -> None:
    names = comfyui.server.get("/object_info")
    assert any(name.startswith("BlockLoRA") for name in names), comfyui.server.log_tail()
