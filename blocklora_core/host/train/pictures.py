"""Training pictures: from ComfyUI's IMAGE to cached latents of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import comfy.utils
import torch
from torch import Tensor
from torch.nn import functional as F

from ...training import Dataset, Example
from ...training.data.buckets import training_size
from ...training.data.captions import CaptionRules
from ...training.data.dataset import with_concept
from ..comfy import ComfyModel, ComfyVae
from ..interrupt import check_cancel
from .port import encode_images


def single_images(images: Sequence[Tensor]) -> Iterator[Tensor]:
    """IMAGE batches, one at a time: (1, H, W, 3), grey ones too. ValueError, which names its number, for no picture."""
    for number, picture in enumerate((picture for batch in images for picture in batch), 1):
        yield _coloured(picture[None], number)


def _coloured(picture: Tensor, number: int) -> Tensor:
    channels = picture.shape[-1]
    if channels not in (1, 3, 4):
        raise ValueError(
            f"Picture {number}: expected 3 channels, 4 with alpha or 1 of grey, got {channels}. Make it an RGB picture."
        )
    colours = picture[..., :3]
    if not torch.isfinite(colours).all():
        raise ValueError(
            f"Picture {number}: expected numbers from 0 to 1, got NaN or infinity. Look at the node that makes it."
        )
    return colours.expand(-1, -1, -1, 3)


def single_masks(masks: Sequence[Tensor]) -> Iterator[Tensor]:
    """MASK batches (B, H, W) or single masks (H, W), one at a time: (1, H, W)."""
    for batch in masks:
        yield from batch.reshape(-1, 1, *batch.shape[-2:])


def fit(image: Tensor, resolution: int) -> Tensor:
    """(1, H, W, C) scaled and cropped, its middle kept, to the size it is trained at: see buckets.training_size."""
    height, width = image.shape[1:3]
    new_width, new_height = training_size((width, height), resolution)
    if (new_height, new_width) == (height, width):
        return image
    resized = comfy.utils.common_upscale(image.movedim(-1, 1), new_width, new_height, "area", "center")
    return resized.movedim(1, -1)


def one_each(what: str, given: Sequence[Any], pictures: int) -> list[Any]:
    """One for each picture: as many as pictures, or one for all. ValueError otherwise."""
    if len(given) == 1:
        return list(given) * pictures
    if len(given) != pictures:
        raise ValueError(f"{what}: expected one for each of the {pictures} pictures, or one for all, got {len(given)}.")
    return list(given)


def _with_mask(picture: Tensor, mask: Tensor, number: int) -> Tensor:
    if mask.shape[-2:] != picture.shape[1:3]:
        raise ValueError(
            f"Picture {number}: expected a mask of its size, {picture.shape[2]} x {picture.shape[1]}, got "
            f"{mask.shape[-1]} x {mask.shape[-2]}. Connect the masks that belong to these pictures."
        )
    return torch.cat([picture, mask[..., None].to(picture)], -1)


def _in_latents(mask: Tensor, latents: Tensor) -> Tensor:
    """(1, H, W) averaged down to the latents' (1, h, w)."""
    return F.interpolate(mask[None], size=latents.shape[-2:], mode="area")[0].cpu()


def make_dataset(
    vae: ComfyVae,
    model: ComfyModel,
    images: Sequence[Tensor],
    captions: Sequence[str],
    masks: Sequence[Tensor],
    concept: str,
    class_word: str,
    resolution: int,
    batch_size: int,
    rules: CaptionRules,
) -> Dataset:
    """Every picture encoded once; the concept's name is put into captions that lack it.

    masks: where the concept is, one for each picture or one for all; empty for everywhere. ValueError names the number
    of the picture that it is about, from 1.
    """
    pictures = list(single_images(images))
    texts = one_each("Captions", captions, len(pictures))
    if masks:
        where = one_each("Masks", list(single_masks(masks)), len(pictures))
        pictures = list(map(_with_mask, pictures, where, range(1, len(pictures) + 1)))
    examples = []
    for number, (original, caption) in enumerate(zip(pictures, texts, strict=True), 1):
        check_cancel()
        picture = fit(original, resolution)
        latents = encode_images(vae, model, picture)[0]
        if not torch.isfinite(latents).all():
            raise ValueError(
                "Training pictures: the VAE gave numbers that are not finite. Connect the VAE of this model."
            )
        mask = _in_latents(picture[..., 3], latents) if masks else None
        try:
            examples.append(Example(latents, with_concept(caption, concept, class_word), mask))
        except ValueError as error:
            raise ValueError(f"Picture {number}: {error}") from error
    return Dataset(examples, batch_size, rules)
