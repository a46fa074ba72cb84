"""ComfyUI is in process, on the CPU, and its modules are not hidden by ours."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import comfy.model_management
import comfy.sd
import folder_paths

import nodes


def test_comfyui_runs_on_the_cpu() -> None:
    assert comfy.model_management.get_torch_device().type == "cpu"


def test_nodes_is_comfyui_s_module(comfyui_root: Path) -> None:
    assert Path(nodes.__file__) == comfyui_root / "nodes.py"
    assert hasattr(nodes, "NODE_CLASS_MAPPINGS")


def test_scratch_folders_replace_comfyui_s(folders: Path) -> None:
    assert folder_paths.get_folder_paths("loras") == [str(folders / "models" / "loras")]
    assert folder_paths.get_output_directory() == str(folders / "output")


def test_the_pack_imports_as_comfyui_does_it(pack: ModuleType) -> None:
    assert callable(pack.comfy_entrypoint)
