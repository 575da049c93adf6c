"""Correlation of channels inside windows: attention across channels, without a softmax."""

from __future__ import annotations

from torch import Tensor

from restore.kernels import dispatch, reference
from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.precision import lowered
from restore.kernels.window_attention import check_windows
from restore.kernels.windows import Size

OP = "channel_correlation"
MAX_HALF = 64  # channels of q and of v, which a program holds whole


def channel_correlation(qv: Tensor, window_size: Size, *, backend: Backend = "auto") -> Tensor:
    """Mix the channels of each window by their correlations.

        S = q^T v / N                   [C / 2, C / 2] for the N pixels of a window
        y_a = S v_a

    Args:
        qv: [B, H, W, C]: queries in the first half of the channels, values in the second.
        window_size: wh rows and ww columns; they divide H and W.
        backend: see `dispatch.choose`; "torch" is the definition, which is made of stock ops.

    Returns:
        [B, H, W, C / 2], dtype and device of qv; under autocast of its dtype.

    Raises:
        ValueError: a shape does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Zhang et al., "HiT-SR", arXiv:2407.05878, section 3.3 (channel self-correlation).
    """
    if qv.dim() != 4 or qv.shape[-1] % 2:
        raise ValueError(f"{OP}: qv is {tuple(qv.shape)}; expected [B, H, W, C] with an even C")
    _, h, w, _ = qv.shape
    check_windows(OP, (h, w), window_size, (0, 0))
    if choose(OP, backend, refusals(qv)) == "triton":
        from restore.kernels import self_correlation_triton as fast

        return fast.forward(lowered(qv), None, None, None, window_size, (1, 1), channel=True)
    return reference.channel_correlation(qv, window_size)


def refusals(qv: Tensor) -> dict[Path, str | None]:
    """Why each path beside the definition cannot run this call, or None if it can."""
    return {"triton": triton_refuses(qv), "torch": None}


def triton_refuses(qv: Tensor) -> str | None:
    """Why no Triton kernel can correlate the two halves of qv, or None if one can."""
    why = dispatch.triton_refuses(qv)
    if why is None and qv.shape[-1] > 2 * MAX_HALF:
        return f"C={qv.shape[-1]}; the kernels hold at most {2 * MAX_HALF} channels of a pixel"
    return why
