"""Files that are not what they should be, each made from the bytes of a sound one, with the complaint to expect."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

Header = dict[str, Any]
Tensors = dict[str, Tensor]

PREFIX = struct.Struct("<Q")
RECORD, GRAMS = "blocklora", "blocklora.grams"


@dataclass(frozen=True)
class Case:
    """`make` turns a sound safetensors file's bytes into the malformed file's; `message` is what load must say, or
    who reads its Grams, where it is `late`."""

    name: str
    make: Callable[[bytes], bytes]
    message: str
    suffix: str = ".safetensors"
    late: bool = False

    def write(self, sound: Path, folder: Path) -> Path:
        path = folder / f"bad{self.suffix}"
        path.write_bytes(self.make(sound.read_bytes()))
        return path


def unpacked(data: bytes) -> tuple[Header, bytes]:
    (length,) = PREFIX.unpack_from(data)
    return json.loads(data[PREFIX.size : PREFIX.size + length]), data[PREFIX.size + length :]


def packed(header: Header | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return PREFIX.pack(len(text)) + text + body


def in_header(edit: Callable[[Header], None]) -> Callable[[bytes], bytes]:
    def make(data: bytes) -> bytes:
        header, body = unpacked(data)
        edit(header)
        return packed(header, body)

    return make


def header_text(edit: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def make(data: bytes) -> bytes:
        header, body = unpacked(data)
        return packed(edit(json.dumps(header).encode()), body)

    return make


def length_field(change: Callable[[int], int]) -> Callable[[bytes], bytes]:
    return lambda data: PREFIX.pack(change(PREFIX.unpack_from(data)[0])) + data[PREFIX.size :]


def in_record(**changes: Any) -> Callable[[bytes], bytes]:
    """Top-level fields of our record replaced; a function gets the old value."""

    def edit(header: Header) -> None:
        record = json.loads(header["__metadata__"][RECORD])
        for field, value in changes.items():
            record[field] = value(record[field]) if callable(value) else value
        header["__metadata__"][RECORD] = json.dumps(record)

    return in_header(edit)


def in_tensors(edit: Callable[[Tensors], None]) -> Callable[[bytes], bytes]:
    def make(data: bytes) -> bytes:
        tensors, entries = safetensors.torch.load(data), unpacked(data)[0]["__metadata__"]
        edit(tensors)
        return safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()}, entries)

    return make


def first(names: Any, suffix: str) -> str:
    return min(name for name in names if name.endswith(suffix))


def parts_of_layers(version: int, parts: Any) -> Callable[[bytes], bytes]:
    """The scheme's version, and each layer's parts: themselves, or what a function of the weight's rows gives."""

    def layers(all_: Header) -> Header:
        return {k: {**v, "parts": parts(v["out"]) if callable(parts) else parts} for k, v in all_.items()}

    return in_record(scheme=lambda s: {**s, "version": version}, layers=layers)


def tensor(suffix: str, change: Callable[[Tensor], Tensor | None]) -> Callable[[bytes], bytes]:
    """The first tensor whose name ends so, changed, or left out where `change` gives None."""

    def edit(tensors: Tensors) -> None:
        name = first(tensors, suffix)
        value = change(tensors.pop(name))
        if value is not None:
            tensors[name] = value

    return in_tensors(edit)


def offsets(change: Callable[[list[int]], list[Any]]) -> Callable[[bytes], bytes]:
    """The data offsets of the first up changed."""

    def edit(header: Header) -> None:
        entry = header[first((name for name in header if name != "__metadata__"), UP)]
        entry["data_offsets"] = change(entry["data_offsets"])

    return in_header(edit)


def entry(**changes: Any) -> Callable[[bytes], bytes]:
    return in_header(lambda header: header[first((n for n in header if n != "__metadata__"), UP)].update(changes))


def grams_index(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def edited(index: dict[str, Any]) -> dict[str, Any]:
        change(index)
        return index

    return in_record(grams=edited)


def one_gram(**changes: Any) -> Callable[[bytes], bytes]:
    return grams_index(lambda index: index["inputs"][min(index["inputs"])].update(changes))


def gram_bytes(number: float) -> Callable[[bytes], bytes]:
    """The first number of the packed Grams, an eigenvalue."""

    def edit(packed_grams: Tensor) -> Tensor:
        return torch.cat([torch.tensor([number]).view(torch.uint8), packed_grams[4:]])

    return tensor(GRAMS, edit)


def nan(value: Tensor) -> Tensor:
    value = value.clone()
    value.view(-1)[-1] = float("nan")
    return value


def repeated(data: bytes) -> bytes:
    """The header with one tensor's entry written twice."""
    header, body = unpacked(data)
    name = first((n for n in header if n != "__metadata__"), UP)
    text = json.dumps(header)
    return packed((text[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}").encode(), body)


UP, DOWN, ALPHA, EMBEDDING = ".lora_up.weight", ".lora_down.weight", ".alpha", ".string_to_param.*"
NO_SAFETENSORS = "expected a safetensors file"
DEEP = b"[" * 100_000

SAFETENSORS = [
    Case("empty", lambda _: b"", NO_SAFETENSORS),
    Case("cut in the length", lambda data: data[:5], NO_SAFETENSORS),
    Case("cut in the header", lambda data: data[:200], NO_SAFETENSORS),
    Case("cut in the tensors", lambda data: data[:-100], r"expected \d+ bytes, got \d+.*truncated"),
    Case("bytes too many", lambda data: data + b"\0" * 7, r"expected \d+ bytes, got \d+"),
    Case("a zip archive", lambda _: b"PK\x03\x04" + b"\0" * 90, NO_SAFETENSORS),
    Case("a web page", lambda _: b"<!DOCTYPE html><html><body>Not found</body></html>", NO_SAFETENSORS),
    Case("a Git LFS pointer", lambda _: b"version https://git-lfs.github.com/spec/v1\nsize 1\n", NO_SAFETENSORS),
    Case("header length 0", length_field(lambda _: 0), NO_SAFETENSORS),
    Case("header length too small", length_field(lambda n: n - 9), NO_SAFETENSORS),
    Case("header length too large", length_field(lambda n: n + 9), NO_SAFETENSORS),
    Case("header length of exabytes", length_field(lambda _: 2**62), NO_SAFETENSORS),
    Case("header of other bytes", header_text(lambda text: b"\xff" * len(text)), NO_SAFETENSORS),
    Case("header that is no JSON", header_text(lambda text: text[:-1] + b","), NO_SAFETENSORS),
    Case("header that is a list", header_text(lambda text: b"[" + text + b"]"), NO_SAFETENSORS),
    Case("header nested without end", header_text(lambda _: DEEP), NO_SAFETENSORS),
    Case("header that names a tensor twice", repeated, "expected every name once in the header.*twice"),
    Case("metadata that is no text", in_header(lambda h: h["__metadata__"].update(x=1)), NO_SAFETENSORS),
    Case("tensor without offsets", in_header(lambda h: h[first(h, UP)].pop("data_offsets")), NO_SAFETENSORS),
    Case("tensor without a shape", in_header(lambda h: h[first(h, UP)].pop("shape")), NO_SAFETENSORS),
    Case("offsets of one number", offsets(lambda at: at[:1]), NO_SAFETENSORS),
    Case("offsets as text", offsets(lambda at: [str(at[0]), at[1]]), NO_SAFETENSORS),
    Case("negative offsets", offsets(lambda at: [-8, at[1]]), NO_SAFETENSORS),
    Case("offsets the wrong way round", offsets(lambda at: at[::-1]), NO_SAFETENSORS),
    Case("overlapping offsets", offsets(lambda at: [at[0] - 8, at[1]]), NO_SAFETENSORS),
    Case("offsets with a hole", offsets(lambda at: [at[0] + 8, at[1]]), NO_SAFETENSORS),
    Case("unknown dtype", entry(dtype="F99"), NO_SAFETENSORS),
    Case("another dtype's size", entry(dtype="F64"), NO_SAFETENSORS),
    Case("shape larger than the bytes", entry(shape=[4000, 4000]), NO_SAFETENSORS),
    Case("negative shape", entry(shape=[-1, 4]), NO_SAFETENSORS),
    Case("shape beyond 64 bits", entry(shape=[2**63, 2**63]), NO_SAFETENSORS),
]

CONTENTS = [
    Case("NaN in an up", tensor(UP, lambda x: x * float("nan")), "NaN or infinity"),
    Case("NaN in a down", tensor(DOWN, nan), "finite values, got NaN or infinity"),
    Case("infinity in a down", tensor(DOWN, lambda x: x / 0), "NaN or infinity"),
    Case("infinite alpha", tensor(ALPHA, lambda _: torch.tensor(float("inf"))), "finite alpha"),
    Case("alpha of two numbers", tensor(ALPHA, lambda _: torch.ones(2)), "one real number for alpha"),
    Case("no up", tensor(UP, lambda _: None), "expected up and down, got no up"),
    Case("no down", tensor(DOWN, lambda _: None), "expected up and down, got no down"),
    Case("a rank of 0", in_tensors(lambda t: t.update({
        first(t, UP): t[first(t, UP)][:, :0], first(t, DOWN): t[first(t, DOWN)][:0]})), "rank of at least 1"),
    Case("another rank in the down", tensor(DOWN, lambda x: x[:1]), "equal ranks"),
    Case("a down of one dimension", tensor(DOWN, lambda x: x[0].clone()), "expected matrices"),
    Case("a row too few", tensor(UP, lambda x: x[:-1]), r"expected \d+ rows in up.* got \d+"),
    Case("numbers in other rows", tensor(UP, lambda x: x + 1), "expected zeros outside rows"),
    Case("whole numbers", tensor(DOWN, lambda x: x.to(torch.int32)), "floating point numbers of 16 bits"),
    Case("complex numbers", tensor(DOWN, lambda x: x.to(torch.complex64)), "floating point numbers of 16 bits"),
    Case("an unknown tensor", in_tensors(lambda t: t.update(surprise=torch.ones(1))), "unknown tensor surprise"),
    Case("a token of one dimension", tensor(EMBEDDING, lambda x: x[0].clone()), r"expected \(tokens, width\)"),
    Case("a token of four", tensor(EMBEDDING, lambda x: x[None, None]), r"expected \(tokens, width\)"),
    Case("NaN in the token", tensor(EMBEDDING, nan), "NaN or infinity"),
    Case("no token", tensor(EMBEDDING, lambda _: None), "in the metadata only"),
]  # fmt: skip

RECORDS = [
    Case("record of a future format", in_record(format=2), "format 1, got 2. Update"),
    Case("record without a format", in_record(format=None), "format 1, got None"),
    Case("record that is no JSON", in_header(lambda h: h["__metadata__"].update({RECORD: "{"})), "Expected JSON"),
    Case("record nested without end",
         in_header(lambda h: h["__metadata__"].update({RECORD: DEEP.decode()})), "Expected JSON"),
    Case("record that is a list", in_header(lambda h: h["__metadata__"].update({RECORD: "[]"})), "JSON object"),
    Case("scheme of a future version", in_record(scheme=lambda s: {**s, "version": 9}), "expected 1 or 2, got 9"),
    Case("parts in a scheme that knows none", parts_of_layers(1, [1]), "parts of .* are"),
    Case("parts that make fewer rows", parts_of_layers(2, [1, 2]), "parts that make"),
    Case("a part without rows", parts_of_layers(2, lambda out: [out, 0]), "parts that make"),
    Case("parts of fractions", parts_of_layers(2, lambda out: [out / 2, out / 2]), "parts of .* are"),
    Case("other parts than the rows were dealt out by",
         parts_of_layers(2, lambda out: [out // 2, out - out // 2]), "expected rows"),
    Case("scheme with an unknown layout", in_record(scheme=lambda s: {**s, "layout": "spiral"}), "Row layout"),
    Case("scheme of 0 slots", in_record(scheme=lambda s: {**s, "slots": 0}), "Number of slots"),
    Case("scheme of a billion slots", in_record(scheme=lambda s: {**s, "slots": 10**9}), "Number of slots"),
    Case("scheme with a field too many", in_record(scheme=lambda s: {**s, "x": 1}), "Row scheme: expected the fields"),
    Case("scheme that is a number", in_record(scheme=3), "BlockLoRA metadata"),
    Case("slot out of range", in_record(slot=99), "from 0 to 15, got 99"),
    Case("slot below 0", in_record(slot=-1), "from 0 to 15, got -1"),
    Case("slot as text", in_record(slot="1"), "from 0 to 15, got '1'"),
    Case("slot without a scheme", in_record(scheme=None), "scheme with a slot, or neither"),
    Case("another slot's rows", in_record(slot=2), "expected rows .* as slot 2 gives"),
    Case("a name of two words", in_record(concept="two words"), "Concept name: expected"),
    Case("a name that is a number", in_record(concept=7), "BlockLoRA metadata"),
    Case("no layers", in_record(layers={}), "in the tensors only"),
    Case("layers that are a list", in_record(layers=[]), "BlockLoRA metadata"),
    Case("a layer of a fraction of rows",
         in_record(layers=lambda all_: {k: {**v, "out": v["out"] + 0.5} for k, v in all_.items()}), "metadata"),
    Case("tokens under no name", in_record(embeddings={"clip_l": ["x"]}), "embeddings is"),
    Case("a token that is not there", in_record(embeddings={"clip_l": "nowhere"}), "metadata and tensors to agree"),
]  # fmt: skip

FINGERPRINTS = [
    Case("Grams of a future version", grams_index(lambda index: index.update(version=9)), "Grams: expected version 1"),
    Case("Grams without inputs", grams_index(lambda index: index.pop("inputs")), "an index of inputs and layers"),
    Case("Grams without layers", grams_index(lambda index: index.pop("layers")), "an index of inputs and layers"),
    Case("Grams with a list for layers", grams_index(lambda index: index.update(layers=[1])), "index of inputs"),
    Case("Grams of an unknown input",
         grams_index(lambda index: index["layers"].update({min(index["layers"]): "?"})), "known inputs"),
    Case("Grams of an unknown layer",
         grams_index(lambda index: index["layers"].update({"nowhere": min(index["inputs"])})), "one of nowhere"),
    Case("a Gram of another size", one_gram(n=3), "Gram"),
    Case("a Gram of negative size", one_gram(n=-1), "index of inputs and layers"),
    Case("a Gram of exabytes", one_gram(n=2**40, k=2**20), "expected more than"),
    Case("a Gram in an unknown dtype", one_gram(vectors="float8"), "index of inputs and layers"),
    Case("a Gram with a field too many", one_gram(x=1), "index of inputs and layers"),
    Case("Grams cut short", tensor(GRAMS, lambda x: x[:-8]), "Grams: expected"),
    Case("Grams too long", tensor(GRAMS, lambda x: torch.cat([x, x[:8]])), "Grams: expected"),
    Case("Grams in rows", tensor(GRAMS, lambda x: x[None]), "one row of uint8"),
    Case("Grams as floats", tensor(GRAMS, lambda x: x.float()), "one row of uint8"),
    Case("NaN in the Grams", gram_bytes(float("nan")), "Gram: expected finite", late=True),
    Case("negative energy in the Grams", gram_bytes(-1.0), "no negative energy", late=True),
    Case("no Grams", tensor(GRAMS, lambda _: None), "in the metadata only"),
]  # fmt: skip

STEM = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
PAIR = {f"{STEM}.lora_down.weight": torch.ones(2, 4), f"{STEM}.lora_up.weight": torch.ones(4, 2)}
NO_PYTORCH = "expected a PyTorch file of plain tensors"


def pickled(tree: Any, zipped: bool = True) -> Callable[[bytes], bytes]:
    def make(_: bytes) -> bytes:
        out = io.BytesIO()
        torch.save(tree, out, _use_new_zipfile_serialization=zipped)
        return out.getvalue()

    return make


class Harmful:
    """Unpickled without care, it makes a folder where the test would see it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (HARM,)


HARM = "made-by-a-pickle"


def zip_bomb(_: bytes) -> bytes:
    """A PyTorch archive of 200 kB whose only tensor unpacks to 200 MB of zeros."""
    sound = io.BytesIO(pickled({"a": torch.zeros(1)})(b""))
    out = io.BytesIO()
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for item in source.infolist():
            huge = "/data/" in item.filename
            target.writestr(item.filename, bytes(200_000_000) if huge else source.read(item))
    return out.getvalue()


def swollen() -> Mapping[str, Tensor]:
    """Four bytes that call themselves a matrix of 10^12 numbers."""
    return {**PAIR, f"{STEM}.lora_up.weight": torch.ones(1).expand(10**6, 10**6)}


PICKLES = [
    Case("empty", lambda _: b"", NO_PYTORCH, ".pth"),
    Case("text", lambda _: b"not a pickle at all", NO_PYTORCH, ".bin"),
    Case("a safetensors file renamed", lambda data: data, NO_PYTORCH, ".pt"),
    Case("cut", lambda _: pickled(PAIR)(b"")[:-300], NO_PYTORCH, ".pth"),
    Case("a command in an archive", pickled({**PAIR, "x": Harmful()}), "could run code", ".pth"),
    Case("a command in the older form", pickled({**PAIR, "x": Harmful()}, False), "could run code", ".bin"),
    Case("a bare command", lambda _: b"cos\nmkdir\n(S'" + HARM.encode() + b"'\ntR.", "could run code", ".ckpt"),
    Case("a zip bomb", zip_bomb, "unpacks to", ".pth"),
    Case("a swollen tensor", pickled(swollen()), "repeats a few", ".pth"),
    Case("a name twice", pickled({"a": {"b": torch.ones(1)}, "a/b": torch.ones(1)}), "every name once", ".pth"),
    Case("a list", pickled([1, 2]), "dictionary of tensors, got list", ".pth"),
    Case("a list of tensors", pickled([torch.ones(2, 2)]), "as cloneofsimo's lora saves", ".pth"),
    Case("sparse tensors", pickled({**PAIR, f"{STEM}.lora_up.weight": torch.ones(4, 2).to_sparse()}),
         "expected a plain tensor", ".pth"),
]  # fmt: skip

CASES = [*SAFETENSORS, *CONTENTS, *RECORDS, *FINGERPRINTS, *PICKLES]
