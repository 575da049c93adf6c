"""How the kernels of attention are cut into programs where nothing was measured.

Chosen by what the compiler says for sm_80 and sm_90 at the shapes of all official networks: few
registers spilled or none, and as many programs side by side as registers then allow.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch

from restore.kernels.tuning import Launch

Kernel = Literal["forward", "queries", "keys", "bias"]

ONE_TILE = 64  # keys up to which a tile always holds those of a window
TWO_TILES = 128  # and which it holds forward if they fill it, without float32


@functools.cache
def default_launch(
    kernel: Kernel, n: int, m: int, d: int, dtype: torch.dtype, ordered: bool
) -> Launch:
    """A configuration that runs well on any GPU.

    Args:
        kernel: of the forward pass, or for the gradients of queries, of keys and of the bias.
        n: queries of a window.
        m: keys of a window.
        d: channels of a head.
        dtype: of the maps.
        ordered: whether tokens are read in a given order, whose addresses take registers.
    """
    exact = dtype == torch.float32  # three products of tensor cores for one, or one of tf32
    rows, keys = _side(n), _side(m)
    if kernel != "forward":
        if exact:
            return _exact_backward(rows, keys, d, ordered)
        return _backward(kernel, rows, keys if keys <= ONE_TILE else _divided(m), d, ordered)
    if exact:
        most = 16 if d > 32 else ONE_TILE if keys <= ONE_TILE else 32
        return Launch(min(rows, 64), min(keys, most), warps=8, stages=1)
    if keys <= ONE_TILE:
        return Launch(min(rows, 64), keys)
    if m == keys <= TWO_TILES:  # the masks of fewer would not fit
        return Launch(min(rows, 128), keys, warps=8)
    if d > 64:
        return Launch(min(rows, 64), _divided(m), stages=1)
    return Launch(min(rows, 128), _divided(m), warps=8, stages=1)


def _backward(kernel: Kernel, rows: int, keys: int, d: int, ordered: bool) -> Launch:
    wide = d > 64
    warps = 8 if wide or kernel == "bias" else 4
    return Launch(min(rows, 64), min(keys, 32 if wide or ordered else 64), warps=warps, stages=1)


def _exact_backward(rows: int, keys: int, d: int, ordered: bool) -> Launch:
    # More, and the compiler gives up: it takes 32 registers and spills thousands of bytes. The
    # same for all kernels, so that each finds dp rounded as in the delta that is taken from it.
    fewer = d > 32 or ordered
    warps = 8 if d > 64 or ordered else 4
    return Launch(min(rows, 16 if fewer else 32), min(keys, 32), warps=warps, stages=1)


def _side(length: int) -> int:
    """The smallest side of a tile that holds so many."""
    return max(16, 1 << (length - 1).bit_length())


def _divided(m: int) -> int:
    """Keys of a tile of which there are several: fewer where much of the last one were idle."""
    return 32 if -m % 64 > m // 4 else 64
