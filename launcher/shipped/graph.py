"""Stories as ComfyUI's workflow files: places, links, groups, subgraphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from .kinds import Info, Kind, kind_of
from .story import Block, Column, Node, Note, Story

TITLE = 30
"""Height of a node's title, above its place."""

GAP, MARGIN, HEADING = 24, 16, 44
COLOUR, FONT = "#3f789e", 24
SCREEN = (1440, 900)
"""A small screen: what a template should fit into when it opens."""

BARS = (75, 135)
"""What the page's own bars take at the left and the top."""

INPUT_NODE, OUTPUT_NODE = -10, -20

Json = dict[str, Any]


def _id(*parts: str) -> str:
    return str(uuid5(NAMESPACE_URL, "blocklora " + " ".join(parts)))


@dataclass(frozen=True)
class Placed:
    """A node or note of a story and where it lies: x, y, width, height, without the title and what a run adds."""

    what: Node | Note
    box: tuple[int, int, int, int]

    @property
    def bottom(self) -> int:
        """Where it ends after a run."""
        return self.box[1] + self.box[3] + self.what.grows


def placed(columns: Sequence[Column]) -> list[list[Placed]]:
    """Each column's nodes, one below the other; columns from left to right."""
    found, x = [], 0
    for number, column in enumerate(columns):
        # A new group begins with a margin of its own.
        x += GAP + (2 * MARGIN if number and column.title else 0) if number else 0
        y, width, lies = 0, max(one.size[0] for one in column.nodes), []
        for one in column.nodes:
            lies.append(Placed(one, (x, y, width, one.size[1])))
            y += one.size[1] + one.grows + TITLE + GAP
        found.append(lies)
        x += width
    return found


def _groups(columns: Sequence[Column], lies: Sequence[Sequence[Placed]]) -> Iterator[Json]:
    starts = [number for number, column in enumerate(columns) if column.title]
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(columns)], strict=True), 1):
        held = [one for column in lies[start:end] for one in column]
        left, right = min(one.box[0] for one in held), max(one.box[0] + one.box[2] for one in held)
        bottom = max(one.bottom for one in held)
        top = -TITLE - HEADING
        yield {
            "id": number,
            "title": columns[start].title,
            "bounding": [left - MARGIN, top, right - left + 2 * MARGIN, bottom + MARGIN - top],
            "color": COLOUR,
            "font_size": FONT,
            "flags": {},
        }


def _view(groups: Sequence[Json]) -> Json:
    """Scale and offset at which all groups fit the screen."""
    left = min(group["bounding"][0] for group in groups)
    top = min(group["bounding"][1] for group in groups)
    right = max(group["bounding"][0] + group["bounding"][2] for group in groups)
    bottom = max(group["bounding"][1] + group["bounding"][3] for group in groups)
    room = [size - bar for size, bar in zip(SCREEN, BARS, strict=True)]
    scale = round(min(1.0, room[0] / (right - left + 2 * GAP), room[1] / (bottom - top + 2 * GAP)), 2)
    return {"scale": scale, "offset": [round(BARS[0] / scale) + GAP - left, round(BARS[1] / scale) + GAP - top]}


class _Scope:
    """The nodes and links of one graph while it is made: of a story, or of a block."""

    def __init__(self, info: Info, columns: Sequence[Column], blocks: Mapping[str, Block]):
        self.blocks, self.info = blocks, info
        self.lies = placed(columns)
        self.columns = columns
        flat = [one for column in self.lies for one in column]
        self.numbers = {one.what.key: number for number, one in enumerate(flat, 1) if isinstance(one.what, Node)}
        self.kinds = {one.what.key: self._kind(one.what.type) for one in flat if isinstance(one.what, Node)}
        self.links: list[tuple[int, int, int, int, int, str]] = []
        self.nodes = [self._node(number, one) for number, one in enumerate(flat, 1)]
        for one in flat:
            if isinstance(one.what, Node):
                self._connect(one.what)

    def finished(self) -> list[Json]:
        """The nodes, without what not every host gives out and nobody takes."""
        for node in self.nodes:
            while node["outputs"] and not node["outputs"][-1]["links"] and not _is_face(node):
                node["outputs"].pop()
        return self.nodes

    def _kind(self, node_type: str) -> Kind:
        if node_type in self.blocks:
            return face(self.info, self.blocks[node_type])
        return kind_of(self.info, node_type)

    def _node(self, number: int, lies: Placed) -> Json:
        x, y, width, height = lies.box
        made: Json = {"id": number, "pos": [x, y], "size": [width, height], "flags": {}, "order": number - 1, "mode": 0}
        if isinstance(lies.what, Note):
            note = {"type": "MarkdownNote", "properties": {}, "widgets_values": [lies.what.text], "title": "Read me"}
            return {**made, "inputs": [], "outputs": [], **note}
        node, kind = lies.what, self.kinds[lies.what.key]
        # All inputs, in the page's order: frontend 1.32 sorts them, but not the links of a subgraph's own inputs.
        made |= {"type": node.type, "inputs": [_entry(kind, name) for name in kind.inputs]}
        made |= {"outputs": [_slot(name, of) for name, of in kind.outputs.items()]}
        made |= {"properties": _properties(node), "widgets_values": kind.values(node.values)}
        if node.type in self.blocks:
            made |= {"type": _id("block", node.type), "properties": {"cnr_id": "blocklora"}, "title": node.type}
        return made | ({"title": node.title} if node.title else {})

    def _connect(self, node: Node) -> None:
        for name, (source, output) in node.wires.items():
            outputs = list(self.kinds[source].outputs)
            if output not in outputs:
                raise ValueError(f"{node.key}.{name}: expected an output among {outputs} of {source}, got {output}")
            slot = outputs.index(output)
            link = self.link(self.numbers[source], slot, node.key, name)
            self.nodes[self.numbers[source] - 1]["outputs"][slot]["links"].append(link)

    def link(self, source: int, slot: int, key: str, name: str) -> int:
        """A link to an input of the node `key`; ValueError when it has none of that name."""
        kind, number = self.kinds[key], len(self.links) + 1
        if name not in kind.inputs:
            raise ValueError(f"{key}: expected an input among {list(kind.inputs)}, got {name}")
        inputs = self.nodes[self.numbers[key] - 1]["inputs"]
        place = list(kind.inputs).index(name)
        inputs[place]["link"] = number
        self.links.append((number, source, slot, self.numbers[key], place, kind.inputs[name]))
        return number


def _is_face(node: Json) -> bool:
    return "Node name for S&R" not in node["properties"]


def _slot(name: str, kind: str) -> Json:
    return {"name": name, "type": kind, "links": []}


def _entry(kind: Kind, name: str) -> Json:
    entry: Json = {"name": name, "type": kind.inputs[name], "link": None}
    return entry | ({"widget": {"name": name}} if name in kind.widgets else {})


def _properties(node: Node) -> Json:
    ours = node.type.startswith("BlockLoRA")
    told: Json = {"Node name for S&R": node.type, "cnr_id": "blocklora" if ours else "comfy-core"}
    return told | ({"models": [dict(one) for one in node.models]} if node.models else {})


def face(info: Info, block: Block) -> Kind:
    """A block as a kind of node."""
    kinds = {node.key: kind_of(info, node.type) for node in block.nodes}
    inputs, widgets = {}, {}
    for name, targets in block.inputs.items():
        key, inner = targets[0]
        inputs[name] = kinds[key].inputs[inner]
        if inner in kinds[key].widgets:
            node = next(node for node in block.nodes if node.key == key)
            widgets[name] = node.values.get(inner, kinds[key].widgets[inner])
    outputs = {name: kinds[key].outputs[output] for name, (key, output) in block.outputs.items()}
    return Kind(inputs, outputs, widgets, frozenset())


def workflow(info: Info, story: Story) -> Json:
    """A story as a workflow file. info: /object_info of a server. ValueError for nodes and wires that do not fit it."""
    scope = _Scope(info, story.columns, {block.title: block for block in story.blocks})
    groups = list(_groups(story.columns, scope.lies))
    made: Json = {
        "id": _id("story", story.title),
        "revision": 0,
        "last_node_id": len(scope.nodes),
        "last_link_id": len(scope.links),
        "nodes": scope.finished(),
        "links": [list(link) for link in scope.links],
        "groups": groups,
    }
    if story.blocks:
        made["definitions"] = {"subgraphs": [definition(info, block) for block in story.blocks]}
    return made | {"config": {}, "extra": {"ds": _view(groups)}, "version": 0.4}


def blueprint(info: Info, block: Block) -> Json:
    """A block as a file of `subgraphs/`: a graph of this one node."""
    node = Node("block", block.title, block.size)
    made = workflow(info, Story(block.title, (Column(block.title, (node,)),), (block,)))
    return made | {"groups": [], "extra": {"BlueprintDescription": block.description}}


def definition(info: Info, block: Block) -> Json:
    """A block as an entry of definitions.subgraphs."""
    scope = _Scope(info, block.columns, {})
    kind = face(info, block)
    fed = {
        name: [scope.link(INPUT_NODE, slot, *target) for target in targets]
        for slot, (name, targets) in enumerate(block.inputs.items())
    }
    given = {}
    for slot, (name, (key, output)) in enumerate(block.outputs.items()):
        number, own = len(scope.links) + 1, list(scope.kinds[key].outputs).index(output)
        scope.links.append((number, scope.numbers[key], own, OUTPUT_NODE, slot, kind.outputs[name]))
        scope.nodes[scope.numbers[key] - 1]["outputs"][own]["links"].append(number)
        given[name] = number
    right = max(one.box[0] + one.box[2] for column in scope.lies for one in column)
    return {
        "id": _id("block", block.title),
        "version": 1,
        "state": {
            "lastGroupId": 0,
            "lastNodeId": len(scope.nodes),
            "lastLinkId": len(scope.links),
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": block.title,
        "description": block.description,
        "category": "BlockLoRA",
        "inputNode": _edge(INPUT_NODE, -220, len(fed)),
        "outputNode": _edge(OUTPUT_NODE, right + 100, len(given)),
        "inputs": [
            {"id": _id(block.title, "in", name), "name": name, "type": kind.inputs[name], "linkIds": links}
            for name, links in fed.items()
        ],
        "outputs": [
            {"id": _id(block.title, "out", name), "name": name, "type": kind.outputs[name], "linkIds": [link]}
            for name, link in given.items()
        ],
        "widgets": [],
        "nodes": scope.finished(),
        "groups": list(_groups(block.columns, scope.lies)),
        "links": [
            dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
            for link in scope.links
        ],
        "extra": {},
    }


def _edge(number: int, x: int, slots: int) -> Json:
    return {"id": number, "bounding": [x, 0, 120, 40 + 20 * slots]}
