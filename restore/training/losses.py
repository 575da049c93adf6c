"""What training makes small. Names, weights and formulas are BasicSR's where it has the loss.

Every loss takes the result and the truth, [B, C, H, W] in 0..1, and gives one number, its weight
included. Losses are computed in the dtype of their inputs, which callers make float32.

Sources: Charbonnier: Lai et al., arXiv:1710.01992; perceptual and style: Johnson et al.,
arXiv:1603.08155; SSIM: Wang et al. 2004; in the frequency domain: Cho et al., arXiv:2108.05054;
adversarial: Goodfellow et al. ("vanilla"), LSGAN, WGAN, StyleGAN2's softplus form, hinge.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.errors import UsageError
from restore.metrics.perceptual import lpips_network
from restore.training.vgg import VGGFeatures

Reduction = Literal["mean", "sum"]
GANType = Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"]
Criterion = Literal["l1", "l2", "fro"]


class _PixelLoss(nn.Module):
    """A weighted mean, or sum, of a value for each pixel and channel."""

    def __init__(self, loss_weight: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise UsageError(
                f"{type(self).__name__}: reduction is {reduction!r}; expected mean or sum, since "
                "training needs one number"
            )
        self.loss_weight = loss_weight
        self.reduction = reduction

    def forward(self, result: Tensor, truth: Tensor) -> Tensor:
        """[B, C, H, W] twice to one number."""
        values = self.values(result, truth)
        return self.loss_weight * (values.mean() if self.reduction == "mean" else values.sum())

    def values(self, result: Tensor, truth: Tensor) -> Tensor:
        """The value for each pixel and channel."""
        raise NotImplementedError


class L1Loss(_PixelLoss):
    """The absolute difference."""

    def values(self, result: Tensor, truth: Tensor) -> Tensor:
        """|result - truth|."""
        return (result - truth).abs()


class MSELoss(_PixelLoss):
    """The squared difference."""

    def values(self, result: Tensor, truth: Tensor) -> Tensor:
        """(result - truth)^2."""
        return (result - truth).square()


class CharbonnierLoss(_PixelLoss):
    """The absolute difference, rounded at zero: sqrt((result - truth)^2 + eps)."""

    def __init__(
        self, loss_weight: float = 1.0, reduction: Reduction = "mean", eps: float = 1e-12
    ) -> None:
        super().__init__(loss_weight, reduction)
        self.eps = eps

    def values(self, result: Tensor, truth: Tensor) -> Tensor:
        """sqrt((result - truth)^2 + eps)."""
        return ((result - truth).square() + self.eps).sqrt()


class FFTLoss(_PixelLoss):
    """The absolute difference of the Fourier coefficients, real and imaginary parts apart."""

    def values(self, result: Tensor, truth: Tensor) -> Tensor:
        """|Re| and |Im| of the difference's coefficients: [B, C, H, W // 2 + 1, 2]."""
        return torch.view_as_real(torch.fft.rfft2(result - truth)).abs()


class SSIMLoss(nn.Module):
    """1 - SSIM: a Gaussian window of 11 pixels with sigma 1.5, only where it lies inside.

    Args:
        loss_weight: factor.
    """

    window: Tensor

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        offset = torch.arange(11, dtype=torch.float64) - 5
        kernel = torch.exp(-offset.square() / (2 * 1.5**2))
        self.register_buffer("window", kernel / kernel.sum(), persistent=False)

    def forward(self, result: Tensor, truth: Tensor) -> Tensor:
        """[B, C, H, W] twice, H and W at least 11, to one number."""
        if min(result.shape[2:]) < 11:
            raise UsageError(
                f"SSIMLoss: patches are {tuple(result.shape[2:])} pixels; the window needs "
                "11 x 11: raise gt_size"
            )
        both = torch.cat(
            [result, truth, result * result, truth * truth, result * truth]
        )  # [5 B, C, H, W]
        mean_x, mean_y, square_x, square_y, product = self._blur(both).chunk(5)
        similarity = (2 * mean_x * mean_y + 0.01**2) * (2 * (product - mean_x * mean_y) + 0.03**2)
        similarity = similarity / (
            (mean_x.square() + mean_y.square() + 0.01**2)
            * (square_x - mean_x.square() + square_y - mean_y.square() + 0.03**2)
        )
        return self.loss_weight * (1 - similarity.mean())

    def _blur(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.window.to(x.dtype).expand(channels, 1, 1, 11)
        across = F.conv2d(x, kernel, groups=channels)
        return F.conv2d(across, kernel.transpose(2, 3), groups=channels)


class PerceptualLoss(nn.Module):
    """Distances of VGG features, and of their correlations (style).

    Args:
        layer_weights: layer ("conv5_4": before its ReLU) to weight.
        vgg_type: "vgg11", "vgg13", "vgg16" or "vgg19", perhaps with "_bn".
        use_input_norm: bring 0..1 to the values that VGG was trained with.
        range_norm: the pictures are in -1..1.
        perceptual_weight: factor of the features' distance; 0 leaves it out.
        style_weight: factor of the correlations' distance; 0 leaves it out.
        criterion: mean absolute ("l1") or squared ("l2") difference, or its root sum ("fro").
        vgg_weights: torchvision's file; None: where BasicSR and torch.hub keep it.

    Raises:
        UsageError: VGG's weights are not at hand; the message says where they are looked for.
    """

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        criterion: Criterion = "l1",
        vgg_weights: Path | None = None,
    ) -> None:
        super().__init__()
        if criterion not in get_args(Criterion):
            raise UsageError(f"PerceptualLoss: criterion is {criterion!r}; expected l1, l2 or fro")
        self.layer_weights = dict(layer_weights)
        self.perceptual_weight = perceptual_weight
        self.style_weight = style_weight
        self.criterion = criterion
        self.vgg = VGGFeatures(
            tuple(layer_weights), vgg_type, use_input_norm, range_norm, vgg_weights
        )

    def forward(self, result: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """The terms whose weight is above 0: "percep" and "style"."""
        found = self.vgg(result)
        with torch.no_grad():
            wanted = self.vgg(truth)
        terms = {}
        if self.perceptual_weight > 0:
            terms["percep"] = self.perceptual_weight * self._distance(found, wanted)
        if self.style_weight > 0:
            found = {name: gram(x) for name, x in found.items()}
            wanted = {name: gram(x) for name, x in wanted.items()}
            terms["style"] = self.style_weight * self._distance(found, wanted)
        return terms

    def _distance(self, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
        differences = {name: found[name] - wanted[name] for name in found}
        if self.criterion == "fro":
            parts = {name: d.square().sum().sqrt() for name, d in differences.items()}
        elif self.criterion == "l2":
            parts = {name: d.square().mean() for name, d in differences.items()}
        else:
            parts = {name: d.abs().mean() for name, d in differences.items()}
        return torch.stack([self.layer_weights[name] * part for name, part in parts.items()]).sum()


def gram(x: Tensor) -> Tensor:
    """Correlations of channels: [B, C, H, W] to [B, C, C], divided by C * H * W."""
    flat = x.flatten(2)
    return flat @ flat.transpose(1, 2) / (x.shape[1] * flat.shape[2])


class LPIPSLoss(nn.Module):
    """Learned perceptual distance (Zhang et al., arXiv:1801.03924), by the package lpips.

    Args:
        loss_weight: factor.
        net: "alex", "vgg" or "squeeze".

    Raises:
        UsageError: the package, or the weights of its network, are not at hand.
    """

    def __init__(self, loss_weight: float = 1.0, net: str = "alex") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.lpips = lpips_network(net)

    def forward(self, result: Tensor, truth: Tensor) -> Tensor:
        """[B, 3, H, W] twice to one number."""
        distance: Tensor = self.lpips(result, truth, normalize=True)
        return self.loss_weight * distance.mean()


class GANLoss(nn.Module):
    """The game of generator and discriminator.

    Args:
        gan_type: which form.
        real_label_val: what the discriminator is to say of true pictures (vanilla, lsgan).
        fake_label_val: and of made ones.
        loss_weight: factor of the generator's loss; the discriminator's has none.
    """

    def __init__(
        self,
        gan_type: GANType,
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if gan_type not in get_args(GANType):
            raise UsageError(
                f"GANLoss: gan_type is {gan_type!r}; expected one of {', '.join(get_args(GANType))}"
            )
        self.gan_type = gan_type
        self.labels = (fake_label_val, real_label_val)
        self.loss_weight = loss_weight

    def forward(self, verdict: Tensor, is_real: bool, *, is_disc: bool = False) -> Tensor:
        """What the discriminator said of pictures, of any shape, to one number.

        Args:
            verdict: its output.
            is_real: what it is to say of them; the generator wants True for those it made.
            is_disc: whether the discriminator learns from this.
        """
        sign = -1.0 if is_real else 1.0
        if self.gan_type == "hinge":
            loss = F.relu(1 + sign * verdict).mean() if is_disc else -verdict.mean()
        elif self.gan_type == "wgan":
            loss = sign * verdict.mean()
        elif self.gan_type == "wgan_softplus":
            loss = F.softplus(sign * verdict).mean()
        else:
            label = torch.full_like(verdict, self.labels[is_real])
            if self.gan_type == "vanilla":
                loss = F.binary_cross_entropy_with_logits(verdict, label)
            else:
                loss = F.mse_loss(verdict, label)
        return loss if is_disc else loss * self.loss_weight
