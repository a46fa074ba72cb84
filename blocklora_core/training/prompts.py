"""Prompts of a run: the concept's own, encoded with gradients, and the frozen ones of the niche regularisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .port import Conditioning, Embeddings, Port

V_RAND_SPREAD = 0.013
"""Standard deviation of a fresh V_rand (Mix-of-Show)."""

KEPT_PROMPTS = 256
"""Encoded prompts of a frozen token that are kept: shuffled tags make ever new captions."""


class ConceptToken(nn.Module):
    """V_rand and V_class in each text encoder: (2, width). V_rand starts random, V_class at the class word."""

    def __init__(self, class_embeddings: Embeddings, generator: torch.Generator, device: torch.device):
        super().__init__()
        self.vectors = nn.ParameterDict()
        for encoder, class_vector in class_embeddings.items():
            start = torch.cat([random_vector(class_vector.shape[-1], generator), class_vector.cpu().float()])
            self.vectors[encoder] = nn.Parameter(start.to(device))

    def embeddings(self) -> dict[str, Tensor]:
        return dict(self.vectors.items())

    def mean_norm(self) -> float:
        norms = [vector.detach().norm(dim=-1).mean() for vector in self.vectors.values()]
        return float(torch.stack(norms).mean()) if norms else 0.0


def random_vector(width: int, generator: torch.Generator) -> Tensor:
    """A fresh V_rand: (1, width)."""
    return torch.randn(1, width, generator=generator) * V_RAND_SPREAD


class OwnPrompts:
    """The concept's prompts, each encoded once a batch, with gradients into its token; once frozen, once a run."""

    def __init__(self, port: Port, concept: str, token: ConceptToken):
        self.port, self.concept, self.token = port, concept, token
        self.frozen = False
        self._kept: dict[str, Conditioning] = {}

    def freeze(self) -> None:
        """The token stays as it is from now on."""
        self.frozen = True
        for parameter in self.token.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None

    def encode(self, captions: Sequence[str]) -> Conditioning:
        unique = list(dict.fromkeys(captions))
        encoded = Conditioning.cat([self._encode(caption) for caption in unique])
        return encoded.pick([unique.index(caption) for caption in captions])

    def _encode(self, caption: str) -> Conditioning:
        if caption in self._kept:
            return self._kept[caption]
        encoded = self.port.encode(caption, self.concept, self.token.embeddings())
        if self.frozen:
            if len(self._kept) >= KEPT_PROMPTS:
                self._kept.pop(next(iter(self._kept)))
            self._kept[caption] = encoded
        return encoded


class Negatives:
    """Frozen prompts that are not the concept's: another random V_rand in its place, or the class word alone.

    The diagnosis is BlockLoRA's (section 3.2): tuning moves the whole class. The remedy, asking for silence here, is
    ours.
    """

    def __init__(
        self,
        port: Port,
        captions: Sequence[str],
        concept: str,
        class_word: str,
        count: int,
        generator: torch.Generator,
    ):
        classes = port.class_embeddings(class_word)
        self.pool: list[Conditioning] = []
        with torch.no_grad():
            for number in range(count):
                caption = captions[number % len(captions)]
                stranger = {
                    encoder: torch.cat([random_vector(vector.shape[-1], generator).to(vector), vector])
                    for encoder, vector in classes.items()
                }
                self.pool.append(port.encode(caption, concept, stranger))
            if class_word:
                for caption in captions[: max(1, count // 3)]:
                    self.pool.append(port.encode(caption.replace(concept, class_word), concept, {}))

    def pick(self, count: int, generator: torch.Generator) -> Conditioning:
        """`count` of them, at random."""
        chosen = torch.randint(len(self.pool), (count,), generator=generator).tolist()
        return Conditioning.cat([self.pool[number] for number in chosen])
