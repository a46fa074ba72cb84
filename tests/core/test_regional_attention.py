"""Regional attention against the paper's equation, written out cell by cell."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blocklora_core.regions import OVERLAP_RULES, Box, KeysValues, Layout, OverlapRule, Region, plan, regional_attention
from blocklora_core.regions import layout as lay

CPU, HEADS, WIDTH = torch.device("cpu"), 2, 8


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    split = [t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v)]
    return torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def one_query(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v of one query (C,) and one head after the other."""
    size = WIDTH // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = torch.stack([(q[part] * key[part]).sum() / size**0.5 for key in k])
        shares = scores.exp() / scores.exp().sum()
        heads.append(sum(share * value[part] for share, value in zip(shares, v, strict=True)))
    return torch.cat(heads)


def reference(
    q: torch.Tensor, base: KeysValues, own: list[KeysValues | None], inside: list[torch.Tensor]
) -> torch.Tensor:
    """Mix-of-Show: where regions are, the mean of theirs; else the whole picture's prompt."""
    out = torch.empty_like(q)
    for batch in range(q.shape[0]):
        for cell in range(q.shape[1]):
            here = [prompt or base for prompt, mask in zip(own, inside, strict=True) if mask[cell]] or [base]
            out[batch, cell] = sum(one_query(q[batch, cell], k[0], v[0]) for k, v in here) / len(here)
    return out


def tensors(seed: int, cells: int, regions: int) -> tuple[torch.Tensor, KeysValues, list[KeysValues]]:
    random = torch.Generator().manual_seed(seed)
    q = torch.randn(2, cells, WIDTH, generator=random)
    prompts = [
        (torch.randn(1, 3 + number, WIDTH, generator=random), torch.randn(1, 3 + number, WIDTH, generator=random))
        for number in range(regions + 1)
    ]
    return q, prompts[0], prompts[1:]


def ours(
    q: torch.Tensor, base: KeysValues, own: list[KeysValues | None], laid: Layout
) -> tuple[torch.Tensor, torch.Tensor]:
    plain = attend(q, *(t.expand(2, -1, -1) for t in base))
    ready = plan(laid.only([prompt is not None for prompt in own]), CPU, q.dtype)

    def keys_values(number: int) -> KeysValues:
        found = own[number]
        assert found is not None, "a region without a prompt is not asked for it"
        return found

    return regional_attention(q, plain, ready, keys_values, attend), plain


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 99), st.lists(st.tuples(*[st.floats(0, 0.8)] * 2, *[st.floats(0.1, 1)] * 2), min_size=1, max_size=4)
)
def test_the_paper_s_equation(seed: int, boxes: list[tuple[float, float, float, float]]) -> None:
    size = (4, 3)
    regions = [Region(Box(*box)) for box in boxes]
    q, base, prompts = tensors(seed, 12, len(regions))
    own: list[KeysValues | None] = [prompt if number != 2 else None for number, prompt in enumerate(prompts)]
    laid = lay(regions, size)
    found, plain = ours(q, base, own, laid)
    torch.testing.assert_close(found, reference(q, base, own, [row > 0 for row in laid.weights]))
    outside = laid.base == 1
    assert torch.equal(found[:, outside], plain[:, outside])


@pytest.mark.parametrize("rule", OVERLAP_RULES)
def test_soft_regions_mix_by_their_weights(rule: OverlapRule) -> None:
    regions = [Region(Box(0, 0, 0.6, 1), feather=0.3, weight=0.7), Region(Box(0.4, 0.2, 0.6, 0.8), feather=0.2)]
    laid = lay(regions, (5, 5), rule)
    q, base, prompts = tensors(1, 25, 2)
    found, plain = ours(q, base, list(prompts), laid)
    expected = plain * laid.base[:, None]
    for share, (k, v) in zip(laid.weights, prompts, strict=True):
        expected = expected + share[:, None] * attend(q, k.expand(2, -1, -1), v.expand(2, -1, -1))
    torch.testing.assert_close(found, expected)


def test_one_region_over_all_is_its_prompt() -> None:
    q, base, (prompt,) = tensors(2, 16, 1)
    found, _ = ours(q, base, [prompt], lay([Region(Box(0, 0, 1, 1))], (4, 4)))
    assert torch.equal(found, attend(q, *(t.expand(2, -1, -1) for t in prompt)))


def test_nothing_to_do_is_the_base_itself() -> None:
    q, base, _ = tensors(3, 16, 0)
    found, plain = ours(q, base, [None], lay([Region(Box(0, 0, 1, 1))], (4, 4)))
    assert found is plain


def test_only_queries_inside_are_asked() -> None:
    q, _, prompts = tensors(4, 64, 2)
    laid = lay([Region(Box(0, 0, 0.5, 0.5)), Region(Box(0.5, 0.5, 0.25, 0.25))], (8, 8))
    asked = []

    def counting(queries: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        asked.append(queries.shape[1])
        return attend(queries, k, v)

    regional_attention(q, q, plan(laid, CPU, q.dtype), lambda number: prompts[number], counting)
    assert asked == [16, 4]


def test_gradients_reach_the_queries() -> None:
    q, base, prompts = tensors(5, 16, 1)
    q.requires_grad_(True)
    found, _ = ours(q, base, list(prompts), lay([Region(Box(0, 0, 0.5, 1), feather=0.2)], (4, 4)))
    found.square().sum().backward()
    assert q.grad is not None and bool((q.grad.abs().sum(dim=-1) > 0).all())
