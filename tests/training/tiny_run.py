"""Tiny runs for the tests of training, made of drawn pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from restore.image_io import Picture, write_picture
from restore.training.dataset_options import DatasetOptions
from restore.training.options import (
    LoggerOptions,
    MetricOptions,
    ModelKind,
    NetworkOptions,
    Options,
    ValOptions,
)
from restore.training.train_options import (
    LossOptions,
    OptimOptions,
    SchedulerOptions,
    TrainOptions,
)

PICTURES = 5
NETWORK = {
    "upscale": 2,
    "img_size": 16,
    "window_size": 4,
    "embed_dim": 8,
    "depths": [2],
    "num_heads": [2],
    "mlp_ratio": 2,
    "upsampler": "pixelshuffledirect",
    "drop_path_rate": 0.3,
}


def draw_pictures(folder: Path) -> None:
    """Smooth patterns in folder/gt, each of its own."""
    (folder / "gt").mkdir(parents=True)
    rows, columns = np.mgrid[0:40, 0:44]
    for number in range(PICTURES):
        waves = [np.sin((rows * (number + c + 1) + columns * (c + 2)) / 9) for c in range(3)]
        pixels = (127.5 + 120 * np.stack(waves, 2)).astype(np.uint8)
        write_picture(folder / "gt" / f"{number}.png", Picture(pixels), fmt="png")


def tiny_options(folder: Path, *, batch: int = 2, **train: Any) -> Options:
    """Options of a run on `draw_pictures`; keywords are those of TrainOptions."""
    root = (folder / "gt",)
    fields: dict[str, Any] = {
        "total_iter": 8,
        "ema_decay": 0.9,
        "optim_g": OptimOptions(type="Adam", lr=1e-3),
        "scheduler": SchedulerOptions(type="MultiStepLR", milestones=(5,), gamma=0.5),
        "pixel_opt": LossOptions(type="L1Loss"),
        **train,
    }
    return Options(
        file=folder / "tiny.yml",
        name="tiny",
        model_type="SRModel",
        kind=ModelKind(),
        scale=2,
        num_gpu=0,
        manual_seed=3,
        datasets={
            "train": DatasetOptions(
                key="train",
                phase="train",
                scale=2,
                type="SingleHRDataset",
                name="drawn",
                dataroot_gt=root,
                gt_size=16,
                batch_size_per_gpu=batch,
                cache_gb=0.01,
            ),
            "val": DatasetOptions(
                key="val",
                phase="val",
                scale=2,
                type="SingleHRDataset",
                name="same",
                dataroot_gt=root,
            ),
        },
        network_g=NetworkOptions(type="SwinIR", arguments=NETWORK),
        train=TrainOptions(**fields),
        val=ValOptions(
            val_freq=4,
            metrics={
                "psnr": MetricOptions(type="psnr", crop_border=2, test_y_channel=True),
                "ssim": MetricOptions(type="ssim", crop_border=2),
            },
        ),
        logger=LoggerOptions(print_freq=2, save_checkpoint_freq=3, use_tb_logger=False),
    )


def changed(options: Options, **train: Any) -> Options:
    """The same with other values in `train`."""
    assert options.train is not None
    return replace(options, train=replace(options.train, **train))
