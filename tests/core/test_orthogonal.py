"""The matrix that strangers share, and whose rows each concept freezes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from blocklora_core.concept.rows import count
from blocklora_core.training import AdaptedLayer
from blocklora_core.training.adapters.orthogonal import SHARES, SharedBasis, chosen_rows, shared_matrix


@given(st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_the_shared_matrix_is_orthogonal_and_always_the_same(size: int) -> None:
    matrix = shared_matrix(size)
    assert matrix.dtype == torch.float32 and matrix.shape == (size, size)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size), rtol=0, atol=1e-5)
    assert torch.equal(matrix, shared_matrix(size))


def test_the_shared_matrix_is_the_one_of_published_files() -> None:
    """Files trained elsewhere rely on these numbers: a change of them needs a new name for the method."""
    expected = [0.0739, -0.6111, 0.4854, 0.6210]
    torch.testing.assert_close(shared_matrix(4)[0], torch.tensor(expected), rtol=0, atol=1e-4)


@given(st.integers(16, 3000), st.integers(0, 15), st.integers(0, 15), st.text(max_size=9), st.text(max_size=9))
def test_slots_never_choose_the_same_row(size: int, a: int, b: int, draw: str, other: str) -> None:
    shares = [count(SHARES.rows(slot, size)) for slot in (a, b)]
    chosen = [chosen_rows(size, max(1, share // 2), slot, text).tolist()
              for share, slot, text in zip(shares, (a, b), (draw, other), strict=True)]  # fmt: skip
    for rows in chosen:
        assert len(set(rows)) == len(rows) and rows == sorted(rows)
        assert all(0 <= row < size for row in rows)
    assert a == b or not set(chosen[0]) & set(chosen[1])


@given(st.integers(1, 500), st.data())
def test_without_a_slot_rows_are_drawn_from_all_by_the_text(size: int, data: st.DataObject) -> None:
    rank, draw = data.draw(st.integers(1, size)), data.draw(st.text(max_size=9))
    rows = chosen_rows(size, rank, None, draw)
    assert len(set(rows.tolist())) == rank and int(rows.min()) >= 0 and int(rows.max()) < size
    assert torch.equal(rows, chosen_rows(size, rank, None, draw))


def test_every_row_comes_up_without_a_slot() -> None:
    seen = {row for number in range(200) for row in chosen_rows(32, 4, None, str(number)).tolist()}
    assert seen == set(range(32))


def test_two_slots_deal_out_orthonormal_rows_to_all_layers() -> None:
    layers = {str(size): AdaptedLayer(nn.Linear(size, 8), 8, size) for size in (64, 80)}
    one, two = SharedBasis(2, "0 <a>"), SharedBasis(9, "0 <b>")
    for name, layer in layers.items():
        both = torch.cat([one.down(name, layer, 4), two.down(name, layer, 4)])
        torch.testing.assert_close(both @ both.T, torch.eye(8), rtol=0, atol=1e-5)
