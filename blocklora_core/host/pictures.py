"""Training pictures: from ComfyUI's IMAGE to cached latents of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import comfy.utils
import torch
from torch import Tensor

from ..training import Dataset, Example
from ..training.data import with_concept
from .handles import ComfyModel, ComfyVae
from .port import encode_images

MULTIPLE = 8


def single_images(images: Sequence[Tensor]) -> Iterator[Tensor]:
    """IMAGE batches, one at a time: (1, H, W, 3)."""
    for batch in images:
        for picture in batch:
            yield picture[None, ..., :3]


def fit(image: Tensor, resolution: int) -> Tensor:
    """Scaled down to about resolution x resolution pixels of area, sides cropped to multiples of 8.

    Small pictures are not scaled up; `resolution` 0 leaves the size. Aspect ratios are kept.
    """
    height, width = image.shape[1:3]
    scale = min(1.0, resolution / (height * width) ** 0.5) if resolution else 1.0
    new_width, new_height = (max(MULTIPLE, int(side * scale) // MULTIPLE * MULTIPLE) for side in (width, height))
    if (new_height, new_width) == (height, width):
        return image
    resized = comfy.utils.common_upscale(image.movedim(-1, 1), new_width, new_height, "area", "center")
    return resized.movedim(1, -1)


def match_captions(captions: Sequence[str], pictures: int) -> list[str]:
    """One caption a picture: as many as pictures, or one for all. ValueError otherwise."""
    if len(captions) == 1:
        return list(captions) * pictures
    if len(captions) != pictures:
        raise ValueError(
            f"Captions: expected one for each of the {pictures} pictures, or one for all, got {len(captions)}."
        )
    return list(captions)


def make_dataset(
    vae: ComfyVae,
    model: ComfyModel,
    images: Sequence[Tensor],
    captions: Sequence[str],
    concept: str,
    class_word: str,
    resolution: int,
    batch_size: int,
) -> Dataset:
    """Every picture encoded once; the concept's name is put into captions that lack it."""
    pictures = [fit(image, resolution) for image in single_images(images)]
    examples = []
    for picture, caption in zip(pictures, match_captions(captions, len(pictures)), strict=True):
        latents = encode_images(vae, model, picture)[0]
        if not torch.isfinite(latents).all():
            raise ValueError(
                "Training pictures: the VAE gave numbers that are not finite. Connect the VAE of this model."
            )
        examples.append(Example(latents, with_concept(caption, concept, class_word)))
    return Dataset(examples, batch_size)
