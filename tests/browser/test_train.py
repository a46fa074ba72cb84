"""The panel on Train: a person's way from an empty canvas to a concept, by mouse and keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.canvas import Canvas
from tests.browser.hand import IDS, Hand
from tests.browser.test_templates import template
from tests.hosting import CHECKPOINT

PANEL = "blocklora_train"
STEPS = 30
SMALL = {"batch_size": 1, "niche": 0.0, "resolution": 64, "preview_every": 4, "rank": 1, "precision": "fp32"}
PATIENCE = 90_000.0


def _graph(canvas: Canvas, values: dict[str, Any] | None = None) -> int:
    """A checkpoint on a Train node that has no pictures yet."""
    canvas.clear()
    loader = canvas.add("CheckpointLoaderSimple", (0, 320), {"ckpt_name": CHECKPOINT})
    train = canvas.add("BlockLoRATrain", (440, 0), {**SMALL, **(values or {})})
    for output, name in (("MODEL", "model"), ("CLIP", "clip"), ("VAE", "vae")):
        canvas.link(loader, output, train, name)
    return train


def _field(panel: Locator, name: str) -> Locator:
    return panel.locator("label.bl-field", has=panel.page.get_by_text(name, exact=True)).locator("input, select")


def _open(panel: Locator, title: str) -> None:
    """Opens one section, and closes the others: the page does not scroll to what is below its edge."""
    for other in panel.locator("details[open] > summary").all():
        other.click()
    panel.locator("summary", has_text=title).click()


def _phase(panel: Locator, *phases: str) -> None:
    wanted = ", ".join(f'[data-phase="{phase}"]' for phase in phases)
    panel.locator(wanted).wait_for(timeout=PATIENCE)


def _steps_kept(panel: Locator) -> int:
    return int(panel.locator(".bl-status").inner_text().split()[1])


def _with_pictures(canvas: Canvas, train: int) -> Locator:
    panel = canvas.panel(train, PANEL)
    panel.get_by_role("button", name="Add a node for pictures").click()
    images = canvas.evaluate("app.graph.nodes.find((node) => node.type === 'BlockLoRAImages').id")
    canvas.set_value(images, "folder", "blocklora_demo/amelia")
    expect(panel.get_by_role("button", name="Start")).to_be_enabled()
    return panel


# A training of seconds; what stands in the last section is set first, as it is the longest.
QUICK = {
    "Pictures, memory, keeping": {"resolution": "64", "preview every": "4", "precision": "fp32"},
    "How long, how fast": {"steps": str(STEPS), "batch size": "1"},
    "What learns": {"rank": "1", "niche": "0"},
}


def _from_nothing(canvas: Canvas, pictures: Path) -> tuple[int, Locator]:
    """By mouse and keyboard alone: an empty canvas becomes a Train node that waits for Start."""
    canvas.clear()
    canvas.evaluate("() => { app.canvas.ds.scale = 0.6; app.canvas.ds.offset = [100, 200]; }")
    hand = Hand(canvas)
    checkpoint = hand.add("CheckpointLoaderSimple", (150, 750))
    train = hand.add("BlockLoRATrain", (900, 150))
    for output, name in (("MODEL", "model"), ("CLIP", "clip"), ("VAE", "vae")):
        hand.wire(checkpoint, output, train, name)
    panel = canvas.panel(train, PANEL)
    assert panel.get_by_role("button", name="Start").is_disabled()
    hand.click(panel.get_by_role("button", name="Add a node for pictures"))
    (images,) = canvas.evaluate(IDS, "BlockLoRAImages")
    chosen = sorted(pictures.iterdir())[:12]
    hand.drop(canvas.panel(images, "pictures").locator(".bl-images"), {one.name: one.read_bytes() for one in chosen})
    hand.retype(canvas.page.get_by_role("dialog").get_by_label("Name of the folder"), f"amelia {canvas.mode}")
    hand.click(canvas.page.get_by_role("dialog").get_by_role("button", name="Add", exact=True))
    canvas.panel(images, "pictures").get_by_text("6 pictures, 6 with a caption").wait_for()
    hand.retype(_field(panel, "concept"), "<amelia>")
    # Another seed in each mode: a run that was finished before would give its result at once.
    seed = {"seed": "1" if canvas.mode == "classic" else "2"}
    for title, values in QUICK.items():
        _open(panel, title)
        for name, value in {**values, **(seed if "steps" in values else {})}.items():
            hand.retype(_field(panel, name), value)
    return train, panel


@pytest.mark.essential
def test_train_watch_stop_reload_resume_cancel_use(canvas: Canvas, base: Path) -> None:
    train, panel = _from_nothing(canvas, base / "input" / "blocklora_demo" / "amelia")
    panel.get_by_role("button", name="Start").click()
    panel.locator("[data-phase]").wait_for(timeout=PATIENCE)
    _phase(panel, "training")
    expect(panel.locator(".bl-strip img").first).to_be_visible(timeout=PATIENCE)
    expect(panel.locator(".bl-curve")).to_be_visible()
    assert panel.locator(".bl-strip img").first.evaluate("(one) => one.decode().then(() => one.naturalWidth)") > 0
    panel.get_by_role("button", name="Stop and keep").click()
    _phase(panel, "stopped")
    kept = _steps_kept(panel)
    assert 0 < kept < STEPS
    assert canvas.idle()["status"]["status_str"] == "success"

    canvas.page.wait_for_timeout(1500)
    canvas.page.reload()
    canvas.ready()
    panel = canvas.panel(train, PANEL)
    _phase(panel, "stopped")
    assert _steps_kept(panel) == kept and panel.locator(".bl-curve").is_visible()
    panel.get_by_role("button", name="Resume").click()
    expect(panel.get_by_text(f"resumed after step {kept}")).to_be_visible(timeout=PATIENCE)
    panel.get_by_role("button", name="Cancel").click()
    _phase(panel, "cancelled")
    assert "resume or use as it is" in panel.locator(".bl-status").inner_text()
    again = _steps_kept(panel)
    assert kept < again <= STEPS
    panel.get_by_role("button", name="Use as it is").click()
    _phase(panel, "stopped", "done")
    assert panel.locator(".bl-status").inner_text().split()[1] == str(again)


def test_a_second_tab_and_a_reload_show_a_run_as_it_goes(canvas: Canvas) -> None:
    train = _graph(canvas, {"steps": 400, "seed": 3 if canvas.mode == "classic" else 4})
    panel = _with_pictures(canvas, train)
    panel.get_by_role("button", name="Start").click()
    _phase(panel, "training")
    workflow = canvas.saved()
    canvas.page.reload()
    canvas.ready()
    canvas.load(workflow)
    _phase(canvas.panel(train, PANEL), "training")
    tab = Canvas(canvas.page.context.new_page(), canvas.server, canvas.mode)
    tab.open()
    tab.load(workflow)
    there = tab.panel(train, PANEL)
    _phase(there, "training")
    there.get_by_role("button", name="Cancel").click()
    _phase(canvas.panel(train, PANEL), "cancelled")
    assert tab.errors == []
    tab.page.close()


def test_a_cleared_workflow_is_another_one(canvas: Canvas) -> None:
    """The host gives each that was cleared the same id: a run would show on the next one's Train."""
    places = []
    for _ in range(2):
        train = _graph(canvas)
        canvas.wait(lambda: canvas.evaluate("app.graph.id")[0:8] != "00000000", what="an id")
        places.append((train, canvas.evaluate("app.graph.id")))
    (one, first), (other, second) = places
    assert one == other and first != second


def test_values_are_those_of_the_stock_widgets(canvas: Canvas) -> None:
    train = _graph(canvas)
    panel = canvas.panel(train, PANEL)
    _field(panel, "class word").fill("girl")
    _open(panel, "What learns")
    _field(panel, "rank").fill("999")
    _field(panel, "rank").press("Tab")
    _field(panel, "layers").select_option("all linear")
    _open(panel, "Pictures, memory, keeping")
    _field(panel, "checkpointing").check()
    inputs = canvas.prompt()[str(train)]["inputs"]
    assert (inputs["class_word"], inputs["rank"], inputs["layers"]) == ("girl", 256, "all linear")
    assert inputs["checkpointing"] is True and inputs["preset"] == "as set"
    panel.get_by_role("radio", name="careful").click()
    assert canvas.prompt()[str(train)]["inputs"]["preset"] == "careful"
    assert _field(panel, "steps").input_value() == "800" and _field(panel, "steps").is_disabled()
    saved = next(one for one in canvas.saved()["nodes"] if one["id"] == train)
    stock = canvas.evaluate("LiteGraph.registered_node_types.BlockLoRATrain.nodeData.input_order")
    assert saved["widgets_values"][0:2] == ["<hero>", "girl"] and saved["widgets_values"][-1] == "careful"
    assert len(saved["widgets_values"]) < sum(map(len, stock.values()))
    canvas.set_value(train, "class_word", "woman")
    assert _field(panel, "class word").input_value() == "woman"


def test_stock_widgets_are_folded_but_for_those_a_link_feeds(canvas: Canvas) -> None:
    train = _graph(canvas)
    canvas.panel(train, PANEL)
    height = "(id) => app.graph.getNodeById(id).size[1]"
    canvas.wait(lambda: canvas.evaluate(height, train) < 560, what="what is folded to take no room")
    # Newer frontends draw a linked widget as a row of its own kind, and say that it is hidden.
    rows = """(id) => {
        const node = app.graph.getNodeById(id);
        const shown = (one) => (node.isWidgetRowVisible ? node.isWidgetRowVisible(one) : !one.hidden);
        // In Nodes 2.0 the report's panel waits below, empty.
        return node.widgets.filter((one) => shown(one) && one.name !== "blocklora_report").map((one) => one.name);
    }"""
    assert canvas.evaluate(rows, train) == [PANEL]
    source = canvas.add("PrimitiveInt", (0, 0))
    canvas.link(source, "INT", train, "steps")
    canvas.wait(lambda: canvas.evaluate(rows, train) == ["steps", PANEL])
    unlink = "(id) => { const node = app.graph.getNodeById(id); node.disconnectInput(node.findInputSlot('steps')); }"
    canvas.evaluate(unlink, train)
    canvas.wait(lambda: canvas.evaluate(rows, train) == [PANEL])


@pytest.mark.parametrize("field", ["concept"])
def test_keys_in_a_field_are_the_field_s(canvas: Canvas, field: str) -> None:
    train = _graph(canvas)
    panel = canvas.panel(train, PANEL)
    _field(panel, field).click()
    canvas.page.keyboard.press("Control+a")
    canvas.page.keyboard.type("<me> rq")
    canvas.page.keyboard.press("Backspace")
    assert canvas.value(train, field) == "<me> r"
    assert canvas.evaluate("app.graph.nodes.length") == 2


INNER = "app.canvas.graph.nodes.find((node) => node.type === 'BlockLoRATrain')"
OPEN = "(id) => { const node = app.graph.getNodeById(id); app.canvas.openSubgraph(node.subgraph, node); }"
# Instead of queueing, and what is asked of the server when it tells of a run.
PLAYED = """() => {
    [window.queued, window.asked] = [[], 0];
    app.queuePrompt = (...given) => window.queued.push(given[2]);
    const { api } = comfyAPI.api;
    api.fetchApi = function (path, ...more) {
        if (path.startsWith("/blocklora/run?")) window.asked++;
        return Object.getPrototypeOf(api).fetchApi.call(api, path, ...more);
    };
}"""
ENDED = "() => { delete app.queuePrompt; delete comfyAPI.api.api.fetchApi; app.canvas.setGraph(app.graph); }"
COPIED_AND_UNDONE = """async () => {
    const { changeTracker } = app.extensionManager.workflow.activeWorkflow;
    for (let times = 0; times < 2; times++) {
        const train = INNER;
        app.canvas.copyToClipboard(new Set([train]));
        train.title += "!";
        changeTracker.checkState();
        await changeTracker.undo();
    }
}""".replace("INNER", INNER)
TOLD = """(node) => {
    window.asked = 0;
    comfyAPI.api.api.dispatchCustomEvent("blocklora.run", { node, workflow: app.graph.id });
}"""


def test_two_of_one_subgraph_are_two_trainings(canvas: Canvas) -> None:
    canvas.load(template("Train Two People, Then Both"))
    subgraphs = canvas.evaluate("app.graph.nodes.filter((node) => node.subgraph).map((node) => node.id)")
    canvas.evaluate(PLAYED)

    def started() -> Any:
        find = f"{INNER}?.widgets.find((one) => one.name === '{PANEL}')?.element.dataset.panel"
        number = canvas.page.wait_for_function(find).json_value()
        start = canvas.page.locator(f'[data-panel="{number}"]').get_by_role("button", name="Start")
        # Wherever the view of the subgraph is.
        start.evaluate("(button) => button.click()")
        return canvas.evaluate("window.queued.splice(0).map((ids) => ids[0])")

    try:
        inner = None
        for outer in subgraphs:
            canvas.evaluate(OPEN, outer)
            inner = canvas.evaluate(f"{INNER}.id")
            assert started() == [f"{outer}:{inner}"]
        canvas.evaluate(COPIED_AND_UNDONE)
        assert started() == [f"{subgraphs[-1]}:{inner}"]
        canvas.page.wait_for_timeout(500)
        canvas.evaluate(TOLD, f"{subgraphs[-1]}:{inner}")
        canvas.page.wait_for_timeout(500)
        assert canvas.evaluate("window.asked") == 1
    finally:
        canvas.evaluate(ENDED)
    # What the host's own map of the workflow says of subgraphs (frontend 1.32).
    canvas.errors[:] = [one for one in canvas.errors if not one.startswith("Attempted to cleanup event listeners")]
