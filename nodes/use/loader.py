"""The node for LoRAs that one has already: a list of files, loaded, kept apart and merged."""

from __future__ import annotations

import time
from typing import Any

from comfy_api.latest import io

from ...blocklora_core.host.base import usual_size
from ...blocklora_core.host.train.collect import CollectJob
from ...blocklora_core.host.use.apart import apart_or_summed
from ...blocklora_core.host.use.lora_list import check_files, list_state, load_list, unheard_words
from ...blocklora_core.host.weights.patching import apply_merge
from ..checks import told_before
from ..schema import StackType, advanced, node_id, schema, shown
from .merge import KEEP_APART, keep_apart_input, report_of, unowned_note

EXAMPLE = "# file | strength | on or off | words that call it\n"


class BlockLoRALoader(io.ComfyNode):
    """Loads any number of LoRA files and merges them, each kept apart from the others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRALoader",
            "BlockLoRA Loader",
            description="Loads any number of LoRA files at once, of any trainer, and keeps them apart: what Load, Stack and Merge do together.",
            search_aliases=["load lora", "multiple loras", "lora stack", "lora loader", "power lora"],
            inputs=[
                io.Model.Input("model", tooltip="The base model the LoRAs were trained on."),
                io.Clip.Input("clip", tooltip="Its text encoder. The one that comes out understands the concepts' names."),
                io.String.Input(
                    "files", default=EXAMPLE, multiline=True,
                    tooltip="A file of your loras folder a line: zed.safetensors | 0.8 | on | <zed>. Strength (0.8 / 0.5 is the model's and CLIP's), on or off, and the words that call it may be left out. Lines that begin with # are ignored.",
                ),
                keep_apart_input(),
                advanced(
                    io.String, "prompts", default="", multiline=True, optional=True,
                    tooltip="Prompts the concepts are used with, one a line; {concept} stands for each one's trigger words. Empty takes: a {concept}",
                ),
                advanced(io.Int, "pictures", default=4, min=1, max=64, optional=True, tooltip="Sampled once for each file that is to be kept apart."),
                advanced(io.Int, "steps", default=20, min=1, max=1000, optional=True, tooltip="Sampling steps of these pictures."),
                advanced(
                    io.Int, "size", default=0, min=0, max=4096, step=8, optional=True,
                    tooltip="Height and width of these pictures. 0 takes the model's usual size; smaller is quicker.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with all LoRAs."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder with all LoRAs, which understands the names."),
                StackType.Output(display_name="stack", tooltip="The concepts, for Inspect, Evaluate, Export or Save."),
                io.String.Output(display_name="report", tooltip="What was loaded, what calls each, and how they were merged."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Any, clip: Any, files: str, keep_apart: str = KEEP_APART[0], prompts: str = "", **numbers: Any
    ) -> io.NodeOutput:
        stack = load_list(files)
        if not stack:
            report = "No file is on: MODEL and CLIP are as they came."
            return io.NodeOutput(model, clip, (), report, ui=shown(report))
        numbers["size"] = numbers.get("size") or usual_size(model)
        job = CollectJob(prompts.splitlines(), node_id=node_id(cls), **numbers)
        stack, method, told = apart_or_summed(stack, model, clip, keep_apart, job)
        started = time.perf_counter()
        applied = apply_merge(stack, model, clip, method=method)
        warned = (*unheard_words(files, stack), *unowned_note(cls, stack))
        report = "\n".join([report_of(applied, time.perf_counter() - started), *told, *warned])
        return io.NodeOutput(applied.model, applied.clip, stack, report, ui=shown(report, stack, warned))

    @classmethod
    def validate_inputs(cls, files: str | None = None) -> bool | str:
        return told_before(check_files, files)

    @classmethod
    def fingerprint_inputs(cls, files: str, keep_apart: str = "", prompts: str = "", **others: Any) -> str:
        numbers = sorted((name, value) for name, value in others.items() if isinstance(value, int))
        return f"{list_state(files)} {files} {keep_apart} {prompts} {numbers}"


NODES = [BlockLoRALoader]
