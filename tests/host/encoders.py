"""Tiny text sides of ComfyUI's own classes with its own tokenizers: what a CLIP socket carries, by architecture."""

# ruff: noqa: E501
from __future__ import annotations

import base64
import importlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import tokenizers
import torch
from comfy.sd1_clip import SDTokenizer
from tokenizers import models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from tests.host.architectures import ARCHITECTURES, W, fill
from tests.host.dynamic import with_weights

# fmt: off
_LLM = {"hidden_size": W, "intermediate_size": W, "num_hidden_layers": 4, "num_attention_heads": 1, "num_key_value_heads": 1}
_CLIP = {"hidden_size": W, "intermediate_size": W, "num_attention_heads": 3, "num_hidden_layers": 3}
_T5 = {"d_model": W, "d_ff": W, "d_kv": 32, "num_heads": 3, "num_layers": 2}
_L, _G, _XXL = {"clip_l": _CLIP}, {"clip_g": _CLIP}, {"t5xxl": _T5}

# Name -> module, what makes its text encoder, its tokenizer, the encoders' settings.
REAL: dict[str, tuple[str, Callable[[Any], Any], str, dict[str, Any]]] = {
    "clip_l": ("sd1_clip", lambda m: m.SD1ClipModel, "SD1Tokenizer", _L),
    "sdxl": ("sdxl_clip", lambda m: m.SDXLClipModel, "SDXLTokenizer", {**_L, **_G}),
    "sd3": ("text_encoders.sd3_clip", lambda m: partial(m.SD3ClipModel, t5=False), "SD3Tokenizer", {**_L, **_G}),
    "flux": ("text_encoders.flux", lambda m: m.flux_clip(), "FluxTokenizer", {**_L, **_XXL}),
    "t5": ("text_encoders.pixart_t5", lambda m: m.pixart_te(), "PixArtTokenizer", _XXL),
    "cosmos_t5": ("text_encoders.cosmos", lambda m: m.te(), "CosmosT5Tokenizer", _XXL),
    "umt5": ("text_encoders.wan", lambda m: m.te(), "WanT5Tokenizer", {"umt5xxl": {**_T5, "vocab_size": 500}}),
    "gemma2": ("text_encoders.lumina2", lambda m: m.te(), "LuminaTokenizer", {"gemma2_2b": {**_LLM, "vocab_size": 500}}),
    "qwen3_4b": ("text_encoders.z_image", lambda m: m.te(), "ZImageTokenizer", {"qwen3_4b": _LLM}),
    "qwen25_7b": ("text_encoders.qwen_image", lambda m: m.te(), "QwenImageTokenizer", {"qwen25_7b": _LLM}),
    "qwen25_3b": ("text_encoders.omnigen2", lambda m: m.te(), "Omnigen2Tokenizer", {"qwen25_3b": _LLM}),
    "hyvideo": ("text_encoders.hunyuan_video", lambda m: m.hunyuan_video_clip(), "HunyuanVideoTokenizer", {**_L, "llama": _LLM}),
    "hyimage": ("text_encoders.hunyuan_image", lambda m: m.te(byt5=False), "HunyuanImageTokenizer", {"qwen25_7b": _LLM}),
    "hidream": ("text_encoders.hidream", lambda m: m.hidream_clip(), "HiDreamTokenizer", {**_L, **_G, **_XXL, "llama": {**_LLM, "num_hidden_layers": 2}}),
    "flux2": ("text_encoders.flux", lambda m: m.flux2_te(), "Flux2Tokenizer", {"mistral3_24b": {**_LLM, "num_hidden_layers": 31}}),
    "aura_t5": ("text_encoders.aura_t5", lambda m: m.AuraT5Model, "AuraT5Tokenizer", {"pile_t5xl": _T5}),
    "ltxv": ("text_encoders.lt", lambda m: m.ltxv_te(), "LTXVT5Tokenizer", _XXL),
    "kandinsky5": ("text_encoders.kandinsky5", lambda m: m.te(), "Kandinsky5TokenizerImage", {**_L, "qwen25_7b": _LLM}),
    "longcat": ("text_encoders.longcat_image", lambda m: m.te(), "LongCatImageTokenizer", {"qwen25_7b": _LLM}),
    "klein": ("text_encoders.flux", lambda m: m.klein_te(), "KleinTokenizer", {"qwen3_4b": {**_LLM, "num_hidden_layers": 28}}),
    "anima": ("text_encoders.anima", lambda m: m.te(), "AnimaTokenizer", {"qwen3_06b": {**_LLM, "hidden_size": 1024, "num_hidden_layers": 2}}),
    "krea2": ("text_encoders.krea2", lambda m: m.te(), "Krea2Tokenizer", {"qwen3vl_4b": {**_LLM, "num_hidden_layers": 36}}),
}
# fmt: on

WIDTHS = {"qwen3_06b": 1024}
"""Of the encoders that are not W wide."""


@with_weights()
def encoder_of(name: str) -> Any:
    """The CLIP of an architecture in architectures.py."""
    side = ARCHITECTURES[name][3]
    path, make, tokenizer, settings = REAL[side]
    module = importlib.import_module(f"comfy.{path}")
    options = {f"{part}_model_config": config for part, config in settings.items()}
    target = SimpleNamespace(clip=make(module), tokenizer=getattr(module, tokenizer), params={})
    with _without_vision(), _readable():
        clip = comfy.sd.CLIP(
            target,
            model_options={**options, "dtype": torch.float32},
            tokenizer_data=_TOKENIZERS[side]() if side in _TOKENIZERS else {},
        )
    comfy.model_management.unload_all_models()  # Else it goes on with what it was loaded with, and gets that back.
    fill(clip.cond_stage_model, scale=0.1)
    with torch.no_grad():  # Real T5 tables are long.
        for name, weight in clip.cond_stage_model.named_parameters():
            if "t5xxl" in name and ("shared" in name or "embed_tokens" in name):
                weight.mul_(10)
    clip.cond_stage_model.requires_grad_(False)
    for part in vars(clip.tokenizer).values():
        if isinstance(part, SDTokenizer):
            part.embedding_size = WIDTHS.get(part.embedding_key, W)
    return clip


@cache
def _sentencepiece() -> torch.Tensor:
    import sentencepiece

    words = [
        "a",
        "photo",
        "of",
        "the",
        "man",
        "woman",
        "person",
        "dog",
        "house",
        "standing",
        "in",
        "front",
        "red",
        "blue",
        "old",
        "castle",
        "garden",
        "holding",
        "cup",
        "coffee",
        "smiling",
        "street",
        "night",
        "sun",
        "city",
        "portrait",
    ]
    lines = [" ".join(words[(i * 7 + j * 3) % len(words)] for j in range(8)) for i in range(400)]
    lines += ["<ada> <bob> abcdefghijklmnopqrstuvwxyz 0123456789 , . ( ) : - _ < >"] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=400, hard_vocab_limit=False, pad_id=0, eos_id=1,
        bos_id=2, unk_id=3, minloglevel=2,
    )  # fmt: skip
    return torch.ByteTensor(list(model.getvalue()))


_MISTRAL_WORDS = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    *map("<{}>".format, range(5)),
]


def _tekken() -> torch.Tensor:
    """Mistral's form of a tokenizer, of single bytes."""
    made = {
        "config": {"default_vocab_size": 300, "default_num_special_tokens": len(_MISTRAL_WORDS), "pattern": "."},
        "vocab": [{"rank": at, "token_bytes": base64.b64encode(bytes([at])).decode()} for at in range(256)],
        "special_tokens": [{"rank": at, "token_str": word} for at, word in enumerate(_MISTRAL_WORDS)],
    }
    return torch.ByteTensor(list(json.dumps(made).encode()))


class _MistralTokenizer:
    """The same for hosts that read it by a class which transformers 5 has in another form."""

    @staticmethod
    def from_pretrained(_path: str) -> Any:
        words = {word: at for at, word in enumerate(_MISTRAL_WORDS)}
        letters = {letter: len(words) + at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        made = tokenizers.Tokenizer(models.BPE({**words, **letters}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.add_special_tokens(_MISTRAL_WORDS)
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        return PreTrainedTokenizerFast(tokenizer_object=made)


def _readable() -> AbstractContextManager[object]:
    flux = importlib.import_module("comfy.text_encoders.flux")
    if not hasattr(flux, "load_mistral_tokenizer") or hasattr(flux, "from_tekken_json"):
        return nullcontext()
    return patch.multiple(flux, MistralTokenizerClass=_MistralTokenizer, load_mistral_tokenizer=lambda _data: {})


_TOKENIZERS: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "umt5": lambda: {"spiece_model": _sentencepiece()},
    "gemma2": lambda: {"spiece_model": _sentencepiece()},
    "flux2": lambda: {"tekken_model": _tekken()},
}


class _NoVision(nn.Module):
    def __init__(self, *_args: Any, **_named: Any):
        super().__init__()


@contextmanager
def _without_vision() -> Iterator[None]:
    """Language models without their vision towers, which are large: pictures among the words are not our business."""
    with patch.multiple("comfy.text_encoders.qwen_vl", Qwen2VLVisionTransformer=_NoVision):
        try:
            newer = importlib.import_module("comfy.text_encoders.qwen3vl")
        except ImportError:
            yield
            return
        towers = {name: _NoVision for name, kind in vars(newer).items() if "Vision" in name and isinstance(kind, type)}
        with patch.multiple(newer, **towers):
            yield
