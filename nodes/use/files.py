"""Nodes that save, load and join concepts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import folder_paths
from comfy_api.latest import io

from ...blocklora_core.concept.concept import BlockLoRA, Stack
from ...blocklora_core.files.formats import files_of
from ...blocklora_core.files.io import load
from ...blocklora_core.files.shown import NOTE, trigger_words
from ...blocklora_core.files.untrusted.text import legible
from ...blocklora_core.host.disk import lora_file, save_stack
from ...blocklora_core.host.ledger import release_saved
from ..checks import told_before
from ..schema import StackType, advanced, schema, shown

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
                    tooltip="What to do when the file is there already: save beside it with a number, or replace it where it is the same concept's file.",
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
        for lora in saved:
            release_saved(lora)
        text = "\n".join(map(str, paths))
        return io.NodeOutput(saved, text, ui=shown(text, saved))


def _summary(lora: BlockLoRA) -> str:
    words = trigger_words(lora)
    held = "all rows" if lora.slot is None else f"slot {lora.slot}"
    kinds = Counter(adapter.kind for adapter in lora.adapters.values())
    others = "".join(f", {count} of {kind}" for kind, count in sorted(kinds.items()))
    lines = [
        f"{lora.concept.name}: {held}, {len(lora.layers)} layers{others}",
        f"Write in the prompt: {words}" if words else "The file does not tell its trigger words.",
        legible(lora.metadata.get(NOTE, "")),
    ]
    return "\n".join(filter(None, lines))


def at_strength(lora: BlockLoRA, strength: float, rename: str, clip_ratio: float) -> BlockLoRA:
    """What Load makes of a file."""
    called = lora.renamed(rename.strip()) if rename.strip() else lora
    return called.with_strength(strength, strength * clip_ratio)


class BlockLoRALoad(io.ComfyNode):
    """Loads one concept from the loras folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRALoad",
            "BlockLoRA Load",
            description="Loads a row-block LoRA, or a LoRA of kohya, diffusers, PEFT or Mix-of-Show, as a stack of one.",
            search_aliases=["load lora"],
            inputs=[
                io.Combo.Input("lora_name", options=folder_paths.get_filename_list("loras"), tooltip="A file of your loras folder."),
                io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="How strongly a merge applies the concept."),
                io.String.Input("rename", default="", optional=True, tooltip="Another name for prompts, instead of the file's. Empty keeps that."),
                advanced(
                    io.Float, "clip_ratio", default=1.0, min=-10.0, max=10.0, step=0.05, optional=True,
                    tooltip="Strength on CLIP over that on MODEL: 1 for both alike, 0 leaves the text encoder as it is.",
                ),
            ],
            outputs=[
                StackType.Output(display_name="stack", tooltip="The concept, a stack of one."),
                io.String.Output(display_name="concept", tooltip="The concept's name; Merge and its report call it so."),
                io.String.Output(display_name="trigger_words", tooltip="What to write in prompts: the name, or a plain LoRA's trigger words. Empty when the file does not tell."),
                io.String.Output(display_name="report", tooltip="What the file holds, and what to write in prompts."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, lora_name: str, strength: float, rename: str = "", clip_ratio: float = 1.0) -> io.NodeOutput:
        lora = at_strength(load(lora_file(lora_name)), strength, rename, clip_ratio)
        stack = (lora,)
        report, note = _summary(lora), lora.metadata.get(NOTE, "")
        return io.NodeOutput(
            stack, lora.concept.name, trigger_words(lora), report, ui=shown(report, stack, filter(None, [note]))
        )

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None) -> bool | str:
        return told_before(lora_file, lora_name)

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, strength: float, rename: str = "", clip_ratio: float = 1.0) -> str:
        entries = [path.stat() for path in files_of(lora_file(lora_name))]
        states = " ".join(f"{entry.st_size} {entry.st_mtime_ns}" for entry in entries)
        return f"{states} {strength} {rename} {clip_ratio}"


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
                    tooltip="Multiplies the strengths of this stack.",
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
        found = []
        for number in range(1, STACK_INPUTS + 1):
            factor = inputs.get(f"strength_{number}", 1.0)
            for lora in inputs.get(f"stack_{number}") or ():
                found.append(lora.with_strength(lora.strength * factor, lora.effective_strength_clip * factor))
        return io.NodeOutput(tuple(found))


NODES = [BlockLoRASave, BlockLoRALoad, BlockLoRAStack]
