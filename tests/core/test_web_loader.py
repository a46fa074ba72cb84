"""The Loader's panel by itself: files that are listed, dropped, picked and kept, and what is typed."""

from __future__ import annotations

import json

import pytest

from tests.core.page import Run, page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return page(tmp_path_factory.mktemp("page"))


def test_files_that_cannot_be_read_are_told_where_they_were_dropped(run: Run) -> None:
    (told,) = run("""
        const gone = { isFile: true, file: (_, refuse) => refuse(new Error("It is gone.")) };
        const reader = { readEntries: (take, refuse) => gone.file(take, refuse) };
        const node = graph.add(loader());
        const items = [{ webkitGetAsEntry: () => ({ isDirectory: true, createReader: () => reader }) }];
        node.onDragDrop({ dataTransfer: { types: ["Files"], items, files: [] } });
        await wait(20);
        result = app.told;
    """)
    assert "could not be read" in told["summary"] and told["detail"].startswith("It is gone. Nothing was taken")


def test_what_is_typed_as_no_number_is_refused(run: Run) -> None:
    typed = ["nan", "inf", "-infinity", "1.2.3", "0,75", "12"]
    told = run(f"""
        answers["/blocklora/files"].files = [file("a.safetensors")];
        const node = graph.add(loader("a.safetensors | 0.5"));
        const field = part(node.panel("list"), "strength");
        result = {json.dumps(typed)}.map((text) => {{
          field.value = text;
          field.fire("change");
          const refused = field.getAttribute("aria-invalid") !== null;
          field.fire("blur");
          return [refused, field.value, node.widget("files").value.split(" | ")[1]];
        }});
    """)
    assert told == [[True, "0.50", "0.5"]] * 4 + [[False, "0.75", "0.75"], [False, "10.00", "10"]]


DIALOG = 'const dialog = () => document.body.querySelector("dialog");'


def test_files_are_checked_again_when_they_are_listed_anew(run: Run) -> None:
    told = run("""
        const lines = { 1: { problem: "expected a file" } };
        answers["/blocklora/list"] = () => Response.json(lines);
        const node = graph.add(loader("a.safetensors"));
        const red = () => node.panel("list").querySelectorAll(".bl-bad").length;
        await wait(250);
        result = [red()];
        lines[1] = { file: "a.safetensors" };
        await app.extensions.find((one) => one.refreshComboInNodes).refreshComboInNodes();
        await wait(250);
        result.push(red());
    """)
    assert told == [1, 0]


def test_a_server_that_does_not_answer_is_told_and_not_taken_for_an_empty_one(run: Run) -> None:
    told = run(f"""{DIALOG}
        let refused = 0;
        process.on("unhandledRejection", () => refused++);
        const node = graph.add(loader("a.safetensors"));
        const list = node.panel("list");
        answers["/blocklora/list"] = {{ 1: {{ problem: "expected a file" }} }};
        await wait(250);
        const told = (path) => (path ? dialog() : list).querySelector(path || '[role="status"]').textContent;
        for (const path of ["/blocklora/files", "/blocklora/list"]) delete answers[path];
        await readFiles();
        await wait(250);
        result = {{ status: told(""), red: list.querySelectorAll(".bl-bad").length }};
        part(list, "add").click();
        await wait(50);
        result.picker = told(".bl-files");
        dialog().close();
        node.onDragDrop({{ dataTransfer: {{ types: ["Files"], items: [], files: [new File([], "b.safetensors")] }} }});
        await wait(50);
        result.drop = list.querySelector('[role="alert"]').textContent;
        result.text = node.widget("files").value;
        result.refused = refused;
        answers["/blocklora/list"] = {{}};
        answers["/blocklora/files"] = {{ files: [], unread: 0 }};
        await readFiles();
        await wait(250);
        result.again = told("");
    """)
    assert told["status"] == "1 of 1 on. The server did not answer: the list is not checked."
    assert told["again"] == "1 of 1 on" and told["red"] == 1 and told["refused"] == 0
    assert told["picker"].startswith("The server did not tell its files")
    assert told["drop"].startswith("The server did not answer. Nothing was added") and told["text"] == "a.safetensors"


def test_files_whose_names_a_list_cannot_hold_are_left_out_of_drops(run: Run) -> None:
    told = run("""
        const files = ["my.safetensors", "b.safetensors", "odd|c.safetensors"];
        answers["/blocklora/list"] = ({ body }) => Response.json(Object.fromEntries(JSON.parse(body).files.split("\\n")
          .map((line) => line.split("|")[0].trim().replace(/^c/, "odd|c"))
          .flatMap((name, at) => files.filter((one) => one.startsWith(name)).map((file) => [at + 1, { file }]))));
        const node = graph.add(loader());
        const names = ["my | 0.5 | style.safetensors", "# note", "b.safetensors", "c.safetensors", "zed.safetensors"];
        const dropped = names.map((name) => new File([], name));
        node.onDragDrop({ dataTransfer: { types: ["Files"], items: [], files: dropped } });
        await wait(50);
        result = [node.widget("files").value, node.panel("list").querySelector('[role="alert"]').textContent];
    """)
    text, hint = told
    assert text == "b.safetensors | 1 | on\n"
    assert hint.startswith("zed: not in a loras folder")
    unable = "# note, my | 0.5 | style.safetensors, odd|c.safetensors"
    assert f"{unable}: a list cannot hold this name. Take | and # out of it" in hint


def test_words_are_kept_as_they_are_typed(run: Run) -> None:
    told = run("""
        const node = graph.add(loader("a.safetensors"));
        part(node.panel("list"), "more").click();
        const words = part(node.panel("list"), "words");
        words.focus();
        result = ["<z", "<zed> "].map((text) => {
          words.value = text;
          words.fire("input");
          return [node.widget("files").value, words.value];
        });
    """)
    assert told == [["a.safetensors | 1 | on | <z", "<z"], ["a.safetensors | 1 | on | <zed>", "<zed> "]]


KEPT = (
    DIALOG
    + """
let [kept, slow] = [{ four: "a" }, 0];
answers["/userdata/blocklora%2Flists.json"] = async ({ method, body }) => {
  if (method === "POST") kept = JSON.parse(body);
  const now = JSON.stringify(kept), pause = slow;
  slow = 0;
  await wait(pause);
  return new Response(now);
};
const node = graph.add(loader("z.safetensors"));
const show = () => { part(node.panel("list"), "sets").click(); return wait(20); };
const keep = async (name) => {
  dialog().querySelector("input").value = name;
  dialog().querySelector("form").fire("submit");
  await wait(20);
  return [kept[name] ?? null, dialog().querySelector('[role="status"]').textContent];
};
"""
)


def test_a_kept_list_is_replaced_when_it_is_kept_twice(run: Run) -> None:
    told = run(KEPT + 'await show(); result = [await keep("four"), await keep("four"), await keep("five")];')
    warning = "Not kept: there is a list four already. Keep it again to put this one in its place."
    assert told == [["a", warning], ["z.safetensors", ""], ["z.safetensors", ""]]


def test_lists_that_come_late_do_not_hide_one_that_was_kept_meanwhile(run: Run) -> None:
    told = run(
        KEPT
        + """
        [kept, slow] = [{}, 120];
        await show();
        const rows = () => dialog().querySelector("ul").textContent;
        await keep("mine");
        result = [rows()];
        await wait(150);
        result.push(rows());
    """
    )
    assert told[0] == told[1] and "mine" in told[0]


PICKER = (
    DIALOG
    + """
const files = (...names) => { answers["/blocklora/files"].files = names.map((name) => file(name)); };
const node = graph.add(loader());
await wait(20);
const pick = () => { part(node.panel("list"), "add").click(); return wait(20); };
const active = () => dialog().querySelector(".bl-active").querySelector(".bl-name").children[0];
const press = (key, more = {}) => dialog().querySelector("input").fire("keydown", { key, ...more });
"""
)


def test_enter_that_ends_a_composition_chooses_nothing(run: Run) -> None:
    told = run(
        PICKER
        + """
        files("a.safetensors");
        await pick();
        press("Enter", { isComposing: true });
        result = [node.widget("files").value];
        press("Enter");
        result.push(node.widget("files").value);
    """
    )
    assert told == ["", "a.safetensors | 1 | on\n"]


def test_the_picker_offers_folders_anew_and_stays_on_its_file(run: Run) -> None:
    told = run(
        PICKER
        + """
        files("b.safetensors", "c.safetensors", "old/x.safetensors");
        await pick();
        press("ArrowDown");
        result = [active()];
        files("a.safetensors", "b.safetensors", "c.safetensors", "renamed/x.safetensors");
        await readFiles();
        result.push(active(), dialog().querySelector("select").children.map((one) => one.value));
    """
    )
    assert told == ["c", "c", ["", "renamed"]]
