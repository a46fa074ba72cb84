"""The subgraphs: what one adds as a single node and opens to see within.

Widgets that our pages replace by panels do not show on a subgraph's face: they are fed by plain nodes that do.
"""

from __future__ import annotations

from collections.abc import Mapping

from .parts import BOXES, KEPT, NEGATIVE, REPORT, SAMPLER, SCENE, scene
from .story import Block, Column, Node, Wire

_LOADED: Mapping[str, Wire] = {"files": ("files", "STRING")}


def _text(key: str, title: str, value: str, lines: bool = False) -> Node:
    kind, height = ("PrimitiveStringMultiline", 160) if lines else ("PrimitiveString", 80)
    return Node(key, kind, (340, height), values={"value": value}, title=title)


def _sampled(wires: Mapping[str, Wire]) -> Column:
    decode = Node("decode", "VAEDecode", (300, 60), {"samples": ("sampler", "LATENT")})
    return Column("Sampling", (Node("sampler", "KSampler", (300, 340), wires, SAMPLER), decode))


_LORAS = Column(
    "LoRAs",
    (
        _text("files", "Files, one a line", "", lines=True),
        Node("loader", "BlockLoRALoader", (400, 440), _LOADED, grows=REPORT + 180),
    ),
)
_IN: Mapping[str, tuple[Wire, ...]] = {
    "model": (("loader", "model"),),
    "clip": (("loader", "clip"),),
    "vae": (("decode", "vae"),),
    "files": (("files", "value"),),
}
_OUT: Mapping[str, Wire] = {"IMAGE": ("decode", "IMAGE"), "stack": ("loader", "stack")}

TRAIN = Block(
    "Train a person",
    "Teaches the model one person, animal or thing from a folder of pictures, and saves it as a LoRA file.",
    (340, 240),
    (
        Column(
            "Pictures and name",
            (
                Node("images", "BlockLoRAImages", (340, 480), values={"folder": "my person"}, grows=REPORT),
                _text("concept", "Name", "<hero>"),
                _text("class_word", "Class word", "person"),
            ),
        ),
        Column(
            "Training",
            (
                Node(
                    "train",
                    "BlockLoRATrain",
                    (400, 660),
                    {
                        "images": ("images", "images"),
                        "captions": ("images", "captions"),
                        "masks": ("images", "masks"),
                        "concept": ("concept", "STRING"),
                        "class_word": ("class_word", "STRING"),
                    },
                    grows=580,
                ),
            ),
        ),
        Column(
            "File",
            (Node("save", "BlockLoRASave", (340, 160), {"stack": ("train", "stack")}, KEPT),),
        ),
    ),
    {
        "model": (("train", "model"),),
        "clip": (("train", "clip"),),
        "vae": (("train", "vae"),),
        "folder": (("images", "folder"),),
        "concept": (("concept", "value"),),
        "class_word": (("class_word", "value"),),
    },
    {"stack": ("save", "stack"), "report": ("train", "report")},
)

MERGE = Block(
    "Merge what you have",
    "Any number of LoRA files, each kept apart from the others, and a picture of what the prompt says.",
    (400, 480),
    (
        _LORAS,
        Column(
            "Prompt",
            (
                Node("prompt", "CLIPTextEncode", (360, 180), {"clip": ("loader", "CLIP")}),
                Node("negative", "CLIPTextEncode", (360, 140), {"clip": ("loader", "CLIP")}, {"text": NEGATIVE}),
                Node("size", "EmptyLatentImage", (360, 140)),
            ),
        ),
        _sampled(
            {
                "model": ("loader", "MODEL"),
                "positive": ("prompt", "CONDITIONING"),
                "negative": ("negative", "CONDITIONING"),
                "latent_image": ("size", "LATENT"),
            }
        ),
    ),
    {
        **_IN,
        "prompt": (("prompt", "text"),),
        "width": (("size", "width"),),
        "height": (("size", "height"),),
        "seed": (("sampler", "seed"),),
    },
    _OUT,
)

TWO = Block(
    "Two people",
    "Two LoRAs in two boxes of one picture, each with a prompt of its own. Open it to draw the boxes.",
    (400, 480),
    (
        _LORAS,
        Column(
            "Boxes",
            (
                scene(
                    "Two boxes",
                    (768, 512),
                    "two friends in a sunny park, photo",
                    BOXES,
                    {"model": ("loader", "MODEL"), "clip": ("loader", "CLIP"), "stack": ("loader", "stack")},
                ),
            ),
        ),
        _sampled(SCENE),
    ),
    {
        **_IN,
        "prompt": (("scene", "prompt"),),
        "width": (("scene", "width"),),
        "height": (("scene", "height"),),
        "seed": (("sampler", "seed"),),
    },
    _OUT,
)

BLOCKS = (TRAIN, MERGE, TWO)
