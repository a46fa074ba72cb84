"""What fusing takes: collecting a concept's Grams, the file that carries them, the solve with fifteen, its exactness.

Run as `python run.py bench fuse [--quick] [--repeats N]`. The UNet has SD1.5's shapes and random fp16 weights.

The last line is one JSON object:
    collect_seconds     one concept's Grams by BlockLoRA Collect Grams' own function, on this UNet and a CLIP of random
                        weights: 2 pictures of 128 px, 4 sampler steps, the 128 attention Linears; the median of the
                        repeats. Loading the model and packing the Grams are part of it
    solve_seconds       `fused` of fifteen concepts, rank 4, in the 128 attention Linears, from Grams in memory
    solve_ff_seconds    the same with the 32 feed-forward Linears
    solvers             for each width n, fifteen Grams of 48 eigenpairs: seconds by each of the two solvers
    file_mb, file_ff_mb a file of ours with Grams, as saved; lora_mb, lora_ff_mb: without them
    grams               for each number of eigenpairs k: megabytes that they add to that file, and errors of the fused
                        result against full Grams, see Trial in sides/fusion.py. Files carry 48 of the sketch
    error_vs_lbfgs      relative, largest of three cases, see against_lbfgs in _fusion.py
    peak_gb             most memory this process took, all of the above
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.shared import Stopwatch, finish, import_comfyui, peak_memory, say, uncollected

import_comfyui()

import torch  # noqa: E402

from benchmarks.common.concepts import make_concept, make_gram, make_grams  # noqa: E402
from benchmarks.common.models import SD15, TINY, build_clip, build_model, fill  # noqa: E402
from benchmarks.merge import SLOTS  # noqa: E402

# ComfyUI is on the path only now.
from benchmarks.sides.fusion import RANK, Shapes, Trial, against_lbfgs, linears  # noqa: E402
from blocklora_core.concept.concept import BlockLoRA, Stack  # noqa: E402
from blocklora_core.concept.gram import EIGENPAIRS, Grams  # noqa: E402
from blocklora_core.concept.keys import fused_parts  # noqa: E402
from blocklora_core.files.io import save  # noqa: E402
from blocklora_core.host.base import base_name  # noqa: E402
from blocklora_core.host.train.collect import CollectJob, collect  # noqa: E402
from blocklora_core.host.train.layers import is_attention, is_attention_or_feed_forward  # noqa: E402
from blocklora_core.merge.methods.fused import fused  # noqa: E402
from blocklora_core.merge.solve import ByMatrix, ByWoodbury, PackedSum  # noqa: E402

CONCEPTS = 15
PAIRS = (16, 32, 48, 64)
WORDS = (
    "man", "woman", "cat", "dog", "house", "tree", "car", "fish", "bird", "flower", "ship", "robot", "horse", "cake",
    "hat",
)  # fmt: skip


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """Median of `repeats` runs, after one that warms up."""

    def once() -> float:
        watch = Stopwatch()
        work()
        return watch.seconds()

    return median([uncollected(once) for _ in range(repeats + 1)][1:])


@dataclass(frozen=True)
class Real:
    """The real shapes. shapes, shapes_ff: attention, and with feed-forward."""

    model: Any
    clip: Any
    shapes: Shapes
    shapes_ff: Shapes

    @classmethod
    def build(cls, config: dict[str, Any]) -> Real:
        model, clip = build_model(config), build_clip()
        fill(clip.cond_stage_model.parameters())
        found = cls(model, clip, linears(model, is_attention), linears(model, is_attention_or_feed_forward))
        say(f"{base_name(model)}: {len(found.shapes)} attention Linears, {len(found.shapes_ff)} with feed-forward")
        return found

    def _concept(self, shapes: Shapes) -> BlockLoRA:
        return replace(make_concept(0, shapes, RANK, SLOTS, fused_parts), base=base_name(self.model))

    def collect(self, shapes: Shapes, job: CollectJob) -> Grams:
        lora = self._concept(shapes)
        (found,) = collect(self.model, self.clip, (lora,), job).stack
        assert found.grams is not None
        return found.grams

    def sizes(self, folder: Path, grams: Grams, shapes: Shapes) -> tuple[float, float]:
        """Megabytes of a saved concept with Grams, and without."""
        lora = replace(self._concept(shapes), grams=grams)
        made = save(folder / "with.safetensors", lora, overwrite=True)
        bare = save(folder / "without.safetensors", replace(lora, grams=None), overwrite=True)
        return megabytes(made), megabytes(bare)


def megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6


def fifteen(shapes: Shapes, grams: Grams) -> Stack:
    made = (make_concept(number, shapes, RANK, SLOTS, fused_parts) for number in range(CONCEPTS))
    return tuple(replace(lora, grams=make_grams(lora, grams.input_of, number)) for number, lora in enumerate(made))


def solver_rows(widths: Sequence[int], repeats: int) -> list[dict[str, float]]:
    """Both solvers for a group of three layers that share their input."""
    rows = []
    for n in widths:
        random = torch.Generator().manual_seed(n)
        summed = PackedSum.of([make_gram(n, random) for _ in range(CONCEPTS)])
        diagonal = summed.diagonals.sum(0) + 0.1 * summed.mean_energy
        goals = torch.randn(3 * RANK * CONCEPTS, n, generator=random, dtype=torch.float64)
        row: dict[str, float] = {"n": n}
        for name, kind in (("matrix_seconds", ByMatrix), ("woodbury_seconds", ByWoodbury)):
            row[name] = round(seconds_of(partial(solved_by, kind, summed, diagonal, goals), repeats), 4)
        say(f"solvers: {row}")
        rows.append(row)
    return rows


def solved_by(
    kind: type[ByMatrix] | type[ByWoodbury], summed: PackedSum, diagonal: torch.Tensor, goals: torch.Tensor
) -> torch.Tensor:
    return kind(summed.roots, diagonal, [goals]).solution()


def gram_rows(trial: Trial, grams: Grams, grams_ff: Grams, pairs: Sequence[int]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for k in pairs:
        errors = trial.errors(fused(trial.packed(k)))
        rows.append({"k": k, "mb": added(grams, k), "mb_ff": added(grams_ff, k), **errors})
        say(f"grams: {rows[-1]}")
    rows.append({"k": f"{EIGENPAIRS} of the sketch", **trial.errors(fused(trial.sketched(EIGENPAIRS)))})
    rows.append({"k": "all", **trial.errors(trial.goal)})
    rows.append({"k": "not fused", **trial.errors(trial.exact)})
    return rows


def added(grams: Grams, k: int) -> float:
    """Megabytes of `grams` with k eigenpairs: float16 vectors, float32 values and diagonal."""
    return round(
        sum(2 * g.size * min(k, g.size) + 4 * (g.size + min(k, g.size)) for g in grams.inputs.values()) / 1e6, 2
    )


def measure(folder: Path, quick: bool, repeats: int) -> dict[str, Any]:
    real = Real.build(TINY | {"context_dim": 768} if quick else SD15)
    job = CollectJob(pictures=2, steps=4, size=128)
    collect_seconds = seconds_of(lambda: real.collect(real.shapes, job), repeats)
    say(f"collect: {collect_seconds:.2f} s")
    grams, grams_ff = (real.collect(shapes, job) for shapes in (real.shapes, real.shapes_ff))
    (file, bare), (file_ff, bare_ff) = (
        real.sizes(folder, held, shapes) for held, shapes in ((grams, real.shapes), (grams_ff, real.shapes_ff))
    )
    solves = {}
    for name, shapes, held in (("solve_seconds", real.shapes, grams), ("solve_ff_seconds", real.shapes_ff, grams_ff)):
        stack = fifteen(shapes, held)
        solves[name] = seconds_of(partial(fused, stack), repeats)
        say(f"{name}: {solves[name]:.2f}")
    widths = sorted({gram.size for gram in grams_ff.inputs.values()})
    words, steps = (WORDS[:3], 2) if quick else (WORDS, 20)
    wanted = is_attention if quick else is_attention_or_feed_forward
    trial = Trial.make(folder, words, CollectJob(pictures=4, steps=steps, size=96, eigenpairs=2048), wanted)
    return {
        "collect_seconds": collect_seconds,
        "collect": f"one concept, {job.pictures} pictures of {job.size} px, {job.steps} steps, attention Linears",
        **solves,
        "file_mb": file,
        "file_ff_mb": file_ff,
        "lora_mb": bare,
        "lora_ff_mb": bare_ff,
        "eigenpairs": EIGENPAIRS,
        "error_vs_lbfgs": against_lbfgs(),
        "grams": gram_rows(trial, grams, grams_ff, PAIRS[::3] if quick else PAIRS),
        "solvers": solver_rows(widths, repeats),
        "peak_gb": peak_memory() / 1e9,
        "base": base_name(real.model),
        "linears": len(real.shapes),
        "linears_ff": len(real.shapes_ff),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and check fusing.")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it works")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        result = measure(Path(folder), options.quick, options.repeats)
    finish({**result, "concepts": CONCEPTS, "rank": RANK, "repeats": options.repeats, "quick": options.quick})


if __name__ == "__main__":
    main()
