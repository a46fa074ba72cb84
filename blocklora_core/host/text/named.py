"""A CLIP that reads each prompt with the text encoder's layers of those concepts alone that the prompt names.

What plain LoRAs teach a text encoder also changes what it makes of the words that all prompts share: the start,
articles, padding. There no one weight can be as each of them wants it (docs/evidence.md), so whom a prompt does not
name has no say in how it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from comfy.sd import CLIP

from ..comfy import ComfyClip
from .tokens import encoder_tokenizers

Patches = Mapping[Any, Any]
"""What add_patches takes."""

Calls = Mapping[str, Sequence[tuple[int, ...]]]
"""Text encoder -> the ids of each phrase that calls a concept, as they stand in a prompt."""


class Readers:
    """Concepts that read the prompts that name them. patches: the text encoder's, of the concepts at these places."""

    def __init__(self, calls: Iterable[Calls], patches: Callable[[tuple[int, ...]], Patches]):
        self.calls = tuple(calls)
        self.patches = cache(patches)

    def named(self, tokens: Mapping[str, Any]) -> tuple[int, ...]:
        """Places of those whom a tokenized prompt names; of all, where no encoder's tokens are known."""
        known = [(key, ids) for key, sections in tokens.items() for ids in map(_ids, sections)]
        if not any(_phrases(call, key) for call in self.calls for key, _ in known):
            return tuple(range(len(self.calls)))
        return tuple(
            at
            for at, call in enumerate(self.calls)
            if any(_holds(ids, phrase) for key, ids in known for phrase in _phrases(call, key))
        )


class NamingClip(CLIP):
    """A CLIP with such readers; its own patches reach every prompt."""

    readers: tuple[Readers, ...]

    @classmethod
    def over(cls, clip: ComfyClip, *readers: Readers) -> NamingClip:
        """`clip` with these readers beside those that it has. The one given is not touched."""
        made = cls(no_init=True)
        vars(made).update(vars(CLIP.clone(clip)))
        made.readers = (*getattr(clip, "readers", ()), *readers)
        return made

    def clone(self, *args: Any, **more: Any) -> NamingClip:
        made = type(self)(no_init=True)
        vars(made).update(vars(super().clone(*args, **more)))
        made.readers = self.readers
        return made

    def encode_from_tokens(self, tokens: Any, *args: Any, **more: Any) -> Any:
        return self._reading(tokens).encode_from_tokens(tokens, *args, **more)

    def encode_from_tokens_scheduled(self, tokens: Any, *args: Any, **more: Any) -> Any:
        return self._reading(tokens).encode_from_tokens_scheduled(tokens, *args, **more)

    def _reading(self, tokens: Mapping[str, Any]) -> ComfyClip:
        plain = super().clone()
        for readers in self.readers:
            if places := readers.named(tokens):
                plain.patcher.add_patches(readers.patches(places))
        return plain


def calls_of(clip: ComfyClip, phrases: Iterable[str]) -> Calls:
    """The ids of `phrases` for each text encoder of CLIP, at the start of a prompt and within it."""
    phrases = list(phrases)
    return {
        encoder: sorted({ids for phrase in phrases for form in (phrase, f" {phrase}") if (ids := _read(one, form))})
        for encoder, (_, one) in encoder_tokenizers(clip).items()
    }


def _read(tokenizer: Any, text: str) -> tuple[int, ...]:
    end = -1 if tokenizer.tokenizer_adds_end_token else None
    return tuple(tokenizer.tokenizer(text)["input_ids"][tokenizer.tokens_start : end])


def _phrases(call: Calls, key: str) -> Sequence[tuple[int, ...]]:
    # Prompts call the encoder clip_l "l".
    return call.get(key) or call.get(f"clip_{key}") or ()


def _ids(section: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    # A concept's token is a vector, which is no word.
    return tuple(token if isinstance(token, int) else None for token, *_ in section)


def _holds(ids: tuple[Any, ...], phrase: tuple[int, ...]) -> bool:
    return any(ids[at : at + len(phrase)] == phrase for at in range(len(ids) - len(phrase) + 1))
