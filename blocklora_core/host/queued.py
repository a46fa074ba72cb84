"""The graph that is being queued, while the host asks its nodes whether they can run: it tells each only its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from .page import server

Graph = Mapping[str, Mapping[str, Any]]
"""As it is queued: number of a node -> class_type, and inputs, of which a link is [number of a node, its output]."""

_queued: ContextVar[Graph] = ContextVar("blocklora_queued")


def listen() -> None:
    """Keeps what is queued on the server that runs; scripts and tests have none."""
    found = server()
    if found is not None:
        found.add_on_prompt_handler(_keep)


def queued() -> Graph:
    """The graph that this request queues; empty where there is none."""
    return _queued.get({})


def _keep(request: dict[str, Any]) -> dict[str, Any]:
    graph = request.get("prompt")
    _queued.set(graph if isinstance(graph, dict) else {})
    return request
