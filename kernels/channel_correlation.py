"""Correlation of channels inside windows: attention across channels, without a softmax."""

from __future__ import annotations

from torch import Tensor

from restore.kernels import reference
from restore.kernels.windows import Size

OP = "channel_correlation"


def channel_correlation(qv: Tensor, window_size: Size) -> Tensor:
    """Mix the channels of each window by their correlations.

        S = q^T v / N                   [C / 2, C / 2] for the N pixels of a window
        y_a = S v_a

    One product of its window's values with a small matrix, so the definition is also the fast path.

    Args:
        qv: [B, H, W, C]: queries in the first half of the channels, values in the second.
        window_size: wh rows and ww columns; they divide H and W.

    Returns:
        [B, H, W, C / 2], dtype and device of qv.

    Raises:
        ValueError: a shape does not fit; the message has both sides.

    Source: Zhang et al., "HiT-SR", arXiv:2407.05878, section 3.3 (channel self-correlation).
    """
    if qv.dim() != 4 or qv.shape[-1] % 2:
        raise ValueError(f"{OP}: qv is {tuple(qv.shape)}; expected [B, H, W, C] with an even C")
    h, w = qv.shape[1:3]
    if min(window_size) < 1 or h % window_size[0] or w % window_size[1]:
        raise ValueError(f"{OP}: window_size {window_size} does not divide the map {(h, w)}")
    return reference.channel_correlation(qv, window_size)
