"""A real browser on a real ComfyUI server: one of each for all of these tests, and a page for each mode."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ViewportSize, expect, sync_playwright

from launcher.environment.link import link_pack
from launcher.layout import Layout
from launcher.server import Server, running
from tests.browser.canvas import Canvas
from tests.browser.program import Program, chromium_program
from tests.hosting import host_of, put_demo

HERE = Path(__file__).parent
NOT_ASKED = "one of the browser tests that are not marked essential: BLOCKLORA_BROWSER=1 runs them all."
PICTURES = ("amelia", "zed")
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.WarnBlueprintOverwrite": False,
    # Pictures of the page are drawn by the processor, which has other things to do.
    "LiteGraph.Canvas.MaximumFps": 15,
}
PATIENCE = 60_000
SIZE: ViewportSize = {"width": 1500, "height": 950}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With xdist's --dist loadgroup all of these run in one worker: they share a server and a browser."""
    all_of_them = bool(os.environ.get("BLOCKLORA_BROWSER"))
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.xdist_group("browser"))
        in_browser = isinstance(item, pytest.Function) and "chromium" in item.fixturenames
        if in_browser and not (all_of_them or item.get_closest_marker("essential")):
            item.add_marker(pytest.mark.skip(reason=NOT_ASKED))


def _newest_frontend(repository: Path, wanted: str) -> list[str]:
    """ComfyUI's arguments for a frontend from the package index; BLOCKLORA_FRONTEND is `newest` or a version."""
    package = "comfyui-frontend-package" + ("" if wanted == "newest" else f"=={wanted}")
    folder = Layout(repository).home / "frontends" / wanted
    line = [sys.executable, "-m", "pip", "install", "--no-deps", "--upgrade", "--target", str(folder), package]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ["--front-end-root", str(folder / "comfyui_frontend_package" / "static")]


def fill_base(scratch: Path, comfyui_root: Path) -> None:
    """A ComfyUI folder of our own: no pack, the demo's pictures, no LoRA; it reads the host's checkpoints."""
    for name in ("custom_nodes", "models/loras", "input", "output", "user", "temp"):
        (scratch / name).mkdir(parents=True)
    for name in PICTURES:
        kept = comfyui_root / "input" / "blocklora_demo" / name
        shutil.copytree(kept, scratch / "input" / "blocklora_demo" / name)
    checkpoints = comfyui_root / "models" / "checkpoints"
    (scratch / "model_paths.yaml").write_text(f"tests:\n  checkpoints: {checkpoints}\n", "utf-8")


def arguments_of(base: Path, repository: Path) -> list[str]:
    """ComfyUI's arguments for such a folder."""
    wanted = os.environ.get("BLOCKLORA_FRONTEND")
    folders = ["--base-directory", str(base), "--extra-model-paths-config", str(base / "model_paths.yaml")]
    frontend = _newest_frontend(repository, wanted) if wanted else []
    return [*folders, "--database-url", f"sqlite:///{base / 'db'}", *frontend]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, comfyui_root: Path, repository: Path) -> Path:
    """The server's folders: input, output, models/loras, user."""
    put_demo(comfyui_root, repository)
    scratch = tmp_path_factory.mktemp("browser")
    fill_base(scratch, comfyui_root)
    link_pack(repository, scratch)
    return scratch


@pytest.fixture(scope="session")
def chromium(repository: Path) -> Program:
    """The browser's program; the tests are skipped where there is none and none can be had."""
    return chromium_program(repository)


@pytest.fixture(scope="session")
def server(chromium: Program, base: Path, comfyui_root: Path, repository: Path) -> Iterator[Server]:
    """ComfyUI with this pack and nothing else."""
    assert chromium
    arguments = arguments_of(base, repository)
    with running(host_of(comfyui_root, repository), base / "comfyui.log", arguments) as started:
        yield started


@pytest.fixture(scope="package")
def browser(chromium: Program) -> Iterator[Browser]:
    """It ends with these tests: while it runs, the thread has an event loop."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        launched = playwright.chromium.launch(
            executable_path=chromium.path, args=arguments, env={**os.environ, **chromium.environment}
        )
        yield launched
        launched.close()


@pytest.fixture(params=["classic", "nodes2"], scope="package")
def mode(request: pytest.FixtureRequest) -> str:
    """How nodes are drawn: on the canvas, or as DOM (Nodes 2.0)."""
    return str(request.param)


@pytest.fixture(scope="package")
def window(browser: Browser, server: Server, mode: str) -> Iterator[Canvas]:
    """One page for all tests of a mode: to open one takes longer than most tests do."""
    server.post("/settings", {**SETTINGS, "Comfy.VueNodes.Enabled": mode == "nodes2"})
    context = browser.new_context(
        viewport=SIZE, reduced_motion="reduce", permissions=["clipboard-read", "clipboard-write"]
    )
    # Of a machine that has other things to do, too.
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield Canvas(context.new_page(), server, mode)
    context.close()


@pytest.fixture
def canvas(window: Canvas, server: Server, request: pytest.FixtureRequest) -> Iterator[Canvas]:
    """An empty canvas; opened anew after a test that failed. The test fails when the page logs an error."""
    failed = request.session.testsfailed
    window.renew(failed)
    yield window
    shots = os.environ.get("BLOCKLORA_SHOTS")
    if shots:
        window.page.screenshot(path=str(Path(shots) / f"{request.node.name}.png"))
    server.post("/interrupt", {})
    assert window.errors == []
