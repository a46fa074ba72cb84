"""The subgraphs: what one adds as a single node and opens to see within."""

from __future__ import annotations

from .parts import NEGATIVE, box, scene
from .story import Block, Column, Node

TRAIN = Block(
    "Train a Person",
    "Teaches the model one person, animal or thing from a folder of pictures, and saves it as a LoRA file.",
    (360, 300),
    (
        Column("Pictures", (Node("images", "BlockLoRAImages", (340, 560), values={"folder": "my person"}),)),
        Column(
            "Training",
            (
                Node(
                    "train",
                    "BlockLoRATrain",
                    (420, 1000),
                    {
                        "images": ("images", "images"),
                        "captions": ("images", "captions"),
                        "masks": ("images", "masks"),
                    },
                ),
            ),
        ),
        Column("File", (Node("save", "BlockLoRASave", (340, 160), {"stack": ("train", "stack")}, {"if_exists": "overwrite"}),)),
    ),
    {
        "model": (("train", "model"),),
        "clip": (("train", "clip"),),
        "vae": (("train", "vae"),),
        "folder": (("images", "folder"),),
        "concept": (("train", "concept"),),
        "class_word": (("train", "class_word"),),
        "steps": (("train", "steps"),),
    },
    {"stack": ("save", "stack"), "report": ("train", "report")},
)  # fmt: skip

_SAMPLED = Column(
    "Sampling",
    (
        Node(
            "sampler",
            "KSampler",
            (300, 560),
            {"model": ("scene", "MODEL"), "positive": ("scene", "positive"), "negative": ("scene", "negative"), "latent_image": ("scene", "latent")},
            {"cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"},
        ),
        Node("decode", "VAEDecode", (300, 60), {"samples": ("sampler", "LATENT")}),
    ),
)  # fmt: skip

MERGE = Block(
    "Merge What You Have",
    "Any number of LoRA files, each kept apart from the others, and a picture of what the prompt says.",
    (440, 420),
    (
        Column("LoRAs", (Node("loader", "BlockLoRALoader", (440, 620)),)),
        Column(
            "Prompt",
            (
                Node("prompt", "CLIPTextEncode", (360, 180), {"clip": ("loader", "CLIP")}),
                Node("negative", "CLIPTextEncode", (360, 140), {"clip": ("loader", "CLIP")}, {"text": NEGATIVE}),
                Node("size", "EmptyLatentImage", (360, 140)),
            ),
        ),
        Column(
            "Sampling",
            (
                Node(
                    "sampler",
                    "KSampler",
                    (300, 560),
                    {
                        "model": ("loader", "MODEL"),
                        "positive": ("prompt", "CONDITIONING"),
                        "negative": ("negative", "CONDITIONING"),
                        "latent_image": ("size", "LATENT"),
                    },
                    {"cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"},
                ),
                Node("decode", "VAEDecode", (300, 60), {"samples": ("sampler", "LATENT")}),
            ),
        ),
    ),
    {
        "model": (("loader", "model"),),
        "clip": (("loader", "clip"),),
        "vae": (("decode", "vae"),),
        "files": (("loader", "files"),),
        "prompt": (("prompt", "text"),),
        "width": (("size", "width"),),
        "height": (("size", "height"),),
        "seed": (("sampler", "seed"),),
    },
    {"IMAGE": ("decode", "IMAGE"), "stack": ("loader", "stack")},
)

TWO = Block(
    "Two People",
    "Two LoRAs in two boxes of one picture, each with a prompt of its own. Open it to draw the boxes.",
    (440, 420),
    (
        Column("LoRAs", (Node("loader", "BlockLoRALoader", (440, 620)),)),
        Column(
            "Boxes",
            (
                scene(
                    "Two boxes",
                    (768, 512),
                    "two friends in a sunny park, photo",
                    [
                        box(0.04, 0.1, 0.44, 0.9, "a woman with red hair, {scene}"),
                        box(0.52, 0.06, 0.44, 0.94, "a man with a grey beard, {scene}"),
                    ],
                    {"model": ("loader", "MODEL"), "clip": ("loader", "CLIP"), "stack": ("loader", "stack")},
                ),
            ),
        ),
        _SAMPLED,
    ),
    {
        "model": (("loader", "model"),),
        "clip": (("loader", "clip"),),
        "vae": (("decode", "vae"),),
        "files": (("loader", "files"),),
        "prompt": (("scene", "prompt"),),
        "width": (("scene", "width"),),
        "height": (("scene", "height"),),
        "seed": (("sampler", "seed"),),
    },
    {"IMAGE": ("decode", "IMAGE"), "stack": ("loader", "stack")},
)

BLOCKS = (TRAIN, MERGE, TWO)
