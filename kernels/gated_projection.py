"""The projection of HiT-SR to queries and values: a branch of convolutions times a linear layer."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from restore.kernels.dispatch import Backend, Path, choose
from restore.kernels.native_library import native_refuses
from restore.kernels.precision import check_dtypes
from restore.kernels.windows import Size, check_pixels, pad_to_multiple

OP = "gated_projection"


class GateLayers(NamedTuple):
    """Weights and biases of four convolutions. C channels before, n between, D after."""

    squeeze_weight: Tensor  # [n, C, 1, 1]
    squeeze_bias: Tensor | None  # [n]
    conv_weight: Tensor  # [n, n, 3, 3]
    conv_bias: Tensor | None  # [n]
    widen_weight: Tensor  # [D, n, 1, 1]
    widen_bias: Tensor | None  # [D]
    linear_weight: Tensor  # [D, C, 1, 1]
    linear_bias: Tensor | None  # [D]


def gated_projection(
    x: Tensor,
    layers: GateLayers,
    multiple: Size,
    *,
    slopes: tuple[float, float],
    backend: Backend = "auto",
) -> Tensor:
    """Project each pixel, and multiply that by what a branch makes of the pixels around it.

        p = x, grown at the bottom and right by reflection to multiples of two numbers
        y = widen(f2(conv(f1(squeeze(p))))) * linear(p)     f(h) = max(h, 0) + slope min(h, 0)

    elementwise, where conv sees zeros around p.

    Args:
        x: [B, H, W, C], floating point, any strides. Not changed.
        layers: on x's device.
        multiple: of the rows and of the columns.
        slopes: of the two leaky ReLUs below 0.
        backend: see `dispatch.choose`; "torch" is the definition, which is made of stock ops.

    Returns:
        [B, H', W', D], dtype and device of x; under autocast of its dtype.

    Raises:
        ValueError: a shape or a dtype does not fit; the message has both sides.
        BackendUnavailable: the named backend cannot run this call.

    Source: Zhang et al., "HiT-SR", arXiv:2407.05878, section 3.3 (the layers before correlation).
    """
    _check(x, layers, multiple)
    if choose(OP, backend, refusals(x, *layers)) == "native":
        from restore.kernels import native_correlation

        return native_correlation.gated_projection(x, layers, multiple, slopes)
    check_dtypes(OP, x, layers.linear_weight)
    return _definition(pad_to_multiple(x, multiple), layers, slopes)


def refusals(x: Tensor, *weights: Tensor | None) -> dict[Path, str | None]:
    """Why each path beside the definition cannot project x, or None if it can."""
    return {"native": native_refuses(x, *weights), "torch": None}


def _definition(x: Tensor, layers: GateLayers, slopes: tuple[float, float]) -> Tensor:
    # a convolution of single pixels is a linear layer, and the permutations only rename axes
    y = F.linear(x, layers.squeeze_weight.flatten(1), layers.squeeze_bias)
    y = F.leaky_relu(y, slopes[0]).permute(0, 3, 1, 2)
    y = F.conv2d(y, layers.conv_weight, layers.conv_bias, padding=1)
    y = F.leaky_relu(y.permute(0, 2, 3, 1), slopes[1])
    y = F.linear(y, layers.widen_weight.flatten(1), layers.widen_bias)
    return y * F.linear(x, layers.linear_weight.flatten(1), layers.linear_bias)


def _check(x: Tensor, layers: GateLayers, multiple: Size) -> None:
    """Refuse what does not fit together (ValueError)."""
    if x.dim() != 4:
        raise ValueError(f"{OP}: x is {tuple(x.shape)}; expected [B, H, W, C]")
    check_pixels(OP, (x.shape[1], x.shape[2]))
    if min(multiple) < 1:
        raise ValueError(f"{OP}: multiple is {multiple}; expected two numbers of 1 or more")
    c, n, d = x.shape[-1], layers.squeeze_weight.shape[0], layers.linear_weight.shape[0]
    expected = {"squeeze": (n, c, 1, 1), "conv": (n, n, 3, 3), "widen": (d, n, 1, 1)}
    expected["linear"] = (d, c, 1, 1)
    its: dict[str, Tensor | None] = layers._asdict()
    for name, shape in expected.items():
        for part, wanted in ((f"{name}_weight", shape), (f"{name}_bias", shape[:1])):
            given = its[part]
            if given is not None and tuple(given.shape) != wanted:
                raise ValueError(
                    f"{OP}: {part} is {tuple(given.shape)}; x {tuple(x.shape)} and the layers "
                    f"beside it need {wanted}"
                )
