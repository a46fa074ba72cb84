"""The server of a soak, its folders on a small disk, and what must not get lost there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from launcher.environment.host import Host
from launcher.errors import LauncherError
from launcher.layout import Layout
from launcher.server import Server, running

from .graphs import CHECKPOINT, Graph

CLIENT = "soak"
DISK_MIB = 160
LEFT_FREE = 48 * 1024
"""Bytes that a full disk still has."""


class Fault(Exception):  # noqa: N818 - what is counted
    """Something went wrong that should not."""


class Lost(Exception):  # noqa: N818
    """Something learnt or saved is gone, or is another."""


@dataclass(frozen=True)
class NodeError(Exception):
    """A prompt that ended in an error, or was refused."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Watch(threading.Thread):
    """Listens to the server's progress. step: the last that the running prompt told."""

    def __init__(self, url: str):
        super().__init__(daemon=True)
        self.url, self.step = url.replace("http", "ws") + f"/ws?clientId={CLIENT}", 0

    def run(self) -> None:
        with suppress(aiohttp.ClientError, OSError, RuntimeError):
            asyncio.run(self._listen())

    async def _listen(self) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(self.url, max_msg_size=0) as socket:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    self._take(json.loads(message.data))

    def _take(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "progress":
            self.step = int(event["data"]["value"])


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of DISK_MIB at `folder`; False where this user may not mount one: then it is an ordinary folder."""
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    mounted = sys.platform == "linux" and subprocess.run(line, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


class World:
    """One server after the other on the same folders. kept: file -> hash, which stay until an action deletes them."""

    def __init__(self, comfyui: Path, root: Path, disk: Path, rng: Random):
        self.comfyui, self.root, self.disk, self.rng = comfyui, root, disk, rng
        self.kept: dict[Path, str] = {}
        self.names = 0
        self.lives = 0
        self._stack = ExitStack()
        self._lay_out()
        self.start()

    @property
    def loras(self) -> Path:
        return self.disk / "loras"

    @property
    def runs(self) -> Path:
        return self.disk / "user" / "blocklora" / "runs"

    def _lay_out(self) -> None:
        for folder in ("models/checkpoints", "custom_nodes", "input", "output", "temp"):
            (self.root / folder).mkdir(parents=True)
        for folder in ("loras", "user", "embeddings"):
            (self.disk / folder).mkdir()
        links = {
            f"models/checkpoints/{CHECKPOINT}": self.comfyui / "models" / "checkpoints" / CHECKPOINT,
            "custom_nodes/blocklora": Path(__file__).parents[2],
            "input/blocklora_demo": self.comfyui / "input" / "blocklora_demo",
        }
        for name, target in links.items():
            (self.root / name).symlink_to(target, target_is_directory=target.is_dir())
        lines = "".join(f"  {kind}: {kind}\n" for kind in ("loras", "embeddings"))
        text = f"soak:\n  base_path: {self.disk}\n  is_default: true\n{lines}"
        (self.root / "model_paths.yaml").write_text(text, "utf-8")

    def start(self) -> None:
        python = Path(sys.executable)
        host = Host(self.comfyui, python, python, Layout(self.root).cli_home, ours=False)
        arguments = ["--base-directory", str(self.root), "--user-directory", str(self.disk / "user")]
        arguments += ["--extra-model-paths-config", str(self.root / "model_paths.yaml")]
        arguments += ["--database-url", f"sqlite:///{self.root / 'db'}", "--disable-api-nodes"]
        self.log = self.root / f"server_{self.lives}.log"
        self.lives += 1
        self.server: Server = self._stack.enter_context(running(host, self.log, arguments))
        self.watch = Watch(self.server.url)
        self.watch.start()

    def close(self) -> None:
        """The server stops."""
        self._stack.close()

    def end(self, number: int, patience: float = 25.0) -> None:
        """The signal that ends the server, and another server. Fault when it does not end."""
        self.server.process.send_signal(number)
        try:
            self.server.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Fault(f"the server did not end within {patience:.0f} s of signal {number}") from None
        finally:
            self.close()
            self.start()

    def memory(self) -> int:
        """Bytes that the server takes."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text("utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def submit(self, graph: Graph) -> str:
        """The prompt's id. NodeError when the server refuses it."""
        self.watch.step = 0
        try:
            return str(self.server.post("/prompt", {"prompt": graph, "client_id": CLIENT})["prompt_id"])
        except LauncherError as error:
            raise NodeError("refused", str(error)) from error

    def reach(self, prompt: str, step: int) -> bool:
        """Wait for that step of the prompt; False when it ends before."""
        while self.watch.step < step:
            if self.server.get(f"/history/{prompt}"):
                return False
            self._alive()
            time.sleep(0.02)
        return True

    def outcome(self, prompt: str, patience: float = 1200.0) -> str:
        """What the nodes of a finished prompt told. NodeError when one failed or was interrupted."""
        limit = time.monotonic() + patience
        while not (found := self.server.get(f"/history/{prompt}")):
            self._alive()
            if time.monotonic() > limit:
                raise Fault(f"a prompt did not end within {patience:.0f} s")
            time.sleep(0.05)
        entry = found[prompt]
        for kind, data in entry["status"]["messages"]:
            if kind == "execution_error":
                raise NodeError(data["exception_type"], data["exception_message"])
            if kind == "execution_interrupted":
                raise NodeError(kind, "")
        return "\n".join(line for node in entry["outputs"].values() for line in node.get("text", ()))

    def run(self, graph: Graph) -> str:
        return self.outcome(self.submit(graph))

    def _alive(self) -> None:
        if self.server.process.poll() is not None:
            raise Fault(
                f"the server ended by itself, status {self.server.process.returncode}:\n{self.server.log_tail()}"
            )

    def new_name(self) -> str:
        self.names += 1
        return f"<soak{self.names}>"

    def keep(self, path: Path) -> None:
        """`path` is to stay as it is from now on. Lost when it is not there."""
        if not path.is_file():
            raise Lost(f"{path.name} was told as saved and is not there")
        self.kept[path] = digest(path)

    def delete(self, path: Path) -> None:
        path.unlink()
        self.kept.pop(path, None)

    def choice(self, most: int) -> list[Path]:
        """Some of the concepts' files, at random; none where there are fewer than two."""
        files = sorted(path for path in self.kept if path.parent.name == "soak")
        return self.rng.sample(files, self.rng.randint(2, min(most, len(files)))) if len(files) >= 2 else []

    def name_of(self, path: Path) -> str:
        """As lists of LoRAs call it."""
        return path.relative_to(self.loras).as_posix()

    @contextmanager
    def full(self) -> Iterator[None]:
        """No room is left on the disk while the block runs."""
        ballast = self.disk / "ballast"
        room = os.statvfs(self.disk)
        ballast.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - LEFT_FREE)))
        try:
            yield
        finally:
            ballast.unlink()

    def check(self) -> None:
        """The server answers, and all that was kept is there. Fault or Lost otherwise."""
        self._alive()
        self.server.get("/queue")
        for path, expected in list(self.kept.items()):
            if not path.is_file() or digest(path) != expected:
                del self.kept[path]
                raise Lost(f"{path.name} is gone or another")

    def leftovers(self) -> list[Path]:
        """Half-written files."""
        return sorted(self.disk.rglob("*.blocklora-tmp"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="blocklora_soak_", ignore_cleanup_errors=True)
