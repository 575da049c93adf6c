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
from torch.utils.checkpoint import checkpoint

from restore.archs._overwriting import may_overwrite
from restore.kernels.linear_residual import linear_residual
from restore.kernels.mlp import MlpLayers, mlp
from restore.kernels.norm_linear import norm_linear
from restore.kernels.position_table import position_table
from restore.kernels.windows import Size, counted_round

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, in 0..1


def hidden_features(dim: int, mlp_ratio: float) -> int:
    """Width of an MLP; the small term undoes the rounding of a ratio read back from shapes."""
    return int(dim * mlp_ratio + 1e-6)


class DropPath(nn.Module):
    """In training, drop a residual branch for whole images with a probability, and rescale.

    Source: Huang et al., "Deep Networks with Stochastic Depth", arXiv:1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] to [B, ...]."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (mask / keep)  # one pass over x


def drops(*modules: nn.Module) -> bool:
    """Whether any of these, dropouts or `DropPath`s, changes what goes through it now."""
    return any(
        module.training and (module.rate if isinstance(module, DropPath) else module.p) != 0.0
        for module in modules
    )


class FeedForward(nn.Module):
    """What tokens go through after attention, with the norm and the residual around it."""

    def forward(
        self, x: Tensor, norm: nn.LayerNorm | None = None, residual: bool = False
    ) -> Tensor:
        """[B, H, W, C] to [B, H, W, C].

        Args:
            x: the map.
            norm: what x goes through first.
            residual: whether x is added to the result.
        """
        raise NotImplementedError

    def add_to(self, x: Tensor, norm: nn.LayerNorm, drop_path: DropPath | None = None) -> Tensor:
        """x + drop_path(self(norm(x)))."""
        if drop_path is not None and drops(drop_path):
            y: Tensor = x + drop_path(self(x, norm))
            return y
        return cast(Tensor, self(x, norm, residual=True))


class Mlp(FeedForward):
    """Two linear layers with an exact (erf) GELU between: [..., C] to [..., C]."""

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(
        self, x: Tensor, norm: nn.LayerNorm | None = None, residual: bool = False
    ) -> Tensor:
        """[..., C] to [..., C]; see `FeedForward`."""
        if drops(self.drop):
            hidden = project(x, norm, self.fc1, gelu=True)
            return self._narrow(hidden, x if residual else None)
        eps = 0.0 if norm is None else norm.eps
        return mlp(x, *self.layers(norm), eps, residual=residual)

    def layers(self, norm: nn.LayerNorm | None) -> MlpLayers:
        """Its tensors and those of the norm before it, as ops take them."""
        fc1, fc2 = self.fc1, self.fc2
        weight, bias, _ = norm_weights(norm)
        return MlpLayers(weight, bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias)

    def _narrow(self, hidden: Tensor, x: Tensor | None) -> Tensor:
        """[..., hidden] to [..., C], plus x where it is given."""
        if not drops(self.drop):
            return project_onto(x, self.fc2, hidden)
        y: Tensor = self.drop(self.fc2(self.drop(hidden)))
        return y if x is None else x + y


def norm_weights(norm: nn.LayerNorm | None) -> tuple[Tensor | None, Tensor | None, float]:
    """Weight, bias and eps of a norm that may be left out, as ops take them."""
    return (None, None, 0.0) if norm is None else (norm.weight, norm.bias, norm.eps)


def project(
    x: Tensor, norm: nn.LayerNorm | None, linear: nn.Linear, *, gelu: bool = False
) -> Tensor:
    """linear(norm(x)), or the GELU of it."""
    weight, bias, eps = norm_weights(norm)
    return norm_linear(x, weight, bias, linear.weight, linear.bias, eps, gelu=gelu)


def project_onto(x: Tensor | None, linear: nn.Linear, y: Tensor) -> Tensor:
    """x + linear(y); without x the latter alone."""
    if x is None:
        return cast(Tensor, linear(y))
    return linear_residual(y, linear.weight, linear.bias, x)


def project_dropping(
    x: Tensor, linear: nn.Linear, y: Tensor, drop: nn.Dropout, drop_path: DropPath
) -> Tensor:
    """x + drop_path(drop(linear(y)))."""
    if not drops(drop, drop_path):
        return project_onto(x, linear, y)
    return x + cast(Tensor, drop_path(drop(linear(y))))


def joined(first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of one layer that gives what both give, side by side.

    Joined weights instead of joined results, which are as large as maps.
    """
    bias = None if first.bias is None else torch.cat([first.bias, second.bias])
    return torch.cat([first.weight, second.weight]), bias


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
        layers = [(part[0], part[2]) for part in (self.pos1, self.pos2, self.pos3)]
        pairs = [self.pos_proj, *(module for layer in layers for module in layer)]
        parameters = [cast(Tensor, p) for module in pairs for p in (module.weight, module.bias)]
        return position_table(parameters, window_size, eps=cast(float, layers[0][0].eps))


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
        self, parameters: Iterable[Tensor], size: Size, compute: Callable[[], Tensor]
    ) -> Tensor:
        """What `compute` gives for the present values of `parameters`, which depends on `size`."""
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


def reflect_index(length: int, padded: int, device: torch.device) -> Tensor:
    """Where each pixel of an axis grown at its end comes from, reflecting as often as needed.

    The edge pixel is not repeated: 0 1 2 grows to 0 1 2 1 0 1 ...; one pixel is repeated.
    """
    period = torch.sym_max(2 * (length - 1), 1)
    at = counted_round(padded, period, device)
    return torch.minimum(at, period - at)


def round_up(length: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `length`."""
    # not -(-length // unit): in an exported graph whole numbers are divided towards zero
    return (length + unit - 1) // unit * unit


def surely_equal(one: int, other: int) -> bool:
    """Whether two sizes are the same; while `torch.export` leaves them open, whether they must be.

    A comparison would otherwise hold the export to sizes for which it comes out as for one.
    """
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(one == other)


def pad_to_multiple(x: Tensor, multiple: tuple[int, int]) -> Tensor:
    """Grow [B, H, W, C] at the bottom and right by reflection to multiples of two numbers."""
    for dim, unit in ((1, multiple[0]), (2, multiple[1])):
        length = x.shape[dim]
        padded = round_up(length, unit)
        if not surely_equal(padded, length):
            x = x.index_select(dim, reflect_index(length, padded, x.device))
    return x


class IgnoresDerived(nn.Module):
    """A module whose official counterpart also stores tensors that follow from its configuration.

    Loading a state dict drops those entries, whatever they hold: they are computed, never trusted.
    """

    derived: tuple[str, ...] = ()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.derived:
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)
