"""ComfyUI without its server: found, put on the path, its device and folders as its own start chooses them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACK = Path(__file__).parents[3]


def find_comfyui(given: Path | None) -> Path:
    """The ComfyUI folder: as given, as BLOCKLORA_COMFYUI names it, the one that this pack is installed in, or the one
    that `run.py` made. ValueError when none of these is one."""
    named = os.environ.get("BLOCKLORA_COMFYUI")
    places = [given] if given else [Path(named)] if named else [PACK.parent.parent, PACK / ".comfyui" / "ComfyUI"]
    for place in places:
        if (place / "main.py").is_file() and (place / "comfy").is_dir():
            return place.resolve()
    raise ValueError(
        f"ComfyUI: expected its folder, got {', '.join(map(str, places))}, without main.py. Name it with --comfyui."
    )


def start(comfyui: Path, cpu: bool = False, states: Path | None = None) -> None:
    """Make `comfy` and `folder_paths` importable, on the GPU where there is one; nothing of either was imported before.

    Folders of extra_model_paths.yaml count as in the server. states: where states of trainings are kept, None for
    ComfyUI's own user folder.
    """
    sys.path.insert(0, str(comfyui))
    from comfy import options

    options.enable_args_parsing(False)
    from comfy.cli_args import args

    # The device is chosen when comfy.model_management is imported, so this comes first.
    args.cpu = cpu or not _has_device()
    extra = comfyui / "extra_model_paths.yaml"
    if extra.is_file():
        from utils.extra_config import load_extra_path_config

        load_extra_path_config(str(extra))
    if states is not None:
        import folder_paths

        folder_paths.set_user_directory(str(states))


def _has_device() -> bool:
    import torch

    kinds = (torch.cuda, getattr(torch, "xpu", None), torch.backends.mps)
    return any(kind is not None and kind.is_available() for kind in kinds)
