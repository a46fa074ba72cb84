from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blocklora_core.concept import rows as ownership
from blocklora_core.concept.rows import Parts, Rows, Scheme

schemes = st.builds(Scheme, slots=st.integers(1, 40))
weights = st.tuples(st.integers(0, 400), st.sampled_from([1, 2])).map(lambda p: (p[0] * p[1], p[1]))
unequal = st.lists(st.integers(1, 200), min_size=1, max_size=5).map(tuple)


@st.composite
def any_rows(draw: st.DrawFn) -> Rows:
    scheme, (m, halves) = draw(schemes), draw(weights)
    return scheme.rows(draw(st.integers(0, scheme.slots - 1)), m, halves)


def numbers(rows: Rows) -> list[int]:
    return [row for part in rows for row in part]


@given(schemes, weights)
def test_slots_are_disjoint_and_cover_every_row(scheme: Scheme, weight: tuple[int, int]) -> None:
    m, halves = weight
    held = [numbers(scheme.rows(slot, m, halves)) for slot in range(scheme.slots)]
    assert sorted(row for rows in held for row in rows) == list(range(m))


@given(schemes, weights)
def test_slots_are_balanced_within_one_row_per_half(scheme: Scheme, weight: tuple[int, int]) -> None:
    m, halves = weight
    for half in range(halves):
        part = range(half * m // halves, (half + 1) * m // halves)
        sizes = [sum(row in part for row in numbers(scheme.rows(s, m, halves))) for s in range(scheme.slots)]
        assert max(sizes) - min(sizes) <= 1


@given(schemes, unequal)
def test_every_slot_gets_its_share_of_each_part_of_any_size(scheme: Scheme, parts: Parts) -> None:
    held = [numbers(scheme.rows(slot, sum(parts), parts)) for slot in range(scheme.slots)]
    assert sorted(row for rows in held for row in rows) == list(range(sum(parts)))
    start = 0
    for size in parts:
        shares = [sum(start <= row < start + size for row in rows) for rows in held]
        assert max(shares) - min(shares) <= 1 and sum(shares) == size
        start += size


@given(schemes, weights)
def test_parts_of_one_size_are_dealt_out_as_version_1_does(scheme: Scheme, weight: tuple[int, int]) -> None:
    m, halves = weight
    if m:
        assert scheme.rows(0, m, (m // halves,) * halves) == scheme.rows(0, m, halves)


@given(any_rows())
def test_rows_are_ascending_and_canonical(rows: Rows) -> None:
    assert numbers(rows) == sorted(set(numbers(rows)))
    assert ownership.tidy(rows) == rows
    assert ownership.count(rows) == len(numbers(rows))
    assert ownership.index(rows).tolist() == numbers(rows)
    assert ownership.index(rows).dtype == torch.long


@given(any_rows(), any_rows())
def test_overlap_is_the_intersection_of_row_numbers(a: Rows, b: Rows) -> None:
    shared = sorted(set(numbers(a)) & set(numbers(b)))
    assert numbers(ownership.overlap(a, b)) == shared
    assert ownership.overlap(b, a) == ownership.overlap(a, b) or numbers(ownership.overlap(b, a)) == shared
    assert [numbers(a)[at] for at in ownership.positions(a, b)] == shared


@given(any_rows(), st.integers(0, 800))
def test_contains(rows: Rows, row: int) -> None:
    assert ownership.contains(rows, row) == (row in numbers(rows))


@pytest.mark.parametrize(("m", "size"), [(320, 20), (640, 40), (768, 48), (1280, 80)])
def test_default_scheme_is_stable(m: int, size: int) -> None:
    assert [Scheme().rows(slot, m) for slot in range(16)] == [
        (range(slot * size, (slot + 1) * size),) for slot in range(16)
    ]


GOLDEN = [
    (Scheme(slots=15), 1, 320, 1, (range(21, 42),)),
    (Scheme(slots=15), 14, 640, 1, (range(597, 640),)),
    (Scheme(slots=32), 31, 1280, 1, (range(1240, 1280),)),
    (Scheme(), 0, 2560, 2, (range(80), range(1280, 1360))),
    (Scheme(), 15, 2560, 2, (range(1200, 1280), range(2480, 2560))),
    (Scheme(slots=1), 0, 64, 2, (range(64),)),
    (Scheme(), 0, 4, 1, ()),
    (Scheme(), 3, 4, 1, (range(1),)),
    (Scheme(2), 1, 3840, (2304, 768, 768), (range(144, 288), range(2352, 2400), range(3120, 3168))),
    (
        Scheme(2),
        8,
        21504,
        (3072, 3072, 3072, 12288),
        (range(1536, 1728), range(4608, 4800), range(7680, 7872), range(15360, 16128)),
    ),
]


@pytest.mark.parametrize(("scheme", "slot", "m", "halves", "expected"), GOLDEN)
def test_rule_never_changes(scheme: Scheme, slot: int, m: int, halves: int | Parts, expected: Rows) -> None:
    assert scheme.rows(slot, m, halves) == expected


def test_schemes_of_different_size_overlap_by_rows_not_by_slot_number() -> None:
    a, b = Scheme(slots=16), Scheme(slots=32)
    assert ownership.overlap(a.rows(1, 320), b.rows(2, 320)) == (range(20, 30),)
    assert ownership.overlap(a.rows(1, 320), b.rows(1, 320)) == ()


@given(schemes, weights)
def test_no_two_slots_overlap(scheme: Scheme, weight: tuple[int, int]) -> None:
    held = [scheme.rows(slot, *weight) for slot in range(min(scheme.slots, 6))]
    assert not any(ownership.overlap(a, b) for a, b in combinations(held, 2))


def test_dict_round_trip() -> None:
    scheme = Scheme(slots=15)
    assert scheme.to_dict() == {"version": 1, "slots": 15, "layout": "contiguous"}
    assert Scheme.from_dict(scheme.to_dict()) == scheme


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"version": 3, "slots": 16, "layout": "contiguous"}, "Row scheme version: expected 1 or 2, got 3"),
        ({"version": True, "slots": 16, "layout": "contiguous"}, "Row scheme version: expected 1 or 2, got True"),
        ({"version": 1, "slots": 0, "layout": "contiguous"}, "Number of slots: expected"),
        ({"version": 1, "slots": True, "layout": "contiguous"}, "Number of slots: expected"),
        ({"version": 1, "slots": 16, "layout": "spiral"}, "Row layout: expected contiguous, got 'spiral'"),
        ({"version": 1, "slots": 16, "layout": "interleaved"}, "stock Load LoRA, or train the concept again"),
        ({"version": 1, "slots": 16}, "expected the fields layout, slots, version"),
    ],
)
def test_unknown_schemes_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scheme.from_dict(data)


@pytest.mark.parametrize("slot", [-1, 16, True])
def test_impossible_slots_are_refused(slot: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 15"):
        Scheme().rows(slot, 320)


def test_odd_halves_are_refused() -> None:
    with pytest.raises(ValueError, match="2 equal parts"):
        Scheme().rows(0, 321, 2)


@pytest.mark.parametrize("parts", [(100, 200), (321,), (320, 0), (330, -10), ()])
def test_parts_that_do_not_make_the_weight_are_refused(parts: Parts) -> None:
    with pytest.raises(ValueError, match=f"parts that make 320 rows, got {len(parts)} that make {sum(parts)}"):
        Scheme().rows(0, 320, parts)


@given(st.lists(any_rows(), max_size=6))
def test_rows_that_several_hold_are_counted_once(held: list[Rows]) -> None:
    holders = Counter(row for rows in held for row in numbers(rows))
    assert ownership.shared(held) == sum(number > 1 for number in holders.values())


def test_overlapping_segments_are_refused() -> None:
    with pytest.raises(ValueError, match="disjoint"):
        ownership.tidy([range(10), range(5, 15)])


def test_rows_with_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="neighbouring rows"):
        ownership.tidy([range(3, 52, 16)])


def test_files_keep_a_step_of_one() -> None:
    assert ownership.to_list(Scheme().rows(1, 64, 2)) == [[2, 4, 1], [34, 36, 1]]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ((), "no rows"),
        ((range(7, 8),), "row 7"),
        ((range(20, 40),), "rows 20-39"),
        ((range(4), range(8, 12)), "rows 0-3, 8-11"),
    ],
)
def test_describe(rows: Rows, text: str) -> None:
    assert ownership.describe(rows) == text
