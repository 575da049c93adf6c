"""What a network cannot be faster than, from operations whose speed is measured alone.

The operations are those of the authors' arithmetic, recorded on tensors that have only shapes. A
linear layer and a convolution take what they take alone at their shape; the products of attention,
which nothing has to write to memory, are taken at the rate that the linear layers reach together;
and every block reads and writes the map once, at the bandwidth of a copy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.eager import Eager
from benchmarks.gpu.cases import Case
from benchmarks.gpu.subjects import Subject
from benchmarks.gpu.timing import Clock
from restore.archs._cross_aggregation import CrossAggregationBlock
from restore.archs._swin import AttentionBlock
from restore.archs.atd import Layer
from restore.archs.hat import OCAB
from restore.archs.hit_sr import HiTBlock
from restore.archs.uformer import LeWinBlock

BLOCKS = (AttentionBlock, OCAB, CrossAggregationBlock, HiTBlock, Layer, LeWinBlock)
# reads and writes of the map by a block; backward reads it and the gradient, and writes one
PASSES = {"inference": 2, "training": 5}
MATRIX_SIDE, COPY_BYTES = 8192, 2**31
REHEARSAL_SIDE, REHEARSAL_BYTES = 64, 2**16
aten = torch.ops.aten


@dataclass(frozen=True)
class Product:
    """[m, k] by [k, n]: of a linear layer, or of its backward; `count` of them side by side."""

    m: int
    k: int
    n: int
    transposed: tuple[bool, bool] = (False, False)  # how the factors lie in memory
    count: int = 1

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.count * self.m * self.k * self.n

    @property
    def name(self) -> str:
        """For the results file."""
        marks = "".join("t" if t else "n" for t in self.transposed)
        return f"product {self.m}x{self.k}x{self.n} {marks}"

    def maker(self, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
        """What computes it on random numbers."""
        a, b = (
            (
                _random((cols, rows), device, dtype).t()
                if turned
                else _random((rows, cols), device, dtype)
            )
            for rows, cols, turned in (
                (self.m, self.k, self.transposed[0]),
                (self.k, self.n, self.transposed[1]),
            )
        )
        return lambda: a @ b


@dataclass(frozen=True)
class Convolution:
    """A convolution, or its backward."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    transposed: bool
    groups: int
    backward: tuple[bool, bool] | None = None  # gradients of input and weight that are wanted

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        places = math.prod(self.x[2:]) if self.transposed else math.prod(self.output[2:])
        each = 2 * self.x[0] * math.prod(self.weight) * places
        return each * (1 if self.backward is None else sum(self.backward))

    @property
    def output(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(
            torch.nn.functional.conv_transpose2d(
                *self._tensors("meta", torch.float32), **self._how()
            ).shape
            if self.transposed
            else torch.nn.functional.conv2d(
                *self._tensors("meta", torch.float32), **self._how()
            ).shape
        )

    @property
    def name(self) -> str:
        """For the results file."""
        kind = "convolution" if self.backward is None else f"convolution backward {self.backward}"
        turned = " transposed" if self.transposed else ""
        return f"{kind}{turned} {self.x} by {self.weight} / {self.stride}, groups {self.groups}"

    def _how(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "groups": self.groups}

    def _tensors(self, device: torch.device | str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x = _random(self.x, device, dtype).contiguous(memory_format=torch.channels_last)
        return x, _random(self.weight, device, dtype)

    def maker(self, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
        """What computes it on random numbers."""
        x, weight = self._tensors(device, dtype)
        if self.backward is None:
            run = (
                torch.nn.functional.conv_transpose2d
                if self.transposed
                else torch.nn.functional.conv2d
            )
            return lambda: run(x, weight, **self._how())
        gradient = _random(self.output, device, dtype)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        wanted = [*self.backward, False]
        return lambda: aten.convolution_backward(
            gradient, x, weight, None, self.stride, self.padding, (1, 1), self.transposed, (0, 0),
            self.groups, wanted,
        )  # fmt: skip


Operation = Product | Convolution


def _random(shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    # zeros are multiplied faster than numbers
    return torch.randn(shape, device=device, dtype=dtype)


@dataclass
class Work:
    """All that a network does in one call or step.

    Attributes:
        alone: linear layers and convolutions, and how often each occurs.
        attention: operations of all other products.
        map_bytes: that blocks have to read and write.
    """

    alone: Counter[Operation] = field(default_factory=Counter)
    attention: int = 0
    map_bytes: int = 0

    @property
    def operations(self) -> int:
        """Multiplications and additions of all."""
        return self.attention + sum(op.operations * n for op, n in self.alone.items())


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (aten.mm.default, aten.addmm.default):
            a, b = args[-2:]
            turned = (_is_turned(a), _is_turned(b))
            self.work.alone[Product(a.shape[0], a.shape[1], b.shape[1], turned)] += 1
        elif func in (aten.bmm.default, aten.baddbmm.default):
            a, b = args[-2:]
            product = Product(a.shape[1], a.shape[2], b.shape[2], count=a.shape[0])
            self.work.attention += product.operations
        elif func == aten.convolution.default:
            x, weight, _, stride, padding, _, transposed, _, groups = args[:9]
            self._note(x, weight, stride, padding, transposed, groups)
        elif func == aten.convolution_backward.default:
            _, x, weight, _, stride, padding, _, transposed, _, groups, wanted = args[:11]
            self._note(x, weight, stride, padding, transposed, groups, tuple(wanted[:2]))
        return func(*args, **(kwargs or {}))

    def _note(
        self,
        x: Tensor,
        weight: Tensor,
        stride: list[int],
        padding: list[int],
        transposed: bool,
        groups: int,
        backward: tuple[bool, bool] | None = None,
    ) -> None:
        shapes = (tuple(x.shape), tuple(weight.shape), tuple(stride), tuple(padding))
        self.work.alone[Convolution(*shapes, transposed, groups, backward)] += 1


def _is_turned(x: Tensor) -> bool:
    return x.stride(-1) != 1 and x.stride(-2) == 1


def work_of(found: Subject, case: Case) -> Work:
    """What one call, or one step of training, of a case does."""
    with torch.device("meta"):
        net = found.spec.build(found.config).eval()
        x = torch.zeros(case.batch, found.spec.in_channels(found.config), case.side, case.side)
    if hasattr(net, "mean"):
        net.mean = net.mean.to("meta")
    elements = _map_elements(net, x)
    recorder = _Recorder()
    with torch.set_grad_enabled(case.kind == "training"), recorder:
        y = Eager(net)(x)
        if case.kind == "training":
            y.sum().backward()
    recorder.work.map_bytes = PASSES[case.kind] * elements * case.precision.stored.itemsize
    return recorder.work


def _map_elements(net: nn.Module, x: Tensor) -> int:
    """Numbers in what all blocks give."""
    sizes: list[int] = []

    def see(module: nn.Module, _: Any, y: Any) -> None:
        sizes.append((y[0] if isinstance(y, tuple) else y).numel())

    hooks = [m.register_forward_hook(see) for m in net.modules() if isinstance(m, BLOCKS)]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return sum(sizes)


class Rates:
    """Measured speeds of a machine, kept in the results.

    Args:
        known: seconds, operations or bytes per second by name; grows.
        device: of the measurements.
        rehearsal: whether small sizes do.
    """

    def __init__(self, known: dict[str, Any], device: torch.device, rehearsal: bool) -> None:
        self.known = known
        self.clock = Clock(device)
        self.rehearsal = rehearsal

    def matrix(self, dtype: torch.dtype) -> float:
        """Operations per second of one large product."""
        side = REHEARSAL_SIDE if self.rehearsal else MATRIX_SIDE
        product = Product(side, side, side)
        return product.operations / self.seconds(product, dtype)

    def copy(self) -> float:
        """Bytes per second, read and written, of a copy."""
        if "copy, bytes/s" not in self.known:
            size = REHEARSAL_BYTES if self.rehearsal else COPY_BYTES
            a = torch.randint(256, (size,), dtype=torch.uint8, device=self.clock.device)
            b = torch.empty_like(a)
            self.known["copy, bytes/s"] = 2 * size / self._measured(lambda: b.copy_(a))
        return float(self.known["copy, bytes/s"])

    def seconds(self, operation: Operation, dtype: torch.dtype) -> float:
        """Of one operation alone."""
        name = f"{operation.name} {str(dtype).removeprefix('torch.')}, s"
        if name not in self.known:
            self.known[name] = self._measured(operation.maker(self.clock.device, dtype))
        return float(self.known[name])

    def _measured(self, call: Callable[[], object]) -> float:
        call()
        calls = self.clock.calls_for(call)
        return min(self.clock.seconds(call, calls) for _ in range(3))


def floors(work: Work, dtype: torch.dtype, rates: Rates) -> dict[str, Any]:
    """The composite floor in ms by kind of operation, and what it is made of."""
    linear = convolutions = operations = 0.0
    for operation, count in work.alone.items():
        seconds = count * rates.seconds(operation, dtype)
        if isinstance(operation, Product):
            linear += seconds
            operations += count * operation.operations
        else:
            convolutions += seconds
    peak = rates.matrix(dtype)
    rate = operations / linear if linear else peak
    parts = {
        "linear layers": linear,
        "attention products": work.attention / rate,
        "convolutions": convolutions,
        "map": work.map_bytes / rates.copy(),
    }
    return {
        "floor_ms": round(1e3 * sum(parts.values()), 4),
        "parts_ms": {name: round(1e3 * seconds, 4) for name, seconds in parts.items()},
        "operations": work.operations,
        "map_bytes": work.map_bytes,
        "matrix_rate": peak,
        "matrix_rate_at_these_shapes": rate,
        "copy_rate": rates.copy(),
    }


def shares(floor: Mapping[str, Any], milliseconds: float) -> dict[str, float]:
    """Of the card's matrix rate, of its bandwidth, and of the composite floor."""
    seconds = milliseconds / 1e3
    return {
        "matrix_rate": round(floor["operations"] / seconds / floor["matrix_rate"], 4),
        "matrix_rate_at_these_shapes": round(
            floor["operations"] / seconds / floor["matrix_rate_at_these_shapes"], 4
        ),
        "copy_rate": round(floor["map_bytes"] / seconds / floor["copy_rate"], 4),
        "floor": round(floor["floor_ms"] / milliseconds, 4),
    }
