"""Which code computes each op on a device, and why nothing faster does."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from restore.kernels import (
    category_attention,
    channel_correlation,
    conv_mlp,
    correlation_branch,
    depthwise_gelu,
    dictionary_attention,
    gated_projection,
    linear_residual,
    mlp,
    norm_linear,
    norm_residual,
    overlapping_attention,
    permuted_attention,
    position_table,
    self_correlation,
    spatial_correlation,
    window_attention,
    window_attention_branch,
    window_block,
)
from restore.kernels.dispatch import Path, choose
from restore.kernels.native_library import native_refuses, with_native
from restore.kernels.window_attention_branch_reference import BranchWeights

DTYPES = (torch.float32, torch.bfloat16)


def code_paths(device: torch.device) -> dict[str, str]:
    """For every op of `kernels`, the path that "auto" takes, and why the faster ones are refused.

    Where they differ, that of float32 and that of bfloat16, which is float32 under autocast.
    """
    each = []
    for dtype in DTYPES:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            each.append({op: _path(op, why) for op, why in _refusals(device).items()})
    return {op: _joined([paths[op] for paths in each]) for op in each[0]}


def _joined(texts: list[str]) -> str:
    if len(set(texts)) == 1:
        return texts[0]
    names = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
    return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))


def _path(op: str, refusals: Mapping[Path, str | None]) -> str:
    chosen = choose(op, "auto", refusals)
    order = [*refusals, "reference"]
    faster = [path for path in order[: order.index(chosen)] if path in refusals]
    refused = [f"not {path}, {why}" for path, why in refusals.items() if path in faster and why]
    return f"{chosen} ({'; '.join(refused)})" if refused else chosen


def _refusals(device: torch.device) -> dict[str, Mapping[Path, str | None]]:
    """What each op says of small inputs whose shapes no path refuses."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device=device)

    x, weight = empty(1, 8, 8, 12), empty(12, 12)
    qkv, tokens, similarity = empty(1, 8, 8, 3, 12), empty(1, 64, 36), empty(1, 64, 16)
    branch = BranchWeights(empty(36, 12), None, empty(225, 2), weight, None)
    layers = mlp.MlpLayers(None, None, weight, None, weight, None)
    hidden = conv_mlp.ConvMlpLayers(layers, empty(12, 1, 3, 3), None)
    linear = norm_linear.refusals_of_auto(norm_linear.refusals(x, weight), x)
    residual = norm_linear.refusals_of_auto(linear_residual.refusals(x, weight, x), x)
    return {
        window_attention.OP: with_native(window_attention.refusals(qkv), qkv),
        overlapping_attention.OP: with_native(window_attention.refusals(qkv), qkv),
        permuted_attention.OP: with_native(window_attention.refusals(x), x),
        category_attention.OP: with_native(category_attention.refusals(tokens), tokens),
        window_attention_branch.OP: with_native(
            window_attention_branch.refusals(x, branch, (8, 8)), x
        ),
        window_block.OP: {"native": native_refuses(x)},
        norm_linear.OP: with_native(linear, x),
        linear_residual.OP: with_native(residual, x),
        mlp.OP: with_native(linear, x),
        depthwise_gelu.OP: depthwise_gelu.refusals(x, empty(12, 1, 3, 3)),
        conv_mlp.OP: conv_mlp.refusals(x, hidden, None),
        gated_projection.OP: gated_projection.refusals(x),
        correlation_branch.OP: correlation_branch.refusals(x),
        norm_residual.OP: norm_residual.refusals(x),
        self_correlation.OP: self_correlation.refusals(x),
        spatial_correlation.OP: spatial_correlation.refusals(x),
        position_table.OP: position_table.refusals([weight], (8, 8)),
        channel_correlation.OP: channel_correlation.refusals(x),
        dictionary_attention.OP: with_native(
            dictionary_attention.refusals(tokens, empty(1, 16, 36)), tokens
        ),
        dictionary_attention.REFINE_OP: with_native(
            dictionary_attention.refine_refusals(similarity), similarity
        ),
    }
