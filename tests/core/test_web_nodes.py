"""The panels of nodes by themselves: when they listen, what they queue, and what they leave alone."""

from __future__ import annotations

import pytest

from tests.core.page import Run, page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return page(tmp_path_factory.mktemp("page"))


LISTENERS = {
    "scene": ("scene()", 'say("graphChanged")', "/blocklora/scene"),
    "train": ("new Train()", 'say("reconnected")', "/blocklora/run"),
    "loader": ('loader("a")', "readFiles()", "/blocklora/list"),
}


@pytest.mark.parametrize("kind", LISTENERS)
def test_only_nodes_that_stand_in_the_workflow_listen(run: Run, kind: str) -> None:
    made, event, path = LISTENERS[kind]
    told = run(f"""
        const count = async () => {{ await since(() => {event}); return has("{path}"); }};
        result = [];
        const one = graph.add({made});
        for (let copy = 0; copy < 5; copy++) {made};
        await wait(320);
        result.push(await count());
        const inner = new Graph("inner", graph);
        graph.add({{ id: 50, subgraph: inner }});
        inner.add({made});
        await wait(320);
        result.push(await count());
        // As the host does on every undo: of what stands in a subgraph, nobody is told.
        graph.clear();
        await wait(320);
        result.push(await count());
        graph.add(one);
        await wait(320);
        result.push(await count());
    """)
    assert told == [1, 2, 0, 1]


RUNNING = """
const state = (id, phase) => ({ id, phase, running: phase === "training", stopping: false, pictures: 6, step: 5,
  steps: 10, resumed: 0, kept: 0, pace: 1, left: 5, message: "", curve: [], samples: [] });
"""


def test_an_answer_that_comes_after_the_node_is_gone_asks_no_more(run: Run) -> None:
    told = run(
        RUNNING
        + """
        answers["/blocklora/run"] = async () => { await wait(60); return Response.json(state("r", "training")); };
        graph.add(new Train());
        await wait(30);
        graph.clear();
        await since(() => {}, 1300);
        result = has("/blocklora/run");
    """
    )
    assert told == 0


# Two nodes, 3 and 4, of one subgraph, in which Train is 4; a third of another, which holds a node of the first.
SUBGRAPHS = """
const inner = new Graph("inner", graph), outer = new Graph("outer", graph);
const [first, second] = [3, 4].map((id) => graph.add({ id, subgraph: inner }));
const train = new Train();
train.id = 4;
inner.add(train);
const panel = train.panel("blocklora_train");
const start = panel.querySelector(".bl-main"), alert = panel.querySelector('[role="alert"]');
const open = (node) => since(() => say("subgraph-opened", { subgraph: node.subgraph, fromNode: node }, document), 30);
const press = async () => { start.click(); await wait(20); return [app.queued.splice(0), alert?.hidden]; };
await wait(30);
"""


def test_start_queues_the_subgraph_that_was_opened_or_none(run: Run) -> None:
    told = run(
        SUBGRAPHS
        + """
        result = { unknown: await press(), text: alert?.textContent, asked: has("/blocklora/run") };
        await open(second);
        result.second = [...await press(), asked.at(-1)];
        await open(first);
        result.first = [...await press(), asked.at(-1)];
        const third = graph.add({ id: 9, subgraph: outer });
        await open(outer.add({ id: 7, subgraph: inner }));
        result.nested = await press();
        // Where it stands once, nothing needs to be known.
        graph.nodes = [third];
        result.once = await press();
    """
    )
    assert told["unknown"] == [[], False] and told["asked"] == 0
    assert "open the subgraph from its node" in told["text"]
    assert told["second"] == [[["4:4"]], True, "/blocklora/run?node=4%3A4&workflow=root"]
    assert told["first"] == [[["3:4"]], True, "/blocklora/run?node=3%3A4&workflow=root"]
    assert told["nested"] == [[["9:7:4"]], True] and told["once"] == [[["9:7:4"]], True]


def test_a_run_is_of_the_node_with_its_very_place(run: Run) -> None:
    told = run(
        SUBGRAPHS
        + """
        const { isRunOf } = await import("./extensions/blocklora/js/shared/place.js");
        const other = new Graph("other", graph);
        graph.add({ id: 5, subgraph: other });
        const alike = new Train();
        alike.id = 4;
        other.add(alike);
        await open(second);
        const runs = ["3:4", "4:4", "5:4", "4"].map((node) => ({ node, workflow: "root" }));
        result = [train, alike].map((node) => runs.filter((run) => isRunOf(run, node)).map((run) => run.node));
    """
    )
    assert told == [["4:4"], ["5:4"]]


def test_an_answer_for_another_workflow_is_not_shown(run: Run) -> None:
    told = run(
        RUNNING
        + """
        let given = state("old", "done");
        answers["/blocklora/run"] = async () => { const now = given; await wait(60); return Response.json(now); };
        const train = graph.add(new Train());
        await wait(20);
        [graph.id, given] = ["another", null];
        train.onConfigure({});
        await wait(200);
        result = [asked.at(-1), train.panel("blocklora_train").querySelector(".bl-live").hidden];
    """
    )
    assert told == ["/blocklora/run?node=1&workflow=another", True]


def test_a_seed_shows_all_its_digits(run: Run) -> None:
    told = run("""
        const train = graph.add(new Train({ seed: 1125899906842624, rate: 0.1 + 0.2 }));
        const fields = [...train.panel("blocklora_train").querySelectorAll("input")].map((one) => one.value);
        result = fields.slice(-2);
    """)
    assert sorted(told) == ["0.3", "1125899906842624"]


def test_a_workflow_that_is_opened_with_its_settings_keeps_its_height(run: Run) -> None:
    told = run("""
        result = [];
        let size = null;
        for (let opened = 0; opened < 3; opened++) {
          const node = graph.add(loader());
          if (size) node.size = size;
          else part(node.panel("list"), "fold").click();
          node.widget("steps").value = 8;
          node.onConfigure({});
          size = [...node.size];
          result.push([size[1], node.widget("steps").hidden, node.computeSize()[1] <= size[1]]);
        }
        const low = graph.add(loader());
        low.size = [400, 40];
        low.widget("steps").value = 8;
        low.onConfigure({});
        result.push(low.size[1] === low.computeSize()[1]);
    """)
    assert told[0] == told[1] == told[2] and told[0][1:] == [False, True] and told[3] is True


def test_a_copy_gets_no_link_that_it_was_copied_without(run: Run) -> None:
    told = run("""
        const source = graph.add(new Node("Checkpoint"));
        const made = [];
        source.outputs = ["MODEL", "CLIP"].map((type) => ({ type }));
        source.connect = (slot) => made.push(source.outputs[slot].type);
        const link = async (act) => {
          const node = graph.add(new Node("BlockLoRAApply", {}, { model: source }));
          node.inputs.push({ name: "clip" });
          act(node);
          node.onConnectionsChange(1, 0, true, { origin_id: source.id });
          await wait(10);
          return made.splice(0);
        };
        result = [await link(() => {}), await link((node) => node.onConfigure?.({}))];
    """)
    assert told == [["CLIP"], []]


def test_the_canvas_follows_linked_sides(run: Run) -> None:
    told = run("""
        const number = graph.add(new Node("PrimitiveInt", { value: 1024, control_after_generate: "fixed" }));
        const unknown = graph.add(new Node("Sum", { a: 64, b: 64 }));
        for (const one of [number, unknown]) one.outputs = [{ type: "INT" }];
        const node = graph.add(scene());
        const shape = async () => {
          await wait(10);
          const { width, height } = node.panel("canvas").querySelector(".bl-scene-sheet").style;
          return Number.parseFloat(width) / Number.parseFloat(height);
        };
        result = [await shape()];
        node.links.width = number;
        node.onConnectionsChange();
        result.push(await shape());
        number.widget("value").value = 2048;
        say("graphChanged");
        result.push(await shape());
        node.links.width = unknown;
        node.onConnectionsChange();
        result.push(await shape());
        delete node.links.width;
        node.onConnectionsChange();
        result.push(await shape());
    """)
    assert told == [1, 2, 4, 4, 1]
