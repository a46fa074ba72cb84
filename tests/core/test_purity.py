from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Only host/ may import ComfyUI. Any name that starts with comfy counts, and what its folder puts on the path.
CHECK = """
import importlib, pkgutil, sys
import blocklora_core

def walk(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name.endswith((".host", ".__main__")):
            continue
        yield importlib.import_module(module.name)
        if module.ispkg:
            yield from walk(sys.modules[module.name])

modules = list(walk(blocklora_core))
hosts = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "server"}
foreign = sorted(name for name in sys.modules if name.split(".")[0] in hosts)
assert not foreign, foreign
assert len(modules) > 10, modules
"""


def test_core_imports_no_comfyui_in_a_fresh_interpreter() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
