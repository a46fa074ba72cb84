"""Each template in the page: nothing overlaps, in both rendering modes, when it opens and after a run."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

from launcher.shipped.blocks import BLOCKS
from launcher.shipped.files import SUBGRAPHS, WORKFLOWS
from launcher.shipped.templates import TEMPLATES
from tests.browser.canvas import Canvas
from tests.conftest import ROOT
from tests.hosting import CHECKPOINT

# Left, top, width, height of every node as it is drawn, with its title.
BOXES = """() => app.graph.nodes.map((node) => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
    const [x, y, width, height] = [node.pos[0], node.pos[1] - 30, node.size[0], node.size[1] + 30];
    const real = LiteGraph.vueNodesMode && drawn ? [drawn.width, drawn.height] : null;
    return [node.title, x, y, ...(real ? real.map((side) => side / app.canvas.ds.scale) : [width, height])];
})"""
# What a run brings to the nodes that report: as long a report as a node shows, and names.
RUN = """() => {
    const report = { text: [Array(60).fill("a line of a report").join("\\n")], blocklora_names: ["<ada>", "<ben>"] };
    const reports = ({ type, constructor }) =>
        type === "BlockLoRASave" || constructor.nodeData?.output_name?.includes("report");
    const ours = app.graph.nodes.filter((node) => node.type.startsWith("BlockLoRA") && reports(node));
    for (const node of ours) node.onExecuted(report);
    return ours.length;
}"""

SHOWN = "app.graph.nodes[0].widgets.filter((one) => !one.hidden).map((one) => one.label ?? one.name)"


def template(title: str) -> dict[str, Any]:
    """As it is after its checkpoint was chosen."""
    found: dict[str, Any] = json.loads((ROOT / WORKFLOWS / f"{title}.json").read_text(encoding="utf-8"))
    for node in found["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            node["widgets_values"] = [CHECKPOINT]
            del node["properties"]["models"]
    return found


def overlapping(canvas: Canvas) -> list[tuple[Any, Any]]:
    def apart(a: list[Any], b: list[Any]) -> bool:
        return bool(a[1] + a[3] <= b[1] or b[1] + b[3] <= a[1] or a[2] + a[4] <= b[2] or b[2] + b[4] <= a[2])

    return [(a, b) for a, b in combinations(canvas.evaluate(BOXES), 2) if not apart(a, b)]


@pytest.mark.parametrize("title", [story.title for story in TEMPLATES])
def test_nothing_overlaps(canvas: Canvas, title: str) -> None:
    canvas.load(template(title))
    canvas.page.wait_for_timeout(1500)
    assert overlapping(canvas) == []
    assert canvas.evaluate(RUN) > 0
    canvas.page.wait_for_timeout(1500)
    assert overlapping(canvas) == []
    assert canvas.errors == []


@pytest.mark.parametrize("title", [block.title for block in BLOCKS])
def test_a_subgraph_shows_what_one_must_say(canvas: Canvas, title: str) -> None:
    saved = json.loads((ROOT / SUBGRAPHS / f"{title}.json").read_text(encoding="utf-8"))
    canvas.load(saved)
    canvas.page.wait_for_timeout(1000)
    shown = canvas.evaluate(SHOWN)
    block = next(block for block in BLOCKS if block.title == title)
    sockets = {"model", "clip", "vae"}
    assert set(shown) >= block.inputs.keys() - sockets and not sockets & set(shown)
