"""The losses of an option file, together: from result and truth to named numbers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from restore.errors import UsageError
from restore.training.losses import (
    CharbonnierLoss,
    FFTLoss,
    GANLoss,
    L1Loss,
    LPIPSLoss,
    MSELoss,
    PerceptualLoss,
    SSIMLoss,
)
from restore.training.train_options import (
    GANOptions,
    LossOptions,
    PerceptualOptions,
    TrainOptions,
)


def build_loss(options: LossOptions) -> nn.Module:
    """A loss between result and truth; UsageError where it cannot be had."""
    weight, reduction = options.loss_weight, options.reduction
    if options.type == "CharbonnierLoss":
        return CharbonnierLoss(weight, reduction, options.eps)
    if options.type == "SSIMLoss":
        return SSIMLoss(weight)
    if options.type == "LPIPSLoss":
        return LPIPSLoss(weight)
    kinds = {"L1Loss": L1Loss, "MSELoss": MSELoss, "FFTLoss": FFTLoss}
    return kinds[options.type](weight, reduction)


def build_perceptual(options: PerceptualOptions) -> PerceptualLoss:
    """The perceptual loss; UsageError where VGG's weights are not at hand."""
    return PerceptualLoss(
        options.layer_weights,
        options.vgg_type,
        options.use_input_norm,
        options.range_norm,
        options.perceptual_weight,
        options.style_weight,
        options.criterion,
        options.vgg_weights,
    )


def build_gan(options: GANOptions) -> GANLoss:
    """The game's loss."""
    return GANLoss(
        options.gan_type, options.real_label_val, options.fake_label_val, options.loss_weight
    )


class Criteria(nn.Module):
    """All losses of the network but the game's; names are BasicSR's, after "l_" or "l_g_".

    Args:
        train: the option file's section.

    Raises:
        UsageError: it names no loss at all.
    """

    def __init__(self, train: TrainOptions) -> None:
        super().__init__()
        named = {
            "pix": train.pixel_opt,
            "fft": train.fft_opt,
            "ssim": train.ssim_opt,
            "lpips": train.lpips_opt,
        }
        self.direct = nn.ModuleDict(
            {name: build_loss(options) for name, options in named.items() if options is not None}
        )
        self.perceptual = (
            None if train.perceptual_opt is None else build_perceptual(train.perceptual_opt)
        )
        if not self.direct and self.perceptual is None:
            raise UsageError(f"{train.where()}: train names no loss; add pixel_opt, for instance")

    def forward(
        self, result: Tensor, truth: Tensor, truths: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """[B, C, H, W] twice to a number for each loss.

        Args:
            result: what the network made.
            truth: what it was to make.
            truths: what losses by name ("pix", "percep") compare with in its place.
        """
        terms: dict[str, Tensor] = {
            name: loss(result, truths.get(name, truth)) for name, loss in self.direct.items()
        }
        if self.perceptual is not None:
            terms.update(self.perceptual(result, truths.get("percep", truth)))
        return terms

    def adds_up(self, name: str) -> bool:
        """Whether a loss of a large batch is the sum of those of its parts, not their mean."""
        return name in self.direct and getattr(self.direct[name], "reduction", "mean") == "sum"
