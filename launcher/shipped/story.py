"""A graph as its author tells it: columns of nodes from left to right, each column a step of the story."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Wire = tuple[str, str]
"""The key of a node and the name of one of its outputs."""


@dataclass(frozen=True)
class Node:
    """One node. size: (width, height) without its title; grows: what a run may add below, such as its report.

    values: widgets that differ from their defaults. models: files to download, as ComfyUI's own templates name them.
    """

    key: str
    type: str
    size: tuple[int, int]
    wires: Mapping[str, Wire] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    grows: int = 0
    models: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Note:
    """Markdown beside the nodes."""

    text: str
    size: tuple[int, int]
    grows: int = 0


@dataclass(frozen=True)
class Column:
    """A step: a group around its nodes, one below the other. Without a title it belongs to the column before it."""

    title: str
    nodes: tuple[Node | Note, ...]


@dataclass(frozen=True)
class Story:
    """A template. Its title is the name of its file. blocks: subgraphs that its nodes' types name by title."""

    title: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(one for column in self.columns for one in column.nodes if isinstance(one, Node))


@dataclass(frozen=True)
class Block:
    """A subgraph: columns of nodes behind one face.

    inputs: name -> the (key, input) within that it feeds, one or more; outputs: name -> the wire that it gives out.
    """

    title: str
    description: str
    size: tuple[int, int]
    columns: tuple[Column, ...]
    inputs: Mapping[str, tuple[Wire, ...]]
    outputs: Mapping[str, Wire]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(one for column in self.columns for one in column.nodes if isinstance(one, Node))
