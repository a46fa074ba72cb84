"""Accessibility of our widgets, by axe: nothing serious, in both rendering modes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser.canvas import Canvas
from tests.browser.lora_files import put_loras
from tests.browser.web_tools import web_tools

RUN = """(panel) => axe.run(panel, { resultTypes: ["violations"] }).then(({ violations }) => violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, help, nodes }) => [id, help, nodes.map(({ html }) => html.slice(0, 200))]))"""
SCENE = json.dumps({"boxes": [{"w": 0.5, "concept": "<ada>"}, {"x": 0.5, "w": 0.5, "prompt": "a cat"}]})
PANELS = [
    ("BlockLoRAScene", "canvas", {"scene": SCENE}),
    ("BlockLoRALoader", "list", {"files": "ada | 0.5\nbob | 1 | off\nnobody"}),
    ("BlockLoRATrain", "blocklora_train", {}),
    ("BlockLoRAImages", "pictures", {"folder": "blocklora_demo/amelia"}),
]


@pytest.fixture(scope="module")
def axe(repository: Path) -> str:
    return (web_tools(repository) / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.essential
@pytest.mark.parametrize(("kind", "name", "values"), PANELS, ids=[kind for kind, *_ in PANELS])
def test_nothing_serious(canvas: Canvas, base: Path, axe: str, kind: str, name: str, values: dict[str, Any]) -> None:
    put_loras(base / "models" / "loras")
    canvas.clear()
    node = canvas.add(kind, (0, 0), values)
    panel = canvas.panel(node, name)
    panel.get_by_role("button").first.wait_for()
    canvas.page.wait_for_timeout(800)
    if kind == "BlockLoRAScene":
        panel.get_by_role("button", name="Box 1: <ada>").focus()
    canvas.evaluate(axe)
    assert panel.evaluate(RUN) == []
