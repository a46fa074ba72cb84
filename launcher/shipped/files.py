"""Every file that is made from these tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .blocks import BLOCKS
from .graph import blueprint, workflow
from .kinds import Info
from .locales import locales
from .templates import TEMPLATES

WORKFLOWS, SUBGRAPHS = "example_workflows", "subgraphs"


def files(info: Info) -> dict[str, str]:
    """Path below the pack's root -> text. info: /object_info of a server with this pack.

    The same on every ComfyUI from 0.3.75 on. ValueError where a table does not fit the nodes.
    """
    return dict(_files(info))


def _files(info: Info) -> Iterator[tuple[str, str]]:
    for story in TEMPLATES:
        yield f"{WORKFLOWS}/{story.title}.json", _text(workflow(info, story))
    for block in BLOCKS:
        yield f"{SUBGRAPHS}/{block.title}.json", _text(blueprint(info, block))
    for name, content in locales(info):
        yield name, _text(content)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
