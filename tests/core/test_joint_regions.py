"""Who sees whom in joint attention, against regional attention and by hand."""

from __future__ import annotations

import torch

from blocklora_core.regions import Box, Region, Texts, joint_bias, longest
from blocklora_core.regions import layout as lay

SIZE = (2, 2)
LEFT = Region(Box(0, 0, 0.5, 1))


def visible(bias: torch.Tensor) -> torch.Tensor:
    return bias > torch.finfo(bias.dtype).min / 4


def test_who_sees_whom() -> None:
    bias = joint_bias(lay([LEFT], SIZE), Texts(1, (3,), (2,)), 1, torch.float32)
    # Whole picture's prompt, two words of the region, one of padding, four cells, one reference.
    expected = [
        [1, 0, 0, 0, 0, 1, 0, 1, 1],
        [0, 1, 1, 0, 1, 0, 1, 0, 1],
        [0, 1, 1, 0, 1, 0, 1, 0, 1],
        [0, 0, 0, 1, 0, 0, 0, 0, 1],
        [0, 1, 1, 0, 1, 1, 1, 1, 1],
        [1, 0, 0, 0, 1, 1, 1, 1, 1],
        [0, 1, 1, 0, 1, 1, 1, 1, 1],
        [1, 0, 0, 0, 1, 1, 1, 1, 1],
        [1, 0, 0, 0, 1, 1, 1, 1, 1],
    ]
    assert torch.equal(visible(bias).int(), torch.tensor(expected, dtype=torch.int))
    assert set(bias[visible(bias)].tolist()) == {0.0}
    assert bool(bias.isfinite().all())


def test_a_region_without_a_prompt_leaves_its_cells_to_the_whole_picture() -> None:
    bias = joint_bias(lay([LEFT], SIZE), Texts(2, (0,), (0,)), 0, torch.float32)
    assert not bias.any()


def test_shares_become_logarithms() -> None:
    half = Region(Box(0, 0, 1, 1), weight=0.25)
    bias = joint_bias(lay([half], SIZE), Texts(1, (1,), (1,)), 0, torch.float64)
    torch.testing.assert_close(bias[2:, :2].exp(), torch.tensor([[0.75, 0.25]] * 4, dtype=torch.float64))


def test_attention_to_two_prompts_is_weighted_by_their_shares() -> None:
    """Of two regions that share all cells, one of which says the same twice: their shares alone count."""
    random = torch.Generator().manual_seed(0)
    cells, one, two = (torch.randn(4, 8, generator=random) for _ in range(3))
    regions = [Region(Box(0, 0, 1, 1)), Region(Box(0, 0, 1, 1), weight=3)]
    bias = joint_bias(lay(regions, SIZE), Texts(0, (4, 4), (4, 4)), 0, torch.float32)
    sequence = torch.cat([one, two, cells])
    found = torch.nn.functional.scaled_dot_product_attention(sequence, sequence, sequence, attn_mask=bias)[8:]
    logits = cells @ sequence.T / 8**0.5
    shares = torch.tensor([0.25] * 4 + [0.75] * 4 + [1.0] * 4) * logits.exp()
    torch.testing.assert_close(found, shares / shares.sum(dim=1, keepdim=True) @ sequence)


def test_slots_hold_the_longest() -> None:
    assert longest([(3, 0), (1, 5)]) == (3, 5)
    assert Texts(7, (3, 5), (3, 0)).total == 15
