"""Links this clone into a ComfyUI's custom_nodes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ..errors import LauncherError
from ..layout import PACK_NAME


def _make_link(link: Path, root: Path) -> None:
    if os.name != "nt":
        link.symlink_to(root, target_is_directory=True)
        return
    # A symbolic link needs a privilege on Windows, a junction does not.
    done = subprocess.run(
        ["cmd", "/c", "mklink", "/J", str(link), str(root)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LauncherError(f"could not link {root} as {link}: {done.stderr.strip()}")


def _is_dead_link(link: Path) -> bool:
    # lexists without exists is a link, or a junction, to a clone that moved away.
    return os.path.lexists(link) and not link.exists()


def link_pack(root: Path, comfyui: Path) -> Path:
    """Makes `custom_nodes/blocklora` of ComfyUI lead to `root` and returns it.

    A link to another place is turned; a real folder of that name is somebody's install and is left alone.
    """
    link = comfyui / "custom_nodes" / PACK_NAME
    if link.exists() and link.resolve() == root.resolve():
        return link
    if link.is_symlink() or _is_dead_link(link):
        link.rmdir() if os.name == "nt" else link.unlink()
    elif link.exists():
        raise LauncherError(
            f"{link} is another copy of this pack, not this clone. Move it out of custom_nodes and run again."
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    _make_link(link, root)
    return link
