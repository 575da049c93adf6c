"""Windows of a feature map: cutting, joining, offsets and shift regions. Pure index arithmetic.

Shape letters: B images, H rows, W columns, C channels, wh x ww a window, N = wh * ww its pixels,
n windows in the map.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
ALL = slice(None)


def check_pixels(op: str, map_size: Size) -> None:
    """Refuse a map without rows or columns (ValueError), in the name of `op`."""
    if 0 in map_size:
        raise ValueError(f"{op}: the map is {map_size}; expected 1 row and 1 column or more")


def rolled(x: Tensor, shift: Size) -> Tensor:
    """A map [B, H, W, ...] rolled up and left by rows and columns."""
    return torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2)) if any(shift) else x


def rolled_back(x: Tensor, shift: Size) -> Tensor:
    """The inverse of `rolled`."""
    return torch.roll(x, shift, dims=(1, 2)) if any(shift) else x


def window_partition(x: Tensor, window_size: Size) -> Tensor:
    """Cut a map into windows.

    Args:
        x: [B, H, W, C]; H and W are multiples of the window's sides.
        window_size: rows and columns of a window, in pixels.

    Returns:
        [B * n, N, C]: images first, then windows row by row, then pixels row by row.
    """
    b, h, w, c = x.shape
    wh, ww = window_size
    x = x.view(b, h // wh, wh, w // ww, ww, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, wh * ww, c)


def overlapping_partition(x: Tensor, window_size: Size, halo: Size) -> Tensor:
    """Cut a map into windows, each with a border that its neighbours share; zeros beyond the map.

    Args:
        x: [B, H, W, C]; H and W are multiples of the window's sides.
        window_size: rows and columns of a window, in pixels.
        halo: rows and columns on each side of it.

    Returns:
        [B * n, M, C], M = (wh + 2 hh)(ww + 2 hw), in the order of `window_partition`.
    """
    (wh, ww), (hh, hw) = window_size, halo
    rows, cols = wh + 2 * hh, ww + 2 * hw
    x = F.pad(x, (0, 0, hw, hw, hh, hh)).unfold(1, rows, wh).unfold(2, cols, ww)
    # from [B, H / wh, W / ww, C, rows, columns]
    return x.permute(0, 1, 2, 4, 5, 3).reshape(-1, rows * cols, x.shape[3])


def window_reverse(windows: Tensor, window_size: Size, height: int, width: int) -> Tensor:
    """Put the windows of `window_partition` back: [B * n, N, C] to [B, height, width, C]."""
    wh, ww = window_size
    x = windows.view(-1, height // wh, width // ww, wh, ww, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])


def symmetric_index(length: int, padded: int, device: torch.device | None = None) -> Tensor:
    """Where each entry of an axis grown at its end comes from, mirrored as often as needed.

    The last one is repeated: 0 1 2 grows to 0 1 2 2 1 0 0 1 ...

    Returns:
        [padded] int64.
    """
    at = counted_round(padded, 2 * length, device)
    return torch.minimum(at, 2 * length - 1 - at)


def counted_round(length: int, period: int, device: torch.device | None = None) -> Tensor:
    """0 1 ... period - 1 0 1 ...: [length] int64."""
    # as a tensor, because ONNX has no remainder by a number that is still open
    rounds = torch.full((1,), period, device=device)
    return torch.arange(length, device=device) % rounds


def relative_position_index(
    window_size: Size, device: torch.device | None = None, queries: slice = ALL
) -> Tensor:
    """Row of the bias table for every pair of pixels of a window.

        index[a, b] = (y_a - y_b + wh - 1) * (2 * ww - 1) + (x_a - x_b + ww - 1)

    Returns:
        [N, N] int64, query a by key b; of its rows those of `queries`.

    Source: Liu et al., "Swin Transformer", arXiv:2103.14030, section 3.2.
    """
    wh, ww = window_size
    y, x = _all_pairs(torch.arange(wh, device=device), torch.arange(ww, device=device))
    dy = y[queries, None] - y[None, :] + wh - 1
    dx = x[queries, None] - x[None, :] + ww - 1
    return dy * (2 * ww - 1) + dx


def aligned_position_index(window_size: Size, device: torch.device | None = None) -> Tensor:
    """Row of the bias table for every pixel of a window and every cell of 2 x 2 of its pixels.

    The four pixels of a cell share the rows of their cell, which are those that
    `relative_position_index` gives for a window of cells.

    Returns:
        [N, N / 4] int64, query pixel by key cell, from 0 to (wh - 1)(ww - 1) - 1.

    Source: Zhou et al., "SRFormer", arXiv:2303.09735, section 3.2.
    """
    cells = (window_size[0] // 2, window_size[1] // 2)
    return relative_position_index(cells, device)[_cell_of_pixel(window_size, device)]


def _cell_of_pixel(window_size: Size, device: torch.device | None) -> Tensor:
    """[N] int64: which cell of 2 x 2 each pixel of a window lies in, both row by row."""
    wh, ww = window_size
    y = torch.arange(wh, device=device) // 2
    x = torch.arange(ww, device=device) // 2
    return (y[:, None] * (ww // 2) + x[None, :]).flatten()


def overlapping_position_index(
    window_size: Size, halo: Size, device: torch.device | None = None
) -> Tensor:
    """Row of the bias table for every pixel of a window and every pixel of it and its halo.

        index[a, b] = (y_b - y_a - 2 hh + 1) * (ww + cols - 1) + (x_b - x_a - 2 hw + 1)

    with y_b and x_b counted from the halo's first pixel and cols = ww + 2 hw. Offsets run from
    query to key, against those of `relative_position_index`, and rows count modulo the table's
    length: those below 0 from its end. Each row is one offset.

    Returns:
        [N, M] int64, query a by key b.

    Source: the published weights of Chen et al., "HAT", arXiv:2205.04437.
    """
    (wh, ww), (hh, hw) = window_size, halo
    rows, cols = wh + 2 * hh, ww + 2 * hw
    wide = ww + cols - 1
    dy = torch.arange(rows, device=device) - torch.arange(wh, device=device)[:, None]
    dx = torch.arange(cols, device=device) - torch.arange(ww, device=device)[:, None]
    index = ((dy - 2 * hh + 1) * wide)[:, None, :, None] + (dx - 2 * hw + 1)[None, :, None, :]
    return index.flatten(2).flatten(0, 1)


def relative_offsets(window_size: Size, device: torch.device | None = None) -> Tensor:
    """Rows and columns from key to query for every row of a window's bias table.

    Returns:
        [(2 wh - 1)(2 ww - 1), 2] int64, from (1 - wh, 1 - ww) on, the column changing first.
    """
    (wh, ww) = window_size
    dy, dx = torch.arange(1 - wh, wh, device=device), torch.arange(1 - ww, ww, device=device)
    return torch.stack(_all_pairs(dy, dx), dim=-1)


def _all_pairs(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """[h] and [w] to [h * w] each: of every pair its y and its x, the x changing first."""
    size = (y.shape[0], x.shape[0])
    return y[:, None].expand(size).flatten(), x.expand(size).flatten()


def shift_labels(
    length: int, window: int, shift: int, device: torch.device | None = None
) -> Tensor:
    """Label the pixels of one axis of a rolled map by the piece of the image they come from.

    0 before the last window, 1 in its part that was its own before rolling, 2 in its part that
    the roll brought from the other end. Without a shift all labels are 0.

    Returns:
        [length] int64.
    """
    at = torch.arange(length, device=device)
    if not shift:
        return torch.zeros_like(at)
    return (at >= length - window).long() + (at >= length - shift).long()


def shift_mask(
    height: int,
    width: int,
    window_size: Size,
    shift: Size,
    device: torch.device | None = None,
    queries: slice = ALL,
) -> Tensor:
    """Which pairs of pixels of each window of the rolled map lie in different pieces of the image.

    Returns:
        [n, N, N] bool, True where query and key must not see each other; of its rows those of
        `queries`.
    """
    label = _window_labels(height, width, window_size, shift, device)
    return label[:, queries, None] != label[:, None, :]


def cell_shift_mask(
    height: int,
    width: int,
    window_size: Size,
    shift: Size,
    device: torch.device | None = None,
) -> Tensor:
    """Which pixels and 2 x 2 cells of each window of the rolled map are of different pieces.

    A cell that an odd shift cuts through counts as what the roll brought from the other end.

    Returns:
        [n, N, N / 4] bool, True where the query pixel must not see the key cell.
    """
    label = _window_labels(height, width, window_size, shift, device)
    cells = (window_size[0] // 2, window_size[1] // 2)
    cell_shift = ((shift[0] + 1) // 2, (shift[1] + 1) // 2)
    cell_label = _window_labels(height // 2, width // 2, cells, cell_shift, device)
    return label[:, :, None] != cell_label[:, None, :]


def _window_labels(
    height: int, width: int, window_size: Size, shift: Size, device: torch.device | None
) -> Tensor:
    """[n, N] int64: the piece of the image that each pixel of each window comes from."""
    y = shift_labels(height, window_size[0], shift[0], device)
    x = shift_labels(width, window_size[1], shift[1], device)
    label = (3 * y[:, None] + x[None, :])[None, :, :, None]  # [1, H, W, 1]
    return window_partition(label, window_size)[..., 0]


def join_kinds(
    map_size: Size,
    window_size: Size,
    shift: Size,
    part: Callable[[slice, slice, Size], Tensor],
) -> Tensor:
    """Join what is made of the parts of a rolled map whose windows share a mask.

    There are up to four kinds of windows: those inside, in the last column, in the last row and in
    the corner.

    Args:
        map_size: rows and columns of the map; multiples of the window's sides.
        window_size: rows and columns of a window.
        shift: roll of each axis.
        part: from the rows and the columns of a part, and the shift that is to be seen in its
            windows as if each were alone, to [B, rows, columns, C].

    Returns:
        [B, H, W, C].
    """
    across = _kinds(map_size[1], window_size[1], shift[1])
    rows = []
    for y, shift_y in _kinds(map_size[0], window_size[0], shift[0]):
        row = [part(y, x, (shift_y, shift_x)) for x, shift_x in across]
        rows.append(row[0] if len(row) == 1 else torch.cat(row, dim=2))
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def _kinds(length: int, window: int, shift: int) -> list[tuple[slice, int]]:
    """Where the parts of an axis whose windows share a mask lie, and the shift to be seen there."""
    cut = length - window
    if not shift or not cut:
        return [(slice(0, length), shift)]
    return [(slice(0, cut), 0), (slice(cut, length), shift)]


def reflect_index(length: int, padded: int, device: torch.device) -> Tensor:
    """Where each pixel of an axis grown at its end comes from, reflecting as often as needed.

    The edge pixel is not repeated: 0 1 2 grows to 0 1 2 1 0 1 ...; one pixel is repeated.
    """
    period = torch.sym_max(2 * (length - 1), 1)
    at = counted_round(padded, period, device)
    return torch.minimum(at, period - at)


def round_up(length: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `length`."""
    # not -(-length // unit): in an exported graph whole numbers are divided towards zero
    return (length + unit - 1) // unit * unit


def surely_equal(one: int, other: int) -> bool:
    """Whether two sizes are the same; while `torch.export` leaves them open, whether they must be.

    A comparison would otherwise hold the export to sizes for which it comes out as for one.
    """
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(one == other)


def pad_to_multiple(x: Tensor, multiple: tuple[int, int]) -> Tensor:
    """Grow [B, H, W, C] at the bottom and right by reflection to multiples of two numbers."""
    for dim, unit in ((1, multiple[0]), (2, multiple[1])):
        length = x.shape[dim]
        padded = round_up(length, unit)
        if not surely_equal(padded, length):
            x = x.index_select(dim, reflect_index(length, padded, x.device))
    return x


def block_offset(window: int, block: int, device: torch.device) -> Tensor:
    """[window, window / block]: where the offsets from a pixel to a block's pixels begin."""
    pixel = torch.arange(window, device=device)
    start = torch.arange(0, window, block, device=device)
    return pixel[:, None] - start[None, :] + window - block
