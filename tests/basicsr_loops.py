"""BasicSR's own training and test loops on drawn pictures, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import restore

NETWORK: dict[str, Any] = {
    "type": "SwinIR",
    "upscale": 2,
    "in_chans": 3,
    "img_size": 16,
    "window_size": 8,
    "img_range": 1.0,
    "depths": [2, 2],
    "embed_dim": 12,
    "num_heads": [2, 2],
    "mlp_ratio": 2,
    "upsampler": "pixelshuffledirect",
    "resi_connection": "1conv",
}
NETWORK_SETTINGS = {key: value for key, value in NETWORK.items() if key != "type"}

TRAIN = """\
# general settings
name: train_SwinIR_SRx2_from_scratch
model_type: SwinIRModel
scale: 2
num_gpu: 0
manual_seed: 0

# dataset and data loader settings
datasets:
  train:
    name: drawn
    type: PairedImageDataset
    dataroot_gt: {data}/train/GT
    dataroot_lq: {data}/train/LRbicx2
    filename_tmpl: '{{}}'
    io_backend:
      type: disk

    gt_size: 32
    use_hflip: true
    use_rot: true

    # data loader
    num_worker_per_gpu: 0
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 1
    prefetch_mode: ~

  val:
    name: odd
    type: PairedImageDataset
    dataroot_gt: {data}/val/GT
    dataroot_lq: {data}/val/LRbicx2
    io_backend:
      type: disk

{network}
# path
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

# training settings
train:
  ema_decay: 0.5
  optim_g:
    type: Adam
    lr: !!float 2e-3
    weight_decay: 0
    betas: [0.9, 0.99]

  scheduler:
    type: MultiStepLR
    milestones: [3]
    gamma: 0.5

  total_iter: 4
  warmup_iter: -1  # no warm up

  # losses
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean

# validation settings
val:
  val_freq: !!float 2
  save_img: false
{metrics}
# logging settings
logger:
  print_freq: 1
  save_checkpoint_freq: !!float 2
  use_tb_logger: false
  wandb:
    project: ~
    resume_id: ~

# dist training settings
dist_params:
  backend: nccl
  port: 29500
"""

TEST = """\
name: SwinIR_SRx2
model_type: SwinIRModel
scale: 2
num_gpu: 0
manual_seed: 0

datasets:
  test_1:
    name: odd
    type: PairedImageDataset
    dataroot_gt: {data}/val/GT
    dataroot_lq: {data}/val/LRbicx2
    io_backend:
      type: disk

{network}
path:
  pretrain_network_g: experiments/train_SwinIR_SRx2_from_scratch/models/net_g_latest.pth
  strict_load_g: true
  param_key_g: params_ema

val:
  save_img: true
  suffix: x2
{metrics}
"""

METRICS = """
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 2
      test_y_channel: true
    ssim:
      type: calculate_ssim
      crop_border: 2
      test_y_channel: true
"""

PROGRAM = """\
import sys
import restore.basicsr
from basicsr.test import test_pipeline
from basicsr.train import train_pipeline

if __name__ == "__main__":
    sys.argv[1:] = ["-opt", "train.yml"]
    train_pipeline(".")
    sys.argv[1:] = ["-opt", "test.yml"]
    test_pipeline(".")
"""


def draw_pictures(folder: Path, sizes: list[tuple[int, int]]) -> None:
    """Smooth pictures [2 H, 2 W] and their halves, as PNG."""
    random = np.random.RandomState(0)
    for name in ("GT", "LRbicx2"):
        (folder / name).mkdir(parents=True)
    for number, (h, w) in enumerate(sizes):
        large = restore.imresize(random.random_sample((h // 2, w // 2, 3)), size=(2 * h, 2 * w))
        small = restore.imresize(large, size=(h, w))
        for name, picture in (("GT", large), ("LRbicx2", small)):
            rounded = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
            Image.fromarray(rounded).save(folder / name / f"{number}.png")


def run_basicsr(folder: Path) -> str:
    """BasicSR's own loops in a process of their own; what was written to the log."""
    network = "# network structures\nnetwork_g:\n" + "".join(
        f"  {key}: {value!r}\n" for key, value in NETWORK.items()
    )
    for phase, options in (("train", TRAIN), ("test", TEST)):
        text = options.format(data=folder / "datasets", network=network, metrics=METRICS)
        (folder / f"{phase}.yml").write_text(text, encoding="utf-8")
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "program.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (log,) = folder.glob("experiments/*/train_*.log")  # BasicSR opens one in a process
    return log.read_text(encoding="utf-8")
