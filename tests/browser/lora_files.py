"""LoRA files of the demo's base, for the list of the Loader: plain ones and row blocks."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from blocklora_core.concept.rows import Scheme
from blocklora_core.files.io import save
from tests.core.samples import Recipe
from tests.server.test_loader import write

QUERY = "lora_unet_up_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q"
HOSTILE = '<img src=x onerror="throw 1">'


def put_loras(folder: Path) -> None:
    """Three plain files in web/, a picture beside the first; two row blocks in one slot; one damaged. No other."""
    shutil.rmtree(folder)
    write(
        folder / "web" / "ada.safetensors", 0, {"modelspec.trigger_phrase": "ohwx woman", "ss_num_train_images": "14"}
    )
    write(folder / "web" / "bob.safetensors", 1, {"ss_base_model_version": "sd_v1"})
    write(folder / "web" / "cid.safetensors", 2, {"modelspec.trigger_phrase": HOSTILE})
    recipe = Recipe(scheme=Scheme(), shapes={QUERY: (320, 320)})
    for name, slot in (("zed", 3), ("twin", 3)):
        save(folder / "blocklora" / f"{name}.safetensors", recipe.make(f"<{name}>", slot), overwrite=True)
    (folder / "broken.safetensors").write_bytes(b"<!DOCTYPE html>")
    Image.new("RGB", (96, 128), (200, 120, 60)).save(folder / "web" / "ada.preview.png")


def put_people(folder: Path) -> None:
    """Three row blocks in scene/, <ada>, <zed> and <cid>. No other."""
    shutil.rmtree(folder)
    recipe = Recipe(scheme=Scheme(), shapes={QUERY: (320, 320)})
    for name, slot in (("ada", 5), ("zed", 6), ("cid", 7)):
        save(folder / "scene" / f"{name}.safetensors", recipe.make(f"<{name}>", slot), overwrite=True)
