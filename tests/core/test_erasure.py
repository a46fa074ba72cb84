from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from blocklora_core.training.regularisers.erasure import Erasure, HeldErasure
from tests.core.samples import generator


def erased(erasure: Erasure, h: Tensor, random: torch.Generator, channel_dim: int = -1) -> Tensor:
    return HeldErasure(erasure, random).apply("layer", h, channel_dim)


def test_nothing_is_erased_at_probability_zero() -> None:
    h = torch.randn(2, 3, 5)
    assert Erasure().mask(h, -1, generator(0)) is None
    assert erased(Erasure(), h, generator(0)) is h


@given(st.floats(0.05, 0.95))
def test_each_entry_is_bernoulli(probability: float) -> None:
    mask = Erasure(probability).mask(torch.ones(1, 20000), -1, generator(0))
    assert mask is not None
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert abs(mask.mean().item() - (1 - probability)) < 0.02


def test_literal_mask_is_shared_over_batch_and_tokens() -> None:
    out = erased(Erasure(0.5), torch.ones(4, 7, 64), generator(1))
    assert torch.equal(out, out[:1, :1].expand_as(out))
    assert set(out.unique().tolist()) == {0.0, 1.0}


def test_per_sample_masks_differ_but_tokens_share() -> None:
    out = erased(Erasure(0.5, per_sample=True), torch.ones(4, 7, 64), generator(1))
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert not torch.equal(out[0], out[1])


def test_rescale_keeps_the_mean() -> None:
    out = erased(Erasure(0.25, rescale=True), torch.ones(1, 40000), generator(2))
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)


def test_convolution_erases_channels() -> None:
    out = erased(Erasure(0.5), torch.ones(2, 64, 3, 3), generator(3), channel_dim=1)
    assert torch.equal(out, out[:1, :, :1, :1].expand_as(out))
    assert 0 < out.mean() < 1


def test_same_generator_same_masks_and_a_new_mask_each_forward() -> None:
    erasure, h = Erasure(0.5), torch.ones(1, 256)
    one, two = generator(4), generator(4)
    first = erased(erasure, h, one)
    assert torch.equal(first, erased(erasure, h, two))
    assert not torch.equal(first, erased(erasure, h, one))


def test_dtype_is_kept() -> None:
    out = erased(Erasure(0.5, rescale=True), torch.ones(1, 8, dtype=torch.bfloat16), generator(5))
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_impossible_probabilities_are_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="0 <= p < 1"):
        Erasure(probability)
