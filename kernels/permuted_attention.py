"""Window attention whose keys and values are 2 x 2 cells of pixels."""

from __future__ import annotations

from torch import Tensor

from restore.kernels import reference
from restore.kernels.attention_geometry import of_permuted_windows
from restore.kernels.dispatch import Backend, choose
from restore.kernels.native_library import with_native
from restore.kernels.precision import lowered
from restore.kernels.window_attention import check_heads, check_windows, refusals
from restore.kernels.windows import Size

OP = "permuted_attention"


def permuted_attention(
    q: Tensor,
    kv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    shift: Size,
    *,
    num_heads: int,
    scale: float | None = None,
    spare: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Attend from pixels to cells, inside windows of a map that is rolled and rolled back after.

        k_(i, j), v_(i, j) = the keys and values of pixels (2i, 2j), (2i, 2j + 1), (2i + 1, 2j) and
                             (2i + 1, 2j + 1), their channels one after the other
        y_a = sum_b softmax_b(scale * q_a . k_b + table[offset(a, b)] + mask(a, b)) v_b

    over the pixels a and the cells b of one window, head by head; a head may take channels of two
    pixels of a cell. offset(a, b) is the row that `windows.aligned_position_index` gives; mask is
    -100 where the roll joined pixel and cell from opposite ends of the map in one window (see
    `windows.cell_shift_mask`), else 0.

    Args:
        q: [B, H, W, C], heads before their channels. Floating point, any strides. Not changed but
            with `spare`.
        kv: [B, H, W, C / 2], of each pixel C / 4 channels of a key before as many of a value.
        bias_table: [(wh - 1)(ww - 1), num_heads], in logits.
        window_size: wh rows and ww columns, both even; they divide H and W.
        shift: rows and columns by which the map is rolled up and left; each in 0 <= s < window.
        num_heads: divides C.
        scale: factor of the products; (C / num_heads) ** -0.5 if None.
        spare: whether q is needed no more, so that its memory may hold the result.
        backend: see `dispatch.choose`.

    Returns:
        [B, H, W, C], dtype and device of q.

    Raises:
        ValueError: a shape does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Zhou et al., "SRFormer: Permuted Self-Attention for Single Image Super-Resolution",
    arXiv:2303.09735, section 3.2.
    """
    _check(q, kv, bias_table, window_size, shift, num_heads)
    if scale is None:
        scale = (q.shape[-1] // num_heads) ** -0.5
    refused = refusals(q, q.shape[-1] // num_heads)
    path = choose(OP, backend, with_native(refused, q, kv, bias_table))
    if path == "triton":
        from restore.kernels.attention_ops import attend

        geometry = of_permuted_windows(window_size, shift)
        return attend(lowered(q), geometry, num_heads, scale, kv=lowered(kv), table=bias_table)
    if path == "native":
        from restore.kernels import native_ops

        return native_ops.permuted_attention(
            q, kv, bias_table, window_size, shift, num_heads, scale, spare
        )
    if path == "torch":
        from restore.kernels import permuted_attention_torch as fast

        return fast.forward(q, kv, bias_table, window_size, shift, num_heads=num_heads, scale=scale)
    return reference.permuted_attention(q, kv, bias_table, window_size, shift, num_heads, scale)


def _check(
    q: Tensor, kv: Tensor, bias_table: Tensor, window_size: Size, shift: Size, num_heads: int
) -> None:
    if q.dim() != 4 or q.shape[3] % 4:
        raise ValueError(f"{OP}: q is {tuple(q.shape)}; expected [B, H, W, C], C a multiple of 4")
    _, h, w, c = q.shape
    if tuple(kv.shape) != (*q.shape[:3], c // 2):
        raise ValueError(
            f"{OP}: kv is {tuple(kv.shape)}; q {tuple(q.shape)} needs {(*q.shape[:3], c // 2)}"
        )
    wh, ww = window_size
    if min(wh, ww) < 2 or wh % 2 or ww % 2:
        raise ValueError(f"{OP}: window_size is {window_size}; expected two even numbers")
    check_windows(OP, (h, w), window_size, shift)
    check_heads(OP, c, bias_table, (wh - 1) * (ww - 1), window_size, num_heads)
