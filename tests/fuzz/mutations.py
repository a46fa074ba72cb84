"""Files that a stranger might write, made from sound ones: the same number makes the same file."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
from collections.abc import Callable, Mapping
from typing import Any

import safetensors.torch
import torch

from blocklora_core.files.io import encode
from tests.core.samples import Recipe, inputs, with_grams

PREFIX = struct.Struct("<Q")
STEM = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
DOTTED = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**31, 2**63, 10**400, "", "x" * 5000, "<img src=x onerror=alert(1)>", "../../etc/passwd",
    "a\0b", [], {}, [[[[]]]], {"a": {"a": {}}}, float("nan"), float("inf"), "([a-z_.0-9]+)+!", "\ud800", [0, 2**62, 1],
)  # fmt: skip

Mutation = Callable[[random.Random, bytes], bytes]


def _pair(up: str, down: str, *kernel: int) -> dict[str, torch.Tensor]:
    made, ones = torch.Generator().manual_seed(1), [1] * len(kernel)
    return {up: torch.randn(32, 4, *ones, generator=made), down: torch.randn(4, 24, *ones, generator=made)}


def seeds() -> dict[str, bytes]:
    """Sound files by name: ours with and without Grams, kohya's, a decomposed one, diffusers' and a pickle."""
    lora = Recipe().make("<hero>")
    names = f"{STEM}.lora_up.weight", f"{STEM}.lora_down.weight"
    kohya = {**_pair(*names), f"{STEM}.alpha": torch.tensor(2.0)}
    tucker = {**_pair(*names, 3, 3), f"{STEM}.lora_mid.weight": torch.ones(4, 4, 3, 3)}
    dotted = _pair(f"{DOTTED}.lora.up.weight", f"{DOTTED}.lora.down.weight")
    config = {"unet.lora_alpha": 4, "unet.alpha_pattern": {"attn1.to_q": 8, "attn[12].to_k": 2}}
    bare, pickled = DOTTED.removeprefix("unet."), io.BytesIO()
    torch.save({"params": {"unet": _pair(f"{bare}.lora_up.weight", f"{bare}.lora_down.weight")}}, pickled)
    return {
        "own.safetensors": encode(lora),
        "grams.safetensors": encode(with_grams(lora, inputs(lora, 1))),
        "kohya.safetensors": safetensors.torch.save(kohya, {"ss_tag_frequency": json.dumps({"a": {"hero": 3}})}),
        "tucker.safetensors": safetensors.torch.save(tucker),
        "diffusers.safetensors": safetensors.torch.save(dotted, {"lora_adapter_metadata": json.dumps(config)}),
        "pickle.pth": pickled.getvalue(),
    }


def _opened(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = PREFIX.unpack_from(data)
    return json.loads(data[PREFIX.size : PREFIX.size + length]), data[PREFIX.size + length :]


def _closed(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "replace")
    return PREFIX.pack(len(text)) + text + body


def flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def longer(rng: random.Random, data: bytes) -> bytes:
    return data + rng.randbytes(rng.choice((1, 8, 4096)))


def claimed(rng: random.Random, data: bytes) -> bytes:
    """Another length of the header than it has."""
    return PREFIX.pack(rng.choice((0, 1, 2**24, 2**40, 2**64 - 1, rng.randrange(10**6)))) + data[8:]


def _spoilt(rng: random.Random, value: Any) -> Any:
    """`value` with one part of it, somewhere, something hostile."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {**{k: v for k, v in value.items() if k != key}, str(rng.choice(HOSTILE))[:60]: value[key]}
        return {**value, key: _spoilt(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], _spoilt(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, str) and value.startswith("{") and rng.random() < 0.85:
        return json.dumps(_spoilt(rng, json.loads(value)))
    return rng.choice(HOSTILE)


def header_spoilt(rng: random.Random, data: bytes) -> bytes:
    header, body = _opened(data)
    return _closed(_spoilt(rng, header), body)


def metadata_spoilt(rng: random.Random, data: bytes) -> bytes:
    header, body = _opened(data)
    entries = header.get("__metadata__") or {"blocklora": "{}"}
    key = rng.choice(list(entries))
    header["__metadata__"] = {**entries, key: str(_spoilt(rng, entries[key]))}
    return _closed(header, body)


def numbers_spoilt(rng: random.Random, data: bytes) -> bytes:
    """A number of a tensor that is none, or very large or small."""
    header, body = _opened(data)
    entries = [entry for name, entry in header.items() if name != "__metadata__" and entry["dtype"] in ("F16", "F32")]
    start, end = rng.choice(entries)["data_offsets"]
    if start == end:
        return data
    value = struct.pack("<f", rng.choice((float("nan"), float("inf"), 3e38, -3e38, 1e-45, 0.0)))
    at = rng.randrange(start, max(start + 1, end - 3))
    return _closed(header, body[:at] + value + body[at + 4 :])


def emptied(rng: random.Random, _: bytes) -> bytes:
    """Sizes of nothing that claim much."""
    up, down = [rng.choice((2**31, 2**40, 3 * 10**8)), 0], [0, rng.choice((24, 2**40))]
    header = {f"{STEM}.lora_up.weight": _none(up), f"{STEM}.lora_down.weight": _none(down)}
    return _closed(header, b"")


def _none(shape: list[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}


def inflated(rng: random.Random, _: bytes) -> bytes:
    """Factors of a few numbers whose product would have billions."""
    large, small = rng.choice((20_000, 200_000)), rng.choice((1, 8))
    tensors = {
        "lokr_t2": torch.ones(1, 1, 1, 1), "lokr_w1_a": torch.ones(small, 1), "lokr_w1_b": torch.ones(1, small),
        "lokr_w2_a": torch.ones(1, large), "lokr_w2_b": torch.ones(1, large),
    }  # fmt: skip
    if rng.random() < 0.5:
        tensors |= {"lokr_w1_a": torch.ones(large, 1), "lokr_w1_b": torch.ones(1, large)}
        tensors |= {"lokr_w2_a": torch.ones(1, small), "lokr_w2_b": torch.ones(1, small)}
    return safetensors.torch.save({f"{STEM}.{word}": value for word, value in tensors.items()})


def named(rng: random.Random, data: bytes) -> bytes:
    """A tensor with a name that is long, or does not show."""
    header, body = _opened(data)
    name = rng.choice([key for key in header if key != "__metadata__"])
    odd = rng.choice(("\x1b[2J", "\u202e", "\n", "." * 5000, "lora_" * 2000, "\ud83d"))
    header[rng.choice((odd + name, name + odd, odd))] = header.pop(name)
    return _closed(header, body)


def many(rng: random.Random, _: bytes) -> bytes:
    count = rng.choice((1000, 70_000, 200_000))
    return _closed({f"{STEM}{number}.lora_up.weight": _none([0]) for number in range(count)}, b"")


def deep(rng: random.Random, data: bytes) -> bytes:
    header, body = _opened(data)
    text = rng.choice(("[", '{"a":')) * rng.choice((50, 1000, 100_000))
    header["__metadata__"] = {rng.choice(("blocklora", "ss_tag_frequency", "lora_adapter_metadata")): text}
    return _closed(header, body)


def patterns(rng: random.Random, data: bytes) -> bytes:
    header, body = _opened(data)
    texts = ["([a-z_.0-9]+)+!", "(a|a)*b", "(.*)*x", "(" * 500, "a{99999}{99999}", r"(\w)\1", "(?=(.*)*y)", "", ".*"]
    found = {rng.choice(texts) + "x" * number: rng.choice((1, 8, 10**400)) for number in range(rng.choice((1, 5, 500)))}
    header["__metadata__"] = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 1, "unet.alpha_pattern": found})}
    return _closed(header, body)


class _Bomb:
    """A pickle of it asks for a large bytearray, or for a call into the system."""

    def __init__(self, call: Any, argument: Any):
        self.call, self.argument = call, argument

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, (self.argument,)


def bombs(rng: random.Random, _: bytes) -> bytes:
    inner: dict[str, Any] = {f"n{number}": torch.zeros(1) for number in range(60)}
    for _ in range(3):
        inner = {f"d{number}": inner for number in range(60)}
    value = rng.choice((_Bomb(bytearray, 2**31), _Bomb(os.system, "touch /tmp/blocklora_fuzz_ran"), inner, [1], {1: 2}))
    file = io.BytesIO()
    torch.save(value, file, pickle_module=pickle, _use_new_zipfile_serialization=rng.random() < 0.7)
    return file.getvalue()


_BYTES: tuple[Mutation, ...] = (flipped, cut, longer)
_TENSORS: tuple[Mutation, ...] = (
    *_BYTES, claimed, header_spoilt, header_spoilt, header_spoilt, metadata_spoilt, metadata_spoilt, metadata_spoilt,
    numbers_spoilt, emptied, inflated, named, many, deep, patterns,
)  # fmt: skip


def mutated(number: int, sound: Mapping[str, bytes]) -> tuple[str, bytes]:
    """(name, bytes) of case `number`; every fiftieth is a sound file as it is."""
    rng = random.Random(f"blocklora {number}")
    name = rng.choice(sorted(sound))
    if number % 50 == 0:
        return name, sound[name]
    ways = (*_BYTES, bombs) if name.endswith(".pth") else _TENSORS
    way = rng.choice(ways)
    return name, way(rng, sound[name])
