"""A CLIP that reads each prompt with the text encoder's layers of those concepts alone that the prompt names.

What plain LoRAs teach a text encoder also changes what it makes of the words that all prompts share: the start,
articles, padding. There no one weight can be as each of them wants it (docs/evidence.md), so whom a prompt does not
name has no say in how it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from comfy.sd import CLIP

from ..comfy import ComfyClip
from .tokens import encoder_tokenizers

Patches = Mapping[Any, Any]
"""What add_patches takes."""

# What stands for a space in the vocabularies of CLIP, T5 and language models, and what is no text at all.
_SPACE, _SPECIAL = re.compile(r"</w>|\u2581|\u0120"), re.compile(r"<\|[^|]*\|>|</?s>|<pad>")


@dataclass(frozen=True)
class Call:
    """What calls a concept, among the tokens of one text encoder. vocabulary: id -> token."""

    vocabulary: Mapping[int, str]
    pattern: re.Pattern[str]

    def heard_in(self, section: Iterable[Sequence[Any]]) -> bool:
        return self.pattern.search(_text(self.vocabulary, [token for token, *_ in section])) is not None


Calls = Mapping[str, Call]
"""Text encoder -> what calls a concept there."""


class Readers:
    """Concepts that read the prompts that name them. patches: the text encoder's, of the concepts at these places."""

    def __init__(self, calls: Iterable[Calls], patches: Callable[[tuple[int, ...]], Patches]):
        self.calls = tuple(calls)
        self.patches = cache(patches)

    def named(self, tokens: Mapping[str, Sequence[Any]]) -> tuple[int, ...]:
        """Places of those whom a tokenized prompt names; of all, where no encoder's tokens are known."""
        known = {key: [call for one in self.calls if (call := _of(one, key))] for key in tokens}
        if not any(known.values()):
            return tuple(range(len(self.calls)))
        return tuple(at for at, call in enumerate(self.calls) if _called(call, tokens))


class NamingClip(CLIP):
    """A CLIP with such readers; its own patches reach every prompt."""

    readers: tuple[Readers, ...]

    @classmethod
    def over(cls, clip: ComfyClip, *readers: Readers) -> NamingClip:
        """`clip` with these readers beside those that it has. The one given is not touched."""
        made = cls(no_init=True)
        made.__dict__.update(vars(CLIP.clone(clip)))
        made.readers = (*getattr(clip, "readers", ()), *readers)
        return made

    def clone(self, *args: Any, **more: Any) -> NamingClip:
        made = type(self)(no_init=True)
        made.__dict__.update(vars(super().clone(*args, **more)))
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
    """What any of `phrases` is for each text encoder of CLIP: whole words in any case."""
    phrases = list(phrases)
    return {encoder: _call(one, phrases) for encoder, (_, one) in encoder_tokenizers(clip).items()}


def _call(tokenizer: Any, phrases: Iterable[str]) -> Call:
    end = -1 if tokenizer.tokenizer_adds_end_token else None
    read = (tokenizer.tokenizer(phrase)["input_ids"][tokenizer.tokens_start : end] for phrase in phrases)
    patterns = (_pattern(_text(tokenizer.inv_vocab, ids)) for ids in read)
    # Without any, nothing: an empty pattern would be found everywhere.
    return Call(tokenizer.inv_vocab, re.compile("|".join(filter(None, patterns)) or r"(?!)", re.IGNORECASE))


def _text(vocabulary: Mapping[int, str], ids: Iterable[Any]) -> str:
    """What tokens say, as far as their vocabulary spells it. A concept's token is a vector, which says nothing."""
    tokens = (vocabulary.get(one, " ") if isinstance(one, int) else " " for one in ids)
    return _SPACE.sub(" ", _SPECIAL.sub(" ", "".join(tokens)))


def _pattern(text: str) -> str:
    # Tokenizers part words and signs, and join signs, each in its own way.
    parts = re.findall(r"\w+|[^\w\s]", text)
    if not parts:
        return ""
    first, last = (r"(?<!\w)" if parts[0][0].isalnum() else ""), (r"(?!\w)" if parts[-1][-1].isalnum() else "")
    return first + r"\s*".join(map(re.escape, parts)) + last


def _of(call: Calls, key: str) -> Call | None:
    # Prompts call the encoder clip_l "l".
    return call.get(key) or call.get(f"clip_{key}")


def _called(call: Calls, tokens: Mapping[str, Sequence[Any]]) -> bool:
    heard = ((found, sections) for key, sections in tokens.items() if (found := _of(call, key)))
    return any(found.heard_in(section) for found, sections in heard for section in sections)
