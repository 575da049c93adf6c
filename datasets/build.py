"""From what an option file says to sets and loaders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from restore.datasets.blur_kernels import KernelRound
from restore.datasets.listing import (
    Entry,
    Pair,
    database_entries,
    folder_entries,
    listed_entries,
    paired_by_list,
    paired_databases,
    paired_folders,
)
from restore.datasets.loader import LoaderSettings, LoaderState, Mixing, TrainingLoader
from restore.datasets.paired import PairedPatches
from restore.datasets.patches import PatchSet
from restore.datasets.realesrgan import ChainRound, ChainSettings
from restore.datasets.sampler import FixedStage, Stage
from restore.datasets.single import ChainPatches, Degradation, SyntheticPatches
from restore.datasets.validation import ValidationSet
from restore.errors import UsageError
from restore.training.dataset_options import DatasetOptions, DegradationOptions, KernelOptions
from restore.upscaling.memory import free_bytes

_SHARE_OF_FREE = 0.5  # of the machine's free memory, where cache_gb is left out


def training_set(
    options: DatasetOptions,
    *,
    seed: int,
    chain: DegradationOptions | None = None,
    processes: int = 1,
) -> PatchSet:
    """The set of a `datasets: train` section.

    Args:
        options: the section.
        seed: of its random numbers.
        chain: the second-order chain of a RealESRGANDataset; its defaults if None.
        processes: training processes on this machine, each of which has a cache of its own.

    Raises:
        UsageError: what the section says cannot be done; the message begins with file and line.
    """
    cache = cache_bytes(options, processes)
    turns = {"hflip": options.use_hflip, "rotate": options.use_rot}
    if options.type == "PairedImageDataset":
        return PairedPatches(
            find_pairs(options),
            scale=options.scale,
            seed=seed,
            colour=options.color,
            cache_bytes=cache,
            **turns,
        )
    if options.type == "SingleHRDataset":
        with _placed(options, "task"):
            return SyntheticPatches(
                find_entries(options, "gt"),
                scale=options.scale,
                seed=seed,
                degradation=degradation_of(options),
                factors=options.gt_scales,
                colour=options.color,
                cache_bytes=cache,
                **turns,
            )
    if options.type == "RealESRGANDataset":
        with _placed(options, "type"):
            return ChainPatches(
                find_entries(options, "gt"),
                scale=options.scale,
                seed=seed,
                chain=chain_of(options.kernels, chain or DegradationOptions()),
                cache_bytes=cache,
                **turns,
            )
    raise UsageError(
        f"{options.where('type')}: {options.type} holds no gt to train on; expected "
        "PairedImageDataset, SingleHRDataset or RealESRGANDataset"
    )


def training_loader(
    options: DatasetOptions,
    *,
    seed: int,
    device: torch.device,
    chain: DegradationOptions | None = None,
    stages: Sequence[Stage] = (),
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    mixing: Mixing | None = None,
    state: LoaderState | None = None,
) -> TrainingLoader:
    """The batches of a `datasets: train` section, without an end.

    Args:
        options: the section.
        seed: of all random numbers.
        device: where batches are wanted.
        chain: see `training_set`.
        stages: patch and batch sizes; none: those of the section, from the first to the last step.
        rank, world: which of how many training processes this is.
        accumulate: batches of one iteration.
        mixing: mixup, or None.
        state: where to go on.

    Raises:
        UsageError: what the section says cannot be done; the message begins with file and line.
    """
    stages = stages or [FixedStage(options.gt_size, options.batch_size_per_gpu)]
    _check_batches(options, stages)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    data = training_set(options, seed=seed, chain=chain, processes=here)
    settings = LoaderSettings(
        stages=stages,
        ratio=options.dataset_enlarge_ratio,
        shuffle=options.use_shuffle,
        workers=options.num_worker_per_gpu,
        prefetch=max(2, options.num_prefetch_queue),
        rank=rank,
        world=world,
        accumulate=accumulate,
        mixing=mixing,
        mean=options.mean,
        std=options.std,
        sharpen=chain.gt_usm if chain else True,
    )
    with _placed(options, "gt_size"):
        return TrainingLoader(data, settings, device=device, state=state)


def _check_batches(options: DatasetOptions, stages: Sequence[Stage]) -> None:
    """UsageError where the memory has no room for one batch as bytes."""
    free = free_bytes(torch.device("cpu"))
    for stage in stages:
        if (size := 3 * stage.batch_size * stage.gt_size**2) > free:
            raise UsageError(
                f"{options.where('batch_size_per_gpu')}: a batch of {stage.batch_size:,} patches "
                f"of {stage.gt_size} x {stage.gt_size} takes {size / 2**30:,.1f} GiB at least, and "
                f"{free / 2**30:.1f} are free; lower batch_size_per_gpu or gt_size"
            )


def validation_set(options: DatasetOptions) -> ValidationSet:
    """The pictures of a `datasets: val` or `test_1` section.

    Raises:
        UsageError: what the section says cannot be done; the message begins with file and line.
    """
    sides: list[tuple[Entry | None, Entry | None]]
    how = None
    if options.type == "PairedImageDataset":
        sides = [(pair.lq, pair.gt) for pair in find_pairs(options)]
    elif options.type == "SingleImageDataset":
        sides = [(entry, None) for entry in find_entries(options, "lq")]
    elif options.type == "SingleHRDataset":
        sides = [(None, entry) for entry in find_entries(options, "gt")]
        how = degradation_of(options)
    else:
        raise UsageError(
            f"{options.where('type')}: {options.type} is for training alone; expected "
            "PairedImageDataset, SingleHRDataset or SingleImageDataset"
        )
    with _placed(options, "task"):
        return ValidationSet(
            sides,
            scale=options.scale,
            degradation=how,
            colour=options.color,
            mean=options.mean,
            std=options.std,
        )


def find_pairs(options: DatasetOptions) -> list[Pair]:
    """The pairs of a PairedImageDataset's section, folder after folder."""
    gt, lq = _roots(options, "gt"), _roots(options, "lq")
    if len(gt) != len(lq):
        raise UsageError(
            f"{options.where('dataroot_lq')}: {len(lq)} folders of lq and {len(gt)} of gt; "
            "expected as many, in the same order"
        )
    with _placed(options, "dataroot_gt"):
        if options.io_backend.type == "lmdb":
            return [p for a, b in zip(gt, lq, strict=True) for p in paired_databases(a, b)]
        if options.meta_info_file is not None:
            list_file = _one_list(options, gt)
            return paired_by_list(gt[0], lq[0], list_file, options.filename_tmpl)
        name = options.filename_tmpl
        return [p for a, b in zip(gt, lq, strict=True) for p in paired_folders(a, b, name)]


def find_entries(options: DatasetOptions, side: str) -> list[Entry]:
    """The pictures of one side ("gt" or "lq") of a section, folder after folder."""
    roots = _roots(options, side)
    with _placed(options, f"dataroot_{side}"):
        if options.io_backend.type == "disk" and options.meta_info_file is not None:
            return listed_entries(roots[0], _one_list(options, roots))
        find: Callable[[Path], list[Entry]] = (
            database_entries if options.io_backend.type == "lmdb" else folder_entries
        )
        return [entry for root in roots for entry in find(root)]


def degradation_of(options: DatasetOptions) -> Degradation:
    """How a SingleHRDataset's section makes lq."""
    kernels = None
    if options.task == "blur":
        with _placed(options, "blur_kernel_size"):
            kernels = _first_kernels(options.kernels)
    return Degradation(
        task=options.task,
        sigma=options.sigma,
        quality=options.quality,
        kernels=kernels,
        noise_seed=options.noise_seed,
    )


def chain_of(kernels: KernelOptions, chain: DegradationOptions) -> ChainSettings:
    """The second-order chain of an option file's keys."""
    second = KernelRound(
        kernels.blur_kernel_size2,
        kernels.kernel_list2,
        kernels.kernel_prob2,
        kernels.sinc_prob2,
        kernels.blur_sigma2,
        kernels.betag_range2,
        kernels.betap_range2,
    )
    return ChainSettings(
        ChainRound(
            _first_kernels(kernels),
            1.0,
            chain.resize_prob,
            chain.resize_range,
            chain.gaussian_noise_prob,
            chain.noise_range,
            chain.poisson_scale_range,
            chain.gray_noise_prob,
            chain.jpeg_range,
        ),
        ChainRound(
            second,
            chain.second_blur_prob,
            chain.resize_prob2,
            chain.resize_range2,
            chain.gaussian_noise_prob2,
            chain.noise_range2,
            chain.poisson_scale_range2,
            chain.gray_noise_prob2,
            chain.jpeg_range2,
        ),
        kernels.final_sinc_prob,
    )


def _first_kernels(kernels: KernelOptions) -> KernelRound:
    return KernelRound(
        kernels.blur_kernel_size,
        kernels.kernel_list,
        kernels.kernel_prob,
        kernels.sinc_prob,
        kernels.blur_sigma,
        kernels.betag_range,
        kernels.betap_range,
    )


def cache_bytes(options: DatasetOptions, processes: int) -> int:
    """Bytes for decoded pictures of one training process."""
    if options.cache_gb is not None:
        return int(options.cache_gb * 2**30) // processes
    return int(free_bytes(torch.device("cpu")) * _SHARE_OF_FREE) // processes


def _roots(options: DatasetOptions, side: str) -> tuple[Path, ...]:
    roots: tuple[Path, ...] = options.dataroot_gt if side == "gt" else options.dataroot_lq
    if not roots:
        raise UsageError(
            f"{options.where()}: {options.type} needs dataroot_{side}; name a folder of pictures"
        )
    return roots


def _one_list(options: DatasetOptions, roots: Sequence[Path]) -> Path:
    if len(roots) > 1 or options.meta_info_file is None:
        raise UsageError(
            f"meta_info_file is for one folder and there are {len(roots)}; give one folder, or "
            "leave the list out"
        )
    return options.meta_info_file


@contextlib.contextmanager
def _placed(options: DatasetOptions, key: str) -> Iterator[None]:
    """A UsageError within gets the key's file and line in front."""
    try:
        yield
    except UsageError as error:
        where, placed = options.where(key), tuple(options.places.values())
        if where and not str(error).startswith(placed):
            raise UsageError(f"{where}: {error}") from None
        raise
