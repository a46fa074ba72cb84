"""The README's pictures, made by the demo's own graphs on its base: `python run.py bench pictures`.

Trains four people two at a time with the graph of `run.py demo`, on a server, and draws docs/demo.png (two of them,
alone and in one picture), docs/four.png (four merged, by the plain sum and fused) and docs/inspect.png (what Inspect
tells of these four).
Nothing is picked: the first two of each batch are shown. With --draw nothing is trained: the files of the last run are
taken. Ends in one JSON object.

--steps N for a quick look, in place of the graph's own   --out FOLDER instead of docs/
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from PIL import Image, ImageDraw, ImageFont

from benchmarks.common.shared import ROOT, finish, import_comfyui, say
from demo.concepts import CONCEPTS, DemoConcept
from demo.prepare import CHECKPOINT, FOLDER
from launcher.environment.host import own_host
from launcher.layout import Layout
from launcher.own import Concept, Own
from launcher.server import Server, running
from launcher.workflow import Graph, apply, execute, pictures, to_api

GRAPHS = ROOT / "demo" / "workflows"
PROMPT = "a laughing {} {} in a blue shirt on a white background"
SIDE, GAP, LINE = 200, 6, 22
INK = (60, 64, 72)
METHODS = {"per_row": "four people merged, plain sum of row blocks (per_row)", "fused": "the same four files, fused"}


def pair_graph(graph: Graph, pair: Sequence[DemoConcept], steps: int) -> Graph:
    """The demo's graph for two other people."""
    made = Own(concepts=tuple(Concept(Path(), one.folder, one.class_word) for one in pair)).graph(graph, {})
    for node in made.values():
        if node["class_type"] == "BlockLoRAImages":
            node["inputs"]["folder"] = f"{FOLDER}/{node['inputs']['folder'].rsplit('/', 1)[1]}"
    return apply(made, {"BlockLoRATrain": {"steps": steps}} if steps else {})


def merged_graph(people: Sequence[DemoConcept], method: str) -> Graph:
    """Two pictures of each, from one model that holds them all."""
    graph: Graph = {}

    def node(name: str, kind: str, **inputs: Any) -> None:
        graph[name] = {"class_type": kind, "inputs": inputs}

    node("base", "CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    for one in people:
        node(one.folder, "BlockLoRALoad", lora_name=f"blocklora/{one.folder}.safetensors", strength=1.0)
    stacks = {f"stack_{number}": [one.folder, 0] for number, one in enumerate(people, 1)}
    strengths = {f"strength_{number}": 1.0 for number in range(1, 9)}
    node("stack", "BlockLoRAStack", **stacks, **strengths)
    node("merge", "BlockLoRAMerge", model=["base", 0], clip=["base", 1], stack=["stack", 0], method=method)
    graph["merge"]["inputs"]["overlap"] = "error"
    node("inspect", "BlockLoRAInspect", stack=["stack", 0])
    node("save_inspect", "SaveImage", images=["inspect", 2], filename_prefix="inspect")
    node("negative", "CLIPTextEncode", clip=["merge", 1], text="")
    node("size", "EmptyLatentImage", width=128, height=128, batch_size=2)
    for seed, one in enumerate(people, 1):
        node(
            f"prompt_{one.folder}",
            "CLIPTextEncode",
            clip=["merge", 1],
            text=PROMPT.format(one.style, one.name),
        )
        node(
            f"sample_{one.folder}", "KSampler", model=["merge", 0], positive=[f"prompt_{one.folder}", 0],
            negative=["negative", 0], latent_image=["size", 0], seed=seed, steps=20, cfg=3.0, sampler_name="euler",
            scheduler="normal", denoise=1.0,
        )  # fmt: skip
        node(f"decode_{one.folder}", "VAEDecode", samples=[f"sample_{one.folder}", 0], vae=["base", 2])
        saved = f"{method}_{one.folder}"
        node(f"save_{one.folder}", "SaveImage", images=[f"decode_{one.folder}", 0], filename_prefix=saved)
    return graph


def run(server: Server, graph: Graph) -> list[Path]:
    """What the graph saved, in the order of its nodes."""
    history = execute(server, graph, timeout=3600.0)
    found = pictures(server, str(history["prompt"][1]))
    return [one.path(server.host.root / "output") for one in found if one.kind == "output"]


def of(paths: Sequence[Path], name: str, count: int) -> list[Image.Image]:
    found = [path for path in paths if path.name.startswith(f"{name}_")][:count]
    return [Image.open(path).convert("RGB") for path in found]


def sheet(rows: Sequence[Sequence[tuple[str, list[Image.Image]]]], height: int) -> Image.Image:
    """Rows of groups of pictures, each group with its words above."""
    font = ImageFont.load_default(14)

    def width(picture: Image.Image) -> int:
        return round(picture.width * height / picture.height)

    across = max(sum(width(one) + GAP for _, group in row for one in group) for row in rows) - GAP
    made = Image.new("RGB", (across, len(rows) * (height + LINE + GAP) - GAP), "white")
    draw = ImageDraw.Draw(made)
    for number, row in enumerate(rows):
        top, left = number * (height + LINE + GAP), 0
        for words, group in row:
            draw.text((left + 4, top + 2), words, fill=INK, font=font)
            for one in group:
                made.paste(one.resize((width(one), height), Image.Resampling.LANCZOS), (left, top + LINE))
                left += width(one) + GAP
    return made


def trained_pairs(server: Server, steps: int) -> list[list[Path]]:
    graph = to_api(server, GRAPHS / "train_merge_sample.json")
    found = []
    for pair in (CONCEPTS[:2], CONCEPTS[2:4]):
        started = time.perf_counter()
        found.append(run(server, pair_graph(graph, pair, steps)))
        say(f"{pair[0].name} and {pair[1].name}: {time.perf_counter() - started:.0f} s")
    return found


def drawn(server: Server, steps: int, draw_only: bool) -> Mapping[str, Image.Image]:
    kept = GRAPHS / "merge_and_sample.json"
    both = run(server, to_api(server, kept)) if draw_only else trained_pairs(server, steps)[0]
    one, other = CONCEPTS[:2]
    alone = [(f"a {person.name}", of(both, person.folder, 2)) for person in (one, other)]
    four = CONCEPTS[:4]
    merged = {method: run(server, merged_graph(four, method)) for method in METHODS}
    return {
        "demo": sheet([alone, [("both in one picture", of(both, "both", 2))]], SIDE),
        "four": sheet(
            [[(words, [p for person in four for p in of(merged[method], f"{method}_{person.folder}", 2)])]
             for method, words in METHODS.items()], 128,
        ),
        # Kept from the first of the two, which the server does not run again.
        "inspect": of(merged["per_row"], "inspect", 1)[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="The README's pictures.")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    chosen = parser.parse_args()
    import_comfyui()
    layout, started = Layout(ROOT), time.perf_counter()
    host = own_host(layout.comfyui, layout.venv, layout.cli_home)
    with running(host, layout.logs / "pictures.log", ()) as server:
        found = drawn(server, chosen.steps, chosen.draw)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name, picture in found.items():
        picture.save(chosen.out / f"{name}.png", optimize=True)
    finish({"seconds": round(time.perf_counter() - started), "pictures": sorted(found)})


if __name__ == "__main__":
    main()
