"""`permuted_attention` from stock fused ops: PyTorch's scaled dot product attention.

All windows of a kind (see `windows.join_kinds`) share one mask, so each kind is one call with one
[heads, N, N / 4] bias, and no mask per window is ever made.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from restore.kernels.reference import cells_of, mask_values, permuted_windows, rows_of
from restore.kernels.windows import (
    Size,
    aligned_position_index,
    cell_shift_mask,
    join_kinds,
    rolled,
    rolled_back,
    window_reverse,
)


def forward(
    q: Tensor,
    kv: Tensor,
    bias_table: Tensor,
    window_size: Size,
    shift: Size,
    *,
    num_heads: int,
    scale: float,
) -> Tensor:
    """See `permuted_attention.permuted_attention`; the arguments are checked."""
    _, h, w, _ = q.shape
    index = aligned_position_index(window_size, bias_table.device)
    bias = rows_of(bias_table, index).to(q.dtype).contiguous()  # [heads, N, N / 4]
    q = rolled(q, shift)
    cells = cells_of(rolled(kv, shift))

    def part(rows: slice, cols: slice, edge: Size) -> Tensor:
        kind = bias
        if any(edge):
            mask = cell_shift_mask(*window_size, window_size, edge, q.device)  # [1, N, N / 4]
            kind = bias + mask_values(mask, bias.dtype)
        of_cells = cells[:, _halved(rows), _halved(cols)]
        ours, k, v = permuted_windows(q[:, rows, cols], of_cells, window_size, num_heads)
        y = scaled_dot_product_attention(ours, k, v, attn_mask=kind[None], scale=scale)
        size = (rows.stop - rows.start, cols.stop - cols.start)
        return window_reverse(y.transpose(1, 2).flatten(2), window_size, *size)

    return rolled_back(join_kinds((h, w), window_size, shift, part), shift)


def _halved(part: slice) -> slice:
    return slice(part.start // 2, part.stop // 2)
