"""Scores pictures against references that are embedded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .confusion import nearest
from .embedder import Embedder, NoTextError
from .figures import ConceptScores
from .references import Reference
from .scores import image_alignment, text_alignment


class Judge:
    """Embeds and scores. notes: what could not be measured."""

    def __init__(self, embedder: Embedder, references: Sequence[Reference]):
        self.embedder = embedder
        self.references = {one.concept: self.embed(one.pictures) for one in references}
        self.notes: list[str] = []
        self._texts: dict[str, Tensor] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.references)

    def embed(self, batches: Iterable[Tensor]) -> Tensor:
        """Batches (B, H, W, 3) in [0, 1] -> (G, D)."""
        return torch.cat([self.embedder.images(batch) for batch in batches])

    def score(self, concept: str, pictures: Tensor, texts: Sequence[str]) -> ConceptScores:
        """pictures: embeddings (G, D). texts: what each is to show, as `evaluation_prompt` gives it."""
        return ConceptScores(
            tuple(image_alignment(pictures, self.references[concept]).tolist()),
            self._text(pictures, texts),
            tuple(nearest(pictures, self.references)),
        )

    def _text(self, pictures: Tensor, texts: Sequence[str]) -> tuple[float, ...]:
        try:
            embedded = torch.cat([self._embed_text(text) for text in texts])
        except NoTextError as error:
            note = f"Text alignment was not measured: {error}"
            self.notes += [note] if note not in self.notes else []
            return ()
        return tuple(text_alignment(pictures, embedded).tolist())

    def _embed_text(self, text: str) -> Tensor:
        if text not in self._texts:
            self._texts[text] = self.embedder.texts([text])
        return self._texts[text]
