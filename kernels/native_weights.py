"""Weights as the native kernels read them, made once and kept as long as their parameters."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from restore.kernels import native_calls
from restore.kernels.native_library import WIDEST_PANEL, Library, library
from restore.kernels.native_windows import Layout, order
from restore.kernels.windows import Size

LOG2_E = math.log2(math.e)
Value = TypeVar("Value")


class Packed(NamedTuple):
    """A linear layer as the kernels read it."""

    weight: Tensor  # of `Library.pack`
    bias: Tensor  # [outputs], or [outputs, tokens] if each token of a window has its own
    outputs: int
    inputs: int

    @property
    def argument(self) -> native_calls.Linear:
        """For a call of the library; valid as long as this is."""
        return native_calls.Linear(
            self.weight.data_ptr(),
            self.bias.data_ptr(),
            self.outputs,
            self.inputs,
            self.bias.dim() == 2,
        )


class _Kept(NamedTuple):
    sources: tuple[weakref.ref[Tensor], ...]
    digest: int
    shapes: list[torch.Size]
    value: object


_KEPT: dict[tuple[object, ...], _Kept] = {}


def kept(
    name: tuple[object, ...],
    sources: Sequence[Tensor | None],
    compute: Callable[..., Value],
    *arguments: object,
) -> Value:
    """compute(*arguments), or what it gave when it was last called for these tensors.

    It is forgotten with the first of the tensors, and computed again when one of them was changed.

    Args:
        name: what is computed, with all that it depends on beside the tensors.
        sources: the tensors that it depends on.
        compute: gives it.
        arguments: of `compute`.
    """
    given = [source for source in sources if source is not None]
    key = (name, *map(id, sources))
    found = _KEPT.get(key)
    # values, not versions, which do not tell of edits through `.data` or in inference mode
    digest, shapes = library().digest(given), [source.shape for source in given]
    if found is not None and found.digest == digest and found.shapes == shapes:
        return cast(Value, found.value)
    value = compute(*arguments)

    def forget(_: object) -> None:
        _KEPT.pop(key, None)

    references = tuple(weakref.ref(source, forget) for source in given)
    _KEPT[key] = _Kept(references, digest, shapes, value)
    return value


def packed_linear(
    lib: Library,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    *,
    vectors: Tensor | None = None,
    window_size: Size | None = None,
    heads: int = 0,
    queries: float = 1.0,
) -> Packed:
    """A linear layer with the weight and bias of the norm before it, if there is one, in its own.

    Args:
        lib: that reads it.
        weight: [outputs, inputs].
        bias: [outputs] or None.
        norm_weight: [inputs] or None.
        norm_bias: [inputs] or None.
        vectors: [tokens, inputs], added behind the norm at each token of a window, or None.
        window_size: that the vectors are for.
        heads: of the attention that the layer is for, or 0: projection to queries, keys and values
            if it has three times as many outputs as inputs, else the one behind.
        queries: factor of the first third of what comes out.
    """
    sources = (weight, bias, norm_weight, norm_bias, vectors)
    name = ("linear", lib.isa, queries, window_size, heads)
    return kept(name, sources, _pack, lib, sources, window_size, heads, queries)


def _pack(
    lib: Library,
    sources: tuple[Tensor | None, ...],
    window_size: Size | None,
    heads: int,
    queries: float,
) -> Packed:
    """In float64: the results are rounded once."""
    w, b, norm_weight, norm_bias, vectors = (
        None if source is None else source.detach().double() for source in sources
    )
    assert w is not None
    outputs, inputs = w.shape
    b = w.new_zeros(outputs) if b is None else b
    if norm_bias is not None:
        b = b + w @ norm_bias
    if vectors is not None and window_size is not None:
        b = b[:, None] + w @ vectors[order(window_size)].T  # [outputs, tokens]
        b = pad(b, (0, -b.shape[1] % lib.panel))
    if norm_weight is not None:
        w = w * norm_weight
    if queries != 1.0:
        w, b = w.clone(), b.clone()
        w[: outputs // 3] *= queries
        b[: outputs // 3] *= queries
    if heads and lib.terms > 1:
        return _pack_heads(lib, w, b, heads)
    return Packed(lib.pack(w.float()), b.float().contiguous(), outputs, inputs)


def _pack_heads(lib: Library, w: Tensor, b: Tensor, heads: int) -> Packed:
    """A projection to heads or from them, which get as many channels as are taken at once."""
    outputs, inputs = w.shape
    channels = min(outputs, inputs)
    more = -(channels // heads) % lib.terms
    if outputs == channels:
        w = pad(w.unflatten(1, (heads, -1)), (0, more)).flatten(1)
        return Packed(lib.pack(w.float()), b.float().contiguous(), *w.shape)
    w = pad(w.unflatten(0, (3 * heads, -1)), (0, 0, 0, more)).flatten(0, 1).float()
    b = b.unflatten(0, (3 * heads, -1))
    b = pad(b, (0, more)) if b.dim() == 2 else pad(b, (0, 0, 0, more))
    before = len(w) // 3 * 2  # queries and keys are added up along other numbers than values
    packed = torch.cat([lib.pack(w[:before]), lib.pack(w[before:])])
    return Packed(packed, b.flatten(0, 1).float().contiguous(), *w.shape)


def windows_argument(
    name: tuple[object, ...], its: Layout, table: Tensor
) -> tuple[native_calls.Windows, tuple[object, ...]]:
    """The argument for windows, and what has to stay as long as it is used.

    Args:
        name: of the layout.
        its: the layout.
        table: of biases, [rows, heads].
    """
    bias = kept(("bias", name), (table,), _bias, its, table)
    query = its.query.argument
    key = query if its.key is its.query else its.key.argument
    argument = native_calls.Windows(
        query, key, bias.data_ptr(), bias.stride(0), its.key_at.data_ptr()
    )
    return argument, (its, bias)


def _bias(its: Layout, table: Tensor) -> Tensor:
    """[heads, biases of a head and of queries that fill the last panel], to base 2."""
    values = table.detach().double()[its.rows] * LOG2_E
    return pad(values.T, (0, WIDEST_PANEL)).float().contiguous()
