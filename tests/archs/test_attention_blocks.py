"""First halves of transformer blocks against stock layers, whatever training drops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restore.archs import _swin
from restore.archs._blocks import Blocks, on_map
from restore.archs._cross_aggregation import CrossAggregationBlock
from restore.archs._swin import SwinBlock
from restore.archs.cat import CATConfig
from restore.archs.hat import HAB, HATConfig
from restore.archs.srformer import PermutedBlock, SRFormerConfig
from restore.archs.uformer import LeWinBlock, UformerConfig
from restore.kernels import window_block
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.window_attention import window_attention
from restore.kernels.window_attention_branch import window_attention_branch
from restore.kernels.window_attention_branch_reference import with_vectors

RATES = {"nothing": (0.0, 0.0), "values": (0.5, 0.0), "paths": (0.0, 0.5), "both": (0.5, 0.5)}
Case = tuple[nn.Module, Callable[[Tensor], Tensor]]  # a block, and its first half by stock layers


def attended(attn: Any, qkv: Tensor) -> Tensor:
    table, heads = attn.relative_position_bias_table, attn.num_heads
    return window_attention(qkv, table, attn.window_size, attn.shift, num_heads=heads)


def plus(block: Any, x: Tensor, y: Tensor) -> Tensor:
    return x + block.drop_path(block.attn.proj_drop(block.attn.proj(y)))


def swin(drop: float, path: float) -> Case:
    block = SwinBlock(12, 2, 4, 2, 8, drop=drop, drop_path=path)
    attn = block.attn
    return block, lambda x: plus(block, x, attended(attn, attn.qkv(block.norm1(x))))


def hat(drop: float, path: float) -> Case:
    config = HATConfig(embed_dim=12, window_size=4, squeeze_factor=3, drop_rate=drop)
    block = HAB(config, 2, 2, path)
    attn = block.attn

    def stock(x: Tensor) -> Tensor:
        n = block.norm1(x)
        y = plus(block, x, attended(attn, attn.qkv(n)))
        return y + block.conv_scale * block.conv_block(n)

    return block, stock


def uformer(drop: float, path: float) -> Case:
    config = UformerConfig(img_size=64, embed_dim=4, win_size=4, drop_rate=drop)
    block = LeWinBlock(config, 8, shifted=True, drop_path=path)
    attn, vectors = block.attn, block.modulator
    assert vectors is not None

    def stock(x: Tensor) -> Tensor:
        n = with_vectors(block.norm1(x), vectors.weight, attn.window_size, attn.shift)
        both: Any = attn.qkv
        return plus(block, x, attended(attn, torch.cat([both.to_q(n), both.to_kv(n)], dim=-1)))

    return block, stock


def srformer(drop: float, path: float) -> Case:
    config = SRFormerConfig(embed_dim=12, window_size=4, num_heads=(2,) * 4, drop_rate=drop)
    block = PermutedBlock(config, 2, 2, path)
    attn = block.attn

    def stock(x: Tensor) -> Tensor:
        n, table = block.norm1(x), attn.relative_position_bias_table
        sides = attn.window_size, attn.shift
        y = permuted_attention(attn.q(n), attn.kv(n), table, *sides, num_heads=2)
        return plus(block, x, y)

    return block, stock


BLOCKS = [swin, hat, uformer, srformer]


def first_half(block: Any, x: Tensor) -> Tensor:
    """What goes into the second norm."""
    seen: list[Tensor] = []
    handle = block.norm2.register_forward_pre_hook(lambda _, xs: seen.append(xs[0]))
    block(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("dropped", RATES)
@pytest.mark.parametrize("make", BLOCKS)
def test_first_halves(make: Callable[[float, float], Case], dropped: str) -> None:
    block, stock = make(*RATES[dropped])
    block.double().train()
    x = torch.randn(4, 8, 8, block.get_parameter("norm1.weight").numel()).double()
    torch.manual_seed(0)
    wanted = stock(x)
    torch.manual_seed(0)
    torch.testing.assert_close(first_half(block, x), wanted, rtol=1e-12, atol=1e-12)
    block.eval()
    torch.testing.assert_close(first_half(block, x), stock(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [swin, hat, uformer])
def test_they_are_one_op_where_nothing_is_dropped(
    make: Callable[[float, float], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    residuals: list[bool] = []

    def noted(*args: Any, residual: Tensor | None = None, **kwargs: Any) -> Tensor:
        residuals.append(residual is not None)
        return window_attention_branch(*args, residual=residual, **kwargs)

    for module in (_swin, window_block):
        monkeypatch.setattr(module, "window_attention_branch", noted)
    block, _ = make(0.0, 0.5)
    x = torch.randn(1, 8, 8, block.get_parameter("norm1.weight").numel())
    block.eval()(x)
    block.train()(x)
    assert residuals == [True, False]


def test_cross_aggregation_drops_what_it_projects() -> None:
    config = CATConfig(embed_dim=32, num_heads=(2,) * 6, drop_rate=0.5)
    block = CrossAggregationBlock(config, config.stages[0], shifted=True, drop_path=0.5).double()
    x = torch.randn(4, 8, 8, 32).double()

    def stock() -> Tensor:
        qkv = block.qkv(block.norm1(x)).unflatten(-1, (3, -1))
        halves = zip(block.attns, qkv.chunk(2, dim=-1), strict=True)
        y = torch.cat([attend(half, block.scale) for attend, half in halves], dim=-1)
        y = y + on_map(block.get_v, qkv[..., 2, :])
        return x + block.drop_path(block.proj_drop(block.proj(y)))

    for mode in (True, False):
        block.train(mode)
        torch.manual_seed(0)
        wanted = stock()
        torch.manual_seed(0)
        torch.testing.assert_close(first_half(block, x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kept", ["nothing", "output", "input", "gradients"])
def test_maps_are_overwritten_only_where_nobody_has_them(kept: str) -> None:
    blocks = Blocks([SwinBlock(12, 2, 4, shift, 8) for shift in (0, 2, 0)], use_checkpoint=False)
    blocks.eval()
    x, seen = torch.randn(2, 8, 8, 12), []
    with torch.no_grad():
        wanted = x
        for block in blocks.blocks:
            wanted = block(wanted)
        before = x.clone()
        if kept == "output":
            blocks.blocks[0].register_forward_hook(lambda _, __, y: seen.append((y, y.clone())))
        if kept == "input":
            blocks.blocks[1].register_forward_pre_hook(
                lambda _, xs: seen.append((xs[0], xs[0].clone()))
            )
    with torch.set_grad_enabled(kept == "gradients"):
        y = blocks(x)
    torch.testing.assert_close(y, wanted)
    assert torch.equal(x, before)
    assert len(seen) == (kept in ("output", "input"))
    assert all(torch.equal(now, then) for now, then in seen)


@pytest.mark.parametrize("how", ["instance", "subclass"])
def test_a_replaced_forward_is_called_and_may_keep_maps(how: str) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def halved(y: Tensor) -> Tensor:
        seen.append((y / 2, y / 2))
        return seen[-1][0]

    class Halved(SwinBlock):
        def forward(self, x: Tensor) -> Tensor:
            return halved(super().forward(x))

    def block(shift: int) -> SwinBlock:
        if how == "subclass":
            return Halved(12, 2, 4, shift, 8)
        made = SwinBlock(12, 2, 4, shift, 8)
        plain = made.forward
        made.forward = lambda x: halved(plain(x))  # type: ignore[method-assign]
        return made

    with torch.no_grad():
        Blocks([block(0), block(2), block(0)], use_checkpoint=False).eval()(
            torch.randn(2, 8, 8, 12)
        )
    assert len(seen) == 3
    assert all(torch.equal(now, then) for now, then in seen)
