"""ATD: window attention, attention to a dictionary of learned tokens, and among tokens alike.

Paper:    Zhang et al., "Transcending the Limit of Local Window: Advanced Super-Resolution
          Transformer with Adaptive Token Dictionary", arXiv:2401.08209.
Weights:  github.com/LabShuHangGU/Adaptive-Token-Dictionary (Apache-2.0); parameter names are
          theirs.
Written:  anew, from the paper and from the names and shapes in those files.
Differs:  tokens of one category keep their order, where the original's sort leaves it open and so
          varies with the machine; with its sort made stable, outputs and gradients agree to
          rounding. Mirrors an image as often as needed, so that none is too small.

Shape letters: B images, H rows, W columns, n = H W tokens, C channels of the body, M entries of the
dictionary, s scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from restore.archs._blocks import IgnoresDerived, ResidualGroup, body_conv, round_up
from restore.archs._branches import add_branch, hidden_features, project, project_onto
from restore.archs._conv_mlp import ConvMlp
from restore.archs._entry import check_picture
from restore.archs._plain import plain
from restore.archs._skeleton import (
    SkeletonConfig,
    SwinSkeleton,
    has_skeleton,
    read_depths,
    read_mlp_ratio,
    read_outer,
    skeleton_evidence,
)
from restore.archs._spec import (
    ArchSpec,
    Doubt,
    InputRule,
    Reading,
    StateDict,
    StoredBuffer,
    shape_of,
)
from restore.archs._swin import bias_table, read_window, stored_index
from restore.kernels.atd_reference import mixed_in
from restore.kernels.category_attention import category_attention
from restore.kernels.dictionary_attention import dictionary_attention, refine_dictionary
from restore.kernels.precision import full_precision
from restore.kernels.window_attention import window_attention
from restore.kernels.windows import symmetric_index

RECOMPUTED_GROUPS = 4  # the first ones, by the official use_checkpoint


@dataclass(frozen=True)
class ATDConfig(SkeletonConfig):
    """The official constructor's arguments; defaults are those of the light x2 model."""

    embed_dim: int = 48
    num_heads: tuple[int, ...] = (4, 4, 4, 4)  # of each group, in windows and categories
    mlp_ratio: float = 1.0
    window_size: int = 16
    category_size: int = 128  # the largest number of tokens of a group of alike ones
    num_tokens: int = 64  # M
    reducted_dim: int = 8  # channels of the comparison with the dictionary
    convffn_kernel_size: int = 7
    qkv_bias: bool = True

    # the official code fails for ""
    upsamplers: ClassVar[tuple[str, ...]] = ("pixelshuffle", "pixelshuffledirect", "nearest+conv")

    def __post_init__(self) -> None:
        """Refuse values that name no network (ValueError)."""
        super().__post_init__()
        if any(heads < 1 or self.embed_dim % heads for heads in self.num_heads):
            raise ValueError(f"num_heads {self.num_heads} do not divide embed_dim {self.embed_dim}")
        for name in ("window_size", "category_size", "num_tokens", "reducted_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.convffn_kernel_size < 1 or self.convffn_kernel_size % 2 == 0:
            raise ValueError(
                f"convffn_kernel_size is {self.convffn_kernel_size}; expected an odd number"
            )


class WindowBranch(nn.Module):
    """Attention in windows of a given qkv map: [B, H, W, 3C] to [B, H, W, C]."""

    def __init__(self, dim: int, num_heads: int, window_size: int, shift: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = (window_size, window_size)
        self.shift = (shift, shift)
        self.relative_position_bias_table = bias_table((2 * window_size - 1) ** 2, num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, qkv: Tensor) -> Tensor:
        """[B, H, W, 3C] to [B, H, W, C]; H and W are multiples of the window."""
        return self.run(None, qkv)

    def run(self, x: Tensor | None, qkv: Tensor) -> Tensor:
        """The same, plus x where it is given."""
        y = window_attention(
            qkv,
            self.relative_position_bias_table,
            self.window_size,
            self.shift,
            num_heads=self.num_heads,
        )
        return project_onto(x, self.proj, y)


class DictionaryBranch(nn.Module):
    """Attention from tokens to the dictionary, by the cosine of a few channels."""

    def __init__(self, config: ATDConfig) -> None:
        super().__init__()
        dim, bias = config.embed_dim, config.qkv_bias
        self.scale = nn.Parameter(torch.full((config.num_tokens,), 0.5))
        self.wq = nn.Linear(dim, config.reducted_dim, bias=bias)
        self.wk = nn.Linear(dim, config.reducted_dim, bias=bias)
        self.wv = nn.Linear(dim, dim, bias=bias)

    def forward(
        self, x: Tensor, dictionary: Tensor, norm: nn.LayerNorm | None = None
    ) -> tuple[Tensor, Tensor]:
        """[B, n, C], which goes through the norm first, and [B, M, C] to [B, n, C] and the
        similarity [B, n, M]."""
        v = self.wv(dictionary)
        # what is most similar decides the groups of tokens, so no half precision here
        with full_precision(x):
            dtype = self.scale.dtype
            q, k = project(x.to(dtype), norm, self.wq), self.wk(dictionary.to(dtype))
        return dictionary_attention(q, k, v, self.scale)


class CategoryBranch(nn.Module):
    """Attention among tokens of like categories: [B, n, 3C] to [B, n, C]."""

    def __init__(self, config: ATDConfig, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.category_size = config.category_size
        self.logit_scale = nn.Parameter(torch.full((1, 1), math.log(10)))
        self.proj = nn.Linear(config.embed_dim, config.embed_dim, bias=config.qkv_bias)

    def forward(self, qkv: Tensor, category: Tensor) -> Tensor:
        """[B, n, 3C] and whole numbers [B, n] to [B, n, C]."""
        return self.run(None, qkv, category)

    def run(self, x: Tensor | None, qkv: Tensor, category: Tensor) -> Tensor:
        """The same, plus x where it is given."""
        y = category_attention(
            qkv,
            category,
            self.logit_scale,
            category_size=self.category_size,
            num_heads=self.num_heads,
        )
        return project_onto(x, self.proj, y)


class Layer(nn.Module):
    """Three attentions side by side, an MLP, and the dictionary made to resemble the image."""

    def __init__(self, config: ATDConfig, num_heads: int, shift: int, refines: bool) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.wqkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        self.attn_win = WindowBranch(dim, num_heads, config.window_size, shift)
        self.attn_atd = DictionaryBranch(config)
        self.attn_aca = CategoryBranch(config, num_heads)
        hidden = hidden_features(dim, config.mlp_ratio)
        self.convffn = ConvMlp(dim, hidden, kernel_size=config.convffn_kernel_size)
        self.refines = refines
        if refines:
            self.norm3 = nn.InstanceNorm1d(config.num_tokens, affine=True)
            self.sigma = nn.Parameter(torch.zeros(config.num_tokens, 1))

    def forward(self, x: Tensor, dictionary: Tensor) -> tuple[Tensor, Tensor]:
        """[B, H, W, C] and [B, M, C] to the same."""
        normal, norm = x, self.norm1 if self._reads_norm() else None
        if norm is None:
            normal = self.norm1(x)  # once, as who watches it expects
        qkv, tokens = project(normal, norm, self.wqkv), normal.flatten(1, 2)
        given = (tokens, dictionary) if norm is None else (tokens, dictionary, norm)
        from_entries, similarity = self.attn_atd(*given)
        alike = qkv.flatten(1, 2), similarity.argmax(-1)
        if plain(CategoryBranch, self.attn_aca):
            others = self.attn_aca.run(from_entries, *alike)
        else:
            others = from_entries + self.attn_aca(*alike)
        in_windows = plain(WindowBranch, self.attn_win)
        y = self.attn_win.run(x, qkv) if in_windows else x + self.attn_win(qkv)
        x = add_branch(y + others.unflatten(1, x.shape[1:3]), self.norm2, self.convffn)
        if self.refines:
            dictionary = self._refine(dictionary, x.flatten(1, 2), similarity)
        return x, dictionary

    def _reads_norm(self) -> bool:
        """Whether what follows the first norm may read it instead of calling it."""
        return plain(nn.LayerNorm, self.norm1) and plain(DictionaryBranch, self.attn_atd)

    def _refine(self, dictionary: Tensor, x: Tensor, similarity: Tensor) -> Tensor:
        """[B, M, C], tokens [B, n, C] and [B, n, M] to [B, M, C]."""
        norm = self.norm3
        if plain(nn.InstanceNorm1d, norm):
            given = norm.weight, norm.bias, self.sigma, norm.eps
            return refine_dictionary(dictionary, x, similarity, *given)
        with full_precision(x):
            logits = norm(similarity.transpose(1, 2))
        return mixed_in(dictionary, x, logits, self.sigma)


class Layers(nn.Module):
    """Layers one after the other, with a dictionary that begins as the learned one."""

    def __init__(self, config: ATDConfig, group: int) -> None:
        super().__init__()
        self.td = nn.Parameter(torch.randn(config.num_tokens, config.embed_dim))
        depth = config.depths[group]
        self.layers = nn.ModuleList(
            Layer(
                config,
                config.num_heads[group],
                shift=config.window_size // 2 if j % 2 else 0,
                refines=j < depth - 1,
            )
            for j in range(depth)
        )
        self.recompute = config.use_checkpoint and group < RECOMPUTED_GROUPS

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]."""
        dictionary = self.td.expand(x.shape[0], -1, -1)
        for layer in self.layers:
            if self.recompute and self.training:
                x, dictionary = checkpoint(layer, x, dictionary, use_reentrant=False)
            else:
                x, dictionary = layer(x, dictionary)
        return x


class ATD(SwinSkeleton, IgnoresDerived):
    """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped; any H and W.

    Mirrors at the right and bottom, the edge pixel repeated, to multiples of the window. Tokens are
    grouped over the whole input, so every pixel of it has an influence on every other.
    """

    derived = ("relative_position_index_SA",)

    def __init__(self, config: ATDConfig) -> None:
        groups = [
            ResidualGroup(
                Layers(config, group), body_conv(config.embed_dim, config.resi_connection)
            )
            for group in range(len(config.depths))
        ]
        super().__init__(config, groups, patch_norm=config.patch_norm)
        self.window_size = config.window_size

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] in 0..1 to [B, in_chans, H * s, W * s], not clamped."""
        check_picture(self, x, self.conv_first)
        h, w = x.shape[2:]
        for dim, side in ((2, h), (3, w)):
            padded = round_up(side, self.window_size)
            x = x.index_select(dim, symmetric_index(side, padded, x.device))
        return super().forward(x)[:, :, : h * self.upscale, : w * self.upscale]


LAYER = "layers.{}.residual_group.layers.{}."  # where a layer's parameters lie
FIRST = LAYER.format(0, 0)
TABLE = "attn_win.relative_position_bias_table"
DEPTHWISE = "convffn.dwconv.depthwise_conv.0.weight"
CATEGORY_SIZES = {48: 128, 210: 256}  # of the official models, by embed_dim


def claims(state: StateDict) -> bool:
    """Whether there are dictionaries, and layers that compare tokens with them."""
    marks = {"layers.0.residual_group.td", FIRST + "attn_atd.scale", FIRST + "attn_aca.logit_scale"}
    return has_skeleton(state) and marks <= state.keys()


def read_config(state: StateDict) -> Reading:
    """Every argument that keys and shapes tell; the official value for the rest."""
    outer = read_outer(state)
    embed_dim = outer["embed_dim"]
    depths = read_depths(state, r"layers\.(\d+)\.residual_group\.layers\.(\d+)\.")
    category_size = CATEGORY_SIZES.get(embed_dim, 256)
    config = ATDConfig(
        **outer,
        depths=depths,
        num_heads=tuple(
            shape_of(state, LAYER.format(group, 0) + TABLE, "[offsets, heads]")[1]
            for group in range(len(depths))
        ),
        mlp_ratio=read_mlp_ratio(state, FIRST + "convffn.fc1.weight"),
        patch_norm="patch_embed.norm.weight" in state,
        window_size=read_window(state, FIRST + TABLE),
        category_size=category_size,
        num_tokens=shape_of(state, FIRST + "attn_atd.scale", "[num_tokens]")[0],
        reducted_dim=shape_of(state, FIRST + "attn_atd.wq.weight", "[reducted_dim, embed_dim]")[0],
        convffn_kernel_size=shape_of(state, FIRST + DEPTHWISE, "[hidden, 1, kernel, kernel]")[3],
        qkv_bias=FIRST + "wqkv.bias" in state,
    )
    official = "as in the official files" if embed_dim in CATEGORY_SIZES else "a guess"
    evidence = (
        f"{TABLE} {tuple(state[FIRST + TABLE].shape)}: window_size {config.window_size}, num_heads "
        f"{config.num_heads[0]}",
        f"td and attn_atd.wq.weight: num_tokens {config.num_tokens}, reducted_dim "
        f"{config.reducted_dim}",
        *skeleton_evidence(config, mlp="convffn"),
        f"embed_dim {embed_dim}: category_size {category_size}, {official}",
    )
    if embed_dim in CATEGORY_SIZES:
        return Reading(config, evidence)
    text = (
        "category_size leaves no trace in these weights: taken as "
        f"{category_size}, as in the official model of embed_dim 210; if it was trained otherwise, "
        "give it"
    )
    return Reading(config, evidence, (Doubt(("category_size",), text),))


def derived(config: ATDConfig) -> dict[str, StoredBuffer]:
    """The buffer that official files hold beside the parameters, by key."""
    return {"relative_position_index_SA": stored_index(config.window_size)}


def variant(config: ATDConfig) -> str:
    """What a person calls this configuration."""
    sizes = {48: "-light", 210: ""}
    return f"ATD{sizes.get(config.embed_dim, f'-dim{config.embed_dim}')} x{config.upscale}"


def input_rule(config: ATDConfig) -> InputRule:
    """No multiple: the net pads inside, in its own way.

    No halo makes tiles agree with the whole picture, because tokens are grouped over all that the
    net sees. Two windows of context keep the borders of tiles out of what the windows see.
    """
    w = config.window_size
    return InputRule(multiple=1, minimum=1, align=w, halo=2 * w)


SPEC = ArchSpec(
    name="ATD",
    family="ATD",
    paper="arXiv:2401.08209",
    licence="Apache-2.0",
    config=ATDConfig,
    build=ATD,
    claims=claims,
    read_config=read_config,
    variant=variant,
    scale=lambda config: config.upscale,
    in_channels=lambda config: config.in_chans,
    input_rule=input_rule,
    derived=derived,
    decides="which tokens form a group",
)
