"""Nodes that save, load and join concepts."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ..blocklora_core.files import load
from ..blocklora_core.host.saving import lora_file, save_stack
from ..blocklora_core.lora import Stack
from .schema import StackType, schema

STACK_INPUTS = 8


class BlockLoRASave(io.ComfyNode):
    """Saves every concept of a stack as an ordinary LoRA file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRASave",
            "BlockLoRA Save",
            description="Saves each concept into your loras folder, as a LoRA that every loader can read.",
            search_aliases=["save lora"],
            is_output_node=True,
            inputs=[
                StackType.Input("stack", tooltip="The concepts to save, one file each."),
                io.String.Input("prefix", default="blocklora/", tooltip="Put before the concept's name; may hold a subfolder."),
                io.Combo.Input(
                    "if_exists", options=["keep both", "overwrite"], default="keep both",
                    tooltip="What to do when the file is there already: save beside it with a number, or replace it.",
                ),
            ],
            outputs=[
                StackType.Output(display_name="stack", tooltip="The same concepts, now with their file names."),
                io.String.Output(display_name="paths", tooltip="The files written, one a line."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, stack: Stack, prefix: str, if_exists: str) -> io.NodeOutput:
        saved, paths = save_stack(stack, prefix, overwrite=if_exists == "overwrite")
        text = "\n".join(map(str, paths))
        return io.NodeOutput(saved, text, ui=ui.PreviewText(text))


class BlockLoRALoad(io.ComfyNode):
    """Loads one concept from the loras folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRALoad",
            "BlockLoRA Load",
            description="Loads a row-block LoRA, or any plain LoRA, as a stack of one.",
            search_aliases=["load lora"],
            inputs=[
                io.Combo.Input("lora_name", options=folder_paths.get_filename_list("loras"), tooltip="A file of your loras folder."),
                io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="How strongly a merge applies the concept."),
                io.String.Input("rename", default="", optional=True, tooltip="Another name for prompts, when two files share one. Empty keeps the file's."),
            ],
            outputs=[
                StackType.Output(display_name="stack", tooltip="The concept, a stack of one."),
                io.String.Output(display_name="concept", tooltip="The name to write in prompts."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, lora_name: str, strength: float, rename: str = "") -> io.NodeOutput:
        lora = load(lora_file(lora_name))
        if rename.strip():
            lora = lora.renamed(rename.strip())
        return io.NodeOutput((lora.with_strength(strength),), lora.concept.name)

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, strength: float, rename: str = "") -> str:
        entry = lora_file(lora_name).stat()
        return f"{entry.st_size} {entry.st_mtime_ns} {strength} {rename}"


class BlockLoRAStack(io.ComfyNode):
    """Joins stacks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = []
        for number in range(1, STACK_INPUTS + 1):
            inputs.append(
                StackType.Input(
                    f"stack_{number}",
                    optional=number > 1,
                    tooltip="Concepts to join. Stacks chain, so any number fits.",
                )
            )
            inputs.append(
                io.Float.Input(
                    f"strength_{number}", default=1.0, min=-10.0, max=10.0, step=0.05, optional=True,
                    tooltip=f"Multiplies the strengths of stack {number}.",
                )
            )  # fmt: skip
        return schema(
            "BlockLoRAStack",
            "BlockLoRA Stack",
            description="Joins concepts into one stack for Merge. Chain it for more than eight.",
            search_aliases=["lora stack", "join"],
            inputs=inputs,
            outputs=[StackType.Output(display_name="stack", tooltip="All concepts, in the order of the inputs.")],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        joined = []
        for number in range(1, STACK_INPUTS + 1):
            factor = inputs.get(f"strength_{number}", 1.0)
            for lora in inputs.get(f"stack_{number}") or ():
                joined.append(lora.with_strength(lora.strength * factor, lora.effective_strength_clip * factor))
        return io.NodeOutput(tuple(joined))


NODES = [BlockLoRASave, BlockLoRALoad, BlockLoRAStack]
