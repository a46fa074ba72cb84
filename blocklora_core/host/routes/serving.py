"""The routes, on the server that runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from aiohttp import web

from .catalogue import catalogue
from .list_check import check_list
from .picture_grid import picture_grid
from .scene_check import look_ahead

MOST_LETTERS = 2**20
"""Of a list that is checked."""


def register() -> None:
    """Adds the routes to the server that runs; scripts and tests have none."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is None:
        return
    server.routes.get("/blocklora/files")(_files)
    server.routes.post("/blocklora/list")(_list)
    server.routes.get("/blocklora/pictures")(_pictures)
    server.routes.post("/blocklora/scene")(_scene)


async def _files(_: web.Request) -> web.Response:
    return await _answered(catalogue)


async def _list(request: web.Request) -> web.Response:
    try:
        text = str((await request.json())["files"])[:MOST_LETTERS]
    except (ValueError, LookupError, TypeError) as error:
        return web.json_response({"error": f"expected a list as files, got: {error}"}, status=400)
    return await _answered(lambda: check_list(text))


async def _pictures(request: web.Request) -> web.Response:
    folder = request.query.get("folder", "")
    return await _answered(lambda: picture_grid(folder))


async def _scene(request: web.Request) -> web.Response:
    asked = await request.json()
    return await _answered(lambda: look_ahead(asked["graph"], asked["node"]))


async def _answered(work: Callable[[], Any]) -> web.Response:
    """What `work` gives, done beside the server's loop; what it cannot do is told."""
    try:
        return web.json_response(await asyncio.to_thread(work))
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=400)
