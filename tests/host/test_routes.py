"""What the page asks: the files of the loras folders, a list looked at before it runs, a folder of pictures."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from blocklora.blocklora_core.concept.lora_list import ListError
from blocklora.blocklora_core.files.io import save
from blocklora.blocklora_core.host.queued import Graph
from blocklora.blocklora_core.host.routes import picture_grid as grid
from blocklora.blocklora_core.host.routes.ahead import names_into
from blocklora.blocklora_core.host.routes.catalogue import _has_picture, catalogue
from blocklora.blocklora_core.host.routes.list_check import check_list
from blocklora.blocklora_core.host.routes.picture_grid import picture_grid
from blocklora.blocklora_core.host.routes.serving import folder_problem
from blocklora.blocklora_core.host.use.lora_list import check_files
from PIL import Image

from tests.host.tiny import Base, make_lora

STEM = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture
def loras(folders: Path) -> Path:
    return folders / "models" / "loras"


def plain(path: Path, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"{STEM}.lora_up.weight": torch.zeros(8, 2), f"{STEM}.lora_down.weight": torch.zeros(2, 4)}
    safetensors.torch.save_file(tensors, path, metadata)
    return path


def by_name() -> dict[str, dict[str, object]]:
    return {entry["name"]: entry for entry in catalogue(seconds=60)["files"]}


def test_every_file_tells_what_it_is_and_bad_ones_why(base: Base, loras: Path) -> None:
    save(loras / "own.safetensors", make_lora(base, "<own>", 2))
    plain(loras / "web" / "ada.safetensors", {"modelspec.trigger_phrase": "ohwx <img src=x onerror=alert(1)>"})
    (loras / "web" / "ada.preview.png").touch()
    (loras / "bad.safetensors").write_bytes(b"<!DOCTYPE html>")
    files = by_name()
    own, ada, bad = files["own.safetensors"], files["web/ada.safetensors"], files["bad.safetensors"]
    assert (own["concept"], own["slot"], own["slots"], own["apart"]) == ("<own>", 2, 16, "rows")
    assert (ada["picture"], own["picture"], ada["slot"], ada["folder"]) == (True, False, None, 0)
    assert ada["words"] == "ohwx <img src=x onerror=alert(1)>" and ada["apart"] == "collect"
    assert "expected a safetensors file" in str(bad["problem"]) and "concept" not in bad
    assert str(loras) not in json.dumps(list(files.values()))


def test_an_answer_never_waits_for_all_files(loras: Path) -> None:
    for number in range(5):
        plain(loras / f"{number}.safetensors")
    first = catalogue(seconds=-1)
    assert first["unread"] == 5 and first["files"][0] == {"name": "0.safetensors"}
    assert catalogue(seconds=60)["unread"] == 0


def test_a_new_picture_is_noticed(loras: Path) -> None:
    plain(loras / "a.safetensors")
    assert by_name()["a.safetensors"]["picture"] is False
    (loras / "a.jpg").touch()
    assert by_name()["a.safetensors"]["picture"] is True


def test_a_list_is_checked_line_by_line(base: Base, loras: Path) -> None:
    save(loras / "own.safetensors", make_lora(base, "<own>", 2))
    save(loras / "twin.safetensors", make_lora(base, "<twin>", 2))
    plain(loras / "web" / "ada.safetensors")
    (loras / "bad.safetensors").write_bytes(b"<!DOCTYPE html>")
    told = check_list("own\n# no\ntwin.safetensors\nada | 1 | on | <OWN>\nada | 99\ngone\nbad\nweb/ada\nown | 1 | off")
    assert 2 not in told
    assert told[1] == {"file": "own.safetensors", "concept": "<own>", "problem": "", "notes": []}
    assert "Slot 2 of 16: <own> of line 1" in told[3]["notes"][0]
    assert told[4]["file"] == "web/ada.safetensors" and "called <own> too" in told[4]["notes"][0]
    assert "expected a strength" in told[5]["problem"] and "loras folder, got 'gone'" in told[6]["problem"]
    assert "expected a safetensors file" in told[7]["problem"] and str(loras) not in told[7]["problem"]
    assert told[8]["notes"] == ["Line 4 is the same file."] and told[9]["notes"] == []


def test_words_that_call_nobody_are_told(base: Base, loras: Path) -> None:
    save(loras / "own.safetensors", make_lora(base, "<own>", 2))
    plain(loras / "web" / "ada.safetensors", {"modelspec.trigger_phrase": "ohwx"})
    told = check_list("own | 1 | on | ohwx man\nada | 1 | on | ohwx man\nown | 1 | off | ohwx man")
    assert told[1]["notes"] == [
        "Prompts call it <own>: words are for plain LoRAs. One word, such as <ada>, gives it another name."
    ]
    assert told[2]["notes"] == told[3]["notes"] == []
    for words in ("", "<own>", "<zed>"):
        assert check_list(f"own | 1 | on | {words}")[1]["notes"] == []


def test_a_list_without_end_is_checked_at_once(loras: Path) -> None:
    for number in range(200):
        plain(loras / f"{number:03d}_{'x' * 60}.safetensors")
    started = time.process_time()
    told = check_list("\n".join(f"{number}_{'y' * 900}" for number in range(50_000)))
    assert (
        len(told) == 50_000
        and "expected a file of" in told[1]["problem"]
        and "at most 500 files" in told[501]["problem"]
    )
    with pytest.raises(ListError) as caught:
        check_files("\n".join("gone" for _ in range(50_000)))
    assert len(str(caught.value)) < 10_000
    assert time.process_time() - started < 5


def diamonds(count: int, source: dict[str, Any]) -> Graph:
    """Nodes in a row, each connected to the one before by two links: there are 2^count ways through them."""
    links = ({"model": [str(at), 0], "clip": [str(at), 1]} for at in range(count))
    return {"0": source, **{str(at): {"class_type": "Any", "inputs": one} for at, one in enumerate(links, 1)}}


TRAIN = {"class_type": "BlockLoRATrain", "inputs": {"concept": "<ada>"}}


def test_each_node_of_a_graph_is_asked_once(folders: Path) -> None:
    assert folders.is_dir()
    started = time.process_time()
    assert names_into(diamonds(60, TRAIN), "60", ["model"]) == ("<ada>",)
    # As deep as no host goes either: what arrives shows only in a run.
    assert names_into(diamonds(20_000, TRAIN), "20000", ["model"]) is None
    assert time.process_time() - started < 5


def test_circles_of_a_graph_end(folders: Path) -> None:
    assert folders.is_dir()
    graph = {
        "1": {"class_type": "Any", "inputs": {"model": ["2", 0]}},
        "2": {**TRAIN, "inputs": {"concept": "<ada>", "model": ["1", 0]}},
    }
    assert names_into(graph, "1", ["model"]) == ("<ada>",)


def test_two_of_one_name_are_left_to_the_run(folders: Path) -> None:
    assert folders.is_dir()
    graph: Graph = {
        "1": TRAIN, "2": {"class_type": "BlockLoRAStack", "inputs": {"stack_1": ["1", 0], "stack_2": ["1", 0]}},
        "3": {"class_type": "BlockLoRAMerge", "inputs": {"stack": ["1", 0]}},
        "4": {"class_type": "BlockLoRAMerge", "inputs": {"stack": ["2", 0]}},
    }  # fmt: skip
    assert names_into(graph, "3", ["stack"]) == ("<ada>",)
    assert names_into(graph, "4", ["stack"]) is None


def test_a_folder_that_cannot_be_listed_stops_no_other(loras: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(loras / "a.safetensors")

    def refused(_: Path) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(os, "scandir", refused)
    assert _has_picture(loras / "a.safetensors") is False


def picture(path: Path, size: tuple[int, int] = (32, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def test_a_folder_of_pictures_is_told_with_captions_masks_and_advice(folders: Path) -> None:
    dog = folders / "input" / "dog"
    picture(dog / "a.png")
    (dog / "a.caption").write_text("a <b>dog</b>\n", "utf-8")
    picture(dog / "a-masklabel.png")
    picture(dog / "10_ohwx man" / "b.png", (64, 64))
    (dog / "c.png").write_bytes(b"no picture")
    (dog / "notes.md").touch()
    told = picture_grid("dog")
    a, c, b = told["pictures"]
    assert (a["name"], a["width"], a["height"], a["mask"]) == ("a.png", 32, 16, "a-masklabel.png")
    assert (a["caption"], a["caption_file"]) == ("a <b>dog</b>", "a.caption")
    assert (b["name"], b["repeats"], b["words"], b["caption_file"]) == ("10_ohwx man/b.png", 10, "ohwx man", "b.txt")
    assert "expected a readable picture" in c["problem"]
    assert told["skipped"] == ["notes.md"] and told["count"] == 3
    assert any(line.startswith("Few") for line in told["advice"])
    assert any("Mixed sizes" in line for line in told["advice"])
    assert picture_grid("")["folders"] == ["dog", "dog/10_ohwx man"]


def test_pictures_beyond_the_most_are_named_with_their_captions(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dog = folders / "input" / "dog"
    for name in ("a", "b", "c", "d"):
        picture(dog / f"{name}.png")
    (dog / "b.png.caption").write_text("b", "utf-8")
    (dog / "c.txt").touch()
    (dog / "d.txt").write_bytes(b"\xff")
    monkeypatch.setattr(grid, "MOST", 1)
    told = picture_grid("dog")
    assert [one["name"] for one in told["pictures"]] == ["a.png"] and told["count"] == 4
    assert told["others"] == [
        {"name": "b.png", "caption_file": "b.png.caption", "captioned": True},
        {"name": "c.png", "caption_file": "c.txt", "captioned": False},
        {"name": "d.png", "caption_file": "d.txt", "captioned": False},
    ]


@pytest.mark.parametrize("name", ["..", "../user", "/etc", "dog/../..", "gone", "a\0b"])
def test_no_other_folder_is_told(folders: Path, name: str) -> None:
    (folders / "input" / "dog").mkdir()
    with pytest.raises(ValueError, match="expected a folder below"):
        picture_grid(name)


@pytest.mark.parametrize(("name", "served"), [("blocklora", True), ("a(1)-b", True), ("my pack", False), ("é", False)])
def test_a_folder_that_the_host_cannot_serve_is_told(name: str, served: bool) -> None:
    told = folder_problem(f"/home/a b/custom_nodes/{name}.blocklora_core.host.routes.serving")
    assert told is None if served else told and "Rename it" in told and repr(name) in told
