"""A model of two Linears that stands in for a diffusion model: small, exact and quick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from blocklora_core.training import AdaptedLayer, Conditioning
from blocklora_core.training.port import CrossAttention, Prompt

WIDTH, CHANNELS, SIDE = 24, 4, 3


class FakePort:
    """Clean estimate from each noisy pixel and the mean of the prompt's vectors. "q" and "k" read the same input."""

    base = "fake"
    device = torch.device("cpu")

    def __init__(self, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.words: dict[str, Tensor] = {}
        self.generator = generator
        self.q, self.k = nn.Linear(WIDTH, 32, bias=False), nn.Linear(WIDTH, 32, bias=False)
        self.out = nn.Linear(32, CHANNELS, bias=False)
        for layer in (self.q, self.k, self.out):
            layer.weight = nn.Parameter(torch.randn(layer.weight.shape, generator=generator) * 0.2, requires_grad=False)
        self.text = nn.Linear(WIDTH - CHANNELS, WIDTH - CHANNELS, bias=False)
        self.text.weight = nn.Parameter(
            torch.randn(self.text.weight.shape, generator=generator) * 0.02, requires_grad=False
        )
        self.predictions = self.encodings = self.released = 0
        self.passes: Sequence[Sequence[int]] = ()

    @property
    def layers(self) -> Mapping[str, AdaptedLayer]:
        return {"q": AdaptedLayer(self.q, 32, WIDTH), "k": AdaptedLayer(self.k, 32, WIDTH)}

    @property
    def text_layers(self) -> Mapping[str, AdaptedLayer]:
        return {"text": AdaptedLayer(self.text, WIDTH - CHANNELS, WIDTH - CHANNELS)}

    @property
    def cross_attentions(self) -> Sequence[CrossAttention]:
        return ()

    @property
    def prompt_layers(self) -> int:
        return 2

    @property
    def sigmas(self) -> Tensor:
        return torch.linspace(0.05, 5.0, 50)

    def _word(self, word: str) -> Tensor:
        if word not in self.words:
            seed = sum(ord(c) * (at + 1) for at, c in enumerate(word))
            self.words[word] = torch.randn(WIDTH - CHANNELS, generator=torch.Generator().manual_seed(seed))
        return self.words[word]

    def encode(self, prompt: str, concept: str, embeddings: Mapping[str, Tensor]) -> Conditioning:
        self.encodings += 1
        vectors = []
        for word in prompt.split():
            if word == concept and embeddings:
                vectors.extend(embeddings["fake"].flatten(0, -2))
            else:
                vectors.append(self._word(word))
        mean = torch.stack(vectors).mean(0) if vectors else torch.zeros(WIDTH - CHANNELS)
        at = prompt.split().index(concept) if concept and embeddings and concept in prompt.split() else None
        return Conditioning((Prompt((mean + self.text(mean))[None, None], concept_at=at),))

    def release_text(self) -> None:
        self.released += 1

    def class_embeddings(self, class_word: str) -> Mapping[str, Tensor]:
        return {"fake": self._word(class_word or "object")[None].clone()}

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return latents + noise * sigma.view(-1, 1, 1, 1)

    def predict(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        self.predictions += 1
        self.passes = [list(range(len(noisy)))]
        pixels = noisy.flatten(2).transpose(1, 2)
        text = conditioning.cross.mean(1, keepdim=True).expand(-1, pixels.shape[1], -1)
        x = torch.cat([pixels / (1 + sigma.view(-1, 1, 1)), text], -1)
        hidden = torch.tanh(self.q(x)) + torch.tanh(self.k(x))
        return self.out(hidden).transpose(1, 2).reshape(noisy.shape)

    def loss_scale(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def snr(self, sigma: Tensor) -> Tensor:
        return (1 / sigma).square()
