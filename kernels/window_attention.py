"""Attention inside square, rectangular or stripe windows, straight from the qkv projection."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.kernels import dispatch, reference
from restore.kernels.attention_geometry import of_windows, too_wide
from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.native_library import with_native
from restore.kernels.precision import lowered
from restore.kernels.windows import Size, check_pixels

OP = "window_attention"


def window_attention(
    qkv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    shift: Size = (0, 0),
    *,
    num_heads: int,
    scale: float | None = None,
    windows: Tensor | None = None,
    spare: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Attend inside the windows of a map that is rolled by `shift` and rolled back after.

        y_a = sum_b softmax_b(scale * q_a . k_b + table[offset(a, b)] + mask(a, b)) v_b

    over the pixels a, b of one window and head. offset(a, b) is the row that
    `windows.relative_position_index` gives; mask is -100 where the roll joined pixels of opposite
    ends of the map in one window, else 0. A side of the window may be the whole side of the map
    (stripes), and each axis has its own shift.

    Args:
        qkv: [B, H, W, 3C], or [B, H, W, 3, C] with any strides (so that branches can pass halves
            of the channels), q before k before v, heads before their channels. Floating point. Not
            changed but with `spare`.
        bias_table: [(2 wh - 1)(2 ww - 1), num_heads], in logits.
        window_size: wh rows and ww columns; they divide H and W.
        shift: rows and columns by which the map is rolled up and left; each in 0 <= s < window.
        num_heads: divides C.
        scale: factor of the products; (C / num_heads) ** -0.5 if None.
        windows: [K] int64, on qkv's device: the windows to compute, numbered as
            `windows.window_partition` does those of all images, none of them twice (which is not
            checked, as the numbers may be on a GPU); all if None.
        spare: whether the queries are needed no more, so that their memory may hold the result.
        backend: see `dispatch.choose`.

    Returns:
        [B, H, W, C], dtype and device of qkv; 0 in windows that are not computed.

    Raises:
        ValueError: a shape does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Liu et al., "Swin Transformer", arXiv:2103.14030; rectangles: Chen et al., "Cross
    Aggregation Transformer", arXiv:2211.13654.
    """
    if qkv.dim() == 4 and qkv.shape[-1] % 3 == 0:
        qkv = qkv.unflatten(-1, (3, -1))
    _check(qkv, bias_table, window_size, shift, num_heads, windows)
    head_dim = qkv.shape[-1] // num_heads
    if scale is None:
        scale = head_dim**-0.5
    path = choose(
        OP, backend, with_native(refusals(qkv, head_dim), qkv, bias_table, has_backward=True)
    )
    if path == "triton":
        from restore.kernels.attention_ops import attend

        geometry = of_windows(window_size, shift)
        return attend(lowered(qkv), geometry, num_heads, scale, table=bias_table, chosen=windows)
    given = (qkv, bias_table, window_size, shift, num_heads, scale)
    if path == "native":
        from restore.kernels import native_ops

        return native_ops.window_attention(*given, windows, spare)
    if path == "torch":
        from restore.kernels import window_attention_torch as fast

        return fast.forward(*given) if windows is None else fast.forward_chosen(*given, windows)
    return reference.window_attention(*given, windows)


def refusals(x: Tensor, head_dim: int = 1) -> dict[Path, str | None]:
    """Why each path beside the definition cannot run attention in windows of x, or None."""
    return {
        "triton": dispatch.triton_refuses(x) or too_wide(head_dim),
        "torch": dispatch.torch_refuses(x) or dispatch.open_sizes(x),
    }


def _check(
    qkv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    shift: Size,
    num_heads: int,
    windows: Tensor | None,
) -> None:
    if qkv.dim() != 5 or qkv.shape[3] != 3:
        raise ValueError(f"{OP}: qkv is {tuple(qkv.shape)}; expected [B, H, W, 3C]")
    _, h, w, _, c = qkv.shape
    check_windows(OP, (h, w), window_size, shift)
    rows = (2 * window_size[0] - 1) * (2 * window_size[1] - 1)
    check_heads(OP, c, bias_table, rows, window_size, num_heads)
    if windows is not None and (windows.dim() != 1 or windows.dtype != torch.int64):
        raise ValueError(
            f"{OP}: windows is {tuple(windows.shape)} of {windows.dtype}; expected [K] int64"
        )


def check_windows(op: str, map_size: Size, window_size: Size, shift: Size) -> None:
    """Refuse windows that do not divide a map with pixels, and shifts of a window or more.

    Raises:
        ValueError: it is so.
    """
    check_pixels(op, map_size)
    (h, w), (wh, ww) = map_size, window_size
    if min(wh, ww) < 1 or h % wh or w % ww:
        raise ValueError(f"{op}: window_size {window_size} does not divide the map {map_size}")
    if not (0 <= shift[0] < wh and 0 <= shift[1] < ww):
        raise ValueError(f"{op}: shift {shift} is not in 0 <= shift < {window_size}")


def check_heads(
    op: str, channels: int, bias_table: Tensor, rows: int, window_size: Size, num_heads: int
) -> None:
    """Refuse heads that do not divide the channels, and a table of another size (ValueError)."""
    if num_heads < 1 or channels % num_heads:
        raise ValueError(f"{op}: num_heads={num_heads} does not divide C={channels}")
    if tuple(bias_table.shape) != (rows, num_heads):
        raise ValueError(
            f"{op}: bias_table is {tuple(bias_table.shape)}; window_size {window_size} with "
            f"{num_heads} heads needs {(rows, num_heads)}"
        )
