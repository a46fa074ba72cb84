"""Dynamic VRAM without a GPU: with this folder on PYTHONPATH, ComfyUI's --enable-dynamic-vram works on a CPU.

`comfy_aimdo` beside this file takes the place of the package that needs a GPU, and the few lines by which ComfyUI 0.33
turns away from a CPU are changed as they are imported. Nothing is written, ComfyUI's files stay as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

# Module -> what is written there, what is read instead.
CHANGES = {
    "comfy.model_patcher": (
        ("is not None and comfy.model_management.is_device_cpu(load_device)", "is None"),
        ('self.load_device == torch.device("cpu")', "self.load_device is None"),
        ('assert self.load_device != torch.device("cpu")', "assert self.load_device"),
    ),
    "comfy.ops": (
        ('hasattr(s, "_v") and comfy.model_management.is_device_cpu(device)', 'hasattr(s, "_v") and device is None'),
        ('hasattr(s, "_v") and s.weight.device != device', 'hasattr(s, "_v")'),
    ),
}


class _Loader(SourceFileLoader):
    def path_stats(self, path: Any) -> Any:  # noqa: ARG002  (the base names it)
        raise OSError("no bytecode: what is compiled is not what the file says")

    def source_to_code(self, data: Any, path: Any, *rest: Any, **named: Any) -> CodeType:
        text = bytes(data).decode("utf-8")
        for old, new in CHANGES[self.name]:
            if text.count(old) != 1:
                raise ImportError(
                    f"{path}: expected once {old!r}, got it {text.count(old)} times; tests/dynamic is out"
                )
            text = text.replace(old, new)
        return super().source_to_code(text.encode("utf-8"), path, *rest, **named)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in CHANGES else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


sys.meta_path.insert(0, _Finder())
