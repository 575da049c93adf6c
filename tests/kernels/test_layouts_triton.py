"""Every Triton path on tensors that lie in memory as views of others do, and on none at all."""

from __future__ import annotations

import functools
from collections.abc import Callable

import interpreted
import pytest
import torch
from branch_cases import BranchWeights, window_attention_branch
from exactness import assert_as_exact_as
from torch import Tensor

from restore.kernels.category_attention import category_attention
from restore.kernels.channel_correlation import channel_correlation
from restore.kernels.dictionary_attention import dictionary_attention, refine_dictionary
from restore.kernels.dispatch import Backend, BackendUnavailable
from restore.kernels.fused_host import tokens
from restore.kernels.linear_residual import linear_residual
from restore.kernels.mlp import mlp
from restore.kernels.norm_linear import norm_linear
from restore.kernels.overlapping_attention import overlapping_attention
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.self_correlation import self_correlation
from restore.kernels.window_attention import window_attention

pytestmark = interpreted.MARKS

C, HEADS, WINDOW, TOKENS, HIDDEN, ENTRIES = 12, 2, (4, 4), 37, 20, 7
Op = Callable[..., Tensor]  # of tensors, and of backend=
Shapes = tuple[tuple[int, ...], ...]  # of an op's tensors but for the images, which come first


def windows(qkv: Tensor, table: Tensor, backend: Backend) -> Tensor:
    return window_attention(qkv, table, WINDOW, (2, 1), num_heads=HEADS, backend=backend)


def wide_windows(qkv: Tensor, table: Tensor, backend: Backend) -> Tensor:
    """More keys than a tile holds."""
    return window_attention(qkv, table, (8, 16), (2, 1), num_heads=HEADS, backend=backend)


def overlapping(qkv: Tensor, table: Tensor, backend: Backend) -> Tensor:
    return overlapping_attention(qkv, table, WINDOW, (1, 1), num_heads=HEADS, backend=backend)


def permuted(q: Tensor, kv: Tensor, table: Tensor, backend: Backend) -> Tensor:
    return permuted_attention(q, kv, table, WINDOW, (1, 1), num_heads=HEADS, backend=backend)


def categories(qkv: Tensor, scale: Tensor, backend: Backend) -> Tensor:
    category = torch.arange(qkv.shape[1], device=qkv.device).mul(7).remainder(5)
    category = category.expand(qkv.shape[0], -1)
    return category_attention(
        qkv, category, scale, category_size=8, num_heads=HEADS, backend=backend
    )


def branch(x: Tensor, *weights: Tensor, backend: Backend) -> Tensor:
    """In half precision a window is one program."""
    given = BranchWeights(*weights)
    return window_attention_branch(
        x, given, WINDOW, (1, 2), num_heads=HEADS, residual=x, backend=backend
    )


def correlation(side: int) -> Op:
    def run(qv: Tensor, *others: Tensor, backend: Backend) -> Tensor:
        return self_correlation(
            qv, *others, WINDOW, num_heads=HEADS, reduction=(side, side), backend=backend
        )

    return run


def channels(qv: Tensor, backend: Backend) -> Tensor:
    return channel_correlation(qv, WINDOW, backend=backend)


def dictionary(*tensors: Tensor, backend: Backend) -> Tensor:
    y, similarity = dictionary_attention(*tensors, backend=backend)
    return torch.cat([y.to(similarity.dtype), similarity], dim=-1)


def refinement(
    entry: Tensor, x: Tensor, logits: Tensor, *others: Tensor, backend: Backend
) -> Tensor:
    return refine_dictionary(entry, x, logits.softmax(-1), *others, backend=backend)


def residual_mlp(*tensors: Tensor, backend: Backend) -> Tensor:
    return mlp(*tensors, residual=True, backend=backend)


OPS: dict[str, tuple[Op, Shapes, int]] = {  # and how many of the tensors have images
    "windows": (windows, ((8, 8, 3 * C), (49, HEADS)), 1),
    "wide windows": (wide_windows, ((8, 16, 3 * C), (15 * 31, HEADS)), 1),
    "overlapping": (overlapping, ((8, 8, 3 * C), (81, HEADS)), 1),
    "permuted": (permuted, ((8, 8, C), (8, 8, C // 2), (9, HEADS)), 2),
    "categories": (categories, ((19, 3 * C), (1,)), 1),
    "branch": (
        branch,
        ((8, 8, C), (3 * C, C), (3 * C,), (49, HEADS), (C, C), (C,), (C,), (C,), (16, C)),
        1,
    ),
    "correlation": (correlation(1), ((8, 8, 2 * C), (1, 1), (1,), (HEADS, 16, 16)), 1),
    "reduced correlation": (correlation(2), ((8, 8, 2 * C), (1, 4), (1,), (HEADS, 16, 4)), 1),
    "channels": (channels, ((8, 8, 2 * C),), 1),
    "dictionary": (dictionary, ((TOKENS, 5), (ENTRIES, 5), (ENTRIES, C), (ENTRIES,)), 3),
    "refinement": (
        refinement,
        ((ENTRIES, C), (TOKENS, C), (TOKENS, ENTRIES), (ENTRIES,), (ENTRIES,), (ENTRIES, 1)),
        3,
    ),
    "linear": (norm_linear, ((TOKENS, C), (C,), (C,), (HIDDEN, C), (HIDDEN,)), 1),
    "residual": (linear_residual, ((TOKENS, HIDDEN), (C, HIDDEN), (C,), (TOKENS, C)), 1),
    "mlp": (residual_mlp, ((TOKENS, C), (C,), (C,), (HIDDEN, C), (HIDDEN,), (C, HIDDEN), (C,)), 1),
}
SLOW = {"wide windows"}
IMAGES = {"residual": (0, 3)}  # which tensors have images, where these are not the first ones


def draw(name: str, images: int, dtype: torch.dtype) -> list[Tensor]:
    _, shapes, count = OPS[name]
    having = IMAGES.get(name, range(count))
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for index, shape in enumerate(shapes):
        x = torch.randn((images, *shape) if index in having else shape, generator=generator)
        if len(shape) == 2 and index not in having:
            x = x / shape[1] ** 0.5  # what goes through a layer keeps its size
        drawn.append(x.to(interpreted.DEVICE, dtype))
    return drawn


def behind_others(x: Tensor) -> Tensor:
    """Its memory begins at no multiple of 16 bytes."""
    memory = x.new_full((x.numel() + 3,), torch.nan)
    return memory[3:].view(x.shape).copy_(x)


def every_other(x: Tensor) -> Tensor:
    memory = x.new_full((*x.shape, 2), torch.nan)
    memory[..., 0] = x
    return memory[..., 0]


def turned(x: Tensor) -> Tensor:
    """No gaps, but what is the last axis elsewhere is the first."""
    return x.movedim(-1, 0).contiguous().movedim(0, -1)


def part_of_wider(x: Tensor) -> Tensor:
    """Some channels of a map with more."""
    memory = x.new_full((*x.shape[:-1], x.shape[-1] + 5), torch.nan)
    memory[..., 3:-2] = x
    return memory[..., 3:-2]


def as_of_a_sum(dy: Tensor) -> Tensor:
    """The same number for all channels, in memory once."""
    return dy[..., :1].expand(dy.shape)


LAYOUTS = (behind_others, every_other, turned, part_of_wider)


def results(
    run: Op, tensors: list[Tensor], backend: Backend, gradient: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """The output, and all gradients from one of the output that `gradient` lays down."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    y = run(*leaves, backend=backend)
    dy = torch.randn((*y.shape[:-1], 1), generator=torch.Generator().manual_seed(1))
    y.backward(gradient(dy.to(y).expand(y.shape)))
    return [y.detach(), *(torch.zeros_like(x) if x.grad is None else x.grad for x in leaves)]


@functools.cache
def expected(name: str, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Of the definition in float64, and of the Triton path where no tensor is a view."""
    run, drawn = OPS[name][0], draw(name, 2, dtype)
    truth = results(run, [x.double() for x in drawn], "reference", Tensor.contiguous)
    return truth, results(run, drawn, "triton", Tensor.contiguous)


def hold(name: str, layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    gradient = as_of_a_sum if layout is behind_others else layout
    got = results(OPS[name][0], [layout(x) for x in draw(name, 2, dtype)], "triton", gradient)
    for true, plain, result in zip(*expected(name, dtype), got, strict=True):
        assert_as_exact_as(plain, result, true)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in OPS],
)
def test_views(name: str, layout: Callable[[Tensor], Tensor]) -> None:
    hold(name, layout, torch.float32)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_views_where_a_window_is_one_program(layout: Callable[[Tensor], Tensor]) -> None:
    hold("branch", layout, torch.float16)


@pytest.mark.parametrize("name", [name for name in OPS if name != "refinement"])
def test_no_images(name: str) -> None:
    run = OPS[name][0]
    tensors = draw(name, 0, torch.float32)
    plain, ours = (results(run, tensors, path, turned) for path in ("reference", "triton"))
    for one, other in zip(plain, ours, strict=True):
        assert other.shape == one.shape
        assert torch.equal(other, torch.zeros_like(one))


def test_a_sum_over_nothing_is_refused() -> None:
    with pytest.raises(BackendUnavailable, match="there are no tokens to sum over"):
        refinement(*draw("refinement", 0, torch.float32), backend="triton")


def test_tokens_that_lie_far_apart_are_copied() -> None:
    """Kernels count the numbers between tokens of a tile in 32 bits."""
    far = torch.empty_strided((3, C), (2**24, 1), device="meta")
    assert tokens(far).stride() == (C, 1)
    near = torch.empty_strided((3, C), (2**20, 1), device="meta")
    assert tokens(near).stride() == near.stride()


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")  # of what is left out
def test_a_norm_that_adds_nothing_to_the_variance() -> None:
    """In a tile that is not full there are tokens without any."""
    drawn = draw("linear", 1, torch.float32)
    truth, plain, got = (
        results(
            lambda *given, backend: norm_linear(*given, eps=0.0, backend=backend),
            given,
            path,
            turned,
        )
        for given, path in (
            ([x.double() for x in drawn], "reference"),
            (drawn, "reference"),
            (drawn, "triton"),
        )
    )
    for one, result, true in zip(plain, got, truth, strict=True):
        assert_as_exact_as(one, result, true)
