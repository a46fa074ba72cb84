"""Starts a real ComfyUI server, waits until it answers, and stops it in every case."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environment.host import Host, has_accelerator
from .errors import LauncherError
from .terminal import Activity, activity

ADDRESS = "127.0.0.1"
START_SECONDS = 300.0
POLL_SECONDS = 0.2
# How long each, milder, way to stop is given before the next.
STOP_SECONDS = 5.0
TAIL_LINES = 25


@dataclass(frozen=True)
class Server:
    """A running ComfyUI."""

    host: Host
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}"

    def get(self, path: str) -> Any:
        """The JSON answer to GET `path`."""
        return ask(self.url + path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON answer to POST `path` with a JSON body; an HTTP error is raised with what it says."""
        return ask(self.url + path, body)

    def log_tail(self) -> str:
        """The last lines of the server's log, indented."""
        return tail(self.log)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file, indented."""
    if not log.is_file():
        return "  (no log)"
    return "\n".join("  " + line for line in log.read_text("utf-8", errors="replace").splitlines()[-lines:])


def ask(url: str, body: Mapping[str, Any] | None = None, timeout: float = 30.0) -> Any:
    """GETs `url`, or POSTs `body` to it, and returns the parsed JSON answer, None for an empty one."""
    data = json.dumps(body).encode("utf-8") if body is not None else None
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    # A proxy of the user's is for other machines.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            said = answer.read()
            return json.loads(said) if said else None
    except urllib.error.HTTPError as error:
        reason = error.read().decode("utf-8", "replace")
        raise LauncherError(f"{url} answered {error.code}: {reason[:3000]}") from error


def free_port(preferred: int = 0) -> int:
    """The preferred port if it is free, else any free one."""
    with socket.socket() as probe:
        try:
            probe.bind((ADDRESS, preferred))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])


def command(host: Host, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment variables that start ComfyUI.

    comfy-cli launches our own ComfyUI. It cannot be told which interpreter a user's ComfyUI has (it takes the
    active environment, else a venv inside, else its own Python), so there main.py is started directly.
    """
    if host.ours:
        launch = host.cli("--workspace", str(host.root), "launch", "--", *arguments)
        return launch, host.cli_environment()
    return [str(host.python), str(host.root / "main.py"), *arguments], host.environment()


def arguments(host: Host, port: int, extra: Sequence[str] = ()) -> list[str]:
    """ComfyUI's arguments: the port, no browser, the CPU where torch sees nothing else."""
    cpu = [] if "--cpu" in extra or has_accelerator(host) else ["--cpu"]
    return ["--port", str(port), "--disable-auto-launch", *cpu, *extra]


def _spawn(host: Host, port: int, log: Path, extra: Sequence[str]) -> subprocess.Popen[bytes]:
    line, environment = command(host, arguments(host, port, extra))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        return subprocess.Popen(
            line,
            cwd=host.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            # A group of its own: Ctrl-C reaches us alone, and the whole group can be stopped.
            start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


def _await_answer(server: Server, show: Activity, limit: float) -> None:
    while show.elapsed < limit:
        if server.process.poll() is not None:
            raise LauncherError(
                f"ComfyUI ended with status {server.process.returncode} while starting. "
                f"The end of {server.log}:\n{server.log_tail()}"
            )
        try:
            server.get("/system_stats")
            return
        except (OSError, ValueError):
            time.sleep(POLL_SECONDS)
    raise LauncherError(f"ComfyUI did not answer within {limit:.0f} s. The end of {server.log}:\n{server.log_tail()}")


if os.name == "nt":

    def _signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
        # /T takes the children along: comfy-cli is the parent of the Python that serves.
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
        yield
else:

    def _signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if not _group_alive(process.pid):
                return
            os.killpg(process.pid, number)
            yield

    def _group_alive(group: int) -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stops a server and its children: first politely, then by force."""
    for _ in _signals(process):
        limit = time.monotonic() + STOP_SECONDS
        while time.monotonic() < limit and not _ended(process):
            time.sleep(0.05)
    process.wait()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None and (os.name == "nt" or not _group_alive(process.pid))


@contextmanager
def running(host: Host, log: Path, extra: Sequence[str] = (), port: int = 0) -> Iterator[Server]:
    """A ComfyUI server that answers, on a free port; it is stopped when the body ends, however it ends.

    `extra` are further arguments for ComfyUI's main.py. LauncherError shows the log's end if it dies.
    """
    chosen = free_port(port)
    with activity("starting ComfyUI") as show:
        process = _spawn(host, chosen, log, extra)
        server = Server(host, chosen, log, process)
        try:
            _await_answer(server, show, START_SECONDS)
        except BaseException:
            stop(process)
            raise
    try:
        yield server
    finally:
        stop(process)


def serve(host: Host, port: int, log: Path, extra: Sequence[str], browser: bool = True) -> int:
    """Runs ComfyUI, opens it in the browser where there is one, and ends with it or with Ctrl-C; its exit status.

    What it logs goes to `log`. LauncherError shows the end of it if ComfyUI dies while it starts.
    """
    with running(host, log, extra, port) as server:
        print(f"ComfyUI is at {server.url} and logs to {log}. Ctrl-C stops it.", flush=True)
        if browser and _has_screen():
            webbrowser.open(server.url)
        return server.process.wait()


def _has_screen() -> bool:
    # Without one, the browser that is found would be one in the terminal.
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
