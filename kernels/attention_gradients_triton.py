"""Launches the kernels of attention's backward pass, and adds up what they leave in parts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
import triton
from torch import Tensor

from restore.kernels.attention_backward_triton import (
    bias_kernel,
    halo_kernel,
    keys_kernel,
    queries_kernel,
    table_kernel,
)
from restore.kernels.attention_triton import Call, spread
from restore.kernels.tuning import Launch

PARTIAL_BYTES = 2**26  # for the sums of a table's gradient over parts of the windows


def backward(
    call: Call, dy: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of q, kv, table and log_scale; None of what the call does not have.

    Args:
        call: as of `attention_triton.forward`.
        dy: [B, H, W, C], any strides.
        lse: what `forward` saved.
    """
    run = Backward(call, dy.contiguous(), lse)
    if call.windows:
        with torch.cuda.device_of(dy):
            run.all()
    return run.dq, run.dkv, run.dtable, run.dlog_scale


class Backward:
    """One backward pass.

    Attributes:
        dq: like the call's q, with the gradients of keys and values where that holds them.
        dkv: like the call's kv, or None; so are dtable and dlog_scale.
    """

    def __init__(self, call: Call, dy: Tensor, lse: Tensor) -> None:
        self.call = call
        self.dy = dy
        new = dy.new_zeros if call.chosen is not None or not call.windows else dy.new_empty
        self.dq = new(call.q.shape)
        self.dkv = None if call.kv is None else new(call.kv.shape)
        self.dtable, self.dlog_scale = (
            # without gaps, however the table itself lies
            None if x is None else x.new_zeros(x.shape)
            for x in (call.table, call.log_scale)
        )
        self._saved: dict[str, Any] = {"lse_ptr": lse, "dy_ptr": dy, **call.choices()}
        self._shifts: Tensor | None = None  # [windows, heads, N, 2] float32

    def all(self) -> None:
        """Launch every kernel that the call needs."""
        call = self.call
        launch = call.launch("keys")
        alone = call.alone(launch)
        whole = alone and call.g.n <= launch.block_m
        if not alone:
            self._shifts = self.dy.new_empty(*call.saved_shape, 2, dtype=torch.float32)
            self._queries(call.launch("queries"))
        dbias = self._keys(launch, whole=whole)
        if call.table is not None:
            self._table(self._bias(alone) if dbias is None else dbias)

    def _queries(self, launch: Launch) -> None:
        programs = self.call.heads * triton.cdiv(self.call.g.n, launch.block_m) * self.call.windows
        dscale = self._new_dscale(programs)
        queries_kernel[(programs,)](
            **self.call.inputs(reuses_bias=False),
            **self._saved,
            **self._launched(launch),
            log_scale_ptr=self.call.log_scale,
            order_ptr=self.call.order,
            shifts_ptr=self._shifts,
            dq_ptr=self.dq,
            dscale_ptr=dscale,
            to=self._layout(),
        )
        self._add_dscale(dscale)

    def _keys(self, launch: Launch, *, whole: bool) -> Tensor | None:
        """With the sums of ds over windows if a tile is `whole`: [parts, heads, N, M] float32."""
        call, g = self.call, self.call.g
        alone = call.alone(launch)
        programs = call.heads * triton.cdiv(g.m, launch.block_n)
        parts = self._parts(programs, launch) if whole else call.windows
        dbias = self._new_dbias(parts) if whole and call.table is not None else None
        dscale = self._new_dscale(programs * parts) if alone else None
        filled = -call.shape[2] % g.ww if g.sorted else 0  # tokens that fill up the last group
        fill = self.dy.new_empty(call.shape[0], filled, 2 * call.shape[3])
        shared = self.dy.new_empty(call.windows if g.halo else 0, g.m, 2 * call.shape[3])
        into = self.dq if self.dkv is None else self.dkv
        keys_kernel[(programs * parts,)](
            **call.inputs(reuses_bias=whole),
            **self._saved,
            **self._launched(launch),
            log_scale_ptr=call.log_scale,
            order_ptr=call.order,
            shifts_ptr=self._shifts,
            dq_ptr=self.dq,
            dkv_ptr=shared if g.halo else into,
            fill_ptr=fill,
            dbias_ptr=dbias,
            dscale_ptr=dscale,
            windows=call.windows,
            stride=parts,
            to=self._layout(),
        )
        self._add_dscale(dscale)
        if g.halo:
            self._add_shared(shared)
        if filled:
            self._add_fill(fill)
        return dbias

    def _bias(self, alone: bool) -> Tensor:
        """Sums of ds over parts of the windows: [parts, heads, N, M] float32."""
        call, g = self.call, self.call.g
        launch = call.launch("bias")
        if alone:  # nothing was kept of which tiles of some keys could be made
            launch = dataclasses.replace(launch, block_n=call.launch("keys").block_n)
        tiles = triton.cdiv(g.n, launch.block_m) * triton.cdiv(g.m, launch.block_n)
        parts = self._parts(call.heads * tiles, launch)
        dbias = self._new_dbias(parts)
        bias_kernel[(call.heads * tiles * parts,)](
            **call.inputs(reuses_bias=True),
            **self._saved,
            **self._launched(launch),
            shifts_ptr=self._shifts,
            dbias_ptr=dbias,
            windows=call.windows,
            stride=parts,
        )
        return dbias

    def _parts(self, programs: int, launch: Launch) -> int:
        """Into how many parts to cut the windows that one program adds up."""
        g = self.call.g
        most = max(1, PARTIAL_BYTES // (4 * self.call.heads * g.n * g.m))
        return min(most, spread(self.call.windows, programs, launch, self.dy))

    def _layout(self) -> Any:
        """Of the gradients, which lie closely packed."""
        c = self.call.shape[3]
        if self.dkv is not None:
            return self.call.layout(c, 2 * c, 0, 0, c)
        if self.call.g.halo:
            return self.call.layout(3 * c, 2 * c, 0, 0, c)
        return self.call.layout(3 * c, 3 * c, 0, c, 2 * c)

    def _launched(self, launch: Launch) -> dict[str, Any]:
        return {
            "BLOCK_M": launch.block_m,
            "BLOCK_N": launch.block_n,
            "num_warps": launch.warps,
            "num_stages": launch.stages,
        }

    def _new_dbias(self, parts: int) -> Tensor:
        g = self.call.g
        return self.dy.new_empty(parts, self.call.heads, g.n, g.m, dtype=torch.float32)

    def _new_dscale(self, programs: int) -> Tensor | None:
        if self.dlog_scale is None:
            return None
        return self.dy.new_empty(programs, dtype=torch.float32)

    def _add_dscale(self, dscale: Tensor | None) -> None:
        log_scale = self.call.log_scale
        if dscale is not None and log_scale is not None and self.dlog_scale is not None:
            # beyond the largest factor the logarithm changes nothing
            self.dlog_scale += (dscale.sum() * (log_scale.float() <= math.log(100))).to(log_scale)

    def _add_shared(self, shared: Tensor) -> None:
        b, h, w, c = self.call.shape
        rows, wide = 32 // shared.element_size(), triton.next_power_of_2(2 * c)
        halo_kernel[(triton.cdiv(w, rows), h, b)](
            shared, self.dq, h, w, self.call.g, FIRST=c, CHANNELS=2 * c, BLOCK=rows, WIDE=wide
        )

    def _add_fill(self, fill: Tensor) -> None:
        b, _, n, c = self.call.shape
        order = self.call.order
        if order is not None:
            tokens = order[:, n - fill.shape[1] :].flip(1)  # no token of an image twice
            at = (tokens + n * torch.arange(b, device=tokens.device)[:, None]).flatten()
            into = self.dq.view(b * n, 3 * c)[:, c:]
            into[at] = (into[at].float() + fill.view(-1, 2 * c).float()).to(into.dtype)

    def _table(self, dbias: Tensor) -> None:
        g, dtable = self.call.g, self.dtable
        if dtable is None:
            return
        sums = dbias[0] if dbias.shape[0] == 1 else dbias.sum(0)
        block = 32
        size, open_g = self.call.shape[1:3], self.call.open_g
        table_kernel[(triton.cdiv(g.rows, block), self.call.heads)](
            sums, dtable, self.call.heads, *size, open_g, BLOCK_R=block, BLOCK_A=64
        )
