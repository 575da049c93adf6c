"""The native kernels against the definitions, on every instruction set that this CPU has.

With bfloat16 everything runs under autocast, the definitions too.
"""

from __future__ import annotations

import _ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import block_cases
import branch_cases
import fused_cases
import numpy as np
import pytest
import test_window_attention as core
import torch
from exactness import assert_as_exact_as
from torch import Tensor, nn
from torch.autograd import forward_ad

from restore.kernels import native_library, native_ops, native_windows
from restore.kernels.dispatch import Backend, BackendUnavailable
from restore.kernels.linear_residual import linear_residual
from restore.kernels.mlp import mlp
from restore.kernels.norm_linear import norm_linear
from restore.kernels.overlapping_attention import overlapping_attention
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.window_attention import window_attention
from restore.kernels.windows import Size

BFLOAT16 = native_library.BFLOAT16

FUNCTIONS, WHY_NOT = native_library.loaded()
pytestmark = pytest.mark.skipif(FUNCTIONS is None, reason=f"needs the native kernels: {WHY_NOT}")


@pytest.fixture(params=range(BFLOAT16 + 1), ids=(*native_library.ISAS, "bfloat16"), autouse=True)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The instruction set that the ops use, in the arithmetic that it is for."""
    try:
        library = native_library.library(request.param)
    except LookupError as why:
        pytest.skip(str(why))
    monkeypatch.setattr(native_ops, "library", lambda isa=request.param: library)
    with torch.autocast("cpu", torch.bfloat16, enabled=request.param == BFLOAT16):
        yield request.param


float32_only = pytest.mark.parametrize(
    "isa", range(BFLOAT16), ids=native_library.ISAS, indirect=True
)
bfloat16_only = pytest.mark.parametrize("isa", [BFLOAT16], ids=["bfloat16"], indirect=True)


def assert_exact(
    run: Callable[..., Tensor], definition: Callable[..., Tensor], tensors: list[Tensor]
) -> None:
    """Hold the kernel to twice the error of the definition in the same arithmetic."""
    truth, plain = definition(*(t.double() for t in tensors)), definition(*tensors)
    assert_as_exact_as(plain, run(*tensors), truth)


BRANCHES = [
    branch_cases.Case((16, 24), (8, 8), (4, 4), 6, 30, images=2),  # SwinIR-M
    branch_cases.Case((16, 8), (8, 8), (0, 0), 6, 10),  # SwinIR-S
    branch_cases.Case((21, 14), (7, 7), (3, 3), 6, 30, images=2),  # its nets for JPEG
    branch_cases.Case((32, 32), (16, 16), (8, 8), 6, 24),  # HAT-S
    branch_cases.Case((16, 16), (16, 16), (8, 8), 2, 53, residual="none"),  # DRCT
    branch_cases.Case((16, 32), (16, 16), (0, 8), 2, 35, residual="other"),  # ATD
    branch_cases.Case((16, 32), (8, 8), (4, 4), 2, 16, without=()),  # Uformer's decoder
    branch_cases.Case((16, 32), (4, 16), (2, 8), 3, 30, without=()),
    branch_cases.Case((22, 44), (22, 22), (0, 11), 1, 5),
    branch_cases.Case((12, 8), (4, 4), (2, 0), 1, 5, without=branch_cases.SMALL.without, images=3),
    branch_cases.Case((6, 10), (3, 2), (1, 1), 5, 3, without=("norm_weight", "norm_bias")),
    branch_cases.Case((4, 4), (1, 1), (0, 0), 1, 1, without=("qkv_bias", "proj_bias", "vectors")),
]


@pytest.mark.parametrize("case", BRANCHES, ids=str)
def test_branches_are_as_exact_as_the_definition(case: branch_cases.Case) -> None:
    tensors = list(case.draw(torch.float32).values())
    assert_exact(case.run("native"), case.run("reference"), tensors)


BLOCKS = [
    *(
        block_cases.Case(case, 2 * case.channels)
        for case in BRANCHES
        if case.residual == "x" and "norm_weight" not in case.without
    ),
    block_cases.Case(branch_cases.Case((8, 8), (4, 4), (2, 2), 2, 3), 1, norm_bias=False),
    block_cases.Case(branch_cases.Case((7, 7), (7, 7), (3, 3), 1, 5), 53, bias=False),
]


@pytest.mark.parametrize("case", BLOCKS, ids=str)
def test_blocks_are_as_exact_as_the_definition(case: block_cases.Case) -> None:
    tensors = list(case.draw(torch.float32).values())
    assert_exact(case.run("native"), case.run("reference"), tensors)


@bfloat16_only
def test_blocks_of_bfloat16_maps() -> None:
    for case in BLOCKS[:3]:
        x, *others = case.draw(torch.float32).values()
        assert_exact(case.run("native"), case.run("reference"), [x.bfloat16(), *others])


def test_nothing_is_read_outside_of_a_block() -> None:
    """Numbers beside the map and the weights are NaN, which would show."""
    case = block_cases.Case(branch_cases.Case((7, 14), (7, 7), (3, 3), 1, 13), 9)
    given = list(case.draw(torch.float32).values())
    frames = [torch.full((t.numel() + 128,), torch.nan) for t in given]
    framed = [frame[64:-64].view(t.shape) for frame, t in zip(frames, given, strict=True)]
    for inside, t in zip(framed, given, strict=True):
        inside.copy_(t)
    assert torch.equal(case.run("native")(*framed), case.run("native")(*given))


ATTENTIONS = [
    *core.CASES,
    core.Case((22, 22), (22, 22), (11, 11), 2, 30),
    core.Case((32, 32), (16, 16), (8, 8), 2, 53),
    core.Case((48, 8), (48, 4), (0, 2), 2, 16),
    core.Case((4, 96), (2, 96), (1, 0), 2, 35),
]


@pytest.mark.parametrize("case", ATTENTIONS, ids=str)
def test_attention_is_as_exact_as_the_definition(case: core.Case) -> None:
    qkv, table = core.inputs(case, torch.float32)
    assert_exact(core.ours(case, "native"), core.ours(case, "reference"), [qkv, table])


def test_attention_in_some_windows() -> None:
    case = core.Case((16, 24), (8, 8), (4, 4), 2, 20)
    qkv, table = core.inputs(case, torch.float32)
    chosen = torch.tensor([11, 0, 5])

    def run(backend: Backend) -> Callable[..., Tensor]:
        return lambda qkv, table: window_attention(
            qkv, table, (8, 8), (4, 4), num_heads=2, windows=chosen, backend=backend
        )

    assert_exact(run("native"), run("reference"), [qkv, table])
    chosen[1] = 12
    with pytest.raises(IndexError, match="12"):
        run("native")(qkv, table)


def normal(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Standard normal tensors."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize(
    ("size", "window", "halo", "heads", "head_dim"),
    [
        ((32, 16), (16, 16), (4, 4), 2, 30),  # HAT
        ((14, 21), (7, 7), (3, 2), 2, 16),
        ((4, 12), (4, 2), (0, 3), 3, 5),
        ((6, 6), (2, 3), (5, 7), 1, 4),  # beyond the map on all sides
    ],
)
def test_overlapping_attention_is_as_exact_as_the_definition(
    size: Size, window: Size, halo: Size, heads: int, head_dim: int
) -> None:
    (wh, ww), (hh, hw) = window, halo
    table = ((2 * (wh + hh) - 1) * (2 * (ww + hw) - 1), heads)
    tensors = normal((2, *size, 3 * heads * head_dim), table)

    def run(backend: Backend) -> Callable[..., Tensor]:
        return lambda qkv, table: overlapping_attention(
            qkv, table, window, halo, num_heads=heads, backend=backend
        )

    assert_exact(run("native"), run("reference"), tensors)


@pytest.mark.parametrize(
    ("size", "window", "shift", "heads", "head_dim"),
    [
        ((44, 44), (22, 22), (11, 11), 2, 30),  # SRFormer
        ((16, 32), (16, 16), (8, 8), 6, 10),  # SRFormer-light
        ((8, 12), (4, 6), (0, 3), 2, 8),
        ((2, 4), (2, 2), (1, 0), 1, 4),
    ],
)
def test_permuted_attention_is_as_exact_as_the_definition(
    size: Size, window: Size, shift: Size, heads: int, head_dim: int
) -> None:
    c, rows = heads * head_dim, (window[0] - 1) * (window[1] - 1)
    tensors = normal((2, *size, c), (2, *size, c // 2), (rows, heads))

    def run(backend: Backend) -> Callable[..., Tensor]:
        return lambda q, kv, table: permuted_attention(
            q, kv, table, window, shift, num_heads=heads, backend=backend
        )

    assert_exact(run("native"), run("reference"), tensors)


FUSED = [
    fused_cases.Case((2, 3, 4, 5), 7),
    fused_cases.Case((1, 9, 11, 60), 120),
    fused_cases.Case((70, 180), 360, norm_bias=False),
    fused_cases.Case((33, 53), 16, norm=False, norm_bias=False),
    fused_cases.Case((31, 16), 15, bias=False),
    fused_cases.Case((240,), 480, norm=False, norm_bias=False, bias=False),
    fused_cases.Case((4, 1), 3),
]


@pytest.mark.parametrize("op", fused_cases.OPS)
@pytest.mark.parametrize("case", FUSED, ids=str)
def test_layers_are_as_exact_as_the_definition(case: fused_cases.Case, op: str) -> None:
    given = fused_cases.taken(op, fused_cases.draw(case, torch.float32))
    names, tensors = list(given), list(given.values())
    native, definition = (
        fused_cases.with_names(names, lambda t, b=backend: fused_cases.ours(t, op, b))
        for backend in ("native", "reference")
    )
    assert_exact(native, definition, tensors)


@pytest.mark.parametrize("channels", [3, 48, 60, 180])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("mean", [0.0, 1.0, 1e3])
def test_norms_of_channels_that_are_nearly_the_same(
    mean: float, noise: float, channels: int
) -> None:
    common, differences = normal((70, 1), (70, channels))
    one = torch.ones(channels)

    def run(backend: Backend) -> Callable[[Tensor], Tensor]:
        return lambda x: norm_linear(
            x, one.to(x.dtype), None, torch.eye(channels, dtype=x.dtype), None, backend=backend
        )

    assert_exact(run("native"), run("reference"), [mean * (1 + common.abs()) + noise * differences])


@float32_only
def test_gelu_far_from_zero() -> None:
    x = torch.cat([torch.linspace(-7, 7, 2001), torch.tensor([-1e30, -100.0, 100.0, 1e30])])
    one = torch.ones(1, 1)
    y = native_ops.norm_linear(
        x[:, None], native_ops.NormedLinear(None, None, one, None), 0.0, gelu=True
    )[:, 0]
    truth = torch.nn.functional.gelu(x.double())
    # the share that x is multiplied by is exact to 1.1e-7, and what comes out is rounded once
    allowed = x.double().abs() * 1.2e-7 + truth.abs() * 2**-24
    assert bool((((y.double() - truth).abs() <= allowed) | (y == x)).all())
    assert y[-4:].tolist() == [0.0, 0.0, 100.0, torch.tensor(1e30).item()]


@pytest.mark.parametrize("op", fused_cases.OPS)
def test_strides_change_nothing(op: str) -> None:
    case = fused_cases.Case((2, 4, 5, 36), 20)
    given = fused_cases.taken(op, fused_cases.draw(case, torch.float32))
    wanted = fused_cases.ours({**dict.fromkeys(fused_cases.OPTIONAL), **given}, op, "native")
    spread = {name: wide(t) for name, t in given.items()}
    got = fused_cases.ours({**dict.fromkeys(fused_cases.OPTIONAL), **spread}, op, "native")
    assert torch.equal(got, wanted)


def wide(x: Tensor) -> Tensor:
    """The same numbers, every second one of a larger tensor."""
    return x.repeat_interleave(2, dim=-1)[..., ::2]


def test_strides_of_a_branch_change_nothing() -> None:
    case = branch_cases.Case((8, 16), (8, 8), (4, 4), 2, 20, residual="other", images=2)
    given = case.draw(torch.float32)
    wanted = case.run("native")(*given.values())
    for name in ("x", "residual"):
        channels_first = given[name].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        part = torch.cat([given[name]] * 2, dim=-1)[..., : case.channels]
        for same in (wide(given[name]), channels_first, part):
            assert torch.equal(case.run("native")(*{**given, name: same}.values()), wanted)


def test_images_do_not_mix() -> None:
    case = branch_cases.Case((21, 14), (7, 7), (3, 3), 2, 20, images=3)
    given = case.draw(torch.float32)
    whole = case.run("native")(*given.values())
    for image in range(3):
        alone = case.run("native")(*{**given, "x": given["x"][image : image + 1]}.values())
        torch.testing.assert_close(whole[image : image + 1], alone, rtol=0, atol=0)


def test_nothing_is_read_outside_of_the_inputs(dtype: torch.dtype = torch.float32) -> None:
    """Numbers beside the map and the weights are NaN, which would show."""
    case = branch_cases.Case((7, 14), (7, 7), (3, 3), 1, 13)
    given = case.draw(torch.float32)
    given["x"] = given["x"].to(dtype)
    wanted = case.run("native")(*given.values())
    framed = {}
    for name, t in given.items():
        frame = torch.full((t.numel() + 128,), torch.nan, dtype=t.dtype)
        framed[name] = frame[64:-64].view(t.shape)
        framed[name].copy_(t)
    assert torch.equal(case.run("native")(*framed.values()), wanted)


@bfloat16_only
def test_nothing_is_read_outside_of_a_bfloat16_map() -> None:
    test_nothing_is_read_outside_of_the_inputs(torch.bfloat16)


@torch.no_grad()
def test_empty_batches() -> None:
    case = branch_cases.Case((8, 8), (4, 4), (2, 2), 2, 8)
    given = case.draw(torch.float32)
    none = {**given, "x": given["x"][:0]}
    assert case.run("native")(*none.values()).shape == (0, 8, 8, 16)
    assert mlp_of(nn.Linear(8, 8), torch.zeros(0, 8)).shape == (0, 8)


def mlp_of(linear: nn.Linear, x: Tensor) -> Tensor:
    weight, bias = linear.weight, linear.bias
    return mlp(x, None, None, weight, bias, weight, bias, residual=False, backend="native")


@torch.no_grad()
def test_changed_weights_are_seen() -> None:
    linear, x = nn.Linear(8, 8), torch.randn(5, 8)
    first = mlp_of(linear, x)
    linear.weight.mul_(2)
    second = mlp_of(linear, x)
    assert not torch.equal(first, second)
    linear.weight.data = linear.weight / 2
    torch.testing.assert_close(mlp_of(linear, x), first)


EDITS: dict[str, Callable[[Tensor], object]] = {
    "negated": lambda w: w.neg_(),
    "doubled": lambda w: w.mul_(2),
    "halved": lambda w: w.mul_(0.5),
    "turned over": lambda w: w.copy_(w.flip(0)),
    "rows rolled": lambda w: w.copy_(w.roll(1, 0)),
    "one sign": lambda w: w[-1, -1].neg_(),
}


@pytest.mark.parametrize("shape", [(64, 64), (192, 64), (256, 128), (96, 96), (128, 512), (7, 5)])
@pytest.mark.parametrize("edit", EDITS)
def test_no_edit_is_missed(edit: str, shape: tuple[int, int]) -> None:
    """Changes of all words alike are those that a sum of products may miss."""
    generator = torch.Generator().manual_seed(0)
    outputs, inputs = shape
    y, x = torch.randn(9, inputs, generator=generator), torch.randn(9, outputs, generator=generator)
    weight = torch.randn(shape, generator=generator)
    linear_residual(y, weight, None, x, backend="native")
    EDITS[edit](weight)
    got = linear_residual(y, weight, None, x, backend="native")
    assert torch.equal(got, linear_residual(y, weight.clone(), None, x, backend="native"))


@bfloat16_only
@pytest.mark.parametrize("case", [BRANCHES[1], BRANCHES[2], BRANCHES[5], BRANCHES[10]], ids=str)
def test_branches_of_bfloat16_maps(case: branch_cases.Case) -> None:
    given = case.draw(torch.float32)
    for names in (("x",), ("residual",), ("x", "residual")):
        lowered = {name: t.bfloat16() if name in names else t for name, t in given.items()}
        assert_exact(case.run("native"), case.run("reference"), list(lowered.values()))


@bfloat16_only
@pytest.mark.parametrize("case", [ATTENTIONS[0], ATTENTIONS[-1]], ids=str)
def test_attention_of_bfloat16_maps(case: core.Case) -> None:
    qkv, table = core.inputs(case, torch.float32)
    assert_exact(core.ours(case, "native"), core.ours(case, "reference"), [qkv.bfloat16(), table])


@bfloat16_only
@pytest.mark.parametrize("op", fused_cases.OPS)
@pytest.mark.parametrize("lowered", ["x", "y", "x y"])
@pytest.mark.parametrize("case", FUSED, ids=str)
def test_layers_of_bfloat16_maps(case: fused_cases.Case, lowered: str, op: str) -> None:
    given = fused_cases.taken(op, fused_cases.draw(case, torch.float32))
    given = {name: t.bfloat16() if name in lowered.split() else t for name, t in given.items()}
    native, definition = (
        fused_cases.with_names(list(given), lambda t, b=backend: fused_cases.ours(t, op, b))
        for backend in ("native", "reference")
    )
    assert_exact(native, definition, list(given.values()))


@bfloat16_only
def test_numbers_are_rounded_to_the_nearest_even() -> None:
    """As PyTorch rounds them, in maps, in weights and in results."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0x00800000, 0x7F800000, (4096,), generator=generator, dtype=torch.int32)
    bits[::4] = bits[::4] & ~0xFFFF | 0x8000  # halfway
    x, one = bits.view(torch.float32), torch.ones(1, 1)
    x = torch.cat([x, -x, torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0])])

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        return native_ops.norm_linear(
            x, native_ops.NormedLinear(None, None, weight, None), 0.0, gelu=False
        )

    for y in (linear(x[:, None], one)[:, 0], linear(one, x[:, None])[0]):
        assert y.dtype == torch.bfloat16
        assert torch.equal(y.isnan(), x.isnan())
        assert torch.equal(y.nan_to_num(), x.bfloat16().nan_to_num())


@pytest.mark.parametrize("window", [0, 3, 8])
def test_windows_do_not_mix(window: int) -> None:
    """Several of these are computed at once, and their keys are of an odd number."""
    case = branch_cases.Case((21, 21), (7, 7), (0, 0), 2, 5)
    given = case.draw(torch.float32)
    row, column = window // 3 * 7, window % 3 * 7
    given["x"][0, row, column] = torch.inf
    finite = case.run("native")(*given.values()).isfinite()
    for y, x in ((y, x) for y in (0, 7, 14) for x in (0, 7, 14)):
        same = (y, x) == (row, column)
        assert bool(finite[0, y : y + 7, x : x + 7].all()) != same


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["query", "key", "table"])
def test_numbers_that_are_none_stay_so(place: str, value: float) -> None:
    """Where the definition gives NaN, a plausible picture would hide it."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(1, 8, 8, 3, 12, generator=generator)
    table = torch.randn(49, 2, generator=generator)
    if place == "table":
        table[24, 1] = value  # of every pixel with itself
    else:
        qkv[0, 1, 2, ("query", "key").index(place), 3] = value

    def run(backend: Backend) -> Tensor:
        return window_attention(qkv, table, (4, 4), (2, 2), num_heads=2, backend=backend)

    assert torch.equal(run("native").isnan(), run("reference").isnan())


def test_logits_that_overflow_are_not_hidden() -> None:
    qkv = torch.full((1, 4, 4, 3, 8), 1e20)
    given = (qkv, torch.zeros(49, 1), (4, 4))
    assert window_attention(*given, num_heads=1, backend="native").isnan().all()


@pytest.mark.parametrize("lazy", [torch._neg_view, lambda y: torch._efficientzerotensor(y.shape)])
def test_tensors_without_values_in_memory(lazy: Callable[[Tensor], Tensor]) -> None:
    y, weight = torch.randn(5, 8), torch.randn(6, 8)
    with pytest.raises(BackendUnavailable, match="does not hold its values"):
        linear_residual(lazy(y), weight, None, torch.zeros(5, 6), backend="native")


def test_defaults_of_the_process_change_nothing() -> None:
    case = branch_cases.Case((8, 8), (4, 4), (2, 2), 2, 5)
    tensors = list(case.draw(torch.float32).values())
    wanted = case.run("native")(*tensors)
    native_windows.layout.cache_clear()
    copies = [t.clone() for t in tensors]
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = case.run("native")(*copies)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.device.type == "cpu"
    assert torch.equal(got, wanted)


@float32_only
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of PyTorch's own
def test_forward_derivatives_are_left_to_stock_ops() -> None:
    y, x, weight = torch.randn(5, 8), torch.randn(5, 6), torch.randn(6, 8)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(y, torch.ones_like(y))
        with pytest.raises(BackendUnavailable, match="forward-mode"):
            linear_residual(dual, weight, None, x, backend="native")
        tangent = forward_ad.unpack_dual(linear_residual(dual, weight, None, x)).tangent
    torch.testing.assert_close(tangent, torch.ones_like(y) @ weight.T)


def test_weights_of_inference_mode() -> None:
    with torch.inference_mode():
        linear, x = nn.Linear(8, 8), torch.randn(5, 8)
        first = mlp_of(linear, x)
        linear.bias += 1
        assert not torch.equal(mlp_of(linear, x), first)


def test_packed_weights_go_with_their_parameters() -> None:
    from restore.kernels import native_weights

    before = len(native_weights._KEPT)
    with torch.no_grad():
        linear, x = nn.Linear(8, 8), torch.randn(5, 8)
        mlp_of(linear, x)
        assert len(native_weights._KEPT) == before + 1
        del linear
    assert len(native_weights._KEPT) == before


@pytest.mark.parametrize("damage", ["cut short", "text", "empty", "another library"])
def test_a_damaged_library_is_refused(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "_native.so"
    whole = native_library.FILE.read_bytes()
    if damage == "another library":
        if not hasattr(_ctypes, "__file__"):
            pytest.skip("this Python has no library at hand that loads")
        path.write_bytes(Path(_ctypes.__file__).read_bytes())
    else:
        path.write_bytes(
            {"cut short": whole[: len(whole) // 2], "text": b"a", "empty": b""}[damage]
        )
    monkeypatch.setattr(native_library, "FILE", path)
    functions, why = native_library.loaded.__wrapped__()
    assert functions is None
    assert "build it again" in why or "does not load" in why


def test_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    x, linear = torch.zeros(4, 8), nn.Linear(8, 8)
    with pytest.raises(BackendUnavailable, match="needs a gradient; it has no backward"):
        mlp_of(linear, x)
    with torch.no_grad():
        with pytest.raises(BackendUnavailable, match=r"this is torch\.float64"):
            mlp_of(linear, x.double())
        with (
            torch.autocast("cpu", enabled=False),
            pytest.raises(BackendUnavailable, match=r"under autocast, and this is torch\.bfloat16"),
        ):
            mlp_of(linear, x.bfloat16())
        with (
            torch.autocast("cpu", torch.float16),
            pytest.raises(BackendUnavailable, match=r"autocast asks for torch\.float16"),
        ):
            mlp_of(linear, x)
        monkeypatch.setattr(native_library, "bfloat16_refuses", lambda: "this CPU has none")
        with (
            torch.autocast("cpu", torch.bfloat16),
            pytest.raises(BackendUnavailable, match="bfloat16, and this CPU has none"),
        ):
            mlp_of(linear, x)


@float32_only
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated:DeprecationWarning")
@torch.no_grad()
def test_a_trace_holds_stock_ops() -> None:
    case = branch_cases.Case((8, 8), (4, 4), (2, 2), 2, 8)
    given = case.draw(torch.float32)
    graph = torch.jit.trace(case.run(), tuple(given.values()), check_trace=False)
    given["x"] = given["x"] + 1
    torch.testing.assert_close(graph(*given.values()), case.run("reference")(*given.values()))


@float32_only
@torch.no_grad()
def test_transforms_see_stock_ops() -> None:
    linear, x = nn.Linear(8, 8), torch.randn(3, 5, 8)
    weight, bias = linear.weight, linear.bias

    def run(x: Tensor) -> Tensor:
        return mlp(x, None, None, weight, bias, weight, bias, residual=True)

    torch.testing.assert_close(torch.vmap(run)(x), run(x))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


THREADED = branch_cases.Case((32, 64), (8, 8), (4, 4), 2, 20)


def test_threads_change_nothing(two_threads: None) -> None:
    tensors = list(THREADED.draw(torch.float32).values())
    torch.set_num_threads(1)
    wanted = THREADED.run("native")(*tensors)
    torch.set_num_threads(2)
    for _ in range(50):
        assert torch.equal(THREADED.run("native")(*tensors), wanted)


def test_several_python_threads(two_threads: None, isa: int) -> None:
    tensors = list(THREADED.draw(torch.float32).values())
    wanted = THREADED.run("native")(*tensors)

    def run(_: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=isa == BFLOAT16):  # not inherited
            return THREADED.run("native")(*tensors)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(40)))
    assert all(torch.equal(one, wanted) for one in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_computes(two_threads: None) -> None:
    """With one thread, as those of the pool are not in it."""
    tensors, run = list(THREADED.draw(torch.float32).values()), THREADED.run("native")
    wanted = run(*tensors)
    child = os.fork()
    if child == 0:
        # nothing else by PyTorch, whose own threads do not outlive a fork either
        same = np.array_equal(run(*tensors).numpy(), wanted.numpy())
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(run(*tensors), wanted)


def test_a_block_may_lie_where_its_map_did() -> None:
    for case in BLOCKS[:3]:
        x, *others = case.draw(torch.float32).values()
        wanted = case.run("native")(x, *others)
        got = case.run("native", spare=True)(x, *others)
        assert got.data_ptr() == x.data_ptr()
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("case", ATTENTIONS[:3], ids=str)
def test_attention_may_lie_where_its_queries_did(case: core.Case) -> None:
    qkv, table = core.inputs(case, torch.float32)
    if torch.is_autocast_enabled("cpu"):
        qkv = qkv.bfloat16()
    before, sides = qkv.clone(), {"window_size": case.window, "shift": case.shift}
    wanted = window_attention(qkv, table, num_heads=case.heads, **sides)
    assert torch.equal(qkv, before)
    got = window_attention(qkv, table, num_heads=case.heads, spare=True, **sides)
    assert got.data_ptr() == qkv.data_ptr()
    assert torch.equal(got, wanted)
    others = got.shape[-1]
    assert torch.equal(qkv[..., others:], before[..., others:])


def test_attention_to_cells_may_lie_where_its_queries_did() -> None:
    q, kv, table = normal((2, 8, 12, 16), (2, 8, 12, 8), (15, 2))
    if torch.is_autocast_enabled("cpu"):
        q = q.bfloat16()
    wanted = permuted_attention(q, kv, table, (4, 6), (0, 3), num_heads=2)
    got = permuted_attention(q, kv, table, (4, 6), (0, 3), num_heads=2, spare=True)
    assert got.data_ptr() == q.data_ptr()
    assert torch.equal(got, wanted)
