"""Reports on the nodes that make them: shown, kept with the workflow, text and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.canvas import Canvas

REPORT = "blocklora_report"
HOSTILE = "<img src=x onerror=globalThis.hacked=1>"


def _reported(canvas: Canvas, folder: str = "blocklora_demo/amelia") -> int:
    canvas.clear()
    images = canvas.add("BlockLoRAImages", (0, 0), {"folder": folder})
    shown = canvas.add("PreviewImage", (500, 0))
    canvas.link(images, "images", shown, "images")
    # What the other mode's page has run is not run again, and then says nothing.
    canvas.server.post("/free", {"free_memory": True})
    canvas.queue()
    assert canvas.idle()["status"]["status_str"] == "success"
    return images


@pytest.mark.essential
def test_a_report_is_shown_and_survives_a_reload(canvas: Canvas) -> None:
    node = _reported(canvas)
    text = canvas.panel(node, REPORT).locator(".bl-text")
    assert "12 pictures, 12 with a caption of their own" in text.inner_text()
    workflow = canvas.saved()
    canvas.page.reload()
    canvas.ready()
    canvas.load(workflow)
    assert "12 pictures" in canvas.panel(node, REPORT).locator(".bl-text").inner_text()
    saved = next(one for one in canvas.saved()["nodes"] if one["id"] == node)
    assert len(saved["widgets_values"]) == 2


def test_warnings_are_marked(canvas: Canvas, base: Path) -> None:
    folder = base / "input" / "blocklora_demo" / "amelia"
    (folder / "notes.xyz").write_text("no picture", "utf-8")
    try:
        node = _reported(canvas)
    finally:
        (folder / "notes.xyz").unlink()
    warning = canvas.panel(node, REPORT).locator(".bl-warning")
    assert "1 files skipped" in warning.inner_text() and "notes.xyz" in warning.inner_text()


@pytest.mark.parametrize("name", ["<hero>", HOSTILE])
def test_names_are_copied_by_a_click(canvas: Canvas, name: str) -> None:
    canvas.clear()
    node = canvas.add("BlockLoRALoad")
    output = {"text": [f"{name}: slot 1"], "blocklora_names": [name], "blocklora_warnings": []}
    canvas.evaluate("([id, output]) => app.graph.getNodeById(id).onExecuted(output)", [node, output])
    chip = canvas.panel(node, REPORT).locator(".bl-chip")
    assert chip.inner_text() == name
    chip.click()
    canvas.wait(lambda: canvas.evaluate("navigator.clipboard.readText()") == name, what="the clipboard")
    assert name in canvas.panel(node, REPORT).locator(".bl-text").inner_text()
    assert canvas.evaluate("globalThis.hacked") is None


def test_what_a_workflow_claims_is_checked(canvas: Canvas) -> None:
    canvas.clear()
    canvas.add("BlockLoRALoad")
    workflow = canvas.saved()
    for property_ in ("text", {"text": 1}, {"text": "x", "names": 1, "warnings": []}, None):
        workflow["nodes"][0]["properties"][REPORT] = property_
        canvas.load(workflow)
        assert canvas.page.locator(".bl-text").count() == 0


def test_a_cast_is_told_of_while_it_is_trained(canvas: Canvas) -> None:
    canvas.clear()
    node = canvas.add("BlockLoRATrainCast")
    tell = """async ([node, mine, text]) => {
      const { api } = await import("/scripts/api.js");
      const workflow = mine ? app.graph.id : "another";
      api.dispatchEvent(new CustomEvent("blocklora.report", { detail: { node: String(node), workflow, text } }));
    }"""
    canvas.evaluate(tell, [node, True, f"<ada>: finished, slot 0\n{HOSTILE}: step 3 of 9, slot 1"])
    shown = canvas.panel(node, REPORT).locator(".bl-text")
    assert shown.inner_text().splitlines() == ["<ada>: finished, slot 0", f"{HOSTILE}: step 3 of 9, slot 1"]
    canvas.evaluate(tell, [node, False, "of another workflow"])
    assert "<ada>" in shown.inner_text()
    # What is under way is not kept with the workflow.
    assert REPORT not in canvas.saved()["nodes"][0]["properties"]
    assert canvas.evaluate("globalThis.hacked") is None
