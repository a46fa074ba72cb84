from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blocklora_core.concept.gram import Gram, Grams
from blocklora_core.concept.gram_sketch import GramAccumulator
from blocklora_core.files.gram_pack import pack, unpack
from tests.core.samples import generator


def psd(n: int, seed: int, columns: int = 50) -> Tensor:
    x = torch.randn(n, columns, generator=generator(seed), dtype=torch.float64)
    return x @ x.T / columns


def sample(n: int = 10, k: int = 3) -> Grams:
    full = {"x": psd(n, 0), "context": psd(n, 1)}
    return Grams.from_full(full, {"q": "x", "k": "context", "v": "context"}, k)


@given(st.integers(1, 24), st.integers(0, 30), st.integers(0, 99))
@settings(max_examples=50)
def test_compression_keeps_diagonal_and_trace(n: int, k: int, seed: int) -> None:
    full = psd(n, seed, columns=8)
    gram = Gram.compress(full, k)
    torch.testing.assert_close(gram.dense().diagonal(), full.diagonal(), rtol=2e-3, atol=1e-6)
    assert gram.trace == pytest.approx(full.trace().item(), rel=2e-3)
    assert torch.linalg.eigvalsh(gram.dense()).min() > -1e-6 * gram.trace


@pytest.mark.parametrize("k", [10, 48])
def test_all_eigenpairs_are_exact(k: int) -> None:
    full = psd(10, 3)
    torch.testing.assert_close(Gram.compress(full, k).dense(), full, rtol=1e-5, atol=1e-6)


def test_remainder_is_a_diagonal_of_what_the_eigenpairs_leave() -> None:
    full = psd(20, 4)
    gram = Gram.compress(full, 5)
    values, vectors = torch.linalg.eigh(full)
    top = (vectors[:, -5:] * values[-5:]) @ vectors[:, -5:].T
    torch.testing.assert_close(gram.dense(), top + (full - top).diagonal().diag(), rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("full", "message"),
    [
        (torch.zeros(2, 3), "square"),
        (torch.tensor([[1.0, 5.0], [0.0, 1.0]]), "symmetric"),
        (torch.full((2, 2), float("nan")), "finite"),
    ],
)
def test_impossible_grams_are_refused(full: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gram.compress(full)


def test_accumulator_gives_the_mean_over_all_rows() -> None:
    x = torch.randn(3, 5, 4)
    accumulator = GramAccumulator(4)
    accumulator.add(x[:1])
    accumulator.add(x[1:].half().float())
    flat = torch.cat([x[:1], x[1:].half().float()]).reshape(-1, 4)
    torch.testing.assert_close(accumulator.mean(), flat.T @ flat / 15)


def test_accumulator_refuses_other_sizes_and_no_input() -> None:
    with pytest.raises(ValueError, match="4 features"):
        GramAccumulator(4).add(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="at least one input"):
        GramAccumulator(4).mean()


def test_layers_share_the_gram_of_their_input() -> None:
    grams = sample()
    assert grams.of("k") is grams.of("v")
    assert grams.of("q") is not grams.of("k")
    assert grams.covers("qkv")
    assert not grams.covers("qx")


def test_applying_a_gram_is_the_product_with_the_matrix() -> None:
    down, gram = torch.randn(2, 10, generator=generator(0), dtype=torch.float64), sample(k=3).of("q")
    torch.testing.assert_close(gram.applied_to(down), down @ gram.dense())


@pytest.mark.parametrize("k", [0, 3, 48])
def test_packing_round_trip_is_exact(k: int) -> None:
    grams = sample(k=k)
    packed, index = pack(grams)
    back = unpack(packed, json.loads(json.dumps(index)))
    assert packed.dtype == torch.uint8
    assert back.input_of == grams.input_of
    assert back.of("k") is back.of("v")
    for key, gram in grams.inputs.items():
        for name in ("vectors", "values", "diagonal"):
            assert torch.equal(getattr(back.inputs[key], name), getattr(gram, name))
    again, _ = pack(back)
    assert torch.equal(again, packed)


@given(st.sampled_from([1e-12, 1e-4, 1.0, 1e6, 1e12]))
def test_any_scale_survives_packing(scale: float) -> None:
    full = psd(12, 5) * scale
    grams = Grams.from_full({"x": full}, {"q": "x"}, 4)
    back = unpack(*pack(grams))
    torch.testing.assert_close(back.of("q").dense() / scale, full / scale, rtol=0, atol=0.6)
    assert back.of("q").trace == pytest.approx(full.trace().item(), rel=2e-3)


def test_empty_grams_pack() -> None:
    assert unpack(*pack(Grams({}, {}))).input_of == {}


CORRUPTIONS: list[tuple[str, Any, str]] = [
    ("version", 2, "expected version 1, got 2"),
    ("inputs", None, "damaged"),
    ("inputs", {}, "damaged"),
    ("inputs", {"x": {"n": 10, "k": -1, "vectors": "float32"}}, "damaged"),
    ("inputs", {"x": {"n": 10, "k": 1, "vectors": "float64"}}, "damaged"),
    ("layers", None, "damaged"),
    ("layers", {"q": "nowhere"}, "damaged"),
    ("layers", {"q": ["x"]}, "damaged"),
]


@pytest.mark.parametrize(("key", "value", "message"), CORRUPTIONS)
def test_corrupt_indexes_are_refused(key: str, value: object, message: str) -> None:
    packed, index = pack(sample())
    with pytest.raises(ValueError, match=message):
        unpack(packed, {**index, key: value})


def test_corrupt_tensors_are_refused() -> None:
    packed, index = pack(sample())
    for bad, message in [
        (packed[:-4], "expected more than"),
        (torch.cat([packed, packed[:4]]), "expected .* bytes"),
        (packed.float(), "uint8"),
        (torch.full_like(packed, 255), "finite|energy"),
    ]:
        with pytest.raises(ValueError, match=message):
            unpack(bad, index)


def test_inconsistent_grams_are_refused() -> None:
    gram = Gram.compress(psd(4, 0))
    with pytest.raises(ValueError, match="Gram for the input 'y'"):
        Grams({"x": gram}, {"q": "y"})
    with pytest.raises(ValueError, match="shapes"):
        Gram(torch.ones(3, 2), torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match="negative"):
        Gram(torch.ones(3, 1), -torch.ones(1), torch.ones(3))


def test_a_sketch_is_better_than_half_its_pairs_of_the_whole_gram() -> None:
    """On a spectrum that falls like real inputs', streamed in parts: energy, diagonal and error."""
    n, random = 1024, torch.Generator().manual_seed(0)
    mix = torch.randn(n, n, generator=random) * (torch.arange(1, n + 1) ** -1.2)
    x = torch.randn(3000, n, generator=random) @ mix.T
    accumulator = GramAccumulator(n, pairs=96)
    for part in x.split(500):
        accumulator.add(part)
    held = sum(value.numel() for value in vars(accumulator).values() if torch.is_tensor(value))
    assert held <= n * (2 * 160 + 1), "no square of the width"
    full = (x.T @ x / len(x)).double()
    found = accumulator.gram(96)
    assert found.vectors.shape == (n, 96) and found.trace == pytest.approx(float(full.trace()), rel=1e-3)
    torch.testing.assert_close(found.dense().diagonal(), full.diagonal(), rtol=1e-3, atol=1e-3 * float(full.max()))
    errors = [float(torch.linalg.matrix_norm(gram.dense() - full)) for gram in (found, Gram.compress(full, 48))]
    assert errors[0] < errors[1] and errors[0] < 1e-3 * float(torch.linalg.matrix_norm(full)), errors


def test_a_sketch_of_nothing_but_zeros_or_of_few_rows_is_still_a_gram() -> None:
    for x in (torch.zeros(4, 900), torch.randn(3, 900, generator=torch.Generator().manual_seed(0))):
        accumulator = GramAccumulator(900)
        accumulator.add(x)
        full = (x.T @ x / len(x)).double()
        torch.testing.assert_close(
            accumulator.gram().dense(), full, rtol=1e-2, atol=1e-2 * float(full.abs().max()) + 1e-12
        )


def test_a_sketch_of_numbers_that_are_not_finite_is_refused() -> None:
    accumulator = GramAccumulator(900)
    accumulator.add(torch.full((2, 900), torch.inf))
    with pytest.raises(ValueError, match="Did the training diverge"):
        accumulator.gram()


def test_all_pairs_asked_for_are_the_whole_gram() -> None:
    x = torch.randn(40, 900, generator=torch.Generator().manual_seed(0))
    accumulator = GramAccumulator(900, pairs=900)
    accumulator.add(x)
    torch.testing.assert_close(accumulator.gram(900).dense(), (x.T @ x / 40).double(), rtol=1e-4, atol=1e-4)
