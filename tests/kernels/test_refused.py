"""Maps without images, without pixels, and of other dtypes than weights, in every op and path."""

from __future__ import annotations

from collections.abc import Callable

import interpreted
import pytest
import torch
from torch import Tensor

from restore.kernels.category_attention import category_attention
from restore.kernels.channel_correlation import channel_correlation
from restore.kernels.correlation_branch import CorrelationLayers, correlation_branch
from restore.kernels.depthwise_gelu import depthwise_gelu
from restore.kernels.dictionary_attention import dictionary_attention, refine_dictionary
from restore.kernels.dispatch import Backend, BackendUnavailable
from restore.kernels.gated_projection import GateLayers, gated_projection
from restore.kernels.linear_residual import linear_residual
from restore.kernels.mlp import mlp
from restore.kernels.norm_linear import norm_linear
from restore.kernels.overlapping_attention import overlapping_attention
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.self_correlation import self_correlation
from restore.kernels.spatial_correlation import spatial_correlation
from restore.kernels.window_attention import window_attention
from restore.kernels.window_attention_branch import BranchWeights, window_attention_branch

pytestmark = [interpreted.MARKS[0], pytest.mark.usefixtures("quick_interpreter")]

Shape = tuple[int, int, int]
C = 16


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, device=interpreted.DEVICE, dtype=dtype)


def branch(s: Shape, backend: Backend, dtype: torch.dtype = torch.float32) -> Tensor:
    weights = BranchWeights(drawn(3 * C, C), None, drawn(49, 2), drawn(C, C), None)
    x = drawn(*s, C, dtype=dtype)
    return window_attention_branch(x, weights, (4, 4), (2, 2), num_heads=2, backend=backend)


def category(s: Shape, backend: Backend) -> Tensor:
    x = drawn(s[0], s[1] * s[2], 3 * C)
    groups = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
    return category_attention(x, groups, drawn(1), category_size=8, num_heads=2, backend=backend)


def attend(s: Shape, backend: Backend) -> Tensor:
    n = s[1] * s[2]
    given = drawn(s[0], n, 8), drawn(s[0], 16, 8), drawn(s[0], 16, C), drawn(16)
    return dictionary_attention(*given, backend=backend)[0]


def refine(s: Shape, backend: Backend) -> Tensor:
    n = s[1] * s[2]
    given = drawn(s[0], 16, C), drawn(s[0], n, C), drawn(s[0], n, 16)
    return refine_dictionary(*given, drawn(16), drawn(16), drawn(16, 1), backend=backend)


def correlate(op: Callable[..., Tensor], s: Shape, backend: Backend) -> Tensor:
    weights = drawn(1, 4), drawn(1), drawn(2, 16, 4)
    x = drawn(*s, C)
    return op(x, *weights, (4, 4), reduction=(2, 2), num_heads=2, backend=backend)


def normed(s: Shape, backend: Backend, dtype: torch.dtype = torch.float32) -> Tensor:
    norm = drawn(C, dtype=dtype)
    return norm_linear(drawn(*s, C, dtype=dtype), norm, norm, drawn(24, C), None, backend=backend)


def residual(s: Shape, backend: Backend, dtype: torch.dtype = torch.float32) -> Tensor:
    x = drawn(*s, C, dtype=dtype)
    return linear_residual(x, drawn(C, C), None, x, backend=backend)


def widened(s: Shape, backend: Backend, dtype: torch.dtype = torch.float32) -> Tensor:
    x = drawn(*s, C, dtype=dtype)
    weights = drawn(24, C), None, drawn(C, 24), None
    return mlp(x, None, None, *weights, residual=True, backend=backend)


def convolved(s: Shape, backend: Backend, dtype: torch.dtype = torch.float32) -> Tensor:
    x = drawn(*s, C, dtype=dtype)
    return depthwise_gelu(x, drawn(C, 1, 3, 3), None, residual=True, backend=backend)


def gated(s: Shape, backend: Backend, dtype: torch.dtype = torch.float32) -> Tensor:
    shapes = (4, C, 1, 1), (4, 4, 3, 3), (C, 4, 1, 1), (C, C, 1, 1)
    layers = GateLayers(*(part for shape in shapes for part in (drawn(*shape), drawn(shape[0]))))
    x = drawn(*s, C, dtype=dtype)
    return gated_projection(x, layers, (4, 4), slopes=(0.2, 0.2), backend=backend)


def correlated(s: Shape, backend: Backend, dtype: torch.dtype = torch.float32) -> Tensor:
    x = drawn(*s, C, dtype=dtype)
    layers = CorrelationLayers(
        *(drawn(1, 4), drawn(1), drawn(2, 6, 6)), *(drawn(C, C), drawn(C), drawn(C), drawn(C))
    )
    return correlation_branch(x, x, layers, (4, 4), reduction=(2, 2), backend=backend)


MAPS: dict[str, Callable[[Shape, Backend], Tensor]] = {
    "window": lambda s, b: window_attention(
        drawn(*s, 3 * C), drawn(49, 2), (4, 4), (2, 2), num_heads=2, backend=b
    ),
    "overlapping": lambda s, b: overlapping_attention(
        drawn(*s, 3 * C), drawn(81, 2), (4, 4), (1, 1), num_heads=2, backend=b
    ),
    "permuted": lambda s, b: permuted_attention(
        drawn(*s, C), drawn(*s, C // 2), drawn(9, 2), (4, 4), (2, 2), num_heads=2, backend=b
    ),
    "branch": branch,
    "convolved": convolved,
    "gated": gated,
    "correlated": correlated,
    "channel": lambda s, b: channel_correlation(drawn(*s, C), (4, 4), backend=b),
    "spatial": lambda s, b: correlate(spatial_correlation, s, b),
    "both": lambda s, b: correlate(self_correlation, s, b),
}
PROJECTED = {"normed": normed, "residual": residual, "widened": widened}
TOKENS = {**PROJECTED, "attend": attend}
SUMMED = {"category": category, "refine": refine}

paths = pytest.mark.parametrize("path", ["auto", "reference", "torch", "native", "triton"])


def only_if_it_runs(op: Callable[[Shape, Backend], Tensor], path: Backend) -> None:
    """Skip a path that the op has not, or that this machine cannot run."""
    try:
        op((1, 8, 8), path)
    except BackendUnavailable as why:
        pytest.skip(str(why))


@paths
@pytest.mark.parametrize("op", [*MAPS, *TOKENS, *SUMMED])
@torch.no_grad()
def test_no_images_give_none(op: str, path: Backend) -> None:
    run = {**MAPS, **TOKENS, **SUMMED}[op]
    only_if_it_runs(run, path)
    if (op, path) == ("refine", "triton"):
        with pytest.raises(BackendUnavailable, match="no tokens to sum over"):
            run((0, 8, 8), path)
        return
    some, none = run((1, 8, 8), path), run((0, 8, 8), path)
    assert none.shape == (0, *some.shape[1:])
    assert none.dtype == some.dtype


@paths
@pytest.mark.parametrize("shape", [(1, 0, 8), (1, 8, 0), (0, 0, 8)], ids=str)
@pytest.mark.parametrize("op", MAPS)
@torch.no_grad()
def test_no_pixels_are_refused_alike(op: str, shape: Shape, path: Backend) -> None:
    only_if_it_runs(MAPS[op], path)
    expected = rf"the map is \({shape[1]}, {shape[2]}\); expected 1 row and 1 column or more"
    with pytest.raises(ValueError, match=expected):
        MAPS[op](shape, path)


@paths
@pytest.mark.parametrize("op", SUMMED)
@torch.no_grad()
def test_no_tokens_are_refused_by_what_sums_over_them(op: str, path: Backend) -> None:
    only_if_it_runs(SUMMED[op], path)
    with pytest.raises(ValueError, match=r"is \(1, 0, \d+\); expected n of 1 or more"):
        SUMMED[op]((1, 0, 8), path)


@pytest.mark.parametrize("op", TOKENS)
@torch.no_grad()
def test_no_tokens_give_none(op: str) -> None:
    """As stock layers do."""
    assert TOKENS[op]((1, 0, 8), "auto").numel() == 0


WEIGHED = {
    "branch": branch,
    "convolved": convolved,
    "gated": gated,
    "correlated": correlated,
    **PROJECTED,
}


@pytest.mark.parametrize("path", ["auto", "reference", "torch"])
@pytest.mark.parametrize("op", WEIGHED)
@torch.no_grad()
def test_another_dtype_than_of_weights_is_told(op: str, path: Backend) -> None:
    run: Callable[..., Tensor] = WEIGHED[op]
    told = r"x is torch\.{}, its weights torch\.float32; "
    given = ((torch.float16, "float16"), (torch.float64, "float64"))
    for dtype, name in given:
        if dtype == torch.float64 and (op, path) == ("branch", "torch"):
            continue  # it runs no float64
        with pytest.raises(ValueError, match=told.format(name) + "give it in torch.float32"):
            run((1, 8, 8), path, dtype)
    with torch.autocast(interpreted.DEVICE.type, torch.bfloat16):
        assert run((1, 8, 8), path, torch.bfloat16).dtype == torch.bfloat16
        if (op, path) != ("branch", "torch"):
            with pytest.raises(ValueError, match=told.format("float64") + "autocast lowers"):
                run((1, 8, 8), path, torch.float64)
