"""Index arithmetic of windows, against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from restore.kernels.windows import (
    relative_position_index,
    shift_labels,
    shift_mask,
    symmetric_index,
    window_partition,
    window_reverse,
)

sides = st.integers(1, 5)


@given(b=st.integers(1, 3), c=sides, wh=sides, ww=sides, rows=sides, cols=sides)
def test_windows_are_cut_row_by_row_and_joined_again(
    b: int, c: int, wh: int, ww: int, rows: int, cols: int
) -> None:
    h, w = rows * wh, cols * ww
    x = torch.arange(b * h * w * c).view(b, h, w, c)
    windows = window_partition(x, (wh, ww))
    assert windows.shape == (b * rows * cols, wh * ww, c)
    at = 0
    for image in range(b):
        for row in range(rows):
            for col in range(cols):
                for pixel in range(wh * ww):
                    y, z = row * wh + pixel // ww, col * ww + pixel % ww
                    assert torch.equal(windows[at, pixel], x[image, y, z])
                at += 1
    assert torch.equal(window_reverse(windows, (wh, ww), h, w), x)


def test_any_strides_are_cut() -> None:
    x = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6).permute(0, 3, 2, 1)  # [2, 6, 4, 3]
    assert torch.equal(window_partition(x, (3, 2)), window_partition(x.contiguous(), (3, 2)))


@given(wh=sides, ww=sides)
def test_every_offset_has_its_own_row_of_the_table(wh: int, ww: int) -> None:
    index = relative_position_index((wh, ww))
    assert index.dtype == torch.int64
    rows: dict[tuple[int, int], set[int]] = {}
    for a in range(wh * ww):
        for b in range(wh * ww):
            offset = (a // ww - b // ww, a % ww - b % ww)
            assert index[a, b] == (offset[0] + wh - 1) * (2 * ww - 1) + offset[1] + ww - 1
            rows.setdefault(offset, set()).add(int(index[a, b]))
    assert all(len(found) == 1 for found in rows.values())
    assert {row for found in rows.values() for row in found} == set(
        range((2 * wh - 1) * (2 * ww - 1))
    )


@given(data=st.data(), wh=sides, ww=sides, rows=sides, cols=sides)
def test_a_mask_parts_what_the_roll_brought_from_the_other_end(
    data: st.DataObject, wh: int, ww: int, rows: int, cols: int
) -> None:
    h, w = rows * wh, cols * ww
    shift = (data.draw(st.integers(0, wh - 1)), data.draw(st.integers(0, ww - 1)))
    mask = shift_mask(h, w, (wh, ww), shift)
    assert mask.shape == (rows * cols, wh * ww, wh * ww)
    assert mask.dtype == torch.bool
    # a pixel of the rolled map was brought round where its place plus the shift passes the end
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    brought = 2 * (y + shift[0] >= h).int() + (x + shift[1] >= w).int()
    for n in range(rows * cols):
        y0, x0 = n // cols * wh, n % cols * ww
        piece = brought[y0 : y0 + wh, x0 : x0 + ww].reshape(-1)
        assert torch.equal(mask[n], piece[:, None] != piece[None, :])


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_labels_of_an_axis(shift: int) -> None:
    expected = [0] * 8 + ([1] * (4 - shift) + [2] * shift if shift else [0] * 4)
    assert shift_labels(12, 4, shift).tolist() == expected


@given(length=st.integers(1, 6), more=st.integers(0, 20))
def test_an_axis_grows_symmetrically(length: int, more: int) -> None:
    wanted = np.pad(np.arange(length), (0, more), mode="symmetric")
    assert symmetric_index(length, length + more).tolist() == wanted.tolist()
