"""Parts that more than one architecture is made of.

Shape letters: B images, H rows, W columns, C channels of the body, s scale. The body works on
[B, H, W, C]: linear layers and norms act on the last axis, convolutions see it as channels-last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.checkpoint import checkpoint

from restore.archs._overwriting import may_overwrite
from restore.archs._plain import plain, plain_sequence
from restore.kernels.dispatch import is_transformed, takes_forward_derivatives
from restore.kernels.position_table import position_table
from restore.kernels.precision import full_precision
from restore.kernels.windows import Size, relative_offsets
from restore.kernels.windows import pad_to_multiple as pad_to_multiple
from restore.kernels.windows import reflect_index as reflect_index
from restore.kernels.windows import round_up as round_up

POSITION_EPS = 1e-5  # of the norms in a `PositionMlp`
RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, in 0..1


class PatchEmbed(nn.Module):
    """The norm before the first group; the name is the official one of its parameters."""

    def __init__(self, dim: int, patch_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if patch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return x if self.norm is None else self.norm(x)


class PositionMlp(nn.Module):
    """The parameters of `position_table`: a bias for each head and offset between pixels."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.pos_proj = nn.Linear(2, width)
        self.pos1 = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))
        self.pos2 = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))
        self.pos3 = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, num_heads))

    def forward(self, window_size: Size) -> Tensor:
        """[(2 wh - 1)(2 ww - 1), num_heads]: biases of a window, in the order of its offsets."""
        tensors = position_tensors(self)
        if tensors is not None:
            return position_table(tensors, window_size, eps=POSITION_EPS)
        like = next(self.parameters())
        with full_precision(like):
            offsets = relative_offsets(window_size, like.device).to(like.dtype)
            y: Tensor = self.pos3(self.pos2(self.pos1(self.pos_proj(offsets))))
        return y


def position_tensors(pos: nn.Module) -> list[Tensor] | None:
    """All that the result of a `PositionMlp` follows from, as `position_table` takes it; None if
    it, or a layer in it, has to be called."""
    if not plain(PositionMlp, pos):
        return None
    layers: list[Any] = [pos.pos_proj]
    for part in (pos.pos1, pos.pos2, pos.pos3):
        if not plain_sequence(part, nn.LayerNorm, nn.ReLU, nn.Linear):
            return None
        norm, _, linear = cast(Any, part)
        if norm.eps != POSITION_EPS:
            return None
        layers += norm, linear
    tensors = [tensor for module in layers for tensor in (module.weight, module.bias)]
    if not plain(nn.Linear, pos.pos_proj) or any(tensor is None for tensor in tensors):
        return None
    return cast("list[Tensor]", tensors)


def body_conv(dim: int, resi_connection: str) -> nn.Module:
    """What ends a group: for "1conv" one 3x3 convolution, for "3conv" a bottleneck of 3x3, 1x1 and
    3x3, for "identity" nothing."""
    if resi_connection == "identity":
        return nn.Identity()
    if resi_connection == "1conv":
        return nn.Conv2d(dim, dim, 3, 1, 1)
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, 1, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim, 3, 1, 1),
    )


def on_map(conv: nn.Module, x: Tensor) -> Tensor:
    """Run a convolution on [B, H, W, C]; the permutations only rename axes, nothing is copied."""
    y: Tensor = conv(x.permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1)


def as_tokens(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of maps [B, H, W, C] as one of [B, C, H, W]; nothing is copied for it either."""

    def of_maps(*maps: Tensor) -> Tensor:
        return function(*(x.permute(0, 2, 3, 1) for x in maps)).permute(0, 3, 1, 2)

    return of_maps


def pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """Run a 1x1 convolution on [B, H, W, C] as the linear layer it is: stock CPU kernels for it
    are several times slower."""
    if not plain(nn.Conv2d, conv) or conv.kernel_size != (1, 1) or conv.groups != 1:
        return on_map(conv, x)
    weight, bias = cast(Tensor, conv.weight), cast("Tensor | None", conv.bias)
    return F.linear(x, weight.flatten(1), bias)


class Remembered:
    """The results of a computation on parameters, kept until one of these changes.

    Values are compared, not versions, so that an edit by any way is seen: trainers write to
    `.data`, which no version counts. Nothing is kept where a gradient may be wanted, while tracing,
    or off the CPU, which would have to wait for the device to compare.

    Args:
        in_exports: whether an exported graph holds the result; else it holds the computation.
    """

    sizes = 4  # kept at most: tiles at a picture's edges differ from those inside

    def __init__(self, *, in_exports: bool = True) -> None:
        self._in_exports = in_exports
        self._kept: tuple[list[Tensor], dict[Size, Tensor]] | None = None
        self._constants: dict[Size, Tensor] = {}

    def make_constant(self) -> None:
        """While tracing, give what is kept now: for a copy whose parameters stay as they are."""
        if self._in_exports and self._kept is not None:
            self._constants = self._kept[1]

    def get(
        self, parameters: Iterable[Tensor] | None, size: Size, compute: Callable[[], Tensor]
    ) -> Tensor:
        """What `compute` gives for the present values of `parameters`, which depends on `size`.

        Parameters that are None leave it open what it follows from: nothing is kept. Neither is
        it where values stand for something else: under a transform, a trace or a dispatch mode.
        """
        if parameters is None or (not torch.compiler.is_compiling() and _stand_for_others()):
            return compute()
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            whole = all(isinstance(side, int) for side in size)  # and not left open by an export
            constant = self._constants.get(size) if self._constants and whole else None
            return compute() if constant is None else constant
        now, kept = [], self._kept
        for p in parameters:
            if p.device.type != "cpu":
                return compute()
            now.append(p)
        if kept is None or not _same(kept[0], now):
            kept = [p.detach().clone() for p in now], {}
        values, results = kept
        result = results.get(size)
        if result is None:
            result = compute()
            newest = dict(list(results.items())[1 - self.sizes :])
            self._kept = values, {**newest, size: result}
        return result


def _stand_for_others() -> bool:
    """Whether tensors may be a batch's, have a tangent, be traced or have no values at all."""
    return (
        is_transformed()
        or takes_forward_derivatives()
        or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        or is_in_torch_dispatch_mode()
    )


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True))


def run_block(block: nn.Module, x: Tensor, recompute: bool) -> Tensor:
    """What a block makes of x; if told so, its activations are computed again for gradients."""
    if recompute:
        return cast(Tensor, checkpoint(block, x, use_reentrant=False))
    return cast(Tensor, block(x))


class Blocks(nn.Module):
    """Blocks one after the other, each taking and giving [B, H, W, C]."""

    def __init__(self, blocks: Iterable[nn.Module], use_checkpoint: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; with use_checkpoint, training recomputes activations."""
        before: nn.Module | None = None
        for block in self.blocks:
            if may_overwrite(before, block):
                x = cast(Any, block).overwrite(x)
            else:
                x = run_block(block, x, recompute=self.use_checkpoint and self.training)
            before = block
        return x


class ResidualGroup(nn.Module):
    """Blocks, a convolution, and the group's input added: RSTB in SwinIR."""

    def __init__(self, blocks: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        self.residual_group = blocks
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        return on_map(self.conv, self.residual_group(x)) + x


def drop_path_rates(rate: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Rates rising linearly from 0 to `rate` over all blocks, group by group."""
    last = max(sum(depths) - 1, 1)
    flat = iter([rate * i / last for i in range(sum(depths))])
    return [[next(flat) for _ in range(depth)] for depth in depths]


def init_linear(module: nn.Module) -> None:
    """Initialise linear layers and norms as the Swin family does; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


class IgnoresDerived(nn.Module):
    """A module whose official counterpart also stores tensors that follow from its configuration.

    Loading a state dict drops those entries, whatever they hold: they are computed, never trusted.
    """

    derived: tuple[str, ...] = ()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.derived:
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)
