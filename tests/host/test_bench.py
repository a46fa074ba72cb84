"""The benchmarks run and end in one JSON line."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KEYS = (
    "stock_chain_seconds",
    "stock_files_seconds",
    "block_seconds",
    "block_cold_seconds",
    "block_files_seconds",
    "fused_seconds",
    "fused_cold_seconds",
    "fused_files_seconds",
    "copy_seconds",
    "bare_load_seconds",
    "copy_weights_seconds",
    "speedup",
    "speedup_cold",
    "speedup_from_files",
    "over_copy",
    "growth_60_over_15",
)


PEFT_KEYS = ("linear_seconds", "ties_seconds", "svd_seconds", "ours_seconds", "ours_ties_seconds")

TRAIN_KEYS = (
    "stock_step_seconds",
    "stock_same_layers_step_seconds",
    "ours_step_seconds",
    "default_step_seconds",
    "floor_seconds",
    "speedup",
    "speedup_same_layers",
    "speedup_default",
    "over_floor",
    "stock_peak_gb",
    "ours_peak_gb",
    "default_peak_gb",
    "peak_ratio",
    "default_peak_ratio",
)


def bench(name: str, repository: Path, comfyui_root: Path, *more: str) -> dict[str, Any]:
    line = [sys.executable, str(repository / "benchmarks" / f"{name}.py"), "--quick", "--repeats", "1", *more]
    environment = os.environ | {"BLOCKLORA_COMFYUI": str(comfyui_root)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_bench_train(repository: Path, comfyui_root: Path) -> None:
    result = bench("train", repository, comfyui_root)
    (row,) = result["settings"]
    assert row["name"] == "bf16 batch 4 checkpointing on"
    assert all(math.isfinite(row[key]) and row[key] > 0 for key in TRAIN_KEYS)
    assert row["speedup"] == pytest.approx(row["stock_step_seconds"] / row["ours_step_seconds"], rel=0.01)
    assert row["speedup_default"] == pytest.approx(row["stock_step_seconds"] / row["default_step_seconds"], rel=0.01)
    assert row["default_peak_gb"] > row["ours_peak_gb"], "a text encoder learns along"
    assert (result["quick"], result["linears"]) == (True, 32)


def test_bench_merge(repository: Path, comfyui_root: Path) -> None:
    result = bench("merge", repository, comfyui_root)
    assert all(math.isfinite(result[key]) and result[key] >= 0 for key in KEYS)
    assert (result["quick"], result["linears"], result["concepts"]) == (True, 32, 15)
    assert (result["multi_loader_seconds"] is None) == (result["multi_loader"] == "not in this ComfyUI")
    _check_sizes(result["sizes"])
    _check_peft(result["peft"])


def _check_sizes(rows: list[dict[str, Any]]) -> None:
    assert [(row["base"].split("-")[0], row["concepts"]) for row in rows] == [
        ("sd15", 1),
        ("sd15", 2),
        ("sdxl", 1),
        ("sdxl", 2),
    ]
    assert all(row["ours_seconds"] > 0 and row["files_seconds"]["ours"] > 0 for row in rows)
    # The last row is past the limit of the stock chain there.
    stock = [(row["stock_chain_seconds"], row["files_seconds"]["stock"], row["note"]) for row in rows]
    assert all(seconds > 0 and from_files > 0 and not note for seconds, from_files, note in stock[:3])
    assert stock[3][:2] == (None, None) and "stock chain only up to 1" in stock[3][2]


def _check_peft(result: dict[str, Any] | None) -> None:
    if importlib.util.find_spec("peft") is None:
        assert result is None
        return
    assert result is not None and all(result[key] > 0 for key in PEFT_KEYS)
    assert 0 < result["svd_measured_layers"] <= result["layers"]


def test_bench_fuse(repository: Path, comfyui_root: Path) -> None:
    result = bench("fuse", repository, comfyui_root)
    for key in ("collect_seconds", "solve_seconds", "solve_ff_seconds", "file_mb", "peak_gb"):
        assert math.isfinite(result[key]) and result[key] > 0
    assert result["error_vs_lbfgs"] <= 1e-3
    assert result["file_mb"] > result["lora_mb"]
    packed = {row["k"]: row for row in result["grams"]}
    assert packed[64]["weights"] < packed[16]["weights"] < 1
    assert packed[64]["mb"] > packed[16]["mb"]
    assert packed["all"]["leak"] < packed["not fused"]["leak"]


def test_a_missing_comfyui_is_a_clear_error(repository: Path) -> None:
    line = [sys.executable, str(repository / "benchmarks" / "merge.py"), "--quick"]
    done = subprocess.run(line, env=os.environ | {"BLOCKLORA_COMFYUI": ""}, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "python run.py bench" in done.stderr


def test_bench_regions(repository: Path, comfyui_root: Path) -> None:
    result = bench("regions", repository, comfyui_root, "--counts", "2,5")
    for count in (2, 5):
        for way in ("ours", "composer", "stock_masks", "stock_areas", "stock_hooks", "per_region"):
            assert result[f"{way}_{count}_seconds"] > 0 and result[f"{way}_{count}_first"] > 0
    assert result["overhead_5"] == pytest.approx(result["ours_5_seconds"] / result["plain_seconds"], rel=0.01)
    ratio = result["stock_hooks_5_seconds"] / result["ours_5_seconds"]
    assert result["speedup_vs_stock_5"] == pytest.approx(ratio, rel=0.01)
    assert all(result[f"{side}_peak_gb"] > 0 for side in ("plain", "ours_5"))
    assert result["composer_step_over_plain"] > result["composer_guidance_over_plain"] > 0


def test_sizes_are_told_and_one_is_run(repository: Path, comfyui_root: Path) -> None:
    line = [sys.executable, str(repository / "benchmarks" / "sizes"), "--quick"]
    environment = os.environ | {"BLOCKLORA_COMFYUI": str(comfyui_root)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    tiny, (real,) = found["tiny"], found["real"].values()
    for layers in ("attention", "all_linear"):
        assert 0 < tiny[f"grams_{layers}_gb"] <= tiny[f"grams_{layers}_peak_gb"] < 0.2
        assert 0 < tiny[f"lora_{layers}_mb"] < tiny[f"file_{layers}_mb"]
        assert tiny[f"training_{layers}_fp8_gb"] < tiny[f"training_{layers}_bf16_gb"]
    # Tiny is mostly what Python and torch take for themselves.
    assert real["told_gb"] > 0 and real["with_collection_gb"] >= real["step_gb"] > 0
