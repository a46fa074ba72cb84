"""How fast fifteen concepts merge into a real SD1.5 UNet, against fifteen chained stock LoRAs.

Run as `python run.py bench merge [--quick] [--repeats N]`. The UNet has SD1.5's shapes and random fp16 weights, the
CLIP its text encoder's; the concepts are files of ours (rank 4, the 128 attention Linears, a token, Grams), saved
before the clock starts. Merges are timed warm, of files in memory that were merged before; cold, of files in
memory that were never merged; and from files, with their reading from a warm disk.
The whole takes about ten minutes of two idle cores, most of it in the stock chains of SDXL.
Every side ends with ComfyUI's own load: ModelPatcher.patch_model with its backup of what it patches; the
unpatching that follows each is not timed. Sides take turns, and medians count.

The last line is one JSON object:
    stock_chain_seconds    fifteen times what LoraLoader does with a file in memory to MODEL and CLIP (key maps,
                           load_lora, clones, add_patches), then one load of the UNet
    stock_files_seconds    the same with its files read
    block_seconds          our merge into MODEL and CLIP, method per_row, then one load of the UNet, warm; also
                           block_cold_seconds and block_files_seconds
    fused_seconds          our merge, method fused, the solve included, then one load, warm; also fused_cold_seconds and
                           fused_files_seconds
    copy_seconds           one load of the same model without patches, see Bench.copy
    bare_load_seconds      the part of copy_seconds that is spent in ComfyUI
    copy_weights_seconds   copying the 128 weights once: no merge that keeps a backup can be faster
    speedup                stock_chain_seconds / block_seconds; speedup_cold, over block_cold_seconds;
                           speedup_from_files, stock_files_seconds / block_files_seconds
    over_copy              block_seconds / copy_seconds
    growth_60_over_15      sixty concepts over fifteen, our merge, both in schemes of 64 slots
    sizes                  rows: the same for 1 to 60 concepts in schemes of 64 slots on SD1.5's shapes (with CLIP) and
                           SDXL's (the UNet alone), from memory, and with the files read from a warm disk
                           (files_seconds); null where a stock chain would take too long, and note says so
    multi_loader_seconds   the stock node with many rows on MODEL alone, files of fifteen concepts read, then one load;
                           null where ComfyUI has no such node, and multi_loader says so
    bench_seconds          what the benchmark itself took
    peft                   add_weighted_adapter on fifteen LoRAs of the 128 Linears, against our merge() alone (see
                           sides/merge_peft.py); null without peft
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.shared import Stopwatch, finish, import_comfyui, interleaved, medians, say

import_comfyui()

import torch  # noqa: E402

from benchmarks.common.concepts import make_concept, make_grams  # noqa: E402
from benchmarks.common.models import SD15, SDXL, TINY, TINY_SDXL, build_clip, build_model  # noqa: E402
from benchmarks.sides.merge_peft import peft_results  # noqa: E402
from benchmarks.sides.merge_sizes import SIZES, Growth, chain, loaded_seconds, read_stock  # noqa: E402
from benchmarks.sides.stock_rows import apply_rows, multi_loader  # noqa: E402
from blocklora_core.concept.concept import Stack  # noqa: E402
from blocklora_core.files.io import load, save  # noqa: E402
from blocklora_core.host.base import base_name  # noqa: E402
from blocklora_core.host.train.layers import is_attention  # noqa: E402
from blocklora_core.host.weights.names import model_stems, preferred_stems  # noqa: E402
from blocklora_core.host.weights.patching import apply_merge  # noqa: E402

RANK, CONCEPTS, MANY = 4, 15, 60
SLOTS, MANY_SLOTS = 16, 64
STOCK_LIMIT_SDXL = 15
REPEATS_OF_SIZES = 2
QUICK_SIZES = (1, 2)
KINDS = (
    "stock_chain",
    "stock_files",
    *(f"{ours}{kind}" for ours in ("block", "fused") for kind in ("", "_cold", "_files")),
)


def attention_shapes(model: Any) -> dict[str, tuple[int, int]]:
    """Stem -> shape of the attention Linears."""
    weights, found = model.model.state_dict(), {}
    for name, stem in preferred_stems(model_stems(model)).items():
        if is_attention(name) and name.endswith(".weight") and weights[name].ndim == 2:
            found[stem] = tuple(weights[name].shape)
    return found


def input_of(stem: str) -> str:
    """Layers that read one input: q, k and v of self-attention, k and v of cross-attention."""
    shared = ("attn1_to_k", "attn1_to_v"), ("attn2_to_v",)
    for names, first in zip(shared, ("attn1_to_q", "attn2_to_k"), strict=True):
        for name in names:
            if stem.endswith(name):
                return stem[: -len(name)] + first
    return stem


def make_token(number: int) -> torch.Tensor:
    return torch.randn(2, 768, generator=torch.Generator().manual_seed(number)) * 0.01


def make_files(folder: Path, model: Any, concepts: int, slots: int, with_grams: bool) -> list[Path]:
    """Saved concepts in slots 0 up."""
    shapes, base, paths = attention_shapes(model), base_name(model), []
    for number in range(concepts):
        lora = replace(make_concept(number, shapes, RANK, slots), base=base, embeddings={"clip_l": make_token(number)})
        if with_grams:
            lora = replace(lora, grams=make_grams(lora, {stem: input_of(stem) for stem in shapes}, number))
        paths.append(save(folder / f"{slots}" / f"c{number}.safetensors", lora))
    say(f"made {concepts} files for {slots} slots, {paths[0].stat().st_size / 1e6:.1f} MB each")
    return paths


@dataclass(frozen=True)
class Bench:
    """The sides, each a function that returns its seconds."""

    model: Any
    clip: Any
    paths: dict[str, list[Path]]
    stacks: dict[str, Stack]
    stock: list[Mapping[str, torch.Tensor]]

    def stock_chain(self) -> float:
        return loaded_seconds(lambda: chain(self.model, self.clip, self.stock))

    def merge(self, stack: str, method: str) -> Callable[[], float]:
        return lambda: loaded_seconds(lambda: apply_merge(self.stacks[stack], self.model, self.clip, method).model)

    def stock_files(self) -> float:
        # One at a time, as each loader in a chain holds its own file.
        return loaded_seconds(lambda: chain(self.model, self.clip, map(read_stock, self.paths["files"])))

    def cold(self, method: str) -> float:
        stack = self._read()
        return loaded_seconds(lambda: apply_merge(stack, self.model, self.clip, method).model)

    def files(self, method: str) -> float:
        return loaded_seconds(lambda: apply_merge(self._read(), self.model, self.clip, method).model)

    def _read(self) -> Stack:
        return tuple(map(load, self.paths["files"]))

    def multi_loader(self, node: Any) -> float:
        return loaded_seconds(lambda: apply_rows(node, self.model, self.paths["files"]))

    def bare_load(self) -> float:
        """patch_model without patches. On a CPU nothing moves, so this is bookkeeping alone."""
        return loaded_seconds(self.model.clone)

    def copy(self) -> float:
        """One load without patches: patch_model, and every weight of the model copied once.

        A load brings each weight from where it is stored to where it is used. On a CPU both are the same memory and
        ComfyUI skips the copy, so it is made here, into fresh memory that is held to the end, as a load does.
        """
        taken, watch = self.bare_load(), Stopwatch()
        copies = [parameter.clone() for parameter in self.model.model.parameters()]
        taken += watch.seconds()
        copies.clear()
        return taken

    def copy_weights(self) -> float:
        """The attention weights copied once, as the backup of any patching load does."""
        weights = self.model.model.state_dict()
        stems = attention_shapes(self.model)
        names = [name for name, stem in preferred_stems(model_stems(self.model)).items() if stem in stems]
        watch = Stopwatch()
        copies = [weights[name].clone() for name in names]
        taken = watch.seconds()
        copies.clear()
        return taken


def sides(bench: Bench) -> dict[str, Callable[[], float]]:
    node = multi_loader()
    newer = {} if node is None else {"multi_loader": lambda: bench.multi_loader(node)}
    return newer | {
        "stock_chain": bench.stock_chain,
        "stock_files": bench.stock_files,
        "block": bench.merge("files", "per_row"),
        "block_cold": lambda: bench.cold("per_row"),
        "block_files": lambda: bench.files("per_row"),
        "fused": bench.merge("files", "fused"),
        "fused_cold": lambda: bench.cold("fused"),
        "fused_files": lambda: bench.files("fused"),
        "copy": bench.copy,
        "bare_load": bench.bare_load,
        "copy_weights": bench.copy_weights,
        "block_15_of_64": bench.merge("few", "per_row"),
        "block_60_of_64": bench.merge("many", "per_row"),
    }


def results(median: dict[str, float]) -> Iterator[tuple[str, float]]:
    for name in (*KINDS, "copy", "bare_load", "copy_weights"):
        yield f"{name}_seconds", median[name]
    yield "speedup", median["stock_chain"] / median["block"]
    yield "speedup_cold", median["stock_chain"] / median["block_cold"]
    yield "speedup_from_files", median["stock_files"] / median["block_files"]
    yield "over_copy", median["block"] / median["copy"]
    yield "growth_60_over_15", median["block_60_of_64"] / median["block_15_of_64"]


def prepare(folder: Path, config: dict[str, Any]) -> Bench:
    """The model and the loaded files."""
    model = build_model(config)
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    say(f"{base_name(model)}: {parameters / 1e6:.0f}M parameters, {len(attention_shapes(model))} attention Linears")
    files = make_files(folder, model, CONCEPTS, SLOTS, with_grams=True)
    many = make_files(folder, model, MANY, MANY_SLOTS, with_grams=False)
    paths = {"files": files, "few": many[:CONCEPTS], "many": many}
    stacks = {name: tuple(map(load, some)) for name, some in paths.items()}
    return Bench(model, build_clip(), paths, stacks, list(map(read_stock, files)))


def sdxl_rows(folder: Path, repeats: int, quick: bool) -> list[dict[str, Any]]:
    """The rows of sizes on SDXL's shapes."""
    model = build_model(TINY_SDXL if quick else SDXL)
    numbers = QUICK_SIZES if quick else SIZES
    say(f"{base_name(model)}: {len(attention_shapes(model))} attention Linears")
    paths = make_files(folder, model, max(numbers), MANY_SLOTS, with_grams=False)
    return Growth(model, None, paths, 1 if quick else STOCK_LIMIT_SDXL).rows(numbers, repeats)


def sd15_results(folder: Path, options: argparse.Namespace, repeats: int) -> dict[str, Any]:
    """Everything that is measured on SD1.5's shapes."""
    bench = prepare(folder, TINY if options.quick else SD15)
    median, shapes = medians(interleaved(sides(bench), options.repeats)), attention_shapes(bench.model)
    growth = Growth(bench.model, bench.clip, bench.paths["many"], MANY)
    return {
        **dict(results(median)),
        "multi_loader_seconds": median.get("multi_loader"),
        "multi_loader": "measured" if "multi_loader" in median else "not in this ComfyUI",
        "base": base_name(bench.model),
        "linears": len(shapes),
        "sizes": growth.rows(QUICK_SIZES if options.quick else SIZES, repeats),
        "peft": peft_results(shapes, CONCEPTS, RANK, SLOTS, repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time merging against chained stock LoRAs.")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it works")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    options, watch = parser.parse_args(), Stopwatch()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, torch.inference_mode():
        repeats = min(options.repeats, REPEATS_OF_SIZES)
        measured = sd15_results(Path(folder, "sd15"), options, repeats)
        gc.collect()  # SD1.5's model is freed before SDXL's 5 GB are built.
        measured["sizes"] += sdxl_rows(Path(folder, "sdxl"), repeats, options.quick)
        finish(
            {
                **measured,
                "concepts": CONCEPTS,
                "rank": RANK,
                "slots": SLOTS,
                "slots_of_growth": MANY_SLOTS,
                "repeats": options.repeats,
                "bench_seconds": watch.seconds(),
                "quick": options.quick,
            }
        )


if __name__ == "__main__":
    main()
