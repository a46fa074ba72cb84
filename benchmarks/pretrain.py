"""Trains a base of the demo by its own recipe: `python run.py bench pretrain [NAME]`; last line: one JSON object.

Without a word, today's base, from nothing; with `people`, one sitting at the base that draws people; with `reader`,
what reads genes from its pictures.
"""

from __future__ import annotations

import importlib
import os
import sys

RECIPES = {"emoji": "demo.pretrain", "people": "demo.people.recipe.pretrain", "reader": "demo.people.reader.training"}

sys.path.insert(0, os.environ["BLOCKLORA_COMFYUI"])
arguments, sys.argv = sys.argv[1:], sys.argv[:1]

import comfy.options  # noqa: E402, F401  ComfyUI lies on the path only now, and reads its options at import
import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402

args.cpu = not torch.cuda.is_available()
args.use_pytorch_cross_attention = True

if __name__ == "__main__":
    name = arguments.pop(0) if arguments and arguments[0] in RECIPES else "emoji"
    importlib.import_module(RECIPES[name]).main(arguments)
