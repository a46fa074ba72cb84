"""Prompts of a run: the concept's own, encoded with gradients, and the frozen ones of the niche regularisation."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..concept.concept import Concept
from ..concept.names import Names
from .config.sections import NicheConfig
from .port import Conditioning, Embeddings, Port

V_RAND_SPREAD = 0.013
"""Standard deviation of a fresh V_rand (Mix-of-Show), where words are no longer than CLIP's."""

START_NORM = 0.37
"""Mean length of a fresh token in SD1.5's CLIP, to which the limit of Mix-of-Show belongs."""

AUTO_LAYERS = 16
"""Cross-attention layers, those of SD1.5, up to which "auto" is layer-wise: each has every prompt encoded once."""

KEPT_PROMPTS = 256
"""Encoded prompts that a run keeps: shuffled tags and templates make ever new ones."""

_LETTERS, _WORD_LENGTH = string.ascii_lowercase, 6


class ConceptToken(nn.Module):
    """V_rand and V_class in each text encoder: (2, width), or (layers, 2, width) when layer-wise (ED-LoRA).

    V_rand starts random, V_class at the class word, both alike in all layers. Without embeddings it is empty: the name
    is then an ordinary word, a trigger word.
    """

    def __init__(
        self, class_embeddings: Embeddings, generator: torch.Generator, device: torch.device, layers: int | None = None
    ):
        super().__init__()
        self.layers = layers
        self.vectors = nn.ParameterDict()
        self._scales: dict[str, float] = {}
        for encoder, class_vector in class_embeddings.items():
            start = _token(class_vector.cpu().float(), generator, layers)
            self.vectors[encoder] = nn.Parameter(start.to(device))
            self._scales[encoder] = max(1.0, _mean_norm(start) / START_NORM)

    def embeddings(self) -> dict[str, Tensor]:
        return dict(self.vectors.items())

    def mean_norm(self) -> float:
        """How long the vectors are, in units in which each encoder's begin as long as those of SD1.5's."""
        norms = [_mean_norm(vector) / self._scales[encoder] for encoder, vector in self.vectors.items()]
        return sum(norms) / len(norms) if norms else 0.0


def make_token(port: Port, class_word: str, kind: str, generator: torch.Generator) -> ConceptToken:
    """A token of that kind, one of TOKENS. ValueError when the model cannot have it."""
    if kind == "none":
        return ConceptToken({}, generator, port.device)
    layers = _layers(port, kind)
    classes = port.class_embeddings(class_word)
    if not classes:
        raise ValueError(
            f"Concept token: expected a text encoder that takes one, got that of {port.base}, which reads letters "
            "alone. Set token to none in Train: the name is then a trigger word."
        )
    return ConceptToken(classes, generator, port.device, layers)


def _layers(port: Port, kind: str) -> int | None:
    if kind == "single" or (kind == "auto" and not 0 < port.prompt_layers <= AUTO_LAYERS):
        return None
    if not port.prompt_layers:
        raise ValueError(
            f"Layer-wise token: expected a model with cross-attention layers, such as SD1.5 or SDXL, got {port.base}. "
            "Choose single."
        )
    return port.prompt_layers


def _mean_norm(vectors: Tensor) -> float:
    return float(vectors.detach().norm(dim=-1).mean())


def _token(class_vector: Tensor, generator: torch.Generator, layers: int | None) -> Tensor:
    # Beside words as long as T5's, a vector of CLIP's length would not be seen.
    spread = float(class_vector.square().mean().sqrt())
    spread = spread if spread > 2 * V_RAND_SPREAD else V_RAND_SPREAD
    pair = torch.cat([torch.randn(1, class_vector.shape[-1], generator=generator) * spread, class_vector])
    return pair if layers is None else pair.expand(layers, -1, -1).clone()


class ConceptPrompts:
    """The concept's prompts, each encoded once a batch, with gradients into its token; once frozen, once a run.

    live: the text encoder learns too, so that no encoding can be kept.
    """

    def __init__(self, port: Port, concept: str, token: ConceptToken, live: bool = False):
        self.port, self.concept, self.token, self.live = port, concept, token, live
        self.frozen = self.all_kept = False
        self._kept: dict[str, Conditioning] = {}

    def freeze(self) -> None:
        """The token stays as it is from now on."""
        self.frozen = True
        for parameter in self.token.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None

    def keep(self, texts: Sequence[str] | None) -> None:
        """Encode at once all that a run will ask for, so that the text encoder can leave the device; done once.

        None is no end of texts: then it stays, as it does while anything of the text side learns.
        """
        if texts is None or self.all_kept or self.live or not self.frozen or len(texts) > KEPT_PROMPTS:
            return
        self.all_kept = True
        with torch.no_grad():
            self.encode(texts)
        self.port.release_text()

    def encode(self, captions: Sequence[str]) -> Conditioning:
        unique = list(dict.fromkeys(captions))
        encoded = Conditioning.cat([self._encode(caption) for caption in unique])
        return encoded.pick([unique.index(caption) for caption in captions])

    def _encode(self, caption: str) -> Conditioning:
        if caption in self._kept:
            return self._kept[caption]
        encoded = self.port.encode(caption, self.concept, self.token.embeddings())
        if self.frozen and not self.live:
            if len(self._kept) >= KEPT_PROMPTS:
                self._kept.pop(next(iter(self._kept)))
            self._kept[caption] = encoded
        return encoded


@dataclass(frozen=True)
class FrozenPrompt:
    """A prompt that is not the concept's, as the frozen text encoder reads it. embeddings: what its name stands for."""

    text: str
    frozen: Conditioning
    embeddings: Embeddings = field(default_factory=dict)


class Negatives:
    """Prompts on which the adapted model shall stay as the frozen one: another random V_rand in the concept's place,
    the class word alone, and captions of the user's.

    The diagnosis is BlockLoRA's (section 3.2): tuning moves the whole class. The remedy, asking for silence here, is
    ours. Make it while the adapters are silent.
    """

    def __init__(
        self,
        *,
        port: Port,
        captions: Sequence[str],
        concept: Concept,
        token: ConceptToken,
        config: NicheConfig,
        generator: torch.Generator,
    ):
        self.port, self.concept, self.generator = port, concept.name, generator
        self.pool: list[FrozenPrompt] = []
        negative = self._random_tokens(concept.class_word, token) if token.embeddings() else self._random_words()
        with torch.no_grad():
            for number in range(config.negatives):
                self._add(*negative(captions[number % len(captions)]))
            if concept.class_word and config.class_word:
                for caption in captions[: max(1, config.negatives // 3)]:
                    self._add(self._named(caption, concept.class_word), {})
            for caption in config.captions:
                self._add(caption, {})
        if not self.pool:
            raise ValueError(
                "Niche regularisation: expected prompts that are not the concept's, got none. "
                "Allow other random tokens, the class word or captions, or set niche to 0."
            )

    def _random_tokens(self, class_word: str, token: ConceptToken) -> Callable[[str], tuple[str, Embeddings]]:
        classes = self.port.class_embeddings(class_word)

        def negative(caption: str) -> tuple[str, Embeddings]:
            made = {
                encoder: _token(vector.cpu().float(), self.generator, token.layers).to(self.port.device)
                for encoder, vector in classes.items()
            }
            return caption, made

        return negative

    def _random_words(self) -> Callable[[str], tuple[str, Embeddings]]:
        def negative(caption: str) -> tuple[str, Embeddings]:
            at = torch.randint(len(_LETTERS), (_WORD_LENGTH,), generator=self.generator).tolist()
            return self._named(caption, "".join(_LETTERS[number] for number in at)), {}

        return negative

    def _named(self, caption: str, word: str) -> str:
        return Names([self.concept]).replaced(caption, lambda _: word)

    def _add(self, text: str, embeddings: Embeddings) -> None:
        self.pool.append(FrozenPrompt(text, self.port.encode(text, self.concept, embeddings), embeddings))

    def pick(self, count: int, generator: torch.Generator) -> list[FrozenPrompt]:
        """`count` of them, at random."""
        chosen = torch.randint(len(self.pool), (count,), generator=generator).tolist()
        return [self.pool[number] for number in chosen]

    def encode(self, prompts: Sequence[FrozenPrompt], live: bool) -> Conditioning:
        """Their encodings: the frozen ones, or by the text encoder as it is now when it is `live`."""
        if not live:
            return Conditioning.cat([prompt.frozen for prompt in prompts])
        return Conditioning.cat([self.port.encode(prompt.text, self.concept, prompt.embeddings) for prompt in prompts])
