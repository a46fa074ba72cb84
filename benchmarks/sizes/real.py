"""One real training step and one collection at the real size, with random weights, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.models import CPU
from benchmarks.common.shared import peak_memory, resident_memory
from benchmarks.sizes.measure import Job, expected, prepared
from benchmarks.sizes.models import Sized

DTYPES = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}


def job_of(dtype: str, side: int) -> Job:
    # Eight bits are widened as they are used: without checkpointing every widened weight waits for the backward pass.
    return Job("attention", DTYPES[dtype], side, checkpointing=dtype == "fp8")


def measured(name: str, dtype: str, side: int) -> dict[str, Any]:
    """What `python benchmarks/sizes --real` finds in a process of its own."""
    line = [sys.executable, str(Path(__file__).parent), "--real", name, dtype, str(side)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        return {
            "failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"ended with {done.returncode}"
        }
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def real(sized: Sized, dtype: str, side: int) -> dict[str, Any]:
    """Gigabytes that the step was told to take and took, above what Python and the imported libraries take."""
    job = job_of(dtype, side)
    told, _ = expected(sized, job)
    before = resident_memory()
    with prepared(sized, job, CPU, load=True) as trainer:
        started = time.perf_counter()
        at: dict[str, float] = {}

        def after_step(_progress: object) -> None:
            at["step_seconds"] = time.perf_counter() - started
            at["step_gb"] = (peak_memory() - before) / 1e9

        trainer.run(after_step)
        at["collection_seconds"] = time.perf_counter() - started - at["step_seconds"]
    at["with_collection_gb"] = (peak_memory() - before) / 1e9
    return {
        "dtype": dtype,
        "latent_side": side,
        "told_gb": told.total / 1e9,
        **at,
        "step_over_told": at["step_gb"] * 1e9 / told.total,
    }
