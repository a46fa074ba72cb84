"""The bundled workflows as files: what ComfyUI's list of templates shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from blocklora_core.concept.lora_list import parse_list


def test_every_workflow_has_a_thumbnail_of_its_own(repository: Path) -> None:
    folder = repository / "workflows"
    workflows = {path.stem for path in folder.glob("*.json")}
    assert workflows and {path.stem for path in folder.glob("*.jpg")} == workflows
    for name in workflows:
        with Image.open(folder / f"{name}.jpg") as picture:
            assert picture.size == (512, 512)


def test_every_workflow_loads_the_demos_base_and_merges_or_composes(repository: Path) -> None:
    for path in (repository / "workflows").glob("*.json"):
        kinds = {node["type"] for node in nodes_of(path)}
        assert {"CheckpointLoaderSimple", "KSampler"} <= kinds, path.name
        assert kinds & {"BlockLoRAMerge", "BlockLoRAComposer", "BlockLoRALoader"}, path.name


def nodes_of(path: Path) -> list[dict[str, Any]]:
    """Its nodes, and those inside its subgraphs."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    inner = [node for graph in workflow.get("definitions", {}).get("subgraphs", ()) for node in graph["nodes"]]
    return [*workflow["nodes"], *inner]


def test_who_has_loras_needs_five_nodes(repository: Path) -> None:
    workflow = json.loads((repository / "workflows" / "merge_what_you_have.json").read_text(encoding="utf-8"))
    assert len(workflow["nodes"]) <= 5
    loader = next(node for node in workflow["nodes"] if node["type"] == "BlockLoRALoader")
    assert len(parse_list(loader["widgets_values"][0])) >= 2
