"""The node that trains a whole cast."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...blocklora_core.host.cast.base import graph_base
from ...blocklora_core.host.cast.graph import cast_folders, cast_hash, cast_of, train_in_graph
from ..checks import told_before
from ..schema import StackType, node_id, schema, shown, workflow_id


class BlockLoRATrainCast(io.ComfyNode):
    """Trains each folder of a folder into a slot of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRATrainCast",
            "BlockLoRA Train Cast",
            description="Trains a whole folder of concepts, one folder each, one after the other, every one in its own slot. What is finished is not trained again.",
            search_aliases=["train many loras", "batch training", "dataset folders"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The base model. It stays frozen."),
                io.Clip.Input("clip", tooltip="The base model's text encoder. It stays frozen."),
                io.Vae.Input("vae", tooltip="The base model's VAE, to encode the pictures once."),
                io.Combo.Input(
                    "folder",
                    options=cast_folders(),
                    tooltip="A folder below ComfyUI's input folder that holds a folder of pictures for each concept, and cast.toml with settings, if the defaults will not do. New ones show after a refresh (R).",
                ),
            ],
            outputs=[
                StackType.Output(display_name="stack", tooltip="All finished concepts: merge them. Their files are saved already."),
                io.String.Output(display_name="report", tooltip="A line for each concept: its slot, its state, what it took."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, clip: Any, vae: Any, folder: str) -> io.NodeOutput:
        done = train_in_graph(folder, graph_base(model, clip, vae), node_id(cls), workflow_id(cls))
        return io.NodeOutput(done.stack, done.report, ui=shown(done.report, done.stack, done.warnings))

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        return told_before(cast_of, folder)

    @classmethod
    def fingerprint_inputs(cls, folder: str, **_others: Any) -> str:
        return cast_hash(folder)


NODES = [BlockLoRATrainCast]
