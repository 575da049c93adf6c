"""Every path of every op against its definition in float64, at shapes of the published networks.

Outputs and all gradients, as the tests of ops hold them on small inputs: the largest error may be
twice that of the definition in the same precision, and a unit in the last place of the largest
value; so may the norm of the errors. A gradient that is one number is a sum over the whole map,
whose own error in the definition is luck: it may be off by twice what the roundings of its terms
come to, that is by the error of a number of the map's gradient, times the root of how many these
are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import Precision
from benchmarks.gpu.checks import last_place
from benchmarks.gpu.subjects import SEED
from benchmarks.gpu.timing import in_words
from restore.kernels.atd_reference import at_least_float32
from restore.kernels.category_attention import category_attention
from restore.kernels.channel_correlation import channel_correlation
from restore.kernels.dictionary_attention import dictionary_attention, refine_dictionary
from restore.kernels.dispatch import INTERPRETED, Backend, BackendUnavailable
from restore.kernels.linear_residual import linear_residual
from restore.kernels.mlp import mlp
from restore.kernels.norm_linear import norm_linear
from restore.kernels.overlapping_attention import overlapping_attention
from restore.kernels.permuted_attention import permuted_attention
from restore.kernels.self_correlation import self_correlation
from restore.kernels.spatial_correlation import spatial_correlation
from restore.kernels.window_attention import window_attention
from restore.kernels.window_attention_branch import BranchWeights, window_attention_branch
from restore.kernels.windows import Size

# interpreted kernels are tested where they are named for it; bfloat16 is wrong there
PATHS: tuple[Backend, ...] = ("torch",) if INTERPRETED else ("triton", "torch")
DRAWS = 4
MAY = 2  # times what the definition is off by
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
Run = Callable[..., Tensor]  # of the tensors, and of backend=


@dataclass(frozen=True)
class OpCase:
    """One op at one shape: what runs it, and the shapes of what it takes and differentiates by."""

    run: Run
    shapes: tuple[tuple[int, ...], ...]

    def draw(self, device: torch.device, dtype: torch.dtype, seed: int) -> list[Tensor]:
        """Random inputs, of the size of what goes through a trained network; matrices keep it."""
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(shape, generator=generator) for shape in self.shapes]
        drawn = [x / x.shape[1] ** 0.5 if x.dim() == 2 else x for x in drawn]
        return [x.to(device, dtype) for x in drawn]


def _windows(size: Size, window: Size, shift: Size, heads: int, d: int) -> OpCase:
    rows = (2 * window[0] - 1) * (2 * window[1] - 1)

    def run(qkv: Tensor, table: Tensor, backend: Backend) -> Tensor:
        return window_attention(qkv, table, window, shift, num_heads=heads, backend=backend)

    return OpCase(run, ((2, *size, 3 * heads * d), (rows, heads)))


def _overlapping(size: Size, window: int, halo: int, heads: int, d: int) -> OpCase:
    rows = (2 * (window + halo) - 1) ** 2

    def run(qkv: Tensor, table: Tensor, backend: Backend) -> Tensor:
        sides = (window, window), (halo, halo)
        return overlapping_attention(qkv, table, *sides, num_heads=heads, backend=backend)

    return OpCase(run, ((1, *size, 3 * heads * d), (rows, heads)))


def _permuted(size: Size, window: int, shift: int, heads: int, d: int) -> OpCase:
    def run(q: Tensor, kv: Tensor, table: Tensor, backend: Backend) -> Tensor:
        sides = (window, window), (shift, shift)
        return permuted_attention(q, kv, table, *sides, num_heads=heads, backend=backend)

    c = heads * d
    return OpCase(run, ((1, *size, c), (1, *size, c // 2), ((window - 1) ** 2, heads)))


def _category(n: int, group: int, heads: int, d: int) -> OpCase:
    def run(qkv: Tensor, scale: Tensor, backend: Backend) -> Tensor:
        category = torch.arange(n, device=qkv.device).mul(7919).remainder(97).expand(1, -1)
        return category_attention(
            qkv, category, scale / 8, category_size=group, num_heads=heads, backend=backend
        )

    return OpCase(run, ((1, n, 3 * heads * d), (1,)))


def _correlation(
    op: Run, size: Size, window: int, reduction: int, heads: int, d: int, mean: float = 0.0
) -> OpCase:
    """Of reduced values with such a mean; a large one makes all sums over them sums of one sign."""

    def run(qv: Tensor, weight: Tensor, bias: Tensor, position: Tensor, backend: Backend) -> Tensor:
        sides = {"reduction": (reduction, reduction), "num_heads": heads}
        # smaller, or there are gradients that float16 does not hold; powers of 2 round nothing
        given = (qv / 4, weight, bias / 8 + mean, position / 2)
        y = op(*given, (window, window), **sides, backend=backend)
        return y / 16 if mean else y

    n, m = window**2, (window // reduction) ** 2
    return OpCase(run, ((1, *size, 2 * heads * d), (1, reduction**2), (1,), (heads, n, m)))


def _dictionary(n: int, entries: int, r: int, c: int, similarity: bool = False) -> OpCase:
    def run(q: Tensor, k: Tensor, v: Tensor, scale: Tensor, backend: Backend) -> Tensor:
        return dictionary_attention(q, k, v, scale, backend=backend)[int(similarity)]

    return OpCase(run, ((1, n, r), (1, entries, r), (1, entries, c), (entries,)))


def _refinement(n: int, entries: int, c: int) -> OpCase:
    def run(
        dictionary: Tensor, x: Tensor, logits: Tensor, weight: Tensor, sigma: Tensor,
        backend: Backend,
    ) -> Tensor:  # fmt: skip
        similarity = at_least_float32(logits).softmax(-1)
        given = (dictionary, x, similarity, weight, torch.zeros_like(weight), sigma)
        return refine_dictionary(*given, backend=backend)

    shapes = ((1, entries, c), (1, n, c), (1, n, entries), (entries,), (entries, 1))
    return OpCase(run, shapes)


def _channel(size: Size, window: int, c: int) -> OpCase:
    def run(qv: Tensor, backend: Backend) -> Tensor:
        return channel_correlation(qv, (window, window), backend=backend)

    return OpCase(run, ((1, *size, c),))


def _norm_linear(tokens: int, c: int, d: int) -> OpCase:
    return OpCase(norm_linear, ((1, tokens, c), (c,), (c,), (d, c), (d,)))


def _mlp(tokens: int, c: int, hidden: int) -> OpCase:
    def run(*tensors: Tensor, backend: Backend) -> Tensor:
        return mlp(*tensors, residual=True, backend=backend)

    shapes = ((1, tokens, c), (c,), (c,), (hidden, c), (hidden,), (c, hidden), (c,))
    return OpCase(run, shapes)


def _linear_residual(tokens: int, c: int) -> OpCase:
    return OpCase(linear_residual, ((1, tokens, c), (c, c), (c,), (1, tokens, c)))


def _branch(size: Size, window: int, shift: int, heads: int, d: int) -> OpCase:
    c = heads * d

    def run(x: Tensor, *weights: Tensor, backend: Backend) -> Tensor:
        sides = (window, window), (shift, shift)
        return window_attention_branch(
            x, BranchWeights(*weights), *sides, num_heads=heads, residual=x, backend=backend
        )

    table = ((2 * window - 1) ** 2, heads)
    return OpCase(run, ((1, *size, c), (3 * c, c), (3 * c,), table, (c, c), (c,), (c,), (c,)))


OPS: dict[str, OpCase] = {
    "window_attention, SwinIR": _windows((24, 32), (8, 8), (4, 4), 6, 30),
    "window_attention, SwinIR-S": _windows((24, 16), (8, 8), (4, 4), 6, 10),
    "window_attention, JPEG": _windows((21, 21), (7, 7), (3, 3), 6, 30),
    "window_attention, HAT": _windows((48, 32), (16, 16), (8, 8), 6, 30),
    "window_attention, CAT-R": _windows((16, 32), (4, 16), (2, 8), 3, 30),
    "window_attention, CAT-A": _windows((64, 16), (64, 4), (0, 2), 3, 30),
    "window_attention, Uformer": _windows((16, 24), (8, 8), (0, 0), 4, 32),
    **{
        f"window_attention, DRCT {d}": _windows((32, 32), (16, 16), (8, 8), heads, d)
        for heads, d in ((4, 53), (2, 122), (6, 46), (4, 77))
    },
    "window_attention, ATD": _windows((32, 32), (16, 16), (8, 8), 6, 35),
    "overlapping_attention, HAT": _overlapping((48, 32), 16, 4, 6, 30),
    "permuted_attention, SRFormer": _permuted((44, 66), 22, 11, 6, 30),
    "permuted_attention, SRFormer-light": _permuted((32, 48), 16, 8, 6, 10),
    "permuted_attention, SRFormerV2": _permuted((72, 36), 36, 18, 8, 30),
    "category_attention, ATD": _category(1000, 256, 6, 35),
    "category_attention, ATD-light": _category(500, 128, 4, 12),
    "spatial_correlation, HiT 16": _correlation(spatial_correlation, (32, 16), 16, 2, 6, 5),
    **{
        f"self_correlation, HiT {w}": _correlation(self_correlation, (w, 2 * w), w, r, 6, 5)
        for w, r in ((4, 1), (8, 1), (16, 2), (32, 4), (48, 6), (64, 8))
    },
    **{
        f"self_correlation, HiT {w} biased": _correlation(
            self_correlation, (w, 2 * w), w, r, 6, 5, mean=2.0
        )
        for w, r in ((4, 1), (8, 1), (16, 2), (64, 8))
    },
    "dictionary_attention, ATD": _dictionary(1000, 128, 20, 210),
    "dictionary_attention, ATD-light": _dictionary(500, 64, 8, 48),
    "dictionary_attention's similarity, ATD": _dictionary(1000, 128, 20, 210, similarity=True),
    "refine_dictionary, ATD": _refinement(1000, 128, 210),
    "channel_correlation, HiT 8": _channel((16, 24), 8, 60),
    "channel_correlation, HiT 64": _channel((64, 64), 64, 60),
    "norm_linear, SwinIR": _norm_linear(1000, 180, 540),
    "norm_linear, DRCT": _norm_linear(300, 308, 924),
    "linear_residual, SwinIR": _linear_residual(1000, 180),
    "mlp, SwinIR": _mlp(1000, 180, 360),
    "mlp, CAT": _mlp(500, 180, 720),
    "mlp, DRCT": _mlp(300, 308, 308),
    "window_attention_branch, SwinIR": _branch((24, 32), 8, 4, 6, 30),
    "window_attention_branch, SwinIR-S": _branch((24, 16), 8, 4, 6, 10),
    "window_attention_branch, HAT": _branch((32, 48), 16, 8, 6, 30),
}


def check_op(name: str, precision: Precision, device: torch.device) -> dict[str, Any]:
    """Every path of one op in one precision, as an entry of the results."""
    case = OPS[name]
    given = [case.draw(device, precision.dtype, SEED + number) for number in range(DRAWS)]
    doubled = [[x.double() for x in tensors] for tensors in given]
    truth = _results(case, doubled, "reference", precision)
    own = _errors(_results(case, given, "reference", precision), truth)
    paths: dict[str, Any] = {}
    for path in PATHS:
        try:
            found = _errors(_results(case, given, path, precision), truth)
        except BackendUnavailable as error:
            paths[path] = {"refused": str(error)}
            continue
        except Exception as error:
            paths[path] = {"failed": in_words(error)}
            continue
        parts = {}
        of_term = own[1][1]  # by the gradient of the first input, which is the map
        for index, (errors, others, true) in enumerate(zip(found, own, truth, strict=True)):
            unit = last_place(true.abs().max().item(), precision.dtype)
            what = "output" if index == 0 else f"gradient of input {index - 1}"
            spread = 0.0 if true.numel() > DRAWS else of_term * given[0][0].numel() ** 0.5
            parts[what] = _judged(errors, others, true, unit, spread)
        wrong = {what: part for what, part in parts.items() if not part["passed"]}
        paths[path] = {"failed": _in_words(wrong)} if wrong else {"errors": parts}
    failed = [f"{path}: {found['failed']}" for path, found in paths.items() if "failed" in found]
    entry: dict[str, Any] = {"passed": not failed, "paths": paths}
    return {**entry, "failed": "; ".join(failed)} if failed else entry


def _judged(
    found: tuple[float, float], own: tuple[float, float], true: Tensor, unit: float, spread: float
) -> dict[str, Any]:
    """The norm and the largest of the errors, each with what it may be.

    `spread` is what the definition is off by if that is more than it shows.
    """
    root = true.numel() ** 0.5
    limits = [
        MAY * max(own[0], spread * root) + unit * root,
        MAY * max(own[1], spread) + unit,
    ]
    # not where the definition itself is at the end of what the dtype holds
    passed = all(x <= limit < math.inf for x, limit in zip(found, limits, strict=True))
    return {"passed": passed, "norm": found[0], "largest": found[1], "limits": limits}


def _in_words(wrong: dict[str, dict[str, Any]]) -> str:
    return ", ".join(
        f"{what} is off by {part['largest']:.2e} (at most {part['limits'][1]:.2e}), its norm by "
        f"{part['norm']:.2e} (at most {part['limits'][0]:.2e})"
        for what, part in wrong.items()
    )


def _results(
    case: OpCase, draws: list[list[Tensor]], path: Backend, precision: Precision
) -> list[Tensor]:
    """The output and every gradient of a fixed weighted sum of it, in float64, those of all draws
    side by side."""
    each = []
    for drawn in draws:
        tensors = [x.clone().requires_grad_() for x in drawn]
        with precision.on(tensors[0].device):
            y = case.run(*tensors, backend=path)
            generator = torch.Generator(y.device).manual_seed(SEED)
            weights = torch.randn(y.shape, generator=generator, device=y.device).to(y.dtype)
            gradients = torch.autograd.grad((y * weights).sum(), tensors, materialize_grads=True)
        each.append([x.detach().double() for x in (y, *gradients)])
    return [torch.stack(same) for same in zip(*each, strict=True)]


def _errors(found: list[Tensor], truth: list[Tensor]) -> list[tuple[float, float]]:
    """Norm and largest of the errors of each."""
    off = [x - true for x, true in zip(found, truth, strict=True)]
    return [(x.norm().item(), x.abs().max().item()) for x in off]
