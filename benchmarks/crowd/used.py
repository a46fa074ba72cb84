"""What a picture costs by how many concepts are used in it, whatever the cast has: `python -m benchmarks.crowd.used`.

Files with Grams in the 128 attention Linears of SD1.5, rank 4, 64 slots: loaded, merged by rows, fused.
Needs no ComfyUI.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from benchmarks.common.concepts import make_concept, make_grams
from blocklora_core.concept.keys import fused_parts
from blocklora_core.files.io import load, save
from blocklora_core.merge.methods.fused import fused
from blocklora_core.merge.methods.sums import per_row

WIDTHS = (320,) * 5 + (640,) * 5 + (1280,) * 6
TEXT = 768
SLOTS = 64
Result = TypeVar("Result")


def shapes() -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Layer -> (m, n), and layer -> whose input it shares."""
    found, input_of = dict[str, tuple[int, int]](), dict[str, str]()
    for block, width in enumerate(WIDTHS):
        for side, size in (("attn1", width), ("attn2", TEXT)):
            for name in ("to_q", "to_k", "to_v", "to_out_0"):
                stem = f"lora_unet_down_blocks_{block}_attentions_0_transformer_blocks_0_{side}_{name}"
                of_text = side == "attn2" and name in ("to_k", "to_v")
                found[stem] = width, size if of_text else width
                input_of[stem] = "text" if of_text else f"{block} {side}{' out' * (name == 'to_out_0')}"
    return found, input_of


def seconds(work: Callable[[], Result]) -> tuple[float, Result]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def main() -> None:
    counts = [*map(int, sys.argv[1:])] or [2, 5, 15, 30, 60]
    layers, input_of = shapes()
    with tempfile.TemporaryDirectory() as folder:
        for at in range(max(counts)):
            lora = make_concept(at, layers, 4, SLOTS, fused_parts)
            save(Path(folder, f"{at}.safetensors"), replace(lora, grams=make_grams(lora, input_of, at)))
        print("used  MB a file  load s  by rows s  fused s")
        for count in counts:
            files = [Path(folder, f"{at}.safetensors") for at in range(count)]
            read, stack = seconds(lambda files=files: tuple(map(load, files)))  # type: ignore[misc]
            rows, _ = seconds(lambda stack=stack: per_row(stack))  # type: ignore[misc]
            solved, _ = seconds(lambda stack=stack: fused(stack))  # type: ignore[misc]
            size = files[0].stat().st_size / 1e6
            print(f"{count:4}  {size:9.1f}  {read:6.2f}  {rows:9.3f}  {solved:7.2f}", flush=True)


if __name__ == "__main__":
    main()
