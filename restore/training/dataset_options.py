"""What an option file says of a data set, typed: one section of `datasets`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from restore.training.option_types import (
    Count,
    Flat,
    Fraction,
    Limits,
    Paths,
    Positive,
    Range,
    Rate,
    Section,
    Weight,
)

Phase = Literal["train", "val", "test"]
PHASES: tuple[Phase, ...] = ("train", "val", "test")
DatasetType = Literal[
    "PairedImageDataset",  # lq and gt from files
    "SingleHRDataset",  # gt from files, lq made from it as `task` says
    "SingleImageDataset",  # lq alone; nothing is scored but what needs no gt
    "RealESRGANDataset",  # gt from files, lq made by the second-order chain of Options.degradation
]
Task = Literal["bicubic", "noise", "jpeg", "blur"]
KernelName = Literal[
    "iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"
]


@dataclass(frozen=True, kw_only=True)
class BackendOptions(Section):
    """Where pictures lie.

    Attributes:
        type: disk: folders of files; lmdb: data bases that `restore data lmdb` makes.
    """

    type: Literal["disk", "lmdb"] = "disk"


@dataclass(frozen=True, kw_only=True)
class KernelOptions(Section):
    """Blur kernels of the second-order chain (Real-ESRGAN); a 2 stands for the second round.

    Attributes:
        blur_kernel_size: largest kernel, pixels; sizes from 7 are drawn.
        kernel_list: kinds of kernels.
        kernel_prob: how often each is drawn.
        sinc_prob: how often a sinc filter stands in a kernel's place.
        blur_sigma: least and most standard deviation, pixels.
        betag_range: least and most exponent of generalized Gaussians.
        betap_range: least and most exponent of plateaus.
        final_sinc_prob: how often a sinc filter comes last, beside the JPEG compression.
    """

    blur_kernel_size: Annotated[int, Range(7, 101)] = 21
    kernel_list: tuple[KernelName, ...] = (
        "iso",
        "aniso",
        "generalized_iso",
        "generalized_aniso",
        "plateau_iso",
        "plateau_aniso",
    )
    kernel_prob: tuple[Fraction, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_prob: Fraction = 0.1
    blur_sigma: Limits = (0.2, 3.0)
    betag_range: Limits = (0.5, 4.0)
    betap_range: Limits = (1.0, 2.0)
    blur_kernel_size2: Annotated[int, Range(7, 101)] = 21
    kernel_list2: tuple[KernelName, ...] = kernel_list
    kernel_prob2: tuple[Fraction, ...] = kernel_prob
    sinc_prob2: Fraction = 0.1
    blur_sigma2: Limits = (0.2, 1.5)
    betag_range2: Limits = (0.5, 4.0)
    betap_range2: Limits = (1.0, 2.0)
    final_sinc_prob: Fraction = 0.8


@dataclass(frozen=True, kw_only=True)
class DegradationOptions(Section):
    """The second-order chain beside its kernels (Real-ESRGAN), at the top level of a file.

    Attributes:
        resize_prob: how often pictures are made larger, smaller, or kept.
        resize_range: least and most factor.
        gaussian_noise_prob: how often noise is Gaussian; else it is Poisson's.
        noise_range: least and most standard deviation of Gaussian noise, of 255.
        poisson_scale_range: least and most strength of Poisson noise.
        gray_noise_prob: how often noise is the same in all channels.
        jpeg_range: least and most JPEG quality.
        second_blur_prob: how often the second round blurs.
        gt_usm: sharpen gt before anything else.
        l1_gt_usm: compare with the sharpened gt in the pixel loss.
        percep_gt_usm: and in the perceptual loss.
        gan_gt_usm: and in the discriminator.
        high_order_degradation: False: data sets bring lq already.
    """

    resize_prob: tuple[Fraction, Fraction, Fraction] = (0.2, 0.7, 0.1)
    resize_range: Limits = (0.15, 1.5)
    gaussian_noise_prob: Fraction = 0.5
    noise_range: Limits = (1.0, 30.0)
    poisson_scale_range: Limits = (0.05, 3.0)
    gray_noise_prob: Fraction = 0.4
    jpeg_range: Limits = (30.0, 95.0)
    second_blur_prob: Fraction = 0.8
    resize_prob2: tuple[Fraction, Fraction, Fraction] = (0.3, 0.4, 0.3)
    resize_range2: Limits = (0.3, 1.2)
    gaussian_noise_prob2: Fraction = 0.5
    noise_range2: Limits = (1.0, 25.0)
    poisson_scale_range2: Limits = (0.05, 2.5)
    gray_noise_prob2: Fraction = 0.4
    jpeg_range2: Limits = (30.0, 95.0)
    gt_usm: bool = True
    l1_gt_usm: bool = True
    percep_gt_usm: bool = True
    gan_gt_usm: bool = False
    high_order_degradation: bool = True


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(Section):
    """One section of `datasets`.

    Attributes:
        key: of the section: "train", "val", "val_1", "test_2".
        phase: what it serves.
        scale: gt pixels per lq pixel, along each axis; from the file's top level.
        type: what it holds; official names are translated.
        name: for logs and folders of results.
        dataroot_gt: folders of high-quality pictures, or data bases (*.lmdb).
        dataroot_lq: folders of low-quality pictures, in the order of dataroot_gt.
        meta_info_file: a list of pictures of dataroot_gt, one a line; what follows a space is left
            out.
        filename_tmpl: name of a low-quality picture; {} stands for the high-quality one's, without
            its suffix.
        io_backend: where the pictures lie.
        gt_size: side of training patches in gt, pixels; 0 (val, test): whole pictures.
        use_hflip: mirror at random.
        use_rot: turn by 90 degrees and mirror vertically at random.
        use_shuffle: draw in random order.
        num_worker_per_gpu: processes that read; 0: the training process itself.
        batch_size_per_gpu: patches a step and process.
        dataset_enlarge_ratio: how often a list of pictures is gone through in one epoch.
        num_prefetch_queue: batches that wait.
        pin_memory: keep batches where copies to a GPU are fast.
        color: rgb, y (of YCbCr, 16-235 of 255) or gray.
        mean: taken off every channel of lq and gt, 0..1; None: 0.
        std: every channel of lq and gt is divided by it; None: 1.
        cache_gb: memory for decoded pictures, GiB; None: what is free, 0: none.
        gt_scales: gt is made smaller by one of these factors, drawn at random, before it is cut.
        task: how SingleHRDataset makes lq.
        sigma: noise, of 255: one value, or least and most of what is drawn.
        quality: JPEG quality, 1..100: one value, or least and most of what is drawn.
        noise_seed: validation noise of picture i is drawn as the papers do from this seed.
        kernels: of blur (SingleHRDataset with `task: blur`, RealESRGANDataset).
    """

    key: str
    phase: Phase
    scale: Positive
    type: DatasetType
    name: str
    dataroot_gt: Paths = ()
    dataroot_lq: Paths = ()
    meta_info_file: Path | None = None
    filename_tmpl: str = "{}"
    io_backend: BackendOptions = BackendOptions()
    gt_size: Count = 0
    use_hflip: bool = True
    use_rot: bool = True
    use_shuffle: bool = True
    num_worker_per_gpu: Count = 0
    batch_size_per_gpu: Positive = 1
    dataset_enlarge_ratio: Positive = 1
    num_prefetch_queue: Positive = 1
    pin_memory: bool = False
    color: Literal["rgb", "y", "gray"] = "rgb"
    mean: tuple[float, ...] | None = None
    std: tuple[Rate, ...] | None = None
    cache_gb: Weight | None = None
    gt_scales: tuple[Annotated[float, Range(0, 1, above=True)], ...] = (1.0,)
    task: Task = "bicubic"
    sigma: Weight | Limits = 25.0
    quality: Annotated[int, Range(1, 100)] | Annotated[tuple[int, int], Range(1, 100)] = 40
    noise_seed: Count = 0
    kernels: Annotated[KernelOptions, Flat()] = KernelOptions()
