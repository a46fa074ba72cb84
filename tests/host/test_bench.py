"""The benchmarks run and end in one JSON line."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

KEYS = (
    "stock_chain_seconds",
    "block_seconds",
    "fused_seconds",
    "copy_seconds",
    "bare_load_seconds",
    "copy_weights_seconds",
    "speedup",
    "over_copy",
    "growth_60_over_15",
)


def test_bench_merge(repository: Path, comfyui_root: Path) -> None:
    line = [sys.executable, str(repository / "benchmarks" / "merge.py"), "--quick", "--repeats", "1"]
    environment = os.environ | {"BLOCKLORA_COMFYUI": str(comfyui_root)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert all(math.isfinite(result[key]) and result[key] >= 0 for key in KEYS)
    assert (result["quick"], result["linears"], result["concepts"]) == (True, 32, 15)


def test_a_missing_comfyui_is_a_clear_error(repository: Path) -> None:
    line = [sys.executable, str(repository / "benchmarks" / "merge.py"), "--quick"]
    done = subprocess.run(line, env=os.environ | {"BLOCKLORA_COMFYUI": ""}, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "python run.py bench" in done.stderr
