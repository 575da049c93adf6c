"""Windows of a feature map: cutting, joining, offsets and shift regions. Pure index arithmetic.

Shape letters: B images, H rows, W columns, C channels, wh x ww a window, N = wh * ww its pixels,
n windows in the map.
"""

from __future__ import annotations

import torch
from torch import Tensor

Size = tuple[int, int]


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


def window_reverse(windows: Tensor, window_size: Size, height: int, width: int) -> Tensor:
    """Put the windows of `window_partition` back: [B * n, N, C] to [B, height, width, C]."""
    wh, ww = window_size
    x = windows.view(-1, height // wh, width // ww, wh, ww, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])


def relative_position_index(window_size: Size, device: torch.device | None = None) -> Tensor:
    """Row of the bias table for every pair of pixels of a window.

        index[a, b] = (y_a - y_b + wh - 1) * (2 * ww - 1) + (x_a - x_b + ww - 1)

    Returns:
        [N, N] int64, query a by key b.

    Source: Liu et al., "Swin Transformer", arXiv:2103.14030, section 3.2.
    """
    wh, ww = window_size
    y = torch.arange(wh, device=device).repeat_interleave(ww)  # [N]
    x = torch.arange(ww, device=device).repeat(wh)  # [N]
    dy = y[:, None] - y[None, :] + wh - 1
    dx = x[:, None] - x[None, :] + ww - 1
    return dy * (2 * ww - 1) + dx


def relative_offsets(window_size: Size, device: torch.device | None = None) -> Tensor:
    """Rows and columns from key to query for every row of a window's bias table.

    Returns:
        [(2 wh - 1)(2 ww - 1), 2] int64, from (1 - wh, 1 - ww) on, the column changing first.
    """
    (wh, ww) = window_size
    dy = torch.arange(1 - wh, wh, device=device).repeat_interleave(2 * ww - 1)
    dx = torch.arange(1 - ww, ww, device=device).repeat(2 * wh - 1)
    return torch.stack([dy, dx], dim=-1)


def shift_labels(
    length: int, window: int, shift: int, device: torch.device | None = None
) -> Tensor:
    """Label the pixels of one axis of a rolled map by the piece of the image they come from.

    0 before the last window, 1 in its part that was its own before rolling, 2 in its part that
    the roll brought from the other end. Without a shift all labels are 0.

    Returns:
        [length] int64.
    """
    labels = torch.zeros(length, dtype=torch.int64, device=device)
    if shift:
        labels[length - window : length - shift] = 1
        labels[length - shift :] = 2
    return labels


def shift_mask(
    height: int,
    width: int,
    window_size: Size,
    shift: Size,
    device: torch.device | None = None,
) -> Tensor:
    """Which pairs of pixels of each window of the rolled map lie in different pieces of the image.

    Returns:
        [n, N, N] bool, True where query and key must not see each other.
    """
    y = shift_labels(height, window_size[0], shift[0], device)
    x = shift_labels(width, window_size[1], shift[1], device)
    label = (3 * y[:, None] + x[None, :])[None, :, :, None]  # [1, H, W, 1]
    label = window_partition(label, window_size)[..., 0]  # [n, N]
    return label[:, :, None] != label[:, None, :]
