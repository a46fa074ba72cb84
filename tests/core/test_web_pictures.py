"""The panel of Images + Captions, in a page and with a host that are played: what it keeps, writes and says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.javascript import printed, serve

HERE = Path(__file__).parent
APP = "export const app = { canvas: {}, registerExtension: (one) => globalThis.extended?.(one) };"
API = "export const api = { fetchApi: (...given) => globalThis.host(...given), apiURL: (path) => path };"
TWO = "{ one: holding(picture('a.png', 'A'), picture('b.png')), two: holding(picture('c.png', 'C')) }"

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    serve(folder, api=API, app=APP)
    return folder


@pytest.fixture
def run(page: Path) -> Run:
    """What a script leaves in `result`, in a page whose host has these folders."""

    def value(script: str, folders: str = TWO) -> Any:
        head = (HERE / "played_page.js").read_text("utf-8").replace("= FOLDERS", f"= {folders}")
        return printed(page / "run.js", f"{head}\n{script}\nconsole.log(JSON.stringify(result));")

    return value


def test_a_refused_caption_stays_marked_and_is_sent_again(run: Run) -> None:
    told = run("""
        const one = await panel("one");
        const field = one.fields()[1];
        writing = 500;
        type(field, "mine");
        await leave(field);
        one.fallback.callback();
        const shown = [field.value, one.status(), one.text()];
        writing = 200;
        field.focus();
        field.blur();
        await wait();
        one.fallback.callback();
        const result = { shown, sent, after: [one.fields()[1].value, one.status(), one.text()] };
    """)
    value, status, text = told["shown"]
    assert (value, status) == ("mine", "2 pictures, 1 with a caption")
    assert "Not saved: b.txt: the server refused it (500 Disk full). Leave the field once more" in text
    assert told["sent"] == ["one/b.txt: mine"]
    assert told["after"][:2] == ["mine", "2 pictures, 2 with a caption"] and "Not saved" not in told["after"][2]


def test_a_caption_is_sent_once_and_what_is_typed_meanwhile_after_it(run: Run) -> None:
    told = run("""
        const one = await panel("one");
        const field = one.fields()[0];
        slow = 20;
        type(field, " mine ");
        await leave(field);
        type(field, "mine too");
        await leave(field);
        await wait(80);
        one.fallback.callback();
        const result = [sent, field.value, one.status()];
    """)
    assert told == [["one/a.txt: mine", "one/a.txt: mine too"], "mine too", "2 pictures, 1 with a caption"]


def test_what_is_being_typed_survives_whatever_reads_the_folder_again(run: Run) -> None:
    told = run(r"""
        folders.one = holding(picture("a.png", "A\r\nB"), picture("b.png"));
        const one = await panel("one");
        const [first, field] = one.fields();
        type(field, "half a");
        const given = field.valuesGiven;
        folders.one = holding(picture("0.png"), picture("a.png", "new"), picture("b.png", "of another page"));
        press(one.button("\u21bb"));
        await wait();
        one.fallback.callback();
        const again = one.fields();
        const kept = [again.map((one) => one.value), again[2] === field, document.activeElement === field];
        reading = 500;
        await one.choose("one");
        reading = 200;
        await one.choose("one");
        const back = one.fields().map((one) => one.value);
        writing = 500;
        await leave(field);
        await one.choose("two");
        await one.choose("one");
        const result = { kept, given: field.valuesGiven === given, back, refused: one.fields()[2].value, sent };
    """)
    assert told["kept"] == [["", "new", "half a"], True, True] and told["given"]
    assert told["back"] == ["", "new", "half a"] and told["refused"] == "half a" and told["sent"] == []


def test_an_answer_older_than_a_caption_that_was_written_is_not_shown(run: Run) -> None:
    told = run(r"""
        const one = await panel("one");
        const field = one.fields()[1];
        const now = globalThis.host;
        globalThis.host = async (...given) => { const told = await now(...given); await wait(20); return told; };
        press(one.button("\u21bb"));
        globalThis.host = now;
        type(field, "mine");
        await leave(field);
        folders.one = holding(picture("a.png", "A"), picture("b.png", "mine"));
        await wait(50);
        const result = one.fields()[1].value;
    """)
    assert told == "mine"


def test_an_upload_leaves_the_folder_that_was_chosen_meanwhile(run: Run) -> None:
    told = run("""
        const one = await panel("one");
        slow = 30;
        await one.drop("n.png");
        await answer("one");
        await one.choose("two");
        await wait(60);
        const away = [one.folder.value, one.fields().length, one.text()];
        await one.drop("m.png");
        await answer("new");
        await wait(60);
        const result = { away, last: [one.folder.value, one.folder.options.values] };
    """)
    assert told["away"][:2] == ["two", 1] and "1 of 1 files were sent to one. Choose that folder" in told["away"][2]
    assert told["last"] == ["new", ["one", "two", "new"]]


def test_a_folder_that_comes_through_a_link_takes_nothing(run: Run) -> None:
    told = run("""
        const one = await panel("one");
        one.node.linked = true;
        one.node.onConnectionsChange();
        await wait();
        const linked = [one.fields().length, one.status(), one.text(), one.button("+ Add pictures").hidden];
        await one.drop("n.png");
        const dropped = [one.status(), document.body.querySelectorAll("dialog").length];
        one.node.linked = false;
        one.node.onConnectionsChange();
        await wait();
        const result = { linked, dropped, unlinked: [one.fields().length, one.button("+ Add pictures").hidden] };
    """)
    fields, status, text, hidden = told["linked"]
    assert (fields, status, hidden) == (0, "The folder comes through the link", True)
    assert "Drop them onto another Images + Captions node" in text
    assert told["dropped"] == ["The folder comes through the link: nothing was added", 0]
    assert told["unlinked"] == [2, False]


def test_enter_that_ends_a_composition_does_nothing_else(run: Run) -> None:
    told = run("""
        const one = await panel("one");
        const [field, next] = one.fields();
        const enter = (isComposing) => {
          field.focus();
          const event = Object.assign(new Event("keydown", { cancelable: true }), { key: "Enter", isComposing });
          field.dispatchEvent(event);
          return [event.defaultPrevented, document.activeElement === next];
        };
        const result = [enter(true), enter(false)];
    """)
    assert told == [[False, False], [True, True]]


def test_what_arrived_of_a_broken_upload_is_shown_and_the_rest_told(run: Run) -> None:
    told = run("""
        folders.set = undefined;
        writing = (name) => (name === "c.png" ? 500 : 200);
        const one = await panel("two");
        await one.drop("a.png", "b.png", "c.png", "d.png");
        folders.set = undefined;
        const answered = answer("set");
        folders.set = holding(picture("a.png"), picture("b.png"));
        await answered;
        await wait(20);
        const some = [one.folder.value, one.fields().length, one.text()];
        writing = 500;
        await one.drop("e.png");
        await answer("other");
        const result = { some, none: [one.folder.value, one.folder.options.values.includes("other"), one.text()] };
    """)
    folder, shown, text = told["some"]
    assert (folder, shown) == ("set", 2)
    assert "2 of 4 files were sent to set, the others not. c.png: the server refused it (500 Disk full)" in text
    assert told["none"][:2] == ["set", False] and "0 of 1 files were sent to other" in told["none"][2]


@pytest.mark.parametrize(("status", "why"), [(500, "500 Broken"), (0, "no answer: Failed to fetch")])
def test_a_folder_that_cannot_be_read_is_told_and_takes_nothing(run: Run, status: int, why: str) -> None:
    told = run(f"""
        const one = await panel("one");
        reading = {status};
        await one.choose("two");
        await one.drop("n.png");
        const closed = [one.fields().length, one.status(), one.text(), document.body.querySelectorAll("dialog").length];
        reading = 200;
        press(one.button("\\u21bb"));
        await wait();
        const result = {{ closed, open: [one.fields().length, one.status(), one.text().includes("could not")] }};
    """)
    fields, said, text, dialogs = told["closed"]
    assert (fields, dialogs, said) == (0, 0, "The folder could not be read: nothing was added")
    assert f"two: the server did not tell what it holds ({why})" in text and "Drop pictures" not in text
    assert told["open"] == [1, "1 picture, 1 with a caption", False]


MANY = """{ many: {
    pictures: [picture("a.png", "A")], count: 3,
    others: ["b", "c"].map((one) => ({ name: `${one}.png`, caption_file: `${one}.txt`, captioned: one === "b" })),
} }"""


def test_pictures_that_are_not_shown_are_counted_and_keep_what_is_theirs(run: Run) -> None:
    told = run(
        """
        const one = await panel("many");
        const [status, text] = [one.status(), one.text()];
        await one.drop("c.jpg", "c.txt", "c-masklabel.png");
        await answer("many");
        await wait(20);
        const result = { status, text, sent };
        """,
        MANY,
    )
    assert told["status"] == "3 pictures, 2 with a caption"
    assert "Only the first 1 of 3 pictures are shown" in told["text"]
    assert [one.split(":")[0] for one in told["sent"]] == [
        "many/c (1).jpg", "many/c (1).txt", "many/c (1)-masklabel.png",
    ]  # fmt: skip


NAMES = ["a.txt", 'the "boss".txt', "a\\b.txt", "a;b;c.txt", "é '(1)*' %22.txt", 'a"\nb.txt', '日本 "x".txt']


def test_the_server_gets_every_name_as_it_is(page: Path) -> None:
    """Read as ComfyUI's server reads it."""
    web = pytest.importorskip("aiohttp.web")
    client = pytest.importorskip("aiohttp").ClientSession
    forms = printed(
        page / "form.js",
        f"""
        import {{ formOf }} from "./extensions/blocklora/js/pictures/form.js";
        const told = [];
        for (const name of {json.dumps(NAMES)}) {{
          const fields = {{ subfolder: 'my "dog"', type: "input" }};
          const form = new Response(formOf(new Blob(["a\\r\\n", name]), name, fields));
          told.push([form.headers.get("content-type"), Buffer.from(await form.arrayBuffer()).toString("hex")]);
        }}
        console.log(JSON.stringify(told));
        """,
    )

    async def upload(request: Any) -> Any:
        post = await request.post()
        text = post["image"].file.read().decode()
        return web.json_response([post["image"].filename, post["subfolder"], post["type"], text])

    async def told() -> list[Any]:
        app = web.Application()
        app.router.add_post("/", upload)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        async with client() as session:
            answers = []
            for kind, body in forms:
                sent = session.post(f"http://{host}:{port}/", data=bytes.fromhex(body), headers={"Content-Type": kind})
                async with sent as answer:
                    answers.append(await answer.json())
        await runner.cleanup()
        return answers

    assert asyncio.run(told()) == [[name, 'my "dog"', "input", f"a\r\n{name}"] for name in NAMES]
