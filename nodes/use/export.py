"""The export node: a merge as one ordinary LoRA file."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...blocklora_core.concept.concept import Stack
from ...blocklora_core.host.weights.export import AUTO, DTYPES, Exported, ExportJob, export
from ...blocklora_core.host.weights.patching import Applied, apply_merge
from ...blocklora_core.merge import Options, Overlap
from ...blocklora_core.reports.words import counted, without_place
from ..schema import node_id, schema, shown
from .merge import KEEP_APART, clash_told, keep_apart_input, merge_inputs, prepared

MOST_RANK = 4096


def _span(ranks: tuple[int, int]) -> str:
    return str(ranks[0]) if ranks[0] == ranks[1] else f"{ranks[0]} to {ranks[1]}"


def _difference(exported: Exported) -> str:
    if exported.error < 1e-6:
        return "the model changes as by the merge" if exported.called else "the same change as the merge"
    return f"differs from the merge by {exported.error:.3%} of its size"


def _prompts(exported: Exported) -> list[str]:
    lines = [f"  {name}: write {word} in stock prompts" for name, word in exported.embeddings.items()]
    if lines:
        lines.insert(0, "Tokens, saved as embeddings:")
    apart = ["Export's keep_apart off writes it, as a plain sum."] if exported.called else []
    return lines + exported.left_out() + apart


def _report(applied: Applied, exported: Exported) -> str:
    kind = str(exported.dtype).removeprefix("torch.")
    lines = [
        f"{counted(applied.merged.concepts, 'concept')} merged by {applied.merged.method}, written as one LoRA: {exported.path.name}",
        f"{exported.path.stat().st_size / 1e6:.1f} MB, {exported.layers} layers, rank {_span(exported.ranks)}, {kind}: "
        f"{_difference(exported)}",
    ]
    if exported.ranks != exported.full_ranks:
        lines.append(f"An exact file would have rank {_span(exported.full_ranks)}: the concepts' ranks add up.")
    lines += [*_prompts(exported), *applied.merged.notes]
    lines += without_place(applied.unused)
    return "\n".join(lines)


class BlockLoRAExport(io.ComfyNode):
    """Writes a merge as one ordinary LoRA file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAExport",
            "BlockLoRA Export",
            description="Writes the merge as one ordinary LoRA file, for stock loaders and other programs.",
            search_aliases=["save merged lora", "bake"],
            is_output_node=True,
            inputs=[
                *merge_inputs(),
                io.String.Input("name", default="blocklora/merged", tooltip="The file's name in your loras folder; may hold a subfolder."),
                io.Combo.Input(
                    "dtype", options=[AUTO, *DTYPES], default=AUTO,
                    tooltip="How numbers are stored. auto takes the smallest that loses nothing; float16 halves the file at a loss that the report tells.",
                ),
                io.Int.Input(
                    "max_rank", default=0, min=0, max=MOST_RANK,
                    tooltip="0 keeps the merge exact: ranks add up. Otherwise layers are cut to this rank by SVD, and the report tells the loss.",
                ),
                io.Combo.Input(
                    "if_exists", options=["keep both", "overwrite"], default="keep both",
                    tooltip="What to do when the file is there already: save beside it with a number, or replace it where it is the same concept's file.",
                ),
                keep_apart_input(),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="The file written."),
                io.String.Output(display_name="report", tooltip="Its size, rank and loss, and what to write in prompts."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, overlap: str | None = None) -> bool | str:
        return clash_told(cls, overlap)

    @classmethod
    def execute(
        cls, model: Any, clip: Any, stack: Stack, method: str, overlap: Overlap, name: str, dtype: str, max_rank: int,
        if_exists: str, keep_apart: str = KEEP_APART[0], **options: Any,
    ) -> io.NodeOutput:  # fmt: skip
        stack, method, told = prepared(stack, model, clip, method, overlap, keep_apart, node_id(cls))
        applied = apply_merge(stack, model, clip, method=method, overlap=overlap, options=Options(**options))
        exported = export(applied, stack, ExportJob(name, dtype, max_rank, if_exists == "overwrite"))
        report = "\n".join([_report(applied, exported), *told])
        return io.NodeOutput(str(exported.path), report, ui=shown(report, stack))


NODES = [BlockLoRAExport]
