"""Runs a workflow file on a server through comfy-cli and shows its progress."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import LauncherError
from .server import ADDRESS, Server
from .terminal import Activity, bar

# comfy-cli gives up when the server is silent for this long; a node may need minutes before its first step.
SILENCE_SECONDS = 1800

Event = Mapping[str, Any]
Graph = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Picture:
    """One file that a node gave out, as ComfyUI names it."""

    filename: str
    subfolder: str
    kind: str

    def path(self, output: Path) -> Path:
        """Where it lies, `output` being ComfyUI's output folder; temporary ones lie beside it."""
        root = output if self.kind == "output" else output.parent / self.kind
        return root / self.subfolder / self.filename


@dataclass
class Run:
    """What a finished prompt left behind."""

    prompt_id: str = ""
    node_seconds: list[tuple[str, float]] = field(default_factory=list)


class Progress:
    """Turns comfy-cli's events into activities, one per node."""

    def __init__(self) -> None:
        self.run = Run()
        self.failure: str | None = None
        self._titles: dict[str, str] = {}
        self._open: Activity | None = None

    def take(self, event: Event) -> None:
        """Shows one event; those without a handler tell nothing that a user waits for."""
        handler = self.HANDLERS.get(str(event.get("type")))
        if handler:
            handler(self, event)

    def close(self, verdict: str = "done") -> None:
        """Ends the line of the node that is running."""
        if self._open:
            self.run.node_seconds.append((self._open.title.strip(), self._open.elapsed))
            self._open.finish(verdict)
            self._open = None

    def _queued(self, event: Event) -> None:
        self.run.prompt_id = event["prompt_id"]
        self._titles = {node["node_id"]: node["title"] for node in event["nodes"]}

    def _executing(self, event: Event) -> None:
        self.close()
        node = str(event["node"])
        place = f"[{len(self.run.node_seconds) + 1}/{len(self._titles)}]"
        self._open = Activity(f"  {place} {event.get('title') or self._titles.get(node, node)}")
        self._open.start()

    def _progress(self, event: Event) -> None:
        if self._open:
            self._open.say(bar(event["completed"], event["total"]))

    def _envelope(self, event: Event) -> None:
        if not event["ok"]:
            self.failure = describe_failure(event["error"])
        self.close("failed" if self.failure else "done")

    HANDLERS = {  # noqa: RUF012 - a table of methods, never changed
        "queued": _queued,
        "executing": _executing,
        "progress": _progress,
        "envelope": _envelope,
    }


def describe_failure(error: Mapping[str, Any]) -> str:
    """The node's error, as comfy-cli reports it, in readable lines."""
    details = error.get("details") or {}
    title = f'In the node "{details["title"]}": ' if details.get("title") else ""
    lines = [title + str(error.get("message"))]
    lines += [f"  node {e.get('node_id')}: {e.get('message')} ({e.get('hint', '')})" for e in details.get("errors", ())]
    lines += [part.rstrip() for part in details.get("traceback_tail", ())]
    if not details and error.get("hint"):
        lines.append(str(error["hint"]))
    return "\n".join(lines)


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects among the lines; anything else that a tool prints is passed over."""
    for line in lines:
        if line.lstrip().startswith("{"):
            yield json.loads(line)


def _cli_run(server: Server, workflow: Path, *more: str) -> list[str]:
    place = ["--host", ADDRESS, "--port", str(server.port), "--timeout", str(SILENCE_SECONDS)]
    return server.host.cli("run", "--workflow", str(workflow), "--json", *place, *more)


@contextmanager
def _events_of(server: Server, line: list[str]) -> Iterator[Iterator[dict[str, Any]]]:
    notes = server.log.with_suffix(".comfy-cli.log")
    with notes.open("ab") as sink:
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            encoding="utf-8",
            env=server.host.cli_environment(),
        )
        try:
            yield events(iter(process.stdout or ()))
        finally:
            process.kill()
            process.communicate()


def run(server: Server, workflow: Path) -> Run:
    """Runs the workflow (UI or API format) to its end; LauncherError carries the failing node's error."""
    progress = Progress()
    with _events_of(server, _cli_run(server, workflow, "--wait")) as stream:
        try:
            for event in stream:
                progress.take(event)
        finally:
            progress.close("stopped")
    if progress.failure is None and not progress.run.prompt_id:
        progress.failure = "comfy-cli ended without a result"
    if progress.failure:
        raise LauncherError(f"{workflow.name} failed. {progress.failure}\nServer log: {server.log}")
    return progress.run


def to_api(server: Server, workflow: Path) -> Graph:
    """The workflow in API form, as comfy-cli converts it with the server's node definitions."""
    with _events_of(server, _cli_run(server, workflow, "--print-prompt")) as stream:
        final = next((event for event in stream if event["type"] == "envelope"), None)
    if final is None or not final["ok"]:
        raise LauncherError(f"{workflow.name}: {describe_failure(final['error']) if final else 'not converted'}")
    graph: Graph = final["data"]["prompt"]
    return graph


def apply(graph: Graph, overrides: Mapping[str, Mapping[str, Any]]) -> Graph:
    """The graph with inputs replaced; nodes are named by id, title or class, and a class may mean several."""
    changed = {key: {**node, "inputs": dict(node["inputs"])} for key, node in graph.items()}
    for name, values in overrides.items():
        found = [node for key, node in changed.items() if name in (key, node["class_type"], title_of(node))]
        if not found:
            raise LauncherError(f"the workflow has no node {name}; it has {sorted(map(title_of, changed.values()))}")
        for node in found:
            unknown = sorted(set(values) - set(node["inputs"]))
            if unknown:
                raise LauncherError(f"node {name} has no input {unknown}; it has {sorted(node['inputs'])}")
            node["inputs"].update(values)
    return changed


def title_of(node: Mapping[str, Any]) -> str:
    """The title of a node of an API graph."""
    return str(node.get("_meta", {}).get("title", node["class_type"]))


def pictures(server: Server, prompt_id: str) -> list[Picture]:
    """The files that the prompt's nodes gave out, from the server's history."""
    outputs = server.get(f"/history/{prompt_id}")[prompt_id]["outputs"]
    entries = [entry for node in outputs.values() for entry in node.get("images", ())]
    return [Picture(e["filename"], e.get("subfolder", ""), e.get("type", "output")) for e in entries]


def execute(server: Server, graph: Graph, timeout: float = 600.0) -> dict[str, Any]:
    """Runs an API graph through /prompt and returns its history entry; raises LauncherError when it fails."""
    prompt_id = server.post("/prompt", {"prompt": graph})["prompt_id"]
    limit = time.monotonic() + timeout
    while time.monotonic() < limit:
        entry: dict[str, Any] | None = server.get(f"/history/{prompt_id}").get(prompt_id)
        if entry:
            return _checked(entry)
        if server.process.poll() is not None:
            raise LauncherError(f"ComfyUI ended during the prompt. The end of {server.log}:\n{server.log_tail()}")
        time.sleep(0.1)
    server.post("/interrupt", {})
    raise LauncherError(f"the prompt did not end within {timeout:.0f} s")


def _checked(entry: dict[str, Any]) -> dict[str, Any]:
    if entry["status"]["status_str"] == "success":
        return entry
    for kind, data in entry["status"]["messages"]:
        if kind == "execution_error":
            trace = "".join(data["traceback"])
            raise LauncherError(f"{data['node_type']}: {data['exception_message']}\n{trace}")
    raise LauncherError(f"the prompt was interrupted: {entry['status']['messages']}")
