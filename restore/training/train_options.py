"""What an option file says of training, typed: its section `train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from restore.training.option_types import (
    Count,
    Fraction,
    Positive,
    Range,
    Rate,
    Section,
    Weight,
)


@dataclass(frozen=True, kw_only=True)
class OptimOptions(Section):
    """`optim_g` or `optim_d`.

    Attributes:
        type: ScheduleFreeAdamW (ours) needs no scheduler.
        lr: learning rate.
        weight_decay: None: PyTorch's default (0.01 for AdamW and ScheduleFreeAdamW, else 0).
        betas: of Adam, AdamW, ScheduleFreeAdamW.
        eps: of these too.
        momentum: of SGD.
        nesterov: of SGD.
    """

    type: Literal["Adam", "AdamW", "SGD", "ScheduleFreeAdamW"]
    lr: Rate
    weight_decay: Weight | None = None
    betas: tuple[Annotated[float, Range(0, 1)], Annotated[float, Range(0, 1)]] = (0.9, 0.999)
    eps: Rate = 1e-8
    momentum: Fraction = 0.0
    nesterov: bool = False


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions(Section):
    """How the learning rate goes, in iterations.

    Attributes:
        type: MultiStepRestartLR is BasicSR's other name of its MultiStepLR.
        milestones: where the rate is multiplied by gamma; one named twice counts twice.
        gamma: see there.
        restarts: where it goes back to the beginning's, times the weight in restart_weights.
        periods: of the cosine, one after the other.
        restart_weights: one for every restart or period.
        eta_min: least rate of the cosine.
        eta_mins: least rate of every period (CosineAnnealingRestartCyclicLR).
    """

    type: Literal[
        "MultiStepLR",
        "MultiStepRestartLR",
        "CosineAnnealingRestartLR",
        "CosineAnnealingRestartCyclicLR",
    ]
    milestones: tuple[Count, ...] = ()
    gamma: Rate = 0.1
    restarts: tuple[Count, ...] = (0,)
    restart_weights: tuple[Rate, ...] = (1.0,)
    periods: tuple[Positive, ...] = ()
    eta_min: Weight = 0.0
    eta_mins: tuple[Weight, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LossOptions(Section):
    """A loss between result and gt.

    Attributes:
        type: of the loss; FFTLoss, SSIMLoss and LPIPSLoss are ours.
        loss_weight: the loss is multiplied by it.
        reduction: mean or sum over all values.
        eps: of CharbonnierLoss, sqrt(d^2 + eps).
    """

    type: Literal["L1Loss", "MSELoss", "CharbonnierLoss", "FFTLoss", "SSIMLoss", "LPIPSLoss"]
    loss_weight: Weight = 1.0
    reduction: Literal["mean", "sum"] = "mean"
    eps: Rate = 1e-12


@dataclass(frozen=True, kw_only=True)
class PerceptualOptions(Section):
    """Distance between features of a VGG network.

    Attributes:
        layer_weights: layer, such as conv5_4, to weight.
        vgg_type: which VGG.
        use_input_norm: normalise as ImageNet's.
        range_norm: pictures are in -1..1.
        perceptual_weight: of the distance of features; 0: none.
        style_weight: of the distance of their Gram matrices; 0: none.
        criterion: distance.
        vgg_weights: file with torchvision's weights of that VGG (ours); None: torchvision's cache.
    """

    type: Literal["PerceptualLoss"] = "PerceptualLoss"
    layer_weights: Mapping[str, float]
    vgg_type: Literal["vgg11", "vgg13", "vgg16", "vgg19"] = "vgg19"
    use_input_norm: bool = True
    range_norm: bool = False
    perceptual_weight: Weight = 1.0
    style_weight: Weight = 0.0
    criterion: Literal["l1", "l2", "fro"] = "l1"
    vgg_weights: Path | None = None


@dataclass(frozen=True, kw_only=True)
class GANOptions(Section):
    """The game with a discriminator, network_d.

    Attributes:
        gan_type: vanilla: binary cross entropy of logits; lsgan: squares; hinge.
        real_label_val: what the discriminator should say of gt.
        fake_label_val: and of results.
        loss_weight: of the generator's part.
    """

    type: Literal["GANLoss"] = "GANLoss"
    gan_type: Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"] = "vanilla"
    real_label_val: float = 1.0
    fake_label_val: float = 0.0
    loss_weight: Weight = 1.0


@dataclass(frozen=True, kw_only=True)
class StageOptions(Section):
    """One stage of `progressive`.

    Attributes:
        start: iteration after which it begins; 0 in the first.
        gt_size: side of patches, gt pixels.
        batch_size_per_gpu: patches a step and process.
    """

    start: Count
    gt_size: Positive
    batch_size_per_gpu: Positive


@dataclass(frozen=True, kw_only=True)
class MixingOptions(Section):
    """Mixup: pairs are weighted means of two pairs, with weights from Beta(mixup_beta, mixup_beta).

    Attributes:
        mixup: whether.
        mixup_beta: see there.
        use_identity: leave a half of the batches as they are.
        start: iteration after which it begins (ours).
    """

    mixup: bool = False
    mixup_beta: Rate = 1.2
    use_identity: bool = False
    start: Count = 0


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Section):
    """`train`. The keys from grad_clip on are ours.

    Attributes:
        total_iter: steps of the optimizer.
        warmup_iter: steps in which the learning rate rises from 0; -1: none.
        ema_decay: of the running mean of the weights; 0: none.
        optim_g: optimizer of the network.
        optim_d: of the discriminator.
        scheduler: of all optimizers; None: the learning rate stays.
        pixel_opt: loss of pixels.
        perceptual_opt: loss of VGG features.
        gan_opt: needs network_d and optim_d.
        fft_opt: loss of spectra (ours).
        ssim_opt: 1 - SSIM (ours).
        lpips_opt: LPIPS (ours).
        net_d_iters: the network is trained in every such step of the discriminator.
        net_d_init_iters: steps in which the discriminator is trained alone.
        grad_clip: largest norm of all gradients together; 0: any.
        accum_iter: batches in one step of the optimizer.
        amp: arithmetic of the forward pass; none: float32.
        compile: run the network through torch.compile.
        channels_last: memory order of pictures; None: false, as a CPU gains nothing from it.
        checkpointing: keep less of the forward pass and compute it again in the backward pass.
        progressive: patch and batch sizes that change on the way, in order of start.
        mixing_augs: mixup.
    """

    total_iter: Positive
    warmup_iter: Annotated[int, Range(-1)] = -1
    ema_decay: Annotated[float, Range(0, 1)] = 0.0
    optim_g: OptimOptions
    optim_d: OptimOptions | None = None
    scheduler: SchedulerOptions | None = None
    pixel_opt: LossOptions | None = None
    perceptual_opt: PerceptualOptions | None = None
    gan_opt: GANOptions | None = None
    fft_opt: LossOptions | None = None
    ssim_opt: LossOptions | None = None
    lpips_opt: LossOptions | None = None
    net_d_iters: Positive = 1
    net_d_init_iters: Count = 0
    grad_clip: Weight = 0.0
    accum_iter: Positive = 1
    amp: Literal["none", "bf16", "fp16"] = "none"
    compile: bool = False
    channels_last: bool | None = None
    checkpointing: bool = False
    progressive: tuple[StageOptions, ...] = ()
    mixing_augs: MixingOptions = MixingOptions()
