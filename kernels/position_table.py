"""Biases of offsets between pixels by a small MLP, of networks that do not learn each."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from restore.kernels import dispatch, reference
from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.precision import full_precision
from restore.kernels.windows import Size

OP = "position_table"
PARAMETERS = 14  # two of the first layer, four of each further one
WIDEST = 32  # channels between layers, and heads, that a program holds


def position_table(
    parameters: Sequence[Tensor], window_size: Size, *, eps: float = 1e-5, backend: Backend = "auto"
) -> Tensor:
    """A bias for each head and offset between two pixels of a window, by an MLP of four layers.

        h_1 = W_1 (dy, dx) + b_1
        h_i = W_i relu(LN_i(h_{i - 1})) + b_i        i = 2, 3, 4

    In full precision under autocast too: it is little work, and logits are sensitive to it.

    Args:
        parameters: W_1 [C, 2] and b_1 [C], then weight and bias of LN_i, [C] each, W_i and b_i of
            the further layers: [C, C] and [C], of the last one [heads, C] and [heads]. All of one
            dtype.
        window_size: wh rows and ww columns.
        eps: added to the variance by the norms.
        backend: see `dispatch.choose`; "torch" is the definition, which is made of stock ops.

    Returns:
        [(2 wh - 1)(2 ww - 1), heads], in the order of `windows.relative_offsets`; dtype and device
        of the parameters.

    Raises:
        ValueError: there are more or fewer parameters, or a shape, a dtype or a device does not
            fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Wang et al., "CrossFormer", arXiv:2108.00154 (dynamic position bias).
    """
    _check(parameters)
    path = choose(OP, backend, refusals(parameters, window_size))
    with full_precision(parameters[0]):
        if path == "triton":
            from restore.kernels import position_table_triton as fast

            return fast.forward(parameters, window_size, eps)
        return reference.position_table(parameters, window_size, eps)


def refusals(parameters: Sequence[Tensor], window_size: Size) -> dict[Path, str | None]:
    """Why each path beside the definition cannot run this call, or None if it can."""
    return {"triton": _triton_refuses(parameters, window_size), "torch": None}


def _triton_refuses(parameters: Sequence[Tensor], window_size: Size) -> str | None:
    why = dispatch.triton_refuses(parameters[0])
    if why is None and not all(isinstance(side, int) for side in window_size):
        return "the window's size is left open"
    if why is None and max(p.shape[0] for p in parameters) > WIDEST:
        return f"more than {WIDEST} channels or heads"
    return why


def _check(parameters: Sequence[Tensor]) -> None:
    if len(parameters) != PARAMETERS:
        raise ValueError(f"{OP}: {len(parameters)} parameters; expected {PARAMETERS}")
    first, last = parameters[0], parameters[-1]
    if first.dim() != 2 or last.dim() != 1:
        raise ValueError(
            f"{OP}: W_1 is {tuple(first.shape)} and b_4 {tuple(last.shape)}; expected [C, 2] and "
            "[heads]"
        )
    c, heads = first.shape[0], last.shape[0]
    shapes: list[tuple[int, ...]] = [(c, 2), (c,)]
    for out in (c, c, heads):
        shapes += [(c,), (c,), (out, c), (out,)]
    for number, (given, shape) in enumerate(zip(parameters, shapes, strict=True)):
        if tuple(given.shape) != shape:
            raise ValueError(
                f"{OP}: parameter {number} is {tuple(given.shape)}; C={c} and {heads} heads need "
                f"{shape}"
            )
        if given.dtype != first.dtype or given.device != first.device:
            raise ValueError(
                f"{OP}: parameter {number} is {given.dtype} on {given.device}; W_1 is "
                f"{first.dtype} on {first.device}"
            )
