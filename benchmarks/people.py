"""Trains the base that draws people, one sitting at a time, by its own recipe."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.environ["BLOCKLORA_COMFYUI"])
arguments, sys.argv = sys.argv[1:], sys.argv[:1]

import comfy.options  # noqa: E402, F401  ComfyUI lies on the path only now, and reads its options at import
import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402

args.cpu = not torch.cuda.is_available()
args.use_pytorch_cross_attention = True

from demo.people.recipe.pretrain import main  # noqa: E402

if __name__ == "__main__":
    main(arguments)
