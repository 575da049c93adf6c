"""SwinIR as its authors run it: one stock PyTorch call after another, for comparison only.

The same arithmetic as the published code does in the same order of copies: the map is a list of
tokens, rolled, cut into windows, and put back, and at any size but the training size every block
builds its mask anew on the CPU. Written from the paper and from measurements of the published
network; it takes its parameters from a network of ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs._skeleton import SwinSkeleton
from restore.archs._swin import SwinBlock
from restore.archs.swinir import SwinIR
from restore.kernels.windows import relative_position_index, window_partition, window_reverse


class EagerSwinIR(nn.Module):
    """[B, C_in, H, W] in 0..1 to [B, C_in, H * s, W * s], by the parameters of `net`."""

    def __init__(self, net: SwinIR) -> None:
        super().__init__()
        self.net = net
        window = (net.window_size, net.window_size)
        self.index = relative_position_index(window).flatten()

    def forward(self, x: Tensor) -> Tensor:
        """The whole network."""
        net, w = self.net, self.net.window_size
        h0, w0 = x.shape[2:]
        x = F.pad(x, (0, -w0 % w, 0, -h0 % w), mode="reflect")
        mean = net.mean.to(x)
        x = (x - mean) * net.img_range
        first = net.conv_first(x)
        size = first.shape[2:]
        tokens = net.patch_embed(first.flatten(2).transpose(1, 2))
        for group in net.layers:
            residual = tokens
            for block in group.residual_group.blocks:
                tokens = self._block(block, tokens, size)
            tokens = _convolved(group.conv, tokens, size) + residual
        body = net.norm(tokens).transpose(1, 2).view(first.shape)
        f = net.conv_after_body(body) + first
        y = SwinSkeleton._tail(net, x, f) / net.img_range + mean
        return y[:, :, : h0 * net.upscale, : w0 * net.upscale]

    def _block(self, block: SwinBlock, tokens: Tensor, size: torch.Size) -> Tensor:
        b, n, c = tokens.shape
        h, w = size
        shift, window = block.attn.shift[0], block.attn.window_size
        x = block.norm1(tokens).view(b, h, w, c)
        mask = _mask(h, w, window[0], shift).to(x.device)
        if shift:
            x = torch.roll(x, (-shift, -shift), dims=(1, 2))
        y = self._attention(block, window_partition(x, window), mask)
        y = window_reverse(y, window, h, w)
        if shift:
            y = torch.roll(y, (shift, shift), dims=(1, 2))
        tokens = tokens + y.view(b, n, c)
        return tokens + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(tokens))))

    def _attention(self, block: SwinBlock, x: Tensor, mask: Tensor) -> Tensor:
        attn = block.attn
        windows, n, c = x.shape
        qkv = attn.qkv(x).reshape(windows, n, 3, attn.num_heads, c // attn.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        logits = (q * (c // attn.num_heads) ** -0.5) @ k.transpose(-2, -1)
        bias = attn.relative_position_bias_table[self.index].view(n, n, -1)
        logits = logits + bias.permute(2, 0, 1).contiguous()[None]
        logits = logits.view(-1, mask.shape[0], attn.num_heads, n, n) + mask[None, :, None]
        y = logits.view(-1, attn.num_heads, n, n).softmax(-1) @ v
        return attn.proj(y.transpose(1, 2).reshape(windows, n, c))


def _convolved(conv: nn.Module, tokens: Tensor, size: torch.Size) -> Tensor:
    b, _, c = tokens.shape
    return conv(tokens.transpose(1, 2).view(b, c, *size)).flatten(2).transpose(1, 2)


def _mask(height: int, width: int, window: int, shift: int) -> Tensor:
    labels = torch.zeros((1, height, width, 1))
    rows = cols = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    label = 0
    for row in rows:
        for col in cols:
            labels[:, row, col] = label
            label += 1
    labels = window_partition(labels, (window, window)).squeeze(-1)
    difference = labels[:, None, :] - labels[:, :, None]
    return difference.masked_fill(difference != 0, -100.0)
