"""What holds on every architecture that the host knows: tiny models, the host's own text encoders and sampler."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import pytest
import torch
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.host.train.layers import layer_choice
from blocklora.blocklora_core.host.train.port import ComfyPort
from blocklora.blocklora_core.host.train.train import TrainJob, train_concept
from blocklora.blocklora_core.host.weights.autograd import training_mode
from blocklora.blocklora_core.training import Conditioning, TrainConfig

from tests.host.architectures import CPU, KNOWN, Vae, build, latents_of
from tests.host.encoders import encoder_of

SHORT, LONG = "a photo of a man", "a dog in the night street, smiling, holding a cup of blue coffee"


def sampled(model: Any, clip: Any, text: str, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The host's own prediction, as its sampler makes it."""
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        model.model.current_patcher = model
        prompt = comfy.sampler_helpers.convert_cond(clip.encode_from_tokens_scheduled(clip.tokenize(text)))
        conds = comfy.samplers.process_conds(
            model.model, x, {"positive": prompt}, CPU, latent_image=torch.zeros_like(x), seed=0
        )
        found = comfy.samplers.calc_cond_batch(model.model, [conds["positive"]], x, sigma, {"transformer_options": {}})
        return found[0].clone()


@pytest.mark.parametrize("name", KNOWN)
def test_a_batch_of_prompts_is_predicted_as_the_sampler_predicts_each(name: str) -> None:
    model, clip = build(name), encoder_of(name)
    x = torch.randn((3, *latents_of(name)), generator=torch.Generator().manual_seed(5))
    with training_mode(), torch.no_grad():
        port = ComfyPort(model, clip, layer_choice("all linear"))
        sigma = port.sigmas[len(port.sigmas) // 2].reshape(1).float()
        texts = [SHORT, LONG, SHORT]
        both = Conditioning.cat([port.encode(text, "", {}) for text in texts])
        ours = port.predict(x, sigma.repeat(3), both)
    theirs = [sampled(model, clip, text, x[at : at + 1], sigma) for at, text in enumerate(texts)]
    effect = float((sampled(model, clip, LONG, x[:1], sigma) - theirs[0]).abs().max())
    assert effect > 0
    for at in range(3):
        assert float((ours[at : at + 1] - theirs[at]).abs().max()) <= 0.01 * effect + 1e-6


@pytest.mark.parametrize("name", ["flux", "cosmos_predict2", "zimage", "qwen_image", "wan21", "sd15"])
def test_checkpointing_computes_the_same_gradients(name: str) -> None:
    model, clip, found = build(name), encoder_of(name), []
    x = torch.randn((1, *latents_of(name)), generator=torch.Generator().manual_seed(5))
    with training_mode():
        port = ComfyPort(model, clip)
        sigma = port.sigmas[len(port.sigmas) // 2].reshape(1).float()
        prompt = port.encode(SHORT, "", {}).detach()
        modules = [layer.module for layer in port.layers.values()]
        for around in (nullcontext(), port.recomputing()):
            nudges = {module: torch.zeros(1, requires_grad=True) for module in modules}
            handles = [one.register_forward_hook(lambda m, _, out, n=nudges: out * (1 + n[m])) for one in modules]
            with around:
                port.predict(x, sigma, prompt).square().mean().backward()
            for handle in handles:
                handle.remove()
            found.append(torch.cat([torch.zeros(1) if nudges[m].grad is None else nudges[m].grad for m in modules]))
    assert float(found[0].abs().max()) > 0
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-6 * float(found[0].abs().max()) + 1e-9)


@pytest.mark.parametrize("name", [name for name in KNOWN if len(latents_of(name)) == 4])
def test_video_latents_train_with_masks_and_show_pictures(name: str) -> None:
    side = latents_of(name)[-1] * 8
    config = TrainConfig.of(
        steps=2, batch_size=1, rank=2, gram_pictures=1, gram_steps=1, preview_every=1, preview_steps=1, token="none",
        learning_rate=0.01, slot=2,
    )  # fmt: skip
    mask = torch.zeros(1, side, side)
    mask[:, : side // 2] = 1
    picture = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0))
    job = TrainJob(
        Concept("<ada>", "man"), [picture], ["a <ada>"], config, 2, side, precision="fp32", masks=[mask], again=True,
        resume=False,
    )  # fmt: skip
    with torch.inference_mode():
        result = train_concept(build(name), encoder_of(name), Vae(name), job)
    assert [picture.size for picture in result.samples] == [(side, side)] * 2
    assert any(bool(layer.up.any()) for layer in result.lora.layers.values())


@pytest.mark.parametrize("name", KNOWN)
def test_with_gradients_on_a_model_predicts_what_it_predicts_without(name: str) -> None:
    model, clip = build(name), encoder_of(name)
    x = torch.randn((1, *latents_of(name)), generator=torch.Generator().manual_seed(5))
    with training_mode():
        port = ComfyPort(model, clip, layer_choice("all linear"))
        sigma = port.sigmas[len(port.sigmas) // 2].reshape(1).float()
        with torch.no_grad():
            prompt = port.encode(SHORT, "", {})
            expected = port.predict(x, sigma, prompt)
        first = next(iter(port.layers.values())).module
        handle = first.register_forward_hook(lambda _module, _inputs, out: out + torch.zeros(1, requires_grad=True))
        found = port.predict(x, sigma, port.encode(SHORT, "", {}))
        found.square().mean().backward()
        handle.remove()
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-5)
