from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocklora_core.training.data.buckets import GRAIN, WIDEST, bucket_of, bucket_sizes, step_of, training_size

RESOLUTIONS = st.sampled_from([64, 96, 256, 512, 768, 1024])
SIDES = st.integers(16, 4000)


@given(RESOLUTIONS)
def test_buckets_fill_the_area_and_no_more(resolution: int) -> None:
    step = step_of(resolution)
    sizes = bucket_sizes(resolution)
    assert (resolution // step * step,) * 2 in sizes
    for width, height in sizes:
        assert width % step == height % step == 0
        assert width * height <= resolution**2
        assert max(width / height, height / width) <= WIDEST
        assert width * (height + step) > resolution**2 or height + step > resolution * math.sqrt(WIDEST)


@given(SIDES, SIDES, RESOLUTIONS)
def test_no_bucket_is_nearer_in_aspect(width: int, height: int, resolution: int) -> None:
    def off(size: tuple[int, int]) -> float:
        return abs(math.log(size[0] / size[1]) - math.log(width / height))

    chosen = bucket_of((width, height), resolution)
    assert all(off(chosen) <= off(size) for size in bucket_sizes(resolution))


@given(SIDES, SIDES, st.one_of(st.just(0), RESOLUTIONS))
def test_training_sizes_are_whole_latent_pixels_and_never_enlarge(width: int, height: int, resolution: int) -> None:
    new_width, new_height = training_size((width, height), resolution)
    assert new_width % GRAIN == new_height % GRAIN == 0
    assert new_width <= width
    assert new_height <= height
    if resolution:
        assert new_width * new_height <= max(resolution**2, 0) or width * height <= resolution**2


def test_photographs_of_like_shape_share_a_size() -> None:
    landscapes = {training_size(size, 512) for size in [(4000, 3000), (4032, 3024), (1600, 1200), (2048, 1540)]}
    assert len(landscapes) == 1
    assert training_size((3000, 3000), 512) == (512, 512)


def test_small_pictures_keep_their_size() -> None:
    assert training_size((96, 96), 512) == (96, 96)
    assert training_size((101, 60), 512) == (96, 56)


def test_an_impossible_resolution_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8"):
        bucket_sizes(4)
