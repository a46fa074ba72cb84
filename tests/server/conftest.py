"""A real ComfyUI server with this pack, for as long as the tests run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher.environment.link import link_pack
from launcher.server import Server, running
from launcher.workflow import Picture, apply, execute, pictures, to_api
from tests.hosting import host_of, put_demo

HERE = Path(__file__).parent
STEPS = 8
SAMPLER_STEPS = 4


@dataclass(frozen=True)
class Outcome:
    """What a prompt left behind: its history entry, the pictures it saved and the .safetensors in `loras`."""

    history: dict[str, Any]
    pictures: list[Path]
    loras: list[Path]


@dataclass(frozen=True)
class ComfyUI:
    """The running server and its scratch folders; `loras` is where the pack saves by default."""

    server: Server
    output: Path
    loras: Path
    controlnets: Path

    def run_workflow(
        self, path: Path, overrides: Mapping[str, Mapping[str, Any]] | None = None, timeout: float = 900.0
    ) -> Outcome:
        """Runs a workflow file (UI or API form) through /prompt to its end.

        `overrides` replaces inputs: {node id, title or class: {input: value}}. LauncherError carries the
        error of a node that fails.
        """
        return self.run_graph(apply(to_api(self.server, path), overrides or {}), timeout)

    def forget(self) -> None:
        """Before the next prompt, the server forgets what its nodes gave: what it has kept, it does not report."""
        self.server.post("/free", {"free_memory": True})
        # The host looks for it once it wakes; a prompt that is there before that runs first.
        time.sleep(0.5)

    def run_graph(self, graph: dict[str, Any], timeout: float = 900.0) -> Outcome:
        """Runs a graph in API form through /prompt to its end."""
        history = execute(self.server, graph, timeout)
        found: list[Picture] = pictures(self.server, str(history["prompt"][1]))
        saved = [picture.path(self.output) for picture in found if picture.kind == "output"]
        return Outcome(history, saved, sorted(self.loras.rglob("*.safetensors")))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With xdist's --dist loadgroup all of these run in one worker: there is one server for them all."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("server"))


@pytest.fixture(scope="session")
def demo(comfyui_root: Path, repository: Path) -> Path:
    """The demo's base checkpoint; it and the training pictures are put there unless they are there already."""
    return put_demo(comfyui_root, repository)


@pytest.fixture(scope="session")
def comfyui(
    comfyui_root: Path, repository: Path, demo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyUI]:
    """A server that reads the models and inputs of its ComfyUI and writes only into scratch folders."""
    assert demo.is_file()
    scratch = tmp_path_factory.mktemp("comfyui")
    for name in ("output", "user", "loras", "controlnet"):
        (scratch / name).mkdir()
    paths = scratch / "model_paths.yaml"
    # The first folder of a kind is the one that is written to, and is_default puts this one first.
    folders = "  loras: loras\n  controlnet: controlnet\n"
    paths.write_text(f"tests:\n  base_path: {scratch}\n  is_default: true\n{folders}", "utf-8")
    arguments = ["--output-directory", str(scratch / "output"), "--temp-directory", str(scratch)]
    arguments += ["--user-directory", str(scratch / "user"), "--database-url", f"sqlite:///{scratch / 'db'}"]
    arguments += ["--extra-model-paths-config", str(paths)]
    link_pack(repository, comfyui_root)
    with running(host_of(comfyui_root, repository), scratch / "comfyui.log", arguments) as server:
        yield ComfyUI(server, *(scratch / name for name in ("output", "loras", "controlnet")))


@pytest.fixture(scope="session")
def server(comfyui: ComfyUI) -> Server:
    """The server alone, for tests that speak to its API."""
    return comfyui.server


@pytest.fixture(scope="session")
def trained(comfyui: ComfyUI, repository: Path) -> Outcome:
    """The bundled workflow that trains two concepts and saves them, with few steps."""
    return comfyui.run_workflow(
        repository / "demo" / "workflows" / "train_merge_sample.json",
        {"BlockLoRATrain": {"steps": STEPS}, "KSampler": {"steps": SAMPLER_STEPS}},
    )
