"""The merge node."""

from __future__ import annotations

import time
from typing import Any, get_args

from comfy_api.latest import io

from ...blocklora_core.concept.concept import Stack
from ...blocklora_core.concept.names import bracketed, unowned
from ...blocklora_core.concept.rows import describe
from ...blocklora_core.host.base import usual_size
from ...blocklora_core.host.queued import queued
from ...blocklora_core.host.train.collect import CollectJob
from ...blocklora_core.host.use.apart import ON, apart_or_summed
from ...blocklora_core.host.weights.patching import Applied, apply_merge
from ...blocklora_core.merge import AUTO, DEFAULTS, METHODS, Options, Overlap, check_rows
from ...blocklora_core.reports.words import counted, without_place
from ..checks import here, told_before
from ..schema import StackType, advanced, node_id, schema, shown, texts_of
from .ahead import stack_into


def _line(lora: Any) -> str:
    held = f"slot {lora.slot}" if lora.slot is not None else "all rows"
    example = next(iter(lora.layers.items()), None)
    rows = (
        f", e.g. {describe(example[1].rows)} of {example[1].out_features}" if example and lora.slot is not None else ""
    )
    parts = [f"{len(lora.layers)} layers"] if lora.layers else []
    parts += [f"{count} weights by {kind}" for kind, count in sorted(lora.kinds.items())]
    return f"  {lora.concept.name}: {held}{rows}, {', '.join(parts) or 'no layers of its own'}"


KEEP_APART = ("on", "off (plain sum, as chained loaders)")


def keep_apart_input() -> Any:
    return io.Combo.Input(
        "keep_apart", options=list(KEEP_APART), default=KEEP_APART[0], optional=True,
        tooltip="Plain LoRAs do not mix: each is sampled once for what it sees, and that is kept for all later runs. Off adds them as chained loaders do.",
    )  # fmt: skip


def report_of(applied: Applied, seconds: float) -> str:
    merged = applied.merged
    lines = [
        f"{counted(merged.concepts, 'concept')} merged by {merged.method} in {seconds:.2f} s: {applied.model_layers} layer patches on "
        f"MODEL, {applied.clip_layers} on CLIP",
        *map(_line, merged.members),
        f"Names that prompts understand: {', '.join(applied.tokens) or 'none'}",
        *(
            [f"Their text encoders read only prompts that name them: {', '.join(applied.called)}"]
            if applied.called
            else []
        ),
        *merged.notes,
    ]
    lines += without_place(applied.unused)
    return "\n".join(lines)


def option_inputs() -> list[Any]:
    """The inputs of merge.Options."""
    return [
        advanced(
            io.Float, "density", default=DEFAULTS.density, min=0.01, max=1.0, step=0.01, optional=True,
            tooltip="ties and knots: share of each concept's entries that they keep.",
        ),
        advanced(
            io.Float, "scale", default=DEFAULTS.scale, min=-10.0, max=10.0, step=0.05, optional=True,
            tooltip="task_sum, ties and knots: strength of the whole merge.",
        ),
        advanced(
            io.Float, "orthogonal_weight", default=DEFAULTS.orthogonal_weight, min=-10.0, max=10.0, step=0.05,
            optional=True, tooltip="orthogonal: strength of each concept.",
        ),
        advanced(
            io.Float, "own_weight", default=DEFAULTS.own_weight, min=0.0, max=100.0, step=0.5, optional=True,
            tooltip="fused: higher keeps each concept closer to itself, lower keeps it quieter for the others' prompts.",
        ),
        advanced(
            io.Float, "damping", default=DEFAULTS.damping, min=0.000001, max=100.0, step=0.001, optional=True,
            tooltip="fused and gradient_fusion: higher keeps concepts as trained on prompts that none of them knows.",
        ),
    ]  # fmt: skip


def merge_inputs() -> list[Any]:
    """What every node that merges a stack takes, but for `keep_apart_input`."""
    return [
        io.Model.Input("model", tooltip="The base model the concepts were trained on."),
        io.Clip.Input("clip", tooltip="Its text encoder. The one that comes out understands the concepts' names."),
        StackType.Input("stack", tooltip="The concepts to merge."),
        io.Combo.Input(
            "method", options=["auto", *METHODS], default="auto",
            tooltip="auto takes fused when every file carries its Grams (gradient_fusion when they share rows), else per_row. See the help page.",
        ),
        io.Combo.Input(
            "overlap", options=list(get_args(Overlap)), default="error",
            tooltip="When two files hold the same rows: stop, share the rows, or give them to the earlier one. Plain LoRAs under auto never stop.",
        ),
        *option_inputs(),
    ]  # fmt: skip


def unowned_note(node: Any, stack: Stack) -> tuple[str, ...]:
    """A note where prompts of the running graph hold a name that nobody has."""
    # What another node of ours is told to call a concept belongs to another merge.
    known = [*(lora.concept.name for lora in stack), *bracketed(texts_of(node, ours=True))]
    words = unowned(texts_of(node, ours=False), known)
    return (
        (f"Prompts name {', '.join(words)}, which no merged concept is called: check the spelling.",) if words else ()
    )


def prepared(
    stack: Stack, model: Any, clip: Any, method: str, overlap: Overlap, keep_apart: str, node: str | None
) -> tuple[Stack, str, tuple[str, ...]]:
    """The stack and the method that `method` comes to, and what to tell; under auto plain LoRAs get their Grams."""
    if method != AUTO or overlap != "error":
        return stack, method, ()
    return apart_or_summed(stack, model, clip, keep_apart, CollectJob(size=usual_size(model), node_id=node))


def clash_told(node: Any, overlap: str | None) -> bool | str:
    """For `validate_inputs`: rows that several concepts hold, where the stack is known before it runs."""
    graph, own = queued(), node_id(node) or ""
    method, keep_apart = here(graph, own, "method"), here(graph, own, "keep_apart") or KEEP_APART[0]
    if method == AUTO and keep_apart != ON:
        return True
    return told_before(check_rows, stack_into(graph, own), method, overlap)


class BlockLoRAMerge(io.ComfyNode):
    """Merges any number of concepts into MODEL and CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAMerge",
            "BlockLoRA Merge",
            description="Merges any number of concepts in an instant. Stock nodes work with what comes out; prompts understand each name.",
            search_aliases=["apply lora", "load lora", "combine"],
            inputs=[*merge_inputs(), keep_apart_input()],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The merged model."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder that understands the names."),
                io.String.Output(display_name="report", tooltip="What was merged, and how."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, overlap: str | None = None) -> bool | str:
        return clash_told(cls, overlap)

    @classmethod
    def execute(
        cls, model: Any, clip: Any, stack: Stack, method: str, overlap: Overlap, keep_apart: str = KEEP_APART[0],
        **options: Any,
    ) -> io.NodeOutput:  # fmt: skip
        stack, method, told = prepared(stack, model, clip, method, overlap, keep_apart, node_id(cls))
        started = time.perf_counter()
        applied = apply_merge(stack, model, clip, method=method, overlap=overlap, options=Options(**options))
        warned = unowned_note(cls, stack)
        report = "\n".join([report_of(applied, time.perf_counter() - started), *told, *warned])
        return io.NodeOutput(applied.model, applied.clip, report, ui=shown(report, stack, warned))


NODES = [BlockLoRAMerge]
