"""The zip that the registry gets, alone in a fresh ComfyUI, under a folder name of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.server import Server, running
from launcher.shipped.blocks import BLOCKS
from launcher.shipped.files import SUBGRAPHS, WORKFLOWS, files
from launcher.shipped.templates import TEMPLATES
from launcher.workflow import apply, execute, pictures, to_api
from tests.hosting import host_of, put_demo
from tests.server.test_nodes import NODES

FOLDER = "some-other-name"
CHECKPOINT = "a checkpoint of mine.safetensors"
QUICK = {
    "KSampler": {"steps": 2},
    "EmptyLatentImage": {"width": 96, "height": 96},
    "BlockLoRAScene": {"width": 192, "height": 96},
    "BlockLoRATrain": {"steps": 4, "batch_size": 1, "resolution": 128},
    "CheckpointLoaderSimple": {"ckpt_name": CHECKPOINT},
}
NEEDS_PICTURES = {"Train a Person", "Train Two People, Then Both"}
NEEDS_LORAS = {"See Who Will Mix, Then Export"}


def _git(folder: Path, *line: str) -> str:
    done = subprocess.run(["git", *line], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def package(comfyui_root: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """node.zip, as `comfy node pack` makes it of what git tracks here."""
    clone = tmp_path_factory.mktemp("clone")
    for name in filter(
        None, _git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    ):
        if (repository / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repository / name, clone / name)
    _git(clone, "init", "-q")
    _git(clone, "add", "-A")
    host = host_of(comfyui_root, repository)
    for command in ("validate", "pack"):
        line, environment = host.cli("node", command), host.cli_environment()
        done = subprocess.run(line, cwd=clone, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warnings found" not in done.stdout + done.stderr, done.stdout + done.stderr
    return clone / "node.zip"


@pytest.fixture(scope="module")
def base(package: Path, comfyui_root: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ComfyUI folder with nothing in it but the unpacked zip and one checkpoint."""
    folder = tmp_path_factory.mktemp("fresh")
    for name in ("models/checkpoints", "models/loras", "input", "output", "user", "temp"):
        (folder / name).mkdir(parents=True)
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder / "custom_nodes" / FOLDER)
    (folder / "models" / "checkpoints" / CHECKPOINT).symlink_to(put_demo(comfyui_root, repository))
    return folder


@pytest.fixture(scope="module")
def server(base: Path, comfyui_root: Path, repository: Path) -> Iterator[Server]:
    """A host that has nothing but what is in `base`."""
    arguments = ["--base-directory", str(base), "--database-url", f"sqlite:///{base / 'db'}"]
    with running(host_of(comfyui_root, repository), base / "comfyui.log", arguments) as started:
        yield started


@pytest.fixture(scope="module")
def info(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/object_info")
    return found


def test_the_zip_is_small_and_holds_what_runs(package: Path) -> None:
    assert package.stat().st_size < 1_000_000
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} <= {
        "__init__.py", "blocklora_core", "nodes", "web", "locales", WORKFLOWS, SUBGRAPHS,
        "pyproject.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", ".comfyignore",
    }  # fmt: skip


def test_the_nodes_are_there_and_nothing_is_logged_against_them(info: dict[str, Any], base: Path) -> None:
    assert {name for name in info if name.startswith("BlockLoRA")} == set(NODES)
    log = (base / "comfyui.log").read_text("utf-8", errors="replace")
    # The host may lack what its own audio nodes need.
    ours = [line for line in log.splitlines() if FOLDER in line]
    assert ours and not [line for line in ours if "IMPORT FAILED" in line or line.lstrip().startswith("File ")]


def test_files_are_what_the_tables_say(info: dict[str, Any], repository: Path) -> None:
    """On every ComfyUI the same; `python -m launcher.shipped URL` writes them."""
    differ = [
        name
        for name, text in files(info).items()
        if not (repository / name).is_file() or (repository / name).read_text(encoding="utf-8") != text
    ]
    assert differ == []


def test_the_host_lists_and_serves_the_templates(server: Server, base: Path) -> None:
    assert set(server.get("/workflow_templates")[FOLDER]) == {story.title for story in TEMPLATES}
    for story in TEMPLATES:
        path = urllib.parse.quote(f"/api/workflow_templates/{FOLDER}/{story.title}.json")
        kept = base / "custom_nodes" / FOLDER / WORKFLOWS / f"{story.title}.json"
        assert server.get(path) == json.loads(kept.read_text(encoding="utf-8"))


def test_the_host_lists_the_subgraphs(server: Server) -> None:
    found = [one for one in server.get("/global_subgraphs").values() if one["info"]["node_pack"].endswith(FOLDER)]
    assert {one["name"] for one in found} == {block.title for block in BLOCKS}


def test_the_host_serves_our_languages(server: Server) -> None:
    found = server.get("/i18n")
    assert {"zh", "ja", "ko", "de", "fr", "es"} <= set(found)
    assert all("BlockLoRATrain" in texts["nodeDefs"] for texts in found.values())


@pytest.mark.parametrize("title", [story.title for story in TEMPLATES])
def test_a_template_runs_after_its_checkpoint_is_chosen(
    server: Server, base: Path, comfyui_root: Path, title: str
) -> None:
    if title in NEEDS_LORAS:
        pytest.skip("it is about LoRAs: without any there is nothing to look at")
    graph = to_api(server, base / "custom_nodes" / FOLDER / WORKFLOWS / f"{title}.json")
    kinds = {node["class_type"] for node in graph.values()}
    if title in NEEDS_PICTURES:
        source = comfyui_root / "input" / "blocklora_demo" / "amelia"
        for node in graph.values():
            if node["class_type"] == "BlockLoRAImages":
                shutil.copytree(source, base / "input" / node["inputs"]["folder"], dirs_exist_ok=True)
    quick = {name: values for name, values in QUICK.items() if name in kinds}
    history = execute(server, apply(graph, quick))
    found = pictures(server, str(history["prompt"][1]))
    assert [picture for picture in found if picture.kind == "output"]
