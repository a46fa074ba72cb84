"""The launcher at work: the ComfyUI it finds, the server it runs, the events and the graph it reads."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import workflow
from launcher.checks import workers
from launcher.demo import changed_since, snapshot
from launcher.environment import prepare as environment
from launcher.environment.host import Host, comfyui_version, find_python, require_version
from launcher.environment.link import link_pack
from launcher.environment.lock import exclusive
from launcher.environment.prepare import guest_stages
from launcher.environment.stages import write_atomically
from launcher.errors import LauncherError
from launcher.layout import COMFYUI_VERSION, Layout, venv_python
from launcher.server import ask, free_port, running, serve
from launcher.terminal import activity, bar, seconds

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(sys.executable)
posix_only = pytest.mark.skipif(os.name == "nt", reason="signals and symbolic links of POSIX")


def _fake_comfyui(folder: Path, version: str = COMFYUI_VERSION) -> Path:
    for name in ("main.py", "comfy/sd.py"):
        write_atomically(folder / name, "")
    write_atomically(folder / "comfyui_version.py", f'__version__ = "{version}"\n')
    return folder


def test_versions_are_compared_as_numbers(tmp_path: Path) -> None:
    require_version(_fake_comfyui(tmp_path / "newer", "0.10.0"))
    with pytest.raises(LauncherError, match=r"ComfyUI 0\.3\.9; 0\.3\.75 or newer"):
        require_version(_fake_comfyui(tmp_path / "older", "0.3.9"))


def test_a_folder_that_is_no_comfyui_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match="is not a ComfyUI folder"):
        comfyui_version(tmp_path)


def test_a_user_s_python_must_have_torch(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match="--python PATH"):
        find_python(_fake_comfyui(tmp_path), tmp_path / "no-python", HERE)


def test_the_user_s_own_python_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.environment.host.can_import", lambda *_: True)
    root = _fake_comfyui(tmp_path / "ComfyUI")
    assert find_python(root, None, HERE) == HERE
    own = root / ".venv" / "bin" / "python"
    write_atomically(own, "")
    assert find_python(root, None, HERE) == own


def test_for_tests_a_python_is_made_where_none_has_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.environment.host.can_import", lambda *_: False)
    root, layout = _fake_comfyui(tmp_path / "ComfyUI"), Layout(tmp_path / "clone")
    made = venv_python(layout.guest_venv(root))
    assert find_python(root, None, HERE, made) == made
    with pytest.raises(LauncherError, match="--python PATH"):
        find_python(root, HERE, HERE, made)
    titles = [
        [stage.title for stage in guest_stages(layout, Host(root, python, HERE, tmp_path, ours=False), "dev")]
        for python in (HERE, made)
    ]
    assert titles[1][2:] == titles[0] and "ComfyUI's packages" in titles[1][1]


@posix_only
def test_the_link_is_made_kept_and_turned(tmp_path: Path) -> None:
    comfyui, clone, other = tmp_path / "ComfyUI", tmp_path / "clone", tmp_path / "other"
    clone.mkdir()
    other.mkdir()
    link = link_pack(clone, comfyui)
    assert link_pack(clone, comfyui).resolve() == clone
    assert link_pack(other, comfyui).resolve() == other
    other.rmdir()
    assert link_pack(clone, comfyui) == link
    assert link.resolve() == clone


def test_another_install_of_the_pack_is_left_alone(tmp_path: Path) -> None:
    install = tmp_path / "ComfyUI" / "custom_nodes" / "blocklora"
    write_atomically(install / "__init__.py", "theirs")
    with pytest.raises(LauncherError, match="another copy of this pack"):
        link_pack(tmp_path, tmp_path / "ComfyUI")
    assert (install / "__init__.py").is_file()


def test_comfy_cli_neither_asks_nor_tracks_nor_writes_home(tmp_path: Path) -> None:
    host = Host(tmp_path, HERE, HERE, tmp_path / "home", ours=True)
    variables = host.cli_environment()
    assert variables["DO_NOT_TRACK"] == "1"
    assert variables["HOME"] == variables["USERPROFILE"] == str(tmp_path / "home")
    assert "--skip-prompt" in host.cli("run")


def test_environment_variables_choose_the_comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    assert environment.chosen_comfyui(None) is None
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "a"))
    assert environment.chosen_comfyui(None) == tmp_path / "a"
    assert environment.chosen_comfyui(tmp_path / "b") == tmp_path / "b"


# A stand-in for ComfyUI's main.py: answers /system_stats, or dies with a message.
FAKE_SERVER = """
import http.server, sys, threading
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"system": 1}')
if "--die" in sys.argv:
    sys.exit("a custom node broke")
port = int(sys.argv[sys.argv.index("--port") + 1])
server = http.server.HTTPServer(("127.0.0.1", port), Answer)
if "--for" in sys.argv:
    threading.Timer(float(sys.argv[sys.argv.index("--for") + 1]), server.shutdown).start()
server.serve_forever()
"""


@pytest.fixture
def fake_host(tmp_path: Path) -> Host:
    write_atomically(tmp_path / "main.py", FAKE_SERVER)
    return Host(tmp_path, HERE, HERE, tmp_path / "home", ours=False)


def test_a_server_is_stopped_when_its_user_fails(fake_host: Host, tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        running(fake_host, tmp_path / "log", ["--cpu"]) as server,
    ):
        assert ask(server.url + "/system_stats") == {"system": 1}
        raise KeyboardInterrupt
    assert server.process.poll() is not None


@pytest.mark.parametrize("browser", [True, False])
def test_serve_opens_the_browser_once_it_answers(
    fake_host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], browser: bool
) -> None:
    opened: list[str] = []

    def answers(url: str) -> None:
        opened.append(url)
        assert ask(url + "/system_stats") == {"system": 1}

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", answers)
    assert serve(fake_host, 0, tmp_path / "log", ["--cpu", "--for", "1"], browser) == 0
    said = capsys.readouterr().out
    assert len(opened) == browser and f"logs to {tmp_path / 'log'}" in said
    assert all(url in said for url in opened) and len(said.splitlines()) <= 3


def test_a_server_that_dies_shows_the_end_of_its_log(fake_host: Host, tmp_path: Path) -> None:
    with (
        pytest.raises(LauncherError, match="a custom node broke"),
        running(fake_host, tmp_path / "log", ["--cpu", "--die"]),
    ):
        pytest.fail("it cannot be running")


@posix_only
def test_run_py_ended_by_a_signal_says_so(tmp_path: Path) -> None:
    with exclusive(tmp_path / ".comfyui" / "lock"):
        code = f"import run; run.LAYOUT = run.Layout(run.Path({str(tmp_path)!r})); run.sys.exit(run.main())"
        line = [sys.executable, "-c", code, "demo"]
        process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout and "waiting for process" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.strip() == "stopped"


def test_a_preferred_port_in_use_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port


EVENTS = [
    {"type": "converted", "node_count": 2},
    {
        "type": "queued",
        "prompt_id": "p",
        "nodes": [{"node_id": "1", "title": "Train hero"}, {"node_id": "2", "title": "Save"}],
    },
    {"type": "executing", "node": "1", "title": "Train hero"},
    {"type": "progress", "node": "1", "completed": 3, "total": 6},
    {"type": "executing", "node": "2", "title": "Save"},
]
GOOD = {"type": "envelope", "ok": True, "error": None}
BAD = {
    "type": "envelope",
    "ok": False,
    "error": {
        "message": "BlockLoRATrain (node 1): no captions",
        "details": {"title": "Train hero", "traceback_tail": ["  in execute\n"]},
    },
}


def _progress(*last: dict[str, object]) -> workflow.Progress:
    progress = workflow.Progress()
    lines = iter(["a line that is no event", *(json.dumps(event) for event in [*EVENTS, *last])])
    for event in workflow.events(lines):
        progress.take(event)
    return progress


def test_events_become_one_line_per_node(capsys: pytest.CaptureFixture[str]) -> None:
    progress = _progress(GOOD)
    assert progress.failure is None
    assert progress.run.prompt_id == "p"
    assert [name for name, _ in progress.run.node_seconds] == ["[1/2] Train hero", "[2/2] Save"]
    assert "[1/2] Train hero: done" in capsys.readouterr().out


def test_a_failure_carries_the_node_and_its_trace() -> None:
    failure = _progress(BAD).failure
    assert failure == ('In the node "Train hero": BlockLoRATrain (node 1): no captions\n  in execute')


GRAPH: workflow.Graph = {
    "1": {"class_type": "Train", "inputs": {"steps": 5}, "_meta": {"title": "Train hero"}},
    "2": {"class_type": "Train", "inputs": {"steps": 5}, "_meta": {"title": "Train friend"}},
}


@pytest.mark.parametrize(("name", "steps"), [("1", (9, 5)), ("Train friend", (5, 9)), ("Train", (9, 9))])
def test_overrides_name_a_node_by_id_title_or_class(name: str, steps: tuple[int, int]) -> None:
    changed = workflow.apply(GRAPH, {name: {"steps": 9}})
    assert (changed["1"]["inputs"]["steps"], changed["2"]["inputs"]["steps"]) == steps
    assert GRAPH["1"]["inputs"]["steps"] == 5


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [({"Load": {"a": 1}}, "has no node Load"), ({"1": {"rank": 4}}, r"has no input \['rank'\]")],
)
def test_an_override_that_fits_nothing_is_refused(overrides: dict[str, dict[str, object]], reason: str) -> None:
    with pytest.raises(LauncherError, match=reason):
        workflow.apply(GRAPH, overrides)


def test_changed_files_are_the_new_and_the_rewritten(tmp_path: Path) -> None:
    for name in ("old", "rewritten"):
        write_atomically(tmp_path / f"{name}.safetensors", name)
    before = snapshot(tmp_path)
    write_atomically(tmp_path / "rewritten.safetensors", "something else")
    write_atomically(tmp_path / "sub" / "new.safetensors", "new")
    names = [path.name for path in changed_since(before, tmp_path)]
    assert sorted(names) == ["new.safetensors", "rewritten.safetensors"]


@pytest.mark.parametrize(
    ("value", "text"), [(4.21, "4.2 s"), (51.4, "51 s"), (187, "3 min 07 s"), (119.9, "2 min 00 s")]
)
def test_durations_read_well(value: float, text: str) -> None:
    assert seconds(value) == text


def test_a_bar_fills_in_proportion() -> None:
    assert bar(1, 2, 4) == "[##--] 1/2"
    assert bar(0, 0, 4) == "[----] 0/0"


def test_a_step_that_fails_says_so() -> None:
    stream = io.StringIO()
    with pytest.raises(LauncherError), activity("a step", stream=stream):
        raise LauncherError("why")
    assert "a step: failed" in stream.getvalue()


@pytest.mark.parametrize("arguments", [["tests/core"], ["-k", "layers"], ["-x"], ["--pdb"], ["--numprocesses=0"]])
def test_a_part_of_the_suite_runs_in_one_process(arguments: list[str]) -> None:
    assert workers(arguments, 8) == []


def test_the_whole_suite_runs_in_one_process_more_than_cores_at_most_four() -> None:
    assert workers([], 2)[0] == "--numprocesses=3" == workers(["--durations=9"], 2)[0]
    assert workers([], 64)[0] == "--numprocesses=4" and workers([], None)[0] == "--numprocesses=2"
