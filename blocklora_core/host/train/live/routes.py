"""The routes by which a page asks for a training's state and tells it to stop; they give text and numbers."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from ...page import server
from .board import BOARD, Run

ACTIONS: dict[str, Callable[[Run], None]] = {"stop": BOARD.stop, "use": BOARD.take, "resume": BOARD.go_on}


async def last_run(request: web.Request) -> web.Response:
    """GET /blocklora/run?node=...&workflow=...: the state of the node's last run, or null."""
    run = BOARD.find(request.query.get("node", ""), request.query.get("workflow", ""))
    return web.json_response(run.state() if run else None)


async def act(request: web.Request) -> web.Response:
    """POST /blocklora/run/{id}/{action}: stop, use or resume; the state afterwards."""
    run, action = BOARD.runs.get(request.match_info["id"]), ACTIONS.get(request.match_info["action"])
    if run is None or action is None:
        raise web.HTTPNotFound(text="There is no such run, or no such action.")
    action(run)
    return web.json_response(run.state())


def add_routes() -> None:
    """Registers the routes with the host's server, where there is one."""
    found = server()
    if found is not None:
        found.routes.get("/blocklora/run")(last_run)
        found.routes.post("/blocklora/run/{id}/{action}")(act)
