"""The page's modules by themselves, with a host that is played: what they write, and what they leave alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklora_core.training.data.folder import listing
from tests.core.javascript import printed, serve

API = "export const api = { fetchApi: (...given) => globalThis.host(...given), apiURL: (path) => path };"
HEAD = """
import { Folder } from "./extensions/blocklora/js/pictures/folder.js";
import { changeLists, readLists } from "./extensions/blocklora/js/loader/kept.js";
import { parse, Scene } from "./extensions/blocklora/js/scene/model.js";
import { sorted, upload } from "./extensions/blocklora/js/pictures/upload.js";
const failed = (error) => error.message;
"""

# As ComfyUI's server does, and our route that tells what a folder holds. disk: path -> text.
SERVER = r"""
const disk = new Map(Object.entries(DISK));
const names = (folder) =>
  [...disk.keys()].flatMap((path) => path.startsWith(`${folder}/`) ? path.slice(folder.length + 1) : []);
const stem = (name) => name.slice(0, name.lastIndexOf("."));
const tells = (folder) => names(folder).filter((name) => /\.(png|jpg)$/.test(name) && !name.endsWith("-masklabel.png"))
  .map((name) => ({ name, caption_file: [".txt", ".caption"].flatMap((end) => [stem(name) + end, name + end])
    .find((one) => disk.has(`${folder}/${one}`)) ?? `${stem(name)}.txt` }));
async function took(body) {
  const [file, folder] = [body.get("image"), body.get("subfolder")];
  const text = await file.text();
  const other = (name) => disk.has(`${folder}/${name}`) && disk.get(`${folder}/${name}`) !== text;
  let name = file.name;
  for (let n = 1; !body.get("overwrite") && other(name); n++)
    name = `${stem(file.name)} (${n})${file.name.slice(file.name.lastIndexOf("."))}`;
  disk.set(`${folder}/${name}`, text);
  return { name, subfolder: folder };
}
globalThis.host = async (url, { body } = {}) => {
  const query = new URL(url, "http://host").searchParams;
  if (url.startsWith("/upload/image")) return Response.json(await took(body));
  if (url.startsWith("/view")) return new Response(disk.get(`${query.get("subfolder")}/${query.get("filename")}`));
  return BROKEN ? new Response("", { status: 500 }) : Response.json({ pictures: tells(query.get("folder")) });
};
const dropped = DROPPED.map(([path, text]) => {
  const at = path.lastIndexOf("/");
  return { file: new File([text], path.slice(at + 1)), folder: path.slice(0, Math.max(at, 0)) };
});
const set = sorted(dropped);
const counted = [];
let problem = "";
await upload("set", set, (done) => counted.push(done)).catch((error) => { problem = error.message; });
const result = { disk: Object.fromEntries(disk), left: set.left, files: set.files, counted, problem };
"""

Run = Callable[[str], Any]
Drop = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What a script of modules leaves in `result`."""
    folder = tmp_path_factory.mktemp("page")
    serve(folder, api=API)

    def value(script: str) -> Any:
        return printed(folder / "run.js", f"{HEAD}{script}\nconsole.log(JSON.stringify(result));")

    return value


@pytest.fixture
def drop(run: Run) -> Drop:
    """Drops files, by path, into a folder `set`, whose files are `held`."""

    def dropped(files: dict[str, str], held: dict[str, str] | None = None, broken: bool = False) -> dict[str, Any]:
        disk = {f"set/{name}": text for name, text in (held or {}).items()}
        given = {"DISK": disk, "DROPPED": list(files.items()), "BROKEN": broken}
        script = SERVER
        for name, value in given.items():
            script = script.replace(name, json.dumps(value))
        told: dict[str, Any] = run(script)
        told["disk"] = {path.removeprefix("set/"): text for path, text in told["disk"].items()}
        return told

    return dropped


def pairs(disk: dict[str, str], folder: Path) -> dict[str, tuple[str | None, str | None]]:
    """Picture -> its caption and its mask, as training finds them."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, text in disk.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    return {
        one.path.read_text(): (
            one.caption.read_text() if one.caption else None,
            one.mask.read_text() if one.mask.is_file() else None,
        )
        for one in listing(folder).pictures
    }


def shot(name: str, text: str, end: str = ".png") -> dict[str, str]:
    """A picture, its caption and its mask; each says whose it is."""
    return {f"{name}{end}": text, f"{name}.txt": f"of {text}", f"{name}-masklabel.png": f"mask of {text}"}


def own(*pictures: str) -> dict[str, tuple[str, str]]:
    return {one: (f"of {one}", f"mask of {one}") for one in pictures}


def test_a_second_set_of_the_same_names_keeps_its_captions_and_masks(drop: Drop, tmp_path: Path) -> None:
    told = drop(shot("1", "B") | shot("2", "C"), held=shot("1", "A"))
    assert pairs(told["disk"], tmp_path / "set") == own("A", "B", "C")
    assert told["disk"]["1 (1).png"] == "B" and len(told["disk"]) == 9
    assert told["counted"] == [1, 2, 3, 4, 5, 6] and told["files"] == 6 and told["left"] == []
    again = drop(shot("1", "B"), held=told["disk"])
    assert again["disk"] == told["disk"]


def test_pictures_of_one_name_in_two_folders_of_a_drop_share_nothing(drop: Drop, tmp_path: Path) -> None:
    files = shot("x/indoor/1", "A") | shot("x/outdoor/1", "B") | {"x/garden/1.png": "C"}
    told = drop(files)
    assert pairs(told["disk"], tmp_path / "set") == own("A", "B") | {"C": (None, None)}
    repeated = drop(shot("x/10_man/1", "A") | shot("x/5_dog/1", "B"))
    assert pairs(repeated["disk"], tmp_path / "set") == own("A", "B")
    assert "5_dog/1.txt" in repeated["disk"]


def test_pictures_of_other_endings_share_no_caption_with_those_that_are_there(drop: Drop, tmp_path: Path) -> None:
    held = shot("1", "A", ".jpg") | shot("a (1)", "D", ".jpg") | shot("a", "E")
    told = drop(shot("1", "B") | shot("a", "F"), held=held)
    assert pairs(told["disk"], tmp_path / "set") == own("A", "B", "D", "E", "F")
    # One that is there already gets no second name, whatever others are called.
    for again in (shot("1", "B"), shot("a", "E"), shot("a", "F"), shot("1", "A", ".jpg")):
        assert drop(again, held=told["disk"])["disk"] == told["disk"]
    # In one drop they shared it.
    both = drop({"1.jpg": "A", "1.png": "B", "1.txt": "both", "2.jpg": "C", "2.jpg.txt": "of C", "2.png": "D"})
    assert pairs(both["disk"], tmp_path / "set") == {
        "A": ("both", None), "B": ("both", None), "C": ("of C", None), "D": (None, None),
    }  # fmt: skip
    assert both["counted"][-1] == both["files"] == 6


def test_captions_and_masks_without_their_picture_replace_the_old_ones(drop: Drop, tmp_path: Path) -> None:
    held = shot("1", "A") | shot("2", "B") | {"3.png": "C", "3.caption": "old"}
    told = drop({"1.txt": "better", "1-masklabel.png": "finer", "3.txt": "better", "gone.txt": "early"}, held=held)
    found = pairs(told["disk"], tmp_path / "set")
    assert found == own("B") | {"A": ("better", "finer"), "C": ("better", None)}
    assert told["disk"]["gone.txt"] == "early" and told["disk"]["3.caption"] == "better"
    late = drop({"2.caption": "better", "3.png.txt": "best"}, held=told["disk"])
    found = pairs(late["disk"], tmp_path / "set")
    assert (found["B"], found["C"]) == (("better", "mask of B"), ("best", None))


def test_a_picture_that_is_there_already_gets_the_caption_that_comes_with_it(drop: Drop, tmp_path: Path) -> None:
    held = {"1.png": "A", "1.png.txt": "old", "2.jpg": "B", "2.jpg.caption": "old"}
    told = drop({"1.png": "A", "1.txt": "new", "2.jpg": "B", "2.txt": "new"}, held=held)
    assert pairs(told["disk"], tmp_path / "set") == {"A": ("new", None), "B": ("new", None)}


def test_captions_in_a_folder_of_their_own_follow_the_only_picture_of_their_name(drop: Drop, tmp_path: Path) -> None:
    files = {"x/images/1.png": "B", "x/captions/1.txt": "of B", "x/masks/1-MaskLabel.PNG": "mask of B"}
    told = drop(files, held=shot("1", "A"))
    assert pairs(told["disk"], tmp_path / "set") == own("A", "B")
    files = {"x/one/1.png": "B", "x/two/1.png": "C", "x/captions/1.txt": "of either", "x/one/1.caption": "of B"}
    told = drop(files, held=shot("1", "A"))
    assert pairs(told["disk"], tmp_path / "set") == own("A") | {"B": ("of B", None), "C": (None, None)}
    assert told["left"] == ["1.txt"]


def test_nothing_is_sent_where_the_server_does_not_tell_what_is_there(drop: Drop) -> None:
    told = drop(shot("1", "B"), held=shot("1", "A"), broken=True)
    assert "did not tell" in told["problem"] and told["disk"] == shot("1", "A") and told["counted"] == []


LISTS = """
let [kept, status] = [GIVEN, STATUS];
const told = [];
globalThis.host = async (url, { method, body } = {}) => {
  if (method === "POST") [kept, status] = [body, 200];
  return new Response(kept, { status });
};
for (const act of [
  readLists,
  () => Promise.all([changeLists((all) => all.set("one", "a")), changeLists((all) => all.set("two", "b"))]),
  () => changeLists((all) => all.delete("one")),
]) told.push(await act().then(() => "", failed));
const result = { kept, told };
"""


def lists(run: Run, kept: str, status: int = 200) -> tuple[str, list[str]]:
    told = run(LISTS.replace("GIVEN", json.dumps(kept)).replace("STATUS", str(status)))
    return told["kept"], told["told"]


@pytest.mark.parametrize(
    ("kept", "status", "problem"),
    [
        ('{"four": "a"}', 500, "the server answered 500"),
        ('{"four": "a"}', 403, "the server answered 403"),
        ('{"four": "a', 200, "something else"),
        ("", 200, "something else"),
        ("null", 200, "something else"),
        ('["a"]', 200, "something else"),
        ('{"four": null, "five": "a"}', 200, "something else"),
    ],
)
def test_lists_that_cannot_be_read_are_not_overwritten(run: Run, kept: str, status: int, problem: str) -> None:
    left, told = lists(run, kept, status)
    assert left == kept
    assert all(problem in one and "left as" in one for one in told)


def test_lists_are_kept_where_there_are_some_or_none_yet(run: Run) -> None:
    left, told = lists(run, "", 404)
    assert (json.loads(left), told) == ({"two": "b"}, ["", "", ""])
    left, _ = lists(run, '{"four": "x", "__proto__": "y"}')
    assert json.loads(left) == {"four": "x", "__proto__": "y", "two": "b"}


def parsed(run: Run, *scenes: Any) -> list[Any]:
    """What each is read as, or what is told of it."""
    texts = [scene if isinstance(scene, str) else json.dumps(scene) for scene in scenes]
    read = "(text) => { try { return parse(text); } catch (error) { return error.message; } }"
    told: list[Any] = run(f"const result = {json.dumps(texts)}.map({read});")
    return told


USUAL = {"x": 0, "y": 0, "w": 1, "h": 1, "concept": "", "prompt": "", "negative": "", "weight": 1, "feather": 0}
TEXTS = ("concept", "prompt", "negative")


def test_null_says_nothing_in_a_scene(run: Run) -> None:
    names = (*USUAL, "lasso", "width", "height")
    scenes = [{"boxes": [{"negative": "x"}, {name: None}], "picture": None} for name in names]
    for told in parsed(run, *scenes):
        assert told == {"boxes": [USUAL | {"negative": "x"}, USUAL], "picture": ""}
    (odd,) = parsed(run, [{"w": None, "width": "0.5", "lasso": [], "weight": "2", "prompt": "x"}])
    assert odd["boxes"] == [USUAL | {"w": 0.5, "weight": 2, "prompt": "x"}]
    assert parsed(run, '{"boxes": null}', "null", "") == [{"boxes": [], "picture": ""}] * 3


def test_what_is_of_another_kind_is_told_by_its_box(run: Run) -> None:
    odd = {name: [5, True] if name in TEXTS else ["<b>", "", True] for name in (*USUAL, "lasso")}
    cases = [(name, value) for name, more in odd.items() for value in (*more, [1], {"a": 1})]
    cases = [(name, value) for name, value in cases if (name, value) != ("lasso", "")]
    told = parsed(run, *({"boxes": [{"prompt": "x"}, {name: value}]} for name, value in cases))
    for (name, value), one in zip(cases, told, strict=True):
        assert f"in {name} of box 2, got {json.dumps(value, separators=(',', ':'))}" in one


@pytest.mark.parametrize("scene", [5, "[3]", '"x"', {"boxes": 3}, [{"lasso": [[1, 2], [None, 3], [4, 5]]}], "{"])
def test_what_is_no_scene_is_told_and_its_text_kept(run: Run, scene: Any) -> None:
    text = scene if isinstance(scene, str) else json.dumps(scene)
    told = run(f"""
        const [written, one] = [[], new Scene((text) => written.push(text))];
        one.read({json.dumps(text)});
        const [problem, kept] = [one.problem, one.text];
        one.add({{ x: 0, y: 0, w: 1, h: 1, concept: "a" }});
        one.undo();
        const result = {{ problem, kept, again: one.text, written }};
    """)
    assert told["problem"].startswith("Not shown, and kept as it is")
    assert told["kept"] == told["again"] == told["written"][-1] == text
