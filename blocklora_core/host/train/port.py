"""ComfyUI's MODEL and CLIP as the training loop sees them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ...training.checkpointing import checkpointed, heavy_blocks
from ...training.port import AdaptedLayer, Conditioning, CrossAttention, Embeddings, Prompt, is_linear
from ..base import base_name
from ..comfy import ComfyClip, ComfyModel, ComfyVae
from ..compat import unload
from ..text.layerwise import LayerContext, cross_attention_layers, cross_attention_modules
from ..text.tokens import class_embeddings, first_vector, layers_of, with_concepts
from ..weights.autograd import gradients_through, leave_inference_mode, with_own_weights
from ..weights.names import Weights, clip_weights, model_weights, preferred_stems
from .layers import LAYER_CHOICES, LayerChoice, layer_choice, nothing_chosen
from .precision import AUTO, computing_in, dtype_for, held_in


def _epsilon(sigma: Tensor, _data: float) -> Tensor:
    return 1 / sigma


def _velocity(sigma: Tensor, data: float) -> Tensor:
    return (sigma**2 + data**2).sqrt() / (sigma * data)


def _clean(sigma: Tensor, _data: float) -> Tensor:
    return torch.ones_like(sigma)


def _exploding(sigma: Tensor, data: float) -> Tensor:
    return (data / sigma).square()


def _flow(sigma: Tensor, _data: float) -> Tensor:
    return ((1 - sigma) / sigma).square()


class _Objective(NamedTuple):
    """What a network's output means. Functions of (sigma, sigma_data).

    loss_scale: denoised = x - sigma * eps, or x * (...) - v * sigma * data / sqrt(sigma^2 + data^2), or x - sigma * v
    for flow: the factor turns an error of the clean estimate into one of the network's own output.
    snr: of noisy latents, x0 + sigma * noise, or (1 - sigma) * x0 + sigma * noise for flow.
    """

    loss_scale: Callable[[Tensor, float], Tensor]
    snr: Callable[[Tensor, float], Tensor]


_CLEAN = _Objective(_clean, _exploding)

# The first match counts: V_PREDICTION and X0 derive from EPS.
_OBJECTIVES: tuple[tuple[type, _Objective], ...] = (
    (comfy.model_sampling.X0, _CLEAN),
    (comfy.model_sampling.V_PREDICTION, _Objective(_velocity, _exploding)),
    (comfy.model_sampling.EPS, _Objective(_epsilon, _exploding)),
    (comfy.model_sampling.CONST, _Objective(_epsilon, _flow)),
)


def _alike(conds: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Numbers of the prompts that the host's sampler would put into one batch, group by group."""
    groups: list[list[int]] = []
    for row, cond in enumerate(conds):
        group = next((rows for rows in groups if comfy.samplers.cond_equal_size(conds[rows[0]], cond)), None)
        if group is None:
            groups.append([row])
        else:
            group.append(row)
    return groups


class ComfyPort:
    """Speaks for one loaded MODEL and CLIP. Call inside `training_mode`."""

    def __init__(
        self,
        model: ComfyModel,
        clip: ComfyClip,
        choice: LayerChoice = LAYER_CHOICES["attention"],
        load: bool = True,
    ):
        """load: MODEL too, not only the text encoder; else `load` comes before the first prediction."""
        self.model = model = with_own_weights(model, whole=True)
        self.clip, self._text = clip, with_own_weights(clip.patcher, whole=True)
        self._used = [self._text]
        # Only then have the weights what is merged into them.
        self.at_load: Callable[[], object] | None = None
        self.load(with_model=load)
        model.model.requires_grad_(False)
        clip.cond_stage_model.requires_grad_(False)
        self.device = model.load_device
        self.base = base_name(model)
        self.choice = choice
        self._layers = self._find_layers(model.model, model_weights(model), self.base)
        self._cross_attention = cross_attention_layers(model.model.diffusion_model)
        self.sampling = model.model.model_sampling
        self.objective = next((known for kind, known in _OBJECTIVES if isinstance(self.sampling, kind)), _CLEAN)
        self._passes: list[list[int]] = []
        # UNets' blocks make new tensors; the clones that the others need would only cost there.
        self._adds_in_place = not isinstance(model.model.diffusion_model, UNetModel)

    def load(self, with_model: bool = True) -> None:
        """Bring what is used onto the device, whole, and fit for autograd; again where the host has taken it away."""
        if with_model and self.model not in self._used:
            self._used.append(self.model)
        comfy.model_management.load_models_gpu(self._used, force_full_load=True)
        for patcher in self._used:
            leave_inference_mode(patcher.model)
        if with_model and self.at_load is not None:
            at_load, self.at_load = self.at_load, None
            at_load()

    def release_text(self) -> None:
        if self._text in self._used:
            self._used.remove(self._text)
            unload(self._text)

    def _find_layers(self, network: nn.Module, weights: Weights, owner: str) -> dict[str, AdaptedLayer]:
        choice, stems = self.choice, preferred_stems(weights.stems)
        named = {f"{name}.weight": module for name, module in network.named_modules()}
        known = {
            name: module for name, module in named.items()
            if name in stems and (is_linear(module) or isinstance(module, _ConvNd))
        }  # fmt: skip
        wanted = {
            name: AdaptedLayer.of(module) for name, module in known.items()
            if choice.wanted(name) and (choice.convolutions or is_linear(module))
        }  # fmt: skip
        found = {
            stems[name]: replace(layer, parts=weights.parts.get(name, ())) for name, layer in wanted.items() if layer
        }
        left = [name for name, layer in wanted.items() if layer is None]
        if left:
            logging.warning(
                "BlockLoRA: %d convolutions that are grouped, transposed or padded with other than zeros cannot be "
                "adapted and stay as they are, such as %s",
                len(left),
                left[0],
            )
        if not found:
            raise nothing_chosen(choice, owner, known)
        return found

    @property
    def layers(self) -> Mapping[str, AdaptedLayer]:
        return self._layers

    @property
    def share(self) -> float:
        """Of all numbers in the model's linear weights, the part that the adapted layers have."""
        linears = filter(is_linear, self.model.model.diffusion_model.modules())
        sizes = {
            module: layer.out_features * layer.in_features for module in linears if (layer := AdaptedLayer.of(module))
        }
        adapted = {layer.module for layer in self._layers.values()}
        return sum(size for module, size in sizes.items() if module in adapted) / sum(sizes.values())

    @cached_property
    def text_layers(self) -> Mapping[str, AdaptedLayer]:
        return self._find_layers(self.clip.cond_stage_model, clip_weights(self.clip), "the text encoder")

    @property
    def cross_attentions(self) -> Sequence[CrossAttention]:
        return cross_attention_modules(self.model.model.diffusion_model)

    @property
    def prompt_layers(self) -> int:
        return len(self._cross_attention)

    def recomputing(self) -> AbstractContextManager[None]:
        """Gradient checkpointing of the model's blocks, undone when the block ends."""
        adapted = [layer.module for layer in self._layers.values()]
        return checkpointed(heavy_blocks(self.model.model.diffusion_model, adapted), gradients_through)

    @property
    def sigmas(self) -> Tensor:
        return self.sampling.sigmas

    def encode(self, prompt: str, concept: str, embeddings: Embeddings) -> Conditioning:
        if self._text not in self._used:
            self._used.append(self._text)
            self.load(with_model=False)
        clip = with_concepts(self.clip, {concept: embeddings}) if embeddings else self.clip
        # The clip's own encode_from_tokens would load the model anew each time; it is loaded already.
        self.clip.cond_stage_model.reset_clip_options()
        if self.clip.layer_idx is not None:
            self.clip.cond_stage_model.set_clip_options({"layer": self.clip.layer_idx})
        tokens = clip.tokenize(prompt)
        with gradients_through(self.clip.cond_stage_model):
            cross, pooled, *others = self.clip.cond_stage_model.encode_token_weights(tokens)
        concept_at = first_vector(tokens, layers_of(embeddings.values())) if embeddings else None
        extras = {"pooled_output": pooled, **(others[0] if others else {})}
        encoded = Prompt(cross, extras, concept_at).changed(lambda tensor: tensor.to(self.device))
        return Conditioning((encoded,))

    def class_embeddings(self, class_word: str) -> Embeddings:
        return class_embeddings(self.clip, class_word)

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return self.sampling.noise_scaling(sigma, noise.clone(), latents)

    def predict(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        conds = [self.model_conds(noisy[row : row + 1], prompt) for row, prompt in enumerate(conditioning.prompts)]
        groups = self._passes = _alike(conds)
        parts = [self.predict_alike(noisy[rows], sigma[rows], [conds[row] for row in rows]) for rows in groups]
        order = torch.tensor([row for rows in groups for row in rows], device=noisy.device)
        return parts[0] if len(parts) == 1 else torch.cat(parts)[order.argsort()]

    @property
    def passes(self) -> Sequence[Sequence[int]]:
        return self._passes

    def model_conds(self, noisy: Tensor, prompt: Prompt) -> dict[str, Any]:
        """What the host's sampler would give the model for this prompt."""
        given = {**prompt.extras, "cross_attn": prompt.cross, "model_conds": {}}
        (ready,) = comfy.samplers.encode_model_conds(
            self.model.model.extra_conds, [given], noisy, self.device, "positive"
        )
        conds: dict[str, Any] = ready["model_conds"]
        return conds

    def predict_alike(self, noisy: Tensor, sigma: Tensor, conds: Sequence[dict[str, Any]]) -> Tensor:
        """The same for prompts that the model takes at a time."""
        patches = {"patches": {"attn2_patch": [LayerContext(self._cross_attention)]}} if self._cross_attention else {}
        whole = [{name: cond.process_cond(batch_size=1, area=None) for name, cond in each.items()} for each in conds]
        ready = comfy.samplers.cond_cat(whole)
        with gradients_through(self.model.model.diffusion_model) if self._adds_in_place else nullcontext():
            return self.model.model.apply_model(noisy, sigma, transformer_options=patches, **ready)

    def loss_scale(self, sigma: Tensor) -> Tensor:
        return self.objective.loss_scale(sigma, self._sigma_data)

    def snr(self, sigma: Tensor) -> Tensor:
        return self.objective.snr(sigma, self._sigma_data)

    @property
    def _sigma_data(self) -> float:
        return float(getattr(self.sampling, "sigma_data", 1.0))


@contextmanager
def training_port(
    model: ComfyModel,
    clip: ComfyClip,
    layers: str = "attention",
    precision: str = AUTO,
    checkpointing: bool = False,
    layer_pattern: str = "",
    load: bool = True,
) -> Iterator[ComfyPort]:
    """MODEL and CLIP made ready for a training run, and left as they were when the block ends. load: see ComfyPort."""
    dtype = dtype_for(model, precision)
    port = ComfyPort(computing_in(model, dtype), clip, layer_choice(layers, layer_pattern), load=False)
    with ExitStack() as held, port.recomputing() if checkpointing else nullcontext():
        port.at_load = lambda: held.enter_context(held_in(port.model.model, dtype))
        if load:
            port.load()
        yield port


@torch.no_grad()
def encode_images(vae: ComfyVae, model: ComfyModel, images: Tensor) -> Tensor:
    """Pictures (B, H, W, 3) in [0, 1] -> latents (B, C, h, w) in the model's own units, on the CPU."""
    latents = vae.encode(images[..., :3])
    return model.model.process_latent_in(latents).float().cpu().clone()


@torch.no_grad()
def decode_latents(vae: ComfyVae, model: ComfyModel, latents: Tensor) -> Tensor:
    """Latents in the model's own units -> pictures (B, H, W, 3) in [0, 1]; of video latents every frame is one."""
    pictures: Tensor = vae.decode(model.model.process_latent_out(latents))
    return pictures.reshape(-1, *pictures.shape[-3:])


def decode_between(vae: ComfyVae, port: ComfyPort, latents: Tensor) -> Tensor:
    """The same in the middle of a run: to make room for the VAE the host may take the model away, merged patches with
    it, so that it is brought back."""
    pictures = decode_latents(vae, port.model, latents)
    port.load()
    return pictures
