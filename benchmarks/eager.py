"""Whole networks as their authors compute them, from networks of ours; for comparison only.

The arithmetic and the order of copies are those of the published code: `eager_blocks` has the
blocks, this the network around them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.eager_blocks import Stored, convolved, lewin_block, to_map, to_tokens
from benchmarks.eager_groups import run_group
from restore.archs._skeleton import SwinSkeleton
from restore.archs._strips import run_whole
from restore.archs._swin import PaddedSkeleton
from restore.archs._tails import tail_layers
from restore.archs.atd import ATD
from restore.archs.uformer import BOTTLENECK, STAGES, STEPS, Uformer
from restore.kernels.windows import Size

Run = Callable[[nn.Module, Tensor, Size, Stored], Tensor]


class Eager(nn.Module):
    """The function of `net`, which it takes its parameters from.

    Args:
        net: SwinIR, HAT, DRCT, SRFormer, CAT, HiT-SR without n-grams, ATD or Uformer, of ours.
        keep_masks: see `Stored`.

    Attributes:
        group: what runs a group, or a block of Uformer; may be replaced by a compiled function.

    Raises:
        LookupError: another network.
    """

    def __init__(self, net: nn.Module, keep_masks: bool = True) -> None:
        super().__init__()
        if not isinstance(net, (SwinSkeleton, Uformer)):
            raise LookupError(f"no eager form of {type(net).__name__}")
        self.net = net
        self.stored = Stored(keep_masks)
        self.mean = getattr(net, "mean", torch.zeros(1))
        self.group: Run = lewin_block if isinstance(net, Uformer) else run_group

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] in 0..1 to [B, C, H * s, W * s]."""
        return self._u_shaped(x) if isinstance(self.net, Uformer) else self._straight(x)

    def _straight(self, x: Tensor) -> Tensor:
        net = self.net
        h, w = x.shape[2:]
        x = _padded(net, x)
        if (self.mean.device, self.mean.dtype) != (x.device, x.dtype):
            self.mean = net.mean.to(x)  # once, as the authors do
        x = (x - self.mean) * net.img_range
        first = net.conv_first(x)
        size = (first.shape[2], first.shape[3])
        tokens = net.pos_drop(net._enter(to_tokens(first)))
        for group in net.layers:
            tokens = self.group(group, tokens, size, self.stored)
        body = net.conv_after_body(to_map(net.norm(tokens), size)) + first
        y = run_whole(tail_layers(net, x), body) / net.img_range + self.mean
        return y[:, :, : h * net.upscale, : w * net.upscale]

    def _u_shaped(self, x: Tensor) -> Tensor:
        net = self.net
        h, w = x.shape[2:]
        y = net.pos_drop(to_tokens(net.input_proj(x)))
        skips: list[Tensor] = []
        for k in STEPS:
            y = self._stage(k, y, (h >> k, w >> k))
            skips.append(y)
            y = convolved(getattr(net, f"dowsample_{k}"), y, (h >> k, w >> k))
        y = self._stage(BOTTLENECK, y, (h >> BOTTLENECK, w >> BOTTLENECK))
        for k in STEPS:
            below = BOTTLENECK - k
            y = convolved(getattr(net, f"upsample_{k}"), y, (h >> below, w >> below))
            y = torch.cat([y, skips.pop()], dim=-1)
            y = self._stage(BOTTLENECK + 1 + k, y, (h >> below - 1, w >> below - 1))
        y = net.output_proj(to_map(y, (h, w)))
        return x + y if net.adds_input else y

    def _stage(self, stage: int, x: Tensor, size: Size) -> Tensor:
        for block in getattr(self.net, STAGES[stage]).blocks:
            x = self.group(block, x, size, self.stored)
        return x


def _padded(net: nn.Module, x: Tensor) -> Tensor:
    """Grown at the bottom and right to whole windows, by the networks that do so themselves."""
    if not isinstance(net, (PaddedSkeleton, ATD)):
        return x
    bottom, right = (-side % net.window_size for side in x.shape[2:])
    if isinstance(net, PaddedSkeleton):
        return F.pad(x, (0, right, 0, bottom), mode="reflect")
    for dim, more in ((2, bottom), (3, right)):
        side = x.shape[dim]
        x = torch.cat([x, x.flip(dim)], dim).narrow(dim, 0, side + more)
    return x
