"""What a trained reader says of pictures: genes right, and who of a cast it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from demo.people.genes import Genes
from demo.people.reader.model import GeneReader
from demo.people.reader.questions import STYLE, UNASKED, Question, labels_of

TRUSTED = ("hair", "hair_colour", "skin", "facial_hair", "glasses", "earrings")
"""Genes of a person that the committed reader reads right in at least 85 of 100 held-out figures, as drawn and after a
round trip. Noses and shapes of heads, of a few pixels, it guesses."""


@dataclass(frozen=True)
class Identity:
    """Who is to be told from others: a style's package and the genes that make the person."""

    style: str
    genes: Genes

    @property
    def trusted(self) -> Identity:
        """With those genes alone that the reader is trusted with."""
        return Identity(self.style, {gene: self.genes[gene] for gene in TRUSTED if gene in self.genes})


@dataclass(frozen=True)
class Reading:
    """Log-probabilities of the answers to each question, (N, answers)."""

    reader: GeneReader
    told: tuple[torch.Tensor, ...]

    @classmethod
    @torch.no_grad()
    def of(cls, reader: GeneReader, pictures: torch.Tensor, batch: int = 64) -> Reading:
        """pictures (N, 3, H, W) in [0, 1]."""
        parts = [reader(part) for part in pictures.split(batch)]
        return cls(reader, tuple(torch.cat(told).float().log_softmax(1) for told in zip(*parts, strict=True)))

    def right(self, identity: Identity) -> Mapping[str, torch.Tensor]:
        """Gene -> (N,) whether its value is the likeliest. Genes that the reader is not asked about are left out, the
        style is one of them."""
        return {question.gene: told.argmax(1) == label for question, told, label in self._asked(identity)}

    def share_right(self, identity: Identity) -> torch.Tensor:
        """(N,) share of the person's genes that are right; the style does not count."""
        right = [hits for gene, hits in self.right(identity).items() if gene != STYLE]
        return torch.stack(right).float().mean(0)

    def likeness(self, identity: Identity) -> torch.Tensor:
        """(N,) mean log-probability of the style and the genes, so that people of many genes have no disadvantage."""
        return torch.stack([told[:, label] for _, told, label in self._asked(identity)]).mean(0)

    def nearest(self, cast: Sequence[Identity]) -> torch.Tensor:
        """(N,) place in `cast` of the likeliest person."""
        return torch.stack([self.likeness(identity) for identity in cast]).argmax(0)

    def _asked(self, identity: Identity) -> Iterator[tuple[Question, torch.Tensor, int]]:
        """What the person shows: question, what was told, the right answer's place."""
        labels = labels_of(self.reader.questions, identity.style, identity.genes)
        for question, told, label in zip(self.reader.questions, self.told, labels, strict=True):
            if label != UNASKED:
                yield question, told, label
