"""Runs pip with its progress on one line and its failures explained."""

from __future__ import annotations

import os
import re
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import LauncherError
from ..terminal import Activity

PROGRESS = re.compile(r"\s*(Collecting|Downloading|Using cached|Building|Preparing|Installing collected|Saved)\b")
TAIL_LINES = 12

NO_NETWORK = (
    "after connection broken by",
    "Max retries exceeded",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "getaddrinfo failed",
    "Network is unreachable",
    "Connection refused",
    "ProxyError",
    "ReadTimeoutError",
    "from versions: none",
)
NO_SPACE = ("No space left on device", "[Errno 28]", "not enough space on the disk")


def _no_network(what: str, tail: str) -> str:
    return (
        f"Could not fetch {what}: the Python package index did not answer.\n"
        "The internet is needed once, for the Python package index. Check the connection, a proxy "
        "(HTTPS_PROXY) or a mirror (PIP_INDEX_URL), then run the same command again: it continues "
        f"where it stopped.\npip said:\n{tail}"
    )


def _no_space(what: str, tail: str) -> str:
    return (
        f"Could not fetch {what}: the disk is full. About 8 GB are needed, in the .comfyui folder and, while "
        "installing, in the temporary folder (TMPDIR). Free some and run the same command again.\n"
        f"pip said:\n{tail}"
    )


def _unknown(what: str, tail: str) -> str:
    return f"Could not fetch {what}. Run the same command again once the cause is removed. pip said:\n{tail}"


EXPLANATIONS = ((NO_SPACE, _no_space), (NO_NETWORK, _no_network))


def explain(what: str, output: str) -> str:
    """Says why pip failed and what to do about it, from what it printed."""
    tail = "\n".join("  " + line for line in output.splitlines()[-TAIL_LINES:])
    for signs, message in EXPLANATIONS:
        if any(sign in output for sign in signs):
            return message(what, tail)
    return _unknown(what, tail)


def isolated(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a Python of ours: nothing redirects its imports, and pip asks no questions."""
    kept = {k: v for k, v in (environment or os.environ).items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    return kept | {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_USER": "0",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
    }


def _status(line: str) -> str:
    text = re.sub(r"https?://\S+/", "", line.strip()).split(" (from ")[0]
    head, _, names = text.partition("Installing collected packages: ")
    return text if head or not names else f"Installing {names.count(',') + 1} packages"


def pip(python: Path, arguments: Sequence[str], what: str, show: Activity) -> None:
    """Runs `python -m pip` with the arguments; raises LauncherError with the reason when it fails."""
    tail: deque[str] = deque(maxlen=200)
    process = subprocess.Popen(
        [str(python), "-m", "pip", *arguments, "--progress-bar", "off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=isolated(),
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        for line in process.stdout or ():
            tail.append(line.rstrip())
            if PROGRESS.match(line):
                show.say(_status(line))
        status = process.wait()
    finally:
        # Reached with pip still running only when this process was interrupted.
        process.kill()
        process.communicate()
    if status != 0:
        raise LauncherError(explain(what, "\n".join(tail)))
