"""peft's add_weighted_adapter beside our merge() on the same low-rank matrices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.common.concepts import Shapes, make_concept
from benchmarks.common.shared import Stopwatch, interleaved, medians, say
from blocklora_core.concept.concept import Stack
from blocklora_core.merge import merge

DENSITY = 0.2
MERGED = "merged"


class Linears(nn.Module):
    """Linears without a use: peft only asks for their shapes."""

    def __init__(self, shapes: Shapes):
        super().__init__()
        with torch.device("meta"):
            for name, (out, size) in shapes.items():
                self.add_module(name, nn.Linear(size, out, bias=False))
        self.to_empty(device="cpu")
        self.requires_grad_(False)


def random_stack(shapes: Shapes, concepts: int, rank: int, slots: int | None) -> Stack:
    """Concepts in slots 0 up, or plain ones that hold every row."""
    return tuple(make_concept(number, shapes, rank, slots) for number in range(concepts))


def with_adapters(stack: Stack, shapes: Shapes) -> Any:
    """A peft model of Linears of `shapes` that holds each concept of `stack` as an adapter."""
    from peft import LoraConfig, get_peft_model

    rank = next(iter(stack[0].layers.values())).rank
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(shapes))
    model = get_peft_model(Linears(shapes), config, adapter_name="0")
    for number in range(1, len(stack)):
        model.add_adapter(str(number), config)
    linears = model.base_model.model
    for number, lora in enumerate(stack):
        for name in shapes:
            getattr(linears, name).lora_A[str(number)].weight.data.copy_(lora.layers[name].down)
            getattr(linears, name).lora_B[str(number)].weight.data.copy_(lora.layers[name].up)
    return model


def add_weighted(model: Any, concepts: int, kind: str) -> float:
    """Seconds of one add_weighted_adapter; what it made is deleted again."""
    names = [str(number) for number in range(concepts)]
    more = {"density": DENSITY} if kind == "ties" else {}
    watch = Stopwatch()
    model.add_weighted_adapter(names, [1.0] * concepts, MERGED, combination_type=kind, **more)
    taken = watch.seconds()
    made = [weight for name, weight in model.named_parameters() if f".{MERGED}." in name]
    if not made or not all(bool(weight.any()) for weight in made):
        raise RuntimeError(
            f"peft's {kind}: expected a merged adapter in every layer, got some without. Check the names."
        )
    model.delete_adapter(MERGED)
    return taken


def subset(shapes: Shapes, each: int) -> dict[str, tuple[int, int]]:
    """The first `each` layers of every shape."""
    seen: Counter[tuple[int, int]] = Counter()
    chosen = {}
    for name, shape in shapes.items():
        seen[shape] += 1
        if seen[shape] <= each:
            chosen[name] = shape
    return chosen


def svd_seconds(measured: Mapping[tuple[int, int], float], shapes: Shapes, each: int) -> float:
    """Seconds of all layers from those of `each` layers a shape: equal shapes cost equal multiply-adds."""
    return sum(measured[shape] * number / min(each, number) for shape, number in Counter(shapes.values()).items())


def peft_results(shapes: Shapes, concepts: int, rank: int, slots: int, repeats: int) -> dict[str, Any] | None:
    """Seconds of peft and of ours; None when peft is not installed.

    peft knows no rows, so it gets whole matrices; so does our TIES. Ours by per_row gets row blocks. peft's linear and
    ties combine the ups with each other and the downs with each other, which is not the sum, or the TIES, of the
    products; ours and peft's svd look at the products.
    """
    try:
        import peft
    except ImportError:
        return None
    # peft passes over what has "lora_" in its name, as our stems have.
    shapes = {f"layer{number}": shape for number, shape in enumerate(shapes.values())}
    blocks, plain = (random_stack(shapes, concepts, rank, some) for some in (slots, None))
    model = with_adapters(plain, shapes)
    sides: dict[str, Callable[[], float]] = {
        "linear": lambda: add_weighted(model, concepts, "linear"),
        "ties": lambda: add_weighted(model, concepts, "ties"),
        "ours": lambda: _merge_seconds(blocks, "per_row"),
        "ours ties": lambda: _merge_seconds(plain, "ties"),
    }
    median = medians(interleaved(sides, repeats))
    svd, layers = _svd(shapes, concepts, rank)
    return {
        "version": peft.__version__,
        "linear_seconds": round(median["linear"], 4),
        "ties_seconds": round(median["ties"], 4),
        "svd_seconds": round(svd, 4),
        "svd_measured_layers": layers,
        "linear_and_ties_of": "ups and downs apart (peft), products (ours)",
        "svd_scaled_by": "number of layers of each shape, which all cost the same multiply-adds",
        "ours_seconds": round(median["ours"], 4),
        "ours_ties_seconds": round(median["ours ties"], 4),
        "concepts": concepts,
        "rank": rank,
        "layers": len(shapes),
        "density": DENSITY,
        "repeats": repeats,
    }


def _merge_seconds(stack: Stack, method: str) -> float:
    watch = Stopwatch()
    merge(stack, method)
    return watch.seconds()


def _svd(shapes: Shapes, concepts: int, rank: int) -> tuple[float, int]:
    """Seconds of combination type svd, from one layer of each shape, once; and how many layers those are."""
    measured = {}
    for name, shape in subset(shapes, 1).items():
        one = {name: shape}
        model = with_adapters(random_stack(one, concepts, rank, None), one)
        measured[shape] = add_weighted(model, concepts, "svd")
        say(f"peft svd: one layer of {shape[0]} x {shape[1]} {measured[shape]:.3f} s")
    return svd_seconds(measured, shapes, 1), len(measured)
