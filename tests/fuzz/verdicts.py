"""What becomes of one fuzzed file or state, in one word."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from blocklora_core.concept.concept import BlockLoRA
from blocklora_core.files.io import FileError, load
from blocklora_core.merge import merge
from blocklora_core.merge.finite import FLOAT32, stays_within
from tests.core.samples import Recipe

SECONDS, GIGABYTE = 10.0, 1_000_000  # of this process alone, as others may keep it waiting; ru_maxrss counts kilobytes


def verdict(path: Path, name: str, data: bytes) -> tuple[str, str]:
    """(refused, right, foreign, hangs, over_memory, wrong or nonfinite; why) for a file `name` of `data`."""
    file = path / name
    file.write_bytes(data)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    word, why = _outcome(file)
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > GIGABYTE:
        return "over_memory", why
    return ("hangs", why) if time.process_time() - started > SECONDS else (word, why)


def _outcome(file: Path) -> tuple[str, str]:
    try:
        lora = load(file)
    except FileError as error:
        return ("refused", "") if str(file) in str(error) else ("foreign", f"names no file: {error}")
    except BaseException as error:  # noqa: BLE001 - what must not come out is what is looked for
        return "foreign", f"{type(error).__name__}: {error}"[:300]
    return _merged(file, lora)


def _merged(file: Path, lora: BlockLoRA) -> tuple[str, str]:
    if file.suffix == ".safetensors" and (odd := _odd(file, lora)):
        return "wrong", odd
    try:
        found = [merge((lora,)), merge((lora, Recipe().make("<other>", 5)), overlap="share")]
    except ValueError:
        return "refused", ""
    except BaseException as error:  # noqa: BLE001
        return "foreign", f"merge: {type(error).__name__}: {error}"[:300]
    layers = [item for merged in found for member in merged.members for item in member.layers.items()]
    beyond = [name for name, layer in layers if not stays_within(FLOAT32, layer)]
    if beyond:
        return "nonfinite", beyond[0]
    return "right", ""


def _odd(file: Path, lora: BlockLoRA) -> str:
    """Where `lora` is not what the safetensors library and kohya's rule read in the file; empty where it is."""
    try:
        tensors = _tensors(file)
    except SafetensorError as error:
        return f"the safetensors library refuses it: {error}"
    for stem, layer in lora.layers.items():
        up, down, mid = (tensors.get(f"{stem}.{part}.weight") for part in ("lora_up", "lora_down", "lora_mid"))
        if up is None or down is None or mid is not None:
            continue
        scale = tensors[f"{stem}.alpha"].item() / len(down) if f"{stem}.alpha" in tensors else 1.0
        wanted = scale * up.flatten(1).double() @ down.flatten(1).double()
        # In float64, as what float32 does not hold is for the merge to refuse.
        got = replace(layer, up=layer.up.double(), down=layer.down.double()).dense().flatten(1)
        if not torch.allclose(got, wanted, rtol=1e-4, atol=1e-40 + 1e-6 * float(wanted.abs().max())):
            return f"{stem}: {float((got - wanted).abs().max())}"
    return ""


def _tensors(file: Path) -> Mapping[str, torch.Tensor]:
    with safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
