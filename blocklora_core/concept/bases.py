"""Base architectures by all the names that trainers write into files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Base:
    """kohya, modelspec: what their fields say of it, as we write them. aliases: starts of what others say, in small
    letters and digits alone (`_plain`)."""

    kohya: str
    modelspec: str
    aliases: tuple[str, ...]


# Our name, ComfyUI's architecture in small letters -> the others'. The longest alias that fits decides.
BASES: Mapping[str, Base] = {
    "sd15": Base("sd_v1", "stable-diffusion-v1", ("sdv1", "sd1", "stablediffusionv1", "stablediffusion1")),
    "sd20": Base("sd_v2", "stable-diffusion-v2-512", ("sdv2", "sd2", "stablediffusionv2", "stablediffusion2")),
    "sdxl": Base(
        "sdxl_base_v1-0", "stable-diffusion-xl-v1-base",
        ("sdxl", "stablediffusionxl", "pony", "illustrious", "noobai", "playgroundv2"),
    ),
    "sdxlrefiner": Base(
        "sdxl_refiner_v1-0", "stable-diffusion-xl-v1-refiner", ("sdxlrefiner", "stablediffusionxlv1refiner")
    ),
    "ssd1b": Base("ssd1b", "ssd-1b", ("ssd1b",)),
    "sd3": Base("sd3m", "stable-diffusion-3-medium", ("sd3", "stablediffusion3", "stablediffusionv3")),
    "sd35medium": Base("sd3.5m", "stable-diffusion-3.5-medium", ("sd35m", "stablediffusion35medium")),
    "sd35large": Base("sd3.5l", "stable-diffusion-3.5-large", ("sd35", "stablediffusion35", "stablediffusionv35")),
    "flux": Base("flux1", "flux-1-dev", ("flux", "flux1")),
    "flux2": Base("flux2", "flux-2-dev", ("flux2",)),
    "chroma": Base("chroma", "chroma", ("chroma",)),
    "auraflow": Base("auraflow", "auraflow", ("auraflow",)),
    "pixartalpha": Base("pixart_alpha", "pixart-alpha", ("pixart", "pixartalpha")),
    "pixartsigma": Base("pixart_sigma", "pixart-sigma", ("pixartsigma",)),
    "hunyuandit": Base("hydit", "hunyuan-dit", ("hydit", "hunyuandit")),
    "hunyuanvideo": Base("hunyuan_video", "hunyuan-video", ("hunyuanvideo", "framepack")),
    "hunyuanimage21": Base("hunyuan_image_2.1", "hunyuan-image-2.1", ("hunyuanimage",)),
    "lumina2": Base("lumina2", "lumina-2", ("lumina",)),
    "zimage": Base("z_image", "z-image", ("zimage",)),
    "qwenimage": Base("qwen_image", "qwen-image", ("qwenimage",)),
    "hidream": Base("hidream", "hidream-i1", ("hidream", "hidreami1")),
    "stable_cascade_c": Base("stable_cascade", "stable-cascade-v1-prior", ("stablecascade", "wuerstchenv3")),
    "ltxv": Base("ltxv", "ltx-video", ("ltxv", "ltxvideo")),
    "genmomochi": Base("mochi", "mochi-1", ("mochi", "genmomochi")),
    "wan21_t2v": Base("wan2.1", "wan2.1", ("wan", "wan21", "wanvideo")),
    "wan22_t2v": Base("wan2.2", "wan2.2", ("wan22",)),
}  # fmt: skip

# Architectures of ComfyUI's that share another's layers.
_KIN: Mapping[str, str] = {
    "fluxinpaint": "flux", "fluxschnell": "flux", "longcatimage": "flux", "sd21unclipl": "sd20", "sd21unclip": "sd20",
    "sd21uncliph": "sd20", "lotusd": "sd20", "sd_x4upscaler": "sd20", "sd15_instructpix2pix": "sd15",
    "sdxl_instructpix2pix": "sdxl",
}  # fmt: skip


def family(base: str) -> str:
    """ "sd15" of "sd15-26M": the architecture without the size of an unusual one, one name for those of one layout."""
    name = base.partition("-")[0]
    return _KIN.get(name, name)


def known_as(text: str) -> str:
    """Our name of the base that a trainer or a person calls `text`; empty when unknown."""
    plain = _plain(text)
    found = [(len(alias), name) for name, base in BASES.items() for alias in base.aliases if plain.startswith(alias)]
    return max(found)[1] if found else ""


def fields(base: str) -> tuple[str, str]:
    """(ss_base_model_version, modelspec.architecture) to write for `base`."""
    known = BASES.get(family(base))
    return (known.kohya, known.modelspec) if known else (base, base)


def _plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isascii() and c.isalnum())
