"""Trains the demo's base by its own recipe: `python run.py bench pretrain [NAME]`.

With `people`, or without a word, one sitting at the demo's base; with `samples`, its fixed prompts; with `reader`, what
reads genes from its pictures; with `alignment`, what puts pictures and captions in one space; with `measure`, how much
of what it was asked the base draws, as the reader sees it. The last three end in one JSON object.
"""

from __future__ import annotations

import importlib
import os
import sys

RECIPES = {
    "people": "demo.people.recipe.pretrain",
    "samples": "demo.people.recipe.samples",
    "reader": "demo.people.reader.training",
    "alignment": "demo.people.reader.alignment",
    "measure": "demo.people.reader.measuring",
}

sys.path.insert(0, os.environ["BLOCKLORA_COMFYUI"])
arguments, sys.argv = sys.argv[1:], sys.argv[:1]

import comfy.options  # noqa: E402, F401  ComfyUI lies on the path only now, and reads its options at import
import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402

args.cpu = not torch.cuda.is_available()
args.use_pytorch_cross_attention = True

if __name__ == "__main__":
    name = arguments.pop(0) if arguments and arguments[0] in RECIPES else "people"
    importlib.import_module(RECIPES[name]).main(arguments)
