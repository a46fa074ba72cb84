"""`run.py test`: linters, type checker, registry validation, then the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .environment.host import Host
from .layout import PACK_NAME, Layout
from .terminal import activity

MOST_WORKERS = 4
"""Each of pytest's processes may hold some GB at its peak."""

Verdict = Callable[[subprocess.CompletedProcess[str]], bool]


def _zero(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0


def _validated(done: subprocess.CompletedProcess[str]) -> bool:
    # `comfy node validate` only warns about what the registry is going to refuse, on either stream.
    return done.returncode == 0 and "warnings found" not in done.stdout + done.stderr


@dataclass(frozen=True)
class Check:
    """One command over the sources; `passed` judges how it ended."""

    title: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    passed: Verdict = _zero


def checks(layout: Layout, host: Host) -> list[Check]:
    """Everything that is checked without running the code."""
    tools, plain, root = str(host.tools), host.environment(), layout.root
    types = ["-m", "mypy", "--python-executable", str(host.python), "--config-file", str(layout.pyproject)]
    found = [
        Check("ruff check", [tools, "-m", "ruff", "check", "."], plain, root),
        Check("ruff format", [tools, "-m", "ruff", "format", "--check", "."], plain, root),
        Check("mypy", [tools, *types], plain, root),
        Check("comfy node validate", host.cli("node", "validate"), host.cli_environment(), root, _validated),
    ]
    if (root / "nodes").is_dir():
        # The nodes reach the core by relative imports: checked as ComfyUI loads them, through the link.
        line = [tools, *types, "--cache-dir", str(root / ".mypy_cache"), "-p", f"{PACK_NAME}.nodes"]
        found.append(Check("mypy (nodes)", line, plain, host.root / "custom_nodes"))
    return found


def _passes(check: Check) -> bool:
    done = None
    with activity(check.title, "finished"):
        done = subprocess.run(
            check.command,
            cwd=check.folder,
            env=check.environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    if check.passed(done):
        return True
    print(done.stdout + done.stderr, flush=True)
    return False


def workers(arguments: Sequence[str], cores: int | None) -> list[str]:
    """pytest's options for the whole suite; none where only a part is asked for.

    One process more than cores, at most four, as some tests wait for a server or a browser: 5 % less time on two cores.
    """
    single = ("--pdb", "--numprocesses")
    if any(argument.startswith(single) or not argument.startswith("--") for argument in arguments):
        return []
    return [f"--numprocesses={min((cores or 1) + 1, MOST_WORKERS)}", "--dist=loadgroup", "--no-loadscope-reorder"]


def _pytest(layout: Layout, host: Host, arguments: Sequence[str]) -> int:
    extra = {"BLOCKLORA_COMFYUI": str(host.root), "BLOCKLORA_TOOLS": str(host.tools)}
    extra["BLOCKLORA_OURS"] = "1" if host.ours else ""
    parallel = workers(arguments, os.cpu_count())
    if parallel:
        extra["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
    line = [str(host.python), "-m", "pytest", *parallel, *arguments]
    return subprocess.run(line, cwd=layout.root, env=host.environment(extra), check=False).returncode


def test(layout: Layout, host: Host, arguments: Sequence[str]) -> int:
    """Runs every check, then pytest with the arguments; 0 only if all of them pass.

    pytest comes last, so that its summary is the last thing on standard output.
    """
    failed = [check.title for check in checks(layout, host) if not _passes(check)]
    print("failed: " + ", ".join(failed) if failed else "all checks passed", flush=True)
    status = _pytest(layout, host, arguments)
    if failed:
        print(f"failed besides the tests: {', '.join(failed)}", file=sys.stderr)
    return status or int(bool(failed))


def benchmarks(layout: Layout) -> dict[str, Path]:
    """The benchmarks' scripts by name: NAME.py, or NAME/__main__.py where it has a room of its own."""
    folder = layout.root / "benchmarks"
    alone = {path.stem: path for path in folder.glob("[!_]*.py")}
    return alone | {path.parent.name: path for path in folder.glob("*/__main__.py")}


def bench(layout: Layout, host: Host, name: str, arguments: Sequence[str]) -> int:
    """Runs the benchmark NAME with the environment's Python; its output is passed on untouched."""
    script = benchmarks(layout)[name]
    search = [str(layout.root), os.environ.get("PYTHONPATH", "")]
    extra = {"BLOCKLORA_COMFYUI": str(host.root), "BLOCKLORA_ART": str(layout.art)}
    environment = host.environment(extra)
    environment["PYTHONPATH"] = os.pathsep.join(part for part in search if part)
    return subprocess.run(
        [str(host.python), str(script), *arguments], cwd=layout.root, env=environment, check=False
    ).returncode
