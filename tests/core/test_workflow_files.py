"""The bundled workflows as files: what ComfyUI's list of templates shows."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image


def test_every_workflow_has_a_thumbnail_of_its_own(repository: Path) -> None:
    folder = repository / "workflows"
    workflows = {path.stem for path in folder.glob("*.json")}
    assert workflows and {path.stem for path in folder.glob("*.jpg")} == workflows
    for name in workflows:
        with Image.open(folder / f"{name}.jpg") as picture:
            assert picture.size == (512, 512)


def test_every_workflow_loads_the_demos_base_and_merges_or_composes(repository: Path) -> None:
    for path in (repository / "workflows").glob("*.json"):
        nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
        kinds = {node["type"] for node in nodes}
        assert {"CheckpointLoaderSimple", "KSampler"} <= kinds, path.name
        assert kinds & {"BlockLoRAMerge", "BlockLoRAComposer"}, path.name
