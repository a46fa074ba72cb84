"""Nodes about Grams, the fingerprints that fused merging needs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...blocklora_core.concept.concept import Stack
from ...blocklora_core.concept.gram import EIGENPAIRS
from ...blocklora_core.host.train.collect import Collected, CollectJob, collect
from ..schema import StackType, advanced, holding, schema, shown


def _report(collected: Collected) -> str:
    lines = [f"{label}: Grams collected in {seconds:.1f} s" for label, seconds in collected.seconds.items()]
    return "\n".join([*lines, *collected.notes])


class BlockLoRACollectGrams(io.ComfyNode):
    """Gives concepts the Grams that they lack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRACollectGrams",
            "BlockLoRA Collect Grams",
            description="Lets any plain LoRA merge by fused: samples each concept once and notes what its layers see. Save keeps it.",
            search_aliases=["fuse", "gradient fusion", "fingerprint"],
            inputs=[
                io.Model.Input("model", tooltip="The base model the concepts were trained on, without them."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                StackType.Input("stack", tooltip="The concepts. Those that carry Grams already are left as they are."),
                io.String.Input(
                    "prompts", default="", multiline=True,
                    tooltip="Prompts the concepts are used with, one a line; {concept} stands for each one's trigger words. Empty takes: a {concept}",
                ),
                io.Int.Input("pictures", default=4, min=1, max=64, tooltip="Sampled for each concept, all at once, with the prompts in turn."),
                io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps. The papers take 20."),
                io.Int.Input(
                    "size", default=512, min=8, max=4096, step=8,
                    tooltip="Height and width of these pictures. The model's usual size is best; smaller is quicker.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False,
                    tooltip="Of the noise. The same seed gives the same Grams.",
                ),
                advanced(
                    io.Int, "eigenpairs", default=EIGENPAIRS, min=1, max=1024, optional=True,
                    tooltip="How much of each fingerprint is kept: more is more exact and a larger file. The help page has figures.",
                ),
                advanced(
                    io.Boolean, "again", default=False, optional=True,
                    tooltip="Collect also for concepts that carry Grams already.",
                ),
            ],
            outputs=[
                StackType.Output(display_name="stack", tooltip="The same concepts, now with Grams: merge them, or save them first."),
                io.String.Output(display_name="report", tooltip="What was collected, and what could not be."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Any, clip: Any, stack: Stack, prompts: str, again: bool = False, **numbers: int
    ) -> io.NodeOutput:
        job = CollectJob(prompts.splitlines(), again=again, node_id=cls.hidden.unique_id, **numbers)
        collected = collect(model, clip, stack, job)
        report = _report(collected)
        return io.NodeOutput(collected.stack, report, ui=shown(report, collected.stack, holding(report, "get no Gram")))


NODES = [BlockLoRACollectGrams]
