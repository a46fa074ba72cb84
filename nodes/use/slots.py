"""The slots node: which row blocks the files in the loras folder hold."""

from __future__ import annotations

from comfy_api.latest import io

from ...blocklora_core.files.slots import describe_tables
from ...blocklora_core.files.untrusted.text import legible
from ...blocklora_core.host.ledger import given_slots, passed_over, slot_tables, slots_state
from ...blocklora_core.host.train.progress import to_image
from ...blocklora_core.reports.slots import slot_picture
from ..schema import holding, schema, shown


def _session() -> str:
    lines = [f"  {base}, slot {slot} of {scheme.slots}: {name}" for base, scheme, slot, name in given_slots()]
    return "\n".join(["", "Given to trainings, not saved yet:", *lines]) if lines else ""


def _passed_over() -> str:
    lines = [f"  {legible(path.name)}: {reason}" for path, reason in passed_over().items()]
    return "\n".join(["", "Passed over, as they cannot be read:", *lines]) if lines else ""


class BlockLoRASlots(io.ComfyNode):
    """Lists slots, clashes and free slots."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRASlots",
            "BlockLoRA Slots",
            description="Lists which slots the files of your loras folder hold, per base and scheme: clashes, and what is free.",
            search_aliases=["ledger", "free slots"],
            is_output_node=True,
            inputs=[],
            outputs=[
                io.String.Output(display_name="report", tooltip="Slots and their files, clashes, free slots."),
                io.Image.Output(display_name="picture", tooltip="The same as rows of cells, clashes framed in red."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        found = slot_tables()
        report, image = describe_tables(found) + _session() + _passed_over(), to_image(slot_picture(found))
        told = holding(report, "CLASH", "Passed over")
        return io.NodeOutput(report, image, ui=shown(report, warnings=told, picture=image))

    @classmethod
    def fingerprint_inputs(cls) -> str:
        return slots_state()


NODES = [BlockLoRASlots]
