"""LoRA-Composer against slow references that follow its equations with loops, on random tensors."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from blocklora_core.regions.composer.losses import (
    box_gaussian,
    constraint_loss,
    count_top,
    enhancement_loss,
    fill_loss,
    region_loss,
)
from blocklora_core.regions.composer.maps import outside_probabilities, smooth, token_probabilities
from blocklora_core.regions.composer.options import (
    CODE,
    DEFAULT_PRESET,
    FORMER_NAMES,
    PAPER,
    PRESETS,
    ComposerOptions,
    preset_of,
)
from blocklora_core.regions.composer.region_mask import BLOCKED, groups, isolated_attention, logits, visible
from blocklora_core.regions.composer.reinit import best_corner, extent, reinitialised
from blocklora_core.regions.composer.schedule import goes_on, step_sizes

SEEDS = st.integers(0, 10_000)
SIDES = st.integers(1, 7)


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def box_mask(seed: int, height: int, width: int) -> Tensor:
    """A box somewhere in the grid, at least a pixel."""
    draw = random(seed)
    top, left = int(torch.randint(height, (), generator=draw)), int(torch.randint(width, (), generator=draw))
    bottom = top + 1 + int(torch.randint(height - top, (), generator=draw))
    right = left + 1 + int(torch.randint(width - left, (), generator=draw))
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def near(a: Tensor, b: Tensor | float) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), rtol=1e-5, atol=1e-6)


# Maps


def softmax_row(query: Tensor, keys: Tensor, bias: Tensor | None = None) -> list[float]:
    scores = [float(query @ key) / math.sqrt(len(query)) for key in keys]
    scores = [score + (0.0 if bias is None else float(bias[at])) for at, score in enumerate(scores)]
    exponents = [math.exp(score - max(scores)) for score in scores]
    return [value / sum(exponents) for value in exponents]


@given(SEEDS, st.integers(1, 3))
def test_token_maps_are_the_mean_over_heads_of_the_softmax(seed: int, heads: int) -> None:
    draw, width = random(seed), 3
    q, k = torch.randn(2, 5, heads * width, generator=draw), torch.randn(2, 6, heads * width, generator=draw)
    found = token_probabilities(q, k, heads, [4, 1])
    assert found.shape == (2, 2, 5)
    for sample, pixel, (at, token) in product(range(2), range(5), enumerate([4, 1])):
        parts = [slice(head * width, (head + 1) * width) for head in range(heads)]
        rows = [softmax_row(q[sample, pixel, part], k[sample][:, part])[token] for part in parts]
        near(found[sample, at, pixel], sum(rows) / heads)


@given(SEEDS, st.booleans())
def test_outside_maps_are_the_rows_of_the_box_and_the_columns_of_the_rest(seed: int, isolated: bool) -> None:
    draw = random(seed)
    q, k = (torch.randn(1, 6, 4, generator=draw) for _ in range(2))
    masks = torch.rand(2, 6, generator=draw) > 0.5
    bias = logits(masks) if isolated else None
    found = outside_probabilities(q, k, 2, masks[0], bias)
    inside, outside = masks[0].nonzero().flatten().tolist(), (~masks[0]).nonzero().flatten().tolist()
    assert found.shape == (1, len(inside), len(outside))
    for (row, pixel), (column, other) in product(enumerate(inside), enumerate(outside)):
        heads = [
            softmax_row(q[0, pixel, part], k[0][:, part], None if bias is None else bias[pixel])[other]
            for part in (slice(0, 2), slice(2, 4))
        ]
        near(found[0, row, column], sum(heads) / 2)


@given(SEEDS, st.integers(2, 6), st.integers(2, 6), st.sampled_from([0.3, 0.5, 2.0]))
def test_smoothing_is_the_codes_filter(seed: int, height: int, width: int, sigma: float) -> None:
    maps = torch.rand(2, height, width, generator=random(seed))
    found = smooth(maps, 3, sigma)
    kernel = {(dy, dx): math.exp(-((dy / (2 * sigma)) ** 2) - (dx / (2 * sigma)) ** 2)
              for dy, dx in product((-1, 0, 1), repeat=2)}  # fmt: skip
    total = sum(kernel.values())

    def reflected(at: int, size: int) -> int:
        return -at if at < 0 else 2 * (size - 1) - at if at >= size else at

    for number, y, x in product(range(2), range(height), range(width)):
        value = sum(
            weight * float(maps[number, reflected(y + dy, height), reflected(x + dx, width)])
            for (dy, dx), weight in kernel.items()
        )
        near(found[number, y, x], value / total)


def test_smoothing_keeps_a_constant_map_of_any_size() -> None:
    for shape in ((1, 1), (1, 5), (4, 1), (3, 3)):
        near(smooth(torch.full((1, *shape), 0.25), 3, 0.5), torch.full((1, *shape), 0.25))


# Losses


def gaussian_reference(mask: Tensor, sigma: float) -> dict[tuple[int, int], float]:
    cells = [tuple(at) for at in mask.nonzero().tolist()]
    top, bottom = min(y for y, _ in cells), max(y for y, _ in cells)
    left, right = min(x for _, x in cells), max(x for _, x in cells)

    def place(at: int, first: int, last: int) -> float:
        return -1 + 2 * (at - first) / (last - first) if last > first else -1.0

    values = {
        (y, x): math.exp(-(place(y, top, bottom) ** 2 + place(x, left, right) ** 2) / (2 * sigma**2))
        for y, x in product(range(top, bottom + 1), range(left, right + 1))
    }
    return {at: value / max(values.values()) for at, value in values.items()}


@given(SEEDS, SIDES, SIDES, st.sampled_from([0.5, 1.0]))
def test_the_gaussian_of_a_box(seed: int, height: int, width: int, sigma: float) -> None:
    mask = box_mask(seed, height, width)
    found, reference = box_gaussian(mask, sigma), gaussian_reference(mask, sigma)
    for y, x in product(range(height), range(width)):
        near(found[y, x], reference.get((y, x), 0.0))
    assert float(found.max()) == 1


def top_reference(values: list[float], k: int) -> float:
    best = sorted(values, reverse=True)[:k]
    return sum(best) / len(best)


def enhancement_reference(maps: Tensor, mask: Tensor, share: float, sigma: float) -> float:
    """Eq. 4 of one sample, with the code's cut at 0 and sum over tokens."""
    bell = gaussian_reference(mask, sigma)
    s = max(1, math.floor(len(mask.nonzero()) * share + 1e-9))
    total = 0.0
    for token in maps:
        values = [
            float(token[y, x]) * float(mask[y, x]) * bell.get((y, x), 0.0) for y, x in product(*map(range, mask.shape))
        ]
        total += max(0.0, 1 - top_reference(values, s))
    return total


def fill_reference(maps: Tensor, mask: Tensor, over: str) -> float:
    """Eq. 5 to 7 of one sample."""
    height, width = mask.shape
    total = 0.0
    for token in maps:
        columns = [max(float(token[i, j]) * float(mask[i, j]) for i in range(height)) for j in range(width)]
        rows = [max(float(token[i, j]) * float(mask[i, j]) for j in range(width)) for i in range(height)]
        wanted_columns = [float(any(mask[i, j] for i in range(height))) for j in range(width)]
        wanted_rows = [float(any(mask[i, j] for j in range(width))) for i in range(height)]
        gaps = [[abs(1 - a) if b else a for a, b in zip(values, wanted, strict=True)]
                for values, wanted in ((columns, wanted_columns), (rows, wanted_rows))]  # fmt: skip
        if over == "map":
            total += sum(gaps[0]) / width + sum(gaps[1]) / height
        else:
            total += (sum(gaps[0]) + sum(gaps[1])) / (sum(wanted_columns) + sum(wanted_rows))
    return total


def region_reference(attention: Tensor, mask: Tensor, k: int) -> float:
    """Eq. 8 of one sample: attention (N, N)."""
    flat = mask.flatten().tolist()
    values = [float(attention[i, j]) for i, j in product(range(len(flat)), repeat=2) if flat[i] and not flat[j]]
    return top_reference(values, k) if values else 0.0


@given(SEEDS, SIDES, SIDES, st.sampled_from([0.2, 0.5, 1.0]))
def test_enhancement(seed: int, height: int, width: int, share: float) -> None:
    mask, maps = box_mask(seed, height, width), torch.rand(2, 2, height, width, generator=random(seed)) * 1.5
    found = enhancement_loss(maps, mask, box_gaussian(mask, 1.0), share)
    near(found, torch.tensor([enhancement_reference(sample, mask, share, 1.0) for sample in maps]))


@given(SEEDS, SIDES, SIDES, st.sampled_from(["box", "map"]))
def test_fill(seed: int, height: int, width: int, over: str) -> None:
    maps = torch.rand(2, 2, height, width, generator=random(seed))
    mask = box_mask(seed, height, width)
    near(fill_loss(maps, mask, over), torch.tensor([fill_reference(sample, mask, over) for sample in maps]))


@given(SEEDS, SIDES, SIDES, st.integers(1, 9))
def test_region(seed: int, height: int, width: int, k: int) -> None:
    mask = box_mask(seed, height, width)
    flat = mask.flatten()
    attention = torch.rand(2, len(flat), len(flat), generator=random(seed)).softmax(-1)
    found = region_loss(attention[:, flat][..., ~flat], k)
    near(found, torch.tensor([region_reference(sample, mask, k) for sample in attention]))


@given(SEEDS, st.sampled_from(sorted(PRESETS)), st.sampled_from(["", "enhancement", "fill", "region", "centred"]))
def test_the_whole_loss_and_each_part_switched_off(seed: int, preset: str, off: str) -> None:
    options = replace(PRESETS[preset], **{off: False if off == "centred" else 0.0}) if off else PRESETS[preset]
    draw = random(seed)
    masks = torch.stack([box_mask(seed, 4, 5), box_mask(seed + 1, 4, 5), torch.zeros(4, 5, dtype=torch.bool)])
    maps = [torch.rand(2, tokens, 4, 5, generator=draw) for tokens in (2, 1, 1)]
    attention = torch.rand(2, 20, 20, generator=draw).softmax(-1)
    outside = [attention[:, mask.flatten()][..., ~mask.flatten()] for mask in masks]
    expected = []
    for sample in range(2):
        total = 0.0
        for number in range(2):
            sigma = options.gaussian_sigma if options.centred else 1e6
            k = max(1, math.floor(int(masks[number].sum()) * options.top_k + 1e-9))
            ce = enhancement_reference(maps[number][sample], masks[number], options.top_k, sigma)
            fill = fill_reference(maps[number][sample], masks[number], options.fill_mean)
            region = region_reference(attention[sample], masks[number], k)
            total += options.enhancement * ce + options.fill * fill + options.region * region
        expected.append(total)
    near(constraint_loss(dict(enumerate(maps)), dict(enumerate(outside)), masks, options), torch.tensor(expected))


def test_losses_have_gradients_towards_what_they_want() -> None:
    maps = torch.full((1, 1, 4, 4), 0.3).requires_grad_()
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[1:3, 1:3] = True
    attention = torch.full((1, 4, 12), 0.05, requires_grad=True)
    constraint_loss({0: maps}, {0: attention}, mask[None], PAPER).sum().backward()
    assert maps.grad is not None and attention.grad is not None
    assert (maps.grad[0, 0][mask] <= 0).all() and maps.grad.min() < 0 and not maps.grad[0, 0][~mask].any()
    assert attention.grad.min() >= 0 < attention.grad.max()


def test_top_share_is_of_whole_pixels_and_at_least_one() -> None:
    counts = [count_top(torch.ones(size), 0.2) for size in (1, 4, 5, 9, 10, 100)]
    assert counts == [1, 1, 1, 1, 2, 20]


# Schedule


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_step_sizes(steps: int) -> None:
    found = step_sizes(steps, PAPER)
    spread = [1 - 0.5 * i / (steps - 1) if steps > 1 else 1.0 for i in range(steps)]
    assert found == pytest.approx([20 * math.sqrt(s) for s in spread])


def stopped_reference(losses: list[float]) -> int:
    """How many steps the authors' loop guides."""
    before, guided = 1e3, 0
    for step, loss in enumerate(losses):
        guided += 1
        if (before < loss and step >= 5) or step >= 25:
            break
        before = loss
    return guided


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40))
def test_the_guidance_stops_where_the_authors_loop_does(losses: list[float]) -> None:
    before, active, guided = torch.tensor([math.inf]), True, 0
    for step, loss in enumerate(losses):
        if not active:
            break
        guided += 1
        now = torch.tensor([loss], dtype=torch.float64)
        active, before = bool(goes_on(step, now, before, PAPER)), now
    assert guided == stopped_reference(losses)


def test_each_sample_stops_by_itself() -> None:
    found = goes_on(6, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 2.0, 2.5]), PAPER)
    assert found.tolist() == [True, True, False]
    assert not goes_on(25, torch.tensor([1.0]), torch.tensor([9.0]), PAPER).any()


# Region mask


def visible_reference(masks: Tensor) -> Tensor:
    """The code's two loops, and the pixels that boxes share open to themselves."""
    regions, pixels = masks.shape
    open_ = torch.ones(pixels, pixels, dtype=torch.bool)
    for mine, others in product(range(regions), repeat=2):
        if mine == others:
            continue
        for i, j in product(range(pixels), repeat=2):
            if masks[mine, i] and masks[others, j]:
                open_[i, j] = False
    for i, j in product(range(pixels), repeat=2):
        if masks[:, i].tolist() == masks[:, j].tolist():
            open_[i, j] = True
    return open_


@given(SEEDS, st.integers(1, 4), st.integers(1, 9))
def test_visible_is_the_codes_rule_with_shared_pixels_open(seed: int, regions: int, pixels: int) -> None:
    masks = torch.rand(regions, pixels, generator=random(seed)) > 0.6
    seen = visible(masks)
    assert torch.equal(seen, visible_reference(masks))
    assert seen.diagonal().all() and torch.equal(seen, seen.T)
    added = logits(masks)
    assert torch.equal(added == 0, seen) and (added[~seen] == BLOCKED).all()
    assert logits(masks, torch.float16).isfinite().all()


@given(SEEDS, st.integers(1, 3), st.integers(1, 9))
def test_isolated_attention_is_attention_under_the_mask(seed: int, regions: int, pixels: int) -> None:
    draw = random(seed)
    masks = torch.rand(regions, pixels, generator=draw) > 0.6
    q, k, v = (torch.randn(2, pixels, 4, generator=draw) for _ in range(3))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(1, 2) / 2).softmax(-1) @ v

    found = isolated_attention(q, k, v, groups(masks), attend)
    near(found, (q @ k.transpose(1, 2) / 2 + logits(masks)).softmax(-1) @ v)


# Re-initialisation


def corner_reference(scores: Tensor, height: int, width: int) -> tuple[int, int]:
    """Eq. 11."""
    places = product(range(scores.shape[0] - height + 1), range(scores.shape[1] - width + 1))
    return max(places, key=lambda at: sum(
        float(scores[at[0] + dy, at[1] + dx]) for dy, dx in product(range(height), range(width))
    ))  # fmt: skip


def reinitialised_reference(noise: Tensor, maps: list[Tensor], masks: Tensor, scale: int) -> Tensor:
    fresh = noise.clone()
    for scores, mask in zip(maps, masks, strict=True):
        ys, xs = mask.nonzero().T.tolist()
        height, width = max(ys) - min(ys) + 1, max(xs) - min(xs) + 1
        y, x = corner_reference(scores, height, width)
        for c, dy, dx in product(range(noise.shape[0]), range(height * scale), range(width * scale)):
            fresh[c, min(ys) * scale + dy, min(xs) * scale + dx] = noise[c, y * scale + dy, x * scale + dx]
    values, original = fresh.flatten().tolist(), noise.flatten().tolist()

    def moments(numbers: list[float]) -> tuple[float, float]:
        mean = sum(numbers) / len(numbers)
        return mean, math.sqrt(sum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1))

    (mean, spread), (wanted_mean, wanted_spread) = moments(values), moments(original)
    return (fresh - mean) / spread * wanted_spread + wanted_mean


@given(SEEDS, st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
def test_reinitialisation(seed: int, height: int, width: int, scale: int) -> None:
    draw = random(seed)
    noise = torch.randn(2, height * scale, width * scale, generator=draw) * 2 + 0.5
    masks = torch.stack([box_mask(seed, height, width), box_mask(seed + 1, height, width)])
    # Multiples of a power of two, so that sums are exact and the first of equals is the same one.
    maps = [torch.randint(64, (height, width), generator=draw) / 64 for _ in masks]
    found = reinitialised(noise, maps, masks)
    reference = reinitialised_reference(noise, maps, masks, scale)
    torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-4)
    near(found.mean(), noise.mean())
    torch.testing.assert_close(found.std(), noise.std(), rtol=1e-4, atol=1e-4)


def test_a_mask_of_the_whole_picture_changes_nothing() -> None:
    noise = torch.randn(4, 8, 8, generator=random(1))
    torch.testing.assert_close(reinitialised(noise, [torch.rand(2, 2)], torch.ones(1, 2, 2, dtype=torch.bool)), noise)


def test_sizes_that_the_grid_does_not_divide_stay_in_the_picture() -> None:
    noise = torch.randn(1, 11, 13, generator=random(2))
    for seed in range(20):
        mask = box_mask(seed, 3, 4)
        scores = torch.rand(3, 4, generator=random(seed))
        found = reinitialised(noise, [scores], mask[None])
        assert found.shape == noise.shape and found.isfinite().all()


def test_a_freehand_mask_takes_only_its_own_pixels() -> None:
    noise = torch.arange(64, dtype=torch.float64).reshape(1, 8, 8)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 0] = mask[1, 1] = True
    scores = torch.zeros(4, 4)
    scores[2:, 2:] = 1
    found = reinitialised(noise, [scores], mask[None])
    kept = ~mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
    spread = (found[0, 7, 7] - found[0, 7, 6]) / (noise[0, 7, 7] - noise[0, 7, 6])
    base = found[0, 7, 7] - spread * noise[0, 7, 7]
    torch.testing.assert_close(found[0][kept], spread * noise[0][kept] + base)
    torch.testing.assert_close(found[0, :2, :2], spread * noise[0, 4:6, 4:6] + base)


def test_corners_and_extents() -> None:
    scores = torch.zeros(4, 5)
    assert best_corner(scores, 2, 2) == (0, 0)
    scores[2:4, 3:5] = 1
    assert best_corner(scores, 2, 2) == (2, 3)
    assert extent(scores > 0) == (2, 3, 4, 5) and extent(scores > 2) is None


# Options


def test_the_presets_are_the_papers_and_the_codes_numbers() -> None:
    assert (PAPER.enhancement, PAPER.fill, PAPER.region) == (1.0, 0.25, 0.8)
    assert (CODE.enhancement, CODE.fill, CODE.region) == (8.0, 2.0, 10.0)
    assert PRESETS["gentle"] == PAPER and PRESETS["strong"] == CODE
    for options in (PAPER, CODE):
        assert (options.step_size, options.first_scale, options.last_scale) == (20.0, 1.0, 0.5)
        assert (options.last_step, options.patience, options.top_k) == (25, 5, 0.2)
        assert (options.smoothing_kernel, options.smoothing_sigma) == (3, 0.5)
        assert options.injection and options.isolation and options.reinitialise and options.guides


def test_presets_differ_in_how_hard_they_guide_and_keep_their_former_names() -> None:
    assert DEFAULT_PRESET in PRESETS and set(FORMER_NAMES.values()) <= set(PRESETS)
    pulls = [options.enhancement * options.step_size for options in PRESETS.values()]
    assert pulls == sorted(pulls) and len(set(pulls)) == len(pulls)
    assert preset_of("paper") == PAPER and preset_of("code") == CODE and preset_of("gentle") == PAPER
    with pytest.raises(ValueError, match="expected a preset among gentle"):
        preset_of("fierce")


def test_what_needs_no_gradient_says_so() -> None:
    assert not ComposerOptions(enhancement=0, fill=0, region=0).guides
    assert not ComposerOptions(step_size=0).guides
    assert ComposerOptions(enhancement=0, fill=0).guides and not ComposerOptions(enhancement=0, fill=0).reads_tokens


@pytest.mark.parametrize(
    "wrong",
    [{"enhancement": -1.0}, {"region": math.nan}, {"top_k": 0.0}, {"top_k": 1.5}, {"smoothing_kernel": 2},
     {"gaussian_sigma": 0.0}, {"smoothing_sigma": 0.0}, {"fill_mean": "all"}, {"last_step": -1}],
)  # fmt: skip
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"Composer: .*{next(iter(wrong))}"):
        ComposerOptions(**wrong)
