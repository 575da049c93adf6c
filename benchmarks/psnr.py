"""Compare a folder of results with ground truth, as papers report it.

    restore upscale Set5/LR_bicubic/X4 -o out --model_path HiT-SRF-4x.pth --tile 0 --ext png
    python -m benchmarks.psnr out Set5/HR --crop_border 4

PSNR and SSIM on Y over 8 bits, the border cropped, ground truth cropped to the result's size. A
result is matched by its name, with or without an ending such as x4.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from restore.image_io import read_picture
from restore.metrics import psnr, ssim


def main() -> None:
    """Print a line for each picture and the means."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.psnr",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("gt", type=Path)
    parser.add_argument("--crop_border", type=int, required=True, help="pixels, the scale for SR")
    args = parser.parse_args()
    rows = []
    for path in sorted(args.results.glob("*.png")):
        gt_path = args.gt / f"{re.sub(r'x[0-9]$', '', path.stem)}.png"
        result = read_picture(path).pixels
        gt = read_picture(gt_path).pixels[: result.shape[0], : result.shape[1]]
        pair = [
            np.ascontiguousarray(p.repeat(3, 2) if p.shape[2] == 1 else p) for p in (result, gt)
        ]
        row = [
            measure(pair[0], pair[1], crop_border=args.crop_border, y_channel=True)
            for measure in (psnr, ssim)
        ]
        rows.append(row)
        print(f"{path.stem:24} {row[0]:8.3f} {row[1]:8.4f}")
    mean = np.mean(rows, axis=0)
    print(f"{f'mean of {len(rows)}':24} {mean[0]:8.3f} {mean[1]:8.4f}")


if __name__ == "__main__":
    main()
