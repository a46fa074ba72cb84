"""Nodes that read training pictures."""

from __future__ import annotations

from comfy_api.latest import io

from ...blocklora_core.host.train.folders import folder_hash, picture_folder, picture_folders, read_pictures
from ..checks import told_before
from ..schema import holding, schema, shown


class BlockLoRAImages(io.ComfyNode):
    """Reads the pictures and caption files of one folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "BlockLoRAImages",
            "BlockLoRA Images + Captions",
            description="Reads a folder of pictures below ComfyUI's input folder, and the caption file beside each.",
            search_aliases=["load image folder", "dataset", "captions"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=picture_folders(),
                    tooltip="A folder below ComfyUI's input folder that holds pictures, or folders named 10_name class. New ones show after a refresh (R).",
                ),
                io.String.Input(
                    "default_caption",
                    default="",
                    tooltip="Caption of pictures that have no .txt or .caption file of the same name. The concept's name is added by Train.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", is_output_list=True, tooltip="The pictures, each in its own size."
                ),
                io.String.Output(display_name="captions", is_output_list=True, tooltip="One caption for each picture."),
                io.Mask.Output(
                    display_name="masks",
                    is_output_list=True,
                    tooltip="Where the concept is: from NAME-masklabel.png, else what is not transparent.",
                ),
                io.String.Output(
                    display_name="report", tooltip="How many pictures and captions were found, and what was skipped."
                ),
            ],
        )

    @classmethod
    def execute(cls, folder: str, default_caption: str) -> io.NodeOutput:
        read = read_pictures(folder, default_caption)
        return io.NodeOutput(
            read.pictures,
            read.captions,
            read.masks,
            read.report,
            ui=shown(read.report, warnings=holding(read.report, "skipped", "Empty masks")),
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        return told_before(picture_folder, folder)

    @classmethod
    def fingerprint_inputs(cls, folder: str, default_caption: str) -> str:
        return f"{folder_hash(folder)} {default_caption}"


NODES = [BlockLoRAImages]
