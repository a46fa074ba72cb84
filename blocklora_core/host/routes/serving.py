"""The routes, on the server that runs."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from ...files.untrusted.text import legible
from ..page import server
from .catalogue import catalogue
from .list_check import check_list
from .picture_grid import picture_grid
from .scene_check import look_ahead

MOST_LETTERS = 2**20
"""Of a list that is checked."""


def register() -> None:
    """Adds the routes to the server that runs; scripts and tests have none."""
    found = server()
    if found is not None:
        found.routes.get("/blocklora/files")(_files)
        found.routes.post("/blocklora/list")(_list)
        found.routes.get("/blocklora/pictures")(_pictures)
        found.routes.post("/blocklora/scene")(_scene)
        problem = folder_problem(__name__)
        if problem:
            logging.warning("BlockLoRA: %s", problem)


def folder_problem(module: str) -> str | None:
    """Why the page will get nothing of this pack, if so. The host calls the package by the path of its folder."""
    folder = Path(module.rpartition(".blocklora_core.")[0]).name
    if re.fullmatch(r"[!-~]+", folder):
        return None
    return (
        f"expected a folder in custom_nodes named in ASCII letters without spaces, got {folder!r}: ComfyUI serves "
        "no panel, template or help page from it. Rename it, to blocklora for example, and restart ComfyUI."
    )


async def _files(_: web.Request) -> web.Response:
    return await _answered(catalogue)


async def _list(request: web.Request) -> web.Response:
    try:
        text = str((await request.json())["files"])[:MOST_LETTERS]
    except (ValueError, LookupError, TypeError) as error:
        return web.json_response({"problem": f"expected a list as files, got: {error}"}, status=400)
    return await _answered(lambda: check_list(text))


async def _pictures(request: web.Request) -> web.Response:
    folder = request.query.get("folder", "")
    return await _answered(lambda: picture_grid(folder))


async def _scene(request: web.Request) -> web.Response:
    try:
        asked = await request.json()
        graph, node = asked["graph"], str(asked["node"])
        for one in (graph[node], *graph.values()):
            dict(one["inputs"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return web.json_response({"error": f"expected a graph and one of its nodes, got: {error}"}, status=400)
    return await _answered(lambda: look_ahead(graph, node))


async def _answered(work: Callable[[], Any]) -> web.Response:
    """What `work` gives, done beside the server's loop; what it cannot do is told."""
    try:
        return web.json_response(await asyncio.to_thread(work))
    except ValueError as error:
        return web.json_response({"problem": legible(str(error))})
