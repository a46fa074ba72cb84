"""The templates and subgraphs as files: what ComfyUI's lists show, and how they lie on the canvas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from PIL import Image

from launcher.shipped.blocks import BLOCKS
from launcher.shipped.files import SUBGRAPHS, WORKFLOWS
from launcher.shipped.graph import BARS, SCREEN, TITLE
from launcher.shipped.story import Column
from launcher.shipped.templates import TEMPLATES
from tests.conftest import ROOT

TITLES = [story.title for story in TEMPLATES]
READABLE = 0.58
"""Scale below which text on nodes cannot be read: 14 pixels become 8."""

Json = dict[str, Any]


def opened(folder: str, title: str) -> Json:
    found: Json = json.loads((ROOT / folder / f"{title}.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(params=TITLES)
def template(request: pytest.FixtureRequest) -> Json:
    return opened(WORKFLOWS, request.param)


def nodes(template: Json) -> list[Json]:
    return [node for node in template["nodes"] if node["type"] != "MarkdownNote"]


def test_each_template_and_subgraph_has_its_file_and_thumbnail() -> None:
    assert {path.name for path in (ROOT / WORKFLOWS).iterdir()} == {f"{t}.{e}" for t in TITLES for e in ("json", "jpg")}
    assert {path.stem for path in (ROOT / SUBGRAPHS).iterdir()} == {block.title for block in BLOCKS}
    for title in TITLES:
        path = ROOT / WORKFLOWS / f"{title}.jpg"
        with Image.open(path) as picture:
            assert picture.size == (512, 512)
            # ComfyUI's browser of templates lays a badge there.
            assert min(picture.convert("L").crop((0, 0, 250, 72)).tobytes()) > 240
        assert path.stat().st_size < 60_000


def test_titles_are_words() -> None:
    assert all(" " in title and not set(title) & set('/\\:*?"<>|#%_') for title in TITLES)
    assert len(TITLES) == len(set(TITLES)) == 7


def test_no_template_is_called_as_a_subgraph() -> None:
    """Frontend 1.32 would open the subgraph in its place, and save it there."""
    assert not {story.title for story in TEMPLATES} & {block.title for block in BLOCKS}


def test_it_is_short_and_says_what_it_needs(template: Json) -> None:
    assert 4 <= len(nodes(template)) <= 9
    notes = [node["widgets_values"][0] for node in template["nodes"] if node["type"] == "MarkdownNote"]
    assert len(notes) == 1
    assert all(word in notes[0] for word in ("## ", "**You need**", "**Change**", "**Checkpoint**"))


def test_the_checkpoint_is_chosen_in_one_place(template: Json) -> None:
    loaders = [node for node in nodes(template) if node["type"] == "CheckpointLoaderSimple"]
    assert len(loaders) == 1
    (model,) = loaders[0]["properties"]["models"]
    assert loaders[0]["widgets_values"] == [model["name"]]
    assert model["directory"] == "checkpoints" and model["url"].startswith("https://") and model["name"] in model["url"]


def box(node: Json, grows: int = 0) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, with the title and what a run adds."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height + grows


def overlaps(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def graphs() -> Iterator[tuple[str, Json, list[int]]]:
    """Name, graph, and what a run adds to each of its nodes."""
    for story in TEMPLATES:
        yield story.title, opened(WORKFLOWS, story.title), growth(story.columns)
    for block in BLOCKS:
        (inner,) = opened(SUBGRAPHS, block.title)["definitions"]["subgraphs"]
        yield f"subgraph {block.title}", inner, growth(block.columns)


def growth(columns: tuple[Column, ...]) -> list[int]:
    return [one.grows for column in columns for one in column.nodes]


@pytest.mark.parametrize(("_name", "graph", "grows"), list(graphs()))
def test_nothing_overlaps_and_groups_hold_their_nodes(_name: str, graph: Json, grows: list[int]) -> None:
    boxes = {node["id"]: box(node, more) for node, more in zip(graph["nodes"], grows, strict=True)}
    assert [pair for pair in combinations(boxes, 2) if overlaps(boxes[pair[0]], boxes[pair[1]])] == []
    frames = [(x, y, x + width, y + height) for x, y, width, height in (one["bounding"] for one in graph["groups"])]
    assert [pair for pair in combinations(frames, 2) if overlaps(*pair)] == []
    for lies in boxes.values():
        assert any(f[0] < lies[0] and f[1] < lies[1] and lies[2] < f[2] and lies[3] < f[3] for f in frames)


def test_it_opens_whole_and_readable(template: Json) -> None:
    scale, offset = template["extra"]["ds"]["scale"], template["extra"]["ds"]["offset"]
    assert scale >= READABLE
    for x, y, width, height in (group["bounding"] for group in template["groups"]):
        corners = [
            ((at + move) * scale, (at + size + move) * scale)
            for at, size, move in zip((x, y), (width, height), offset, strict=True)
        ]
        assert all(
            bar <= least and most <= size for (least, most), bar, size in zip(corners, BARS, SCREEN, strict=True)
        )


@pytest.mark.parametrize("title", TITLES)
def test_the_links_of_a_template_hold(title: str) -> None:
    template = opened(WORKFLOWS, title)
    links = {link[0]: link for link in template["links"]}
    by_id = {node["id"]: node for node in template["nodes"]}
    for number, source, slot, target, place, kind in links.values():
        output, taken = by_id[source]["outputs"][slot], by_id[target]["inputs"][place]
        assert number in output["links"] and taken["link"] == number
        assert kind in (output["type"], taken["type"]) and output["type"] == taken["type"]
    named = [one["link"] for node in template["nodes"] for one in node["inputs"] if one["link"] is not None]
    assert sorted(named) == sorted(links) == list(range(1, template["last_link_id"] + 1))
    assert [node["id"] for node in template["nodes"]] == list(range(1, template["last_node_id"] + 1))


def test_a_story_goes_from_left_to_right(template: Json) -> None:
    by_id = {node["id"]: node for node in template["nodes"]}
    for _number, source, _slot, target, _place, _kind in template["links"]:
        assert by_id[source]["pos"][0] <= by_id[target]["pos"][0]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.title)
def test_a_subgraph_is_one_node_whose_face_fits(block: Any) -> None:
    saved = opened(SUBGRAPHS, block.title)
    (face,), (inner,) = saved["nodes"], saved["definitions"]["subgraphs"]
    assert face["type"] == inner["id"] and face["title"] == inner["name"] == block.title
    for side in ("inputs", "outputs"):
        assert [(one["name"], one["type"]) for one in face[side]] == [(one["name"], one["type"]) for one in inner[side]]
    shown = [one["name"] for one in face["inputs"] if "widget" in one]
    assert len(shown) == len(face["widgets_values"])
    by_id = {node["id"]: node for node in inner["nodes"]}
    links = {link["id"]: link for link in inner["links"]}
    for slot, one in enumerate(inner["inputs"]):
        for link in (links[number] for number in one["linkIds"]):
            taken = by_id[link["target_id"]]["inputs"][link["target_slot"]]
            assert (link["origin_id"], link["origin_slot"], taken["link"]) == (-10, slot, link["id"])
            assert taken["type"] == one["type"]
    for slot, one in enumerate(inner["outputs"]):
        (link,) = (links[number] for number in one["linkIds"])
        given = by_id[link["origin_id"]]["outputs"][link["origin_slot"]]
        assert (link["target_id"], link["target_slot"]) == (-20, slot) and given["type"] == one["type"]


def test_readable_on_windows_and_without_the_demo() -> None:
    for path in (*(ROOT / WORKFLOWS).glob("*.json"), *(ROOT / SUBGRAPHS).glob("*.json")):
        assert "blocklora_demo" not in path.read_text(encoding="utf-8")
