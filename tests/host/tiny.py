"""A tiny base model with random weights, and concepts that fit it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.sd
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora.blocklora_core.concept.keys import fused_parts, is_geglu
from blocklora.blocklora_core.concept.layer import Layer
from blocklora.blocklora_core.concept.rows import Scheme, all_rows, count
from blocklora.blocklora_core.files.shown import word
from blocklora.blocklora_core.host.base import base_name
from blocklora.blocklora_core.host.weights.names import clip_stems, model_stems, preferred_stems
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD

from demo.base import UNET, UNET_CONFIG, VAE, write_checkpoint
from demo.people.recipe.layout import initialise_unet
from tests.host.dynamic import WANTED, as_used, widen, with_weights

CONTIGUOUS = Scheme()
ADAPTED_TEXT = ("layers.0.self_attn.q_proj", "layers.0.self_attn.out_proj")

TEXT_LAYERS = 2
"""All twelve would take most of a short training's time."""

# The demo's, at one resolution: four transformer blocks.
SMALL_UNET = {
    **UNET_CONFIG, "num_res_blocks": [1], "channel_mult": [1], "transformer_depth": [1], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1],
}  # fmt: skip


def small_unet() -> UNetModel:
    unet = UNetModel(**SMALL_UNET, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    initialise_unet(unet)
    return unet


@dataclass(frozen=True)
class Base:
    """What CheckpointLoaderSimple gives."""

    model: Any
    clip: Any
    vae: Any


def write_base(path: Path) -> None:
    """A checkpoint like the demo's whose weights are all random: no output is zero, nothing is learnt."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        with with_weights():
            unet, vae = small_unet(), TAESD()
        for tensor in (p for p in unet.parameters() if not p.any()):
            torch.nn.init.normal_(tensor, 0.0, 0.02)
        for tensor in vae.parameters():
            torch.nn.init.normal_(tensor, 0.0, 0.05)
    state = {UNET + name: tensor for name, tensor in unet.state_dict().items()}
    write_checkpoint(path, state | {VAE + name: tensor for name, tensor in vae.state_dict().items()})
    if WANTED:
        widen(path, "")


def load_base(path: Path) -> Base:
    """Under inference mode, as ComfyUI's executor runs the loader; with the first layers alone of its text encoder."""
    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(path),
            embedding_directory=[],
            te_model_options={"clip_l_model_config": {"num_hidden_layers": TEXT_LAYERS}},
        )
        # SD1.5's checkpoints have none, and the host leaves it holding any bytes: NaN never equals itself.
        torch.nn.init.eye_(clip.cond_stage_model.clip_l.transformer.text_projection.weight)
    return Base(model, clip, vae)


def in_use(patcher: Any) -> dict[str, torch.Tensor]:
    """The weights that a loaded MODEL or CLIP's patcher computes with."""
    return dict(patcher.model.state_dict()) | as_used(patcher.model)


@contextmanager
def loaded(patcher: Any) -> Iterator[dict[str, torch.Tensor]]:
    """The weights of a MODEL or a CLIP's patcher while ComfyUI has it loaded; unpatched at the end."""
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    try:
        yield in_use(patcher)
    finally:
        comfy.model_management.unload_all_models()


def patched(patcher: Any, names: Container[str] | None = None) -> dict[str, torch.Tensor]:
    """Copies of the weights, or of those in `names`, that `patcher` has when it is loaded."""
    with loaded(patcher) as weights:
        return {name: tensor.clone() for name, tensor in weights.items() if names is None or name in names}


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def adaptable(base: Base) -> dict[str, tuple[int, ...]]:
    """Stem -> shape of what the tests adapt: attention, GEGLU projections and a few text layers."""
    found = {}
    sides = ((base.model.model, model_stems(base.model)), (base.clip.cond_stage_model, clip_stems(base.clip)))
    for module, stems in sides:
        weights = module.state_dict()
        for name, stem in preferred_stems(stems).items():
            wanted = ".attn" in name or is_geglu(name) or any(part in name for part in ADAPTED_TEXT)
            if wanted and name in weights and weights[name].ndim == 2:
                found[stem] = tuple(weights[name].shape)
    return found


def _layer(stem: str, shape: tuple[int, ...], scheme: Scheme | None, slot: int, random: torch.Generator) -> Layer:
    rows = scheme.rows(slot, shape[0], fused_parts(stem)) if scheme else all_rows(shape[0])
    up = torch.randn(count(rows), 4, generator=random) * 0.1
    down = torch.randn(4, shape[1], generator=random) * 0.1
    # Values that float16 holds, as a saved file has them.
    return Layer(up.half().float(), down.half().float(), rows, shape[0])


def make_lora(
    base: Base, name: str, slot: int, scheme: Scheme | None = CONTIGUOUS, stems: Sequence[str] | None = None
) -> BlockLoRA:
    """A random concept that fits `base`, with a token. Without `scheme` a plain LoRA.

    name: as a stranger's file may have it; what no prompt can hold is left out of it, as readers of such files do.
    """
    random = torch.Generator().manual_seed(100 + slot)
    shapes = adaptable(base)
    chosen = shapes if stems is None else {stem: shapes[stem] for stem in stems}
    layers = {stem: _layer(stem, shape, scheme, slot, random) for stem, shape in chosen.items()}
    token = torch.randn(2, 768, generator=random).half().float() * 0.0625
    held = slot if scheme else None
    return BlockLoRA(Concept(word(name), "man"), layers, scheme, held, base_name(base.model), {"clip_l": token})
