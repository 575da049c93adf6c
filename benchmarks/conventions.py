"""What a score becomes when one thing of its protocol is done otherwise, and nothing else.

    python -m benchmarks.conventions HiT-SRF_x4.pth Set5/HR --output conventions.json

The network restores MATLAB's bicubic of every picture once, and again for other ways to make
pictures smaller; the results are then scored by other conventions. One thing changes in each line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import describe
from restore.bench.protocols import seen
from restore.bench.scores import as_bytes
from restore.image_io import read_picture
from restore.loading import load
from restore.metrics import mod_crop, psnr, ssim
from restore.model import Model
from restore.resizing import imresize
from restore.upscaling import restore_floats

Bytes = NDArray[np.uint8]


def _matlab(truth: Bytes, scale: int) -> Bytes:
    return imresize(truth, 1 / scale)


def _matlab_rounded_once(truth: Bytes, scale: int) -> Bytes:
    floats = imresize(truth.astype(np.float64), 1 / scale)
    return np.floor(floats.clip(0, 255) + 0.5).astype(np.uint8)


def _pillow(truth: Bytes, scale: int) -> Bytes:
    size = (truth.shape[1] // scale, truth.shape[0] // scale)
    return np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.BICUBIC))


def _opencv(truth: Bytes, scale: int) -> Bytes:
    size = (truth.shape[1] // scale, truth.shape[0] // scale)
    return np.asarray(cv2.resize(truth, size, interpolation=cv2.INTER_CUBIC))


def _jpeg(picture: Bytes, quality: int) -> Bytes:
    done, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])


SMALLER: dict[str, Callable[[Bytes, int], Bytes]] = {
    "as papers count": _matlab,
    "low side: MATLAB's bicubic, rounded once instead of after each pass": _matlab_rounded_once,
    "low side: Pillow's bicubic (a = -0.5, antialiased)": _pillow,
    "low side: OpenCV's INTER_CUBIC (a = -0.75, not antialiased)": _opencv,
    "low side: MATLAB's bicubic, then JPEG of quality 95": lambda t, s: _jpeg(_matlab(t, s), 95),
}


def main() -> None:
    """Print a line for each convention, and write them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.conventions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("truths", type=Path, help="folder of ground truth")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    model = load(args.model, device="cpu")
    rows: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(args.truths.glob("*.png")):
        truth = seen(mod_crop(read_picture(path).pixels, model.scale), "rgb")
        for name, values in _of_picture(model, truth).items():
            rows.setdefault(name, []).append(values)
    means = {name: [float(mean) for mean in np.mean(rows[name], axis=0)] for name in rows}
    first = next(iter(means.values()))
    for name, (db, similarity) in means.items():
        print(f"{db:7.3f} {db - first[0]:+7.3f} dB  {similarity:.4f}  {name}")
    if args.output:
        content = {
            "machine": describe(),
            "model": model.name,
            "set": args.truths.parent.name,
            "means": means,
        }
        args.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _of_picture(model: Model, truth: Bytes) -> dict[str, tuple[float, float]]:
    scale = model.scale
    plain: dict[str, Any] = {"crop_border": scale, "y_channel": True}
    results = {name: _restored(model, make(truth, scale)) for name, make in SMALLER.items()}
    found = {name: _scores(result, truth, **plain) for name, result in results.items()}
    result = next(iter(results.values()))
    found["channel: RGB"] = _scores(result, truth, crop_border=scale)
    found["border: nothing cropped"] = _scores(result, truth, y_channel=True)
    more = {"crop_border": scale + 6, "y_channel": True}
    found["border: scale + 6 cropped"] = _scores(result, truth, **more)
    floats = _floats(model, _matlab(truth, scale)).astype(np.float64)
    unrounded = (floats, truth.astype(np.float64) / 255)
    found["rounding: none before scoring"] = _scores(*unrounded, **plain)
    truncated = (floats * 255).astype(np.uint8)
    found["rounding: down instead of to the nearest"] = _scores(truncated, truth, **plain)
    found["truth: after JPEG of quality 95"] = _scores(result, _jpeg(truth, 95), **plain)
    shifted = np.roll(result, 1, axis=1)
    found["alignment: results one pixel to the right"] = _scores(shifted, truth, **plain)
    return found


def _floats(model: Model, low: Bytes) -> NDArray[np.float32]:
    return restore_floats(low.astype(np.float32) / 255, model, padding="published")


def _restored(model: Model, low: Bytes) -> Bytes:
    return as_bytes(_floats(model, low))


def _scores(
    result: NDArray[Any], truth: NDArray[Any], *, crop_border: int = 0, y_channel: bool = False
) -> tuple[float, float]:
    pair = result, truth
    return (
        psnr(*pair, crop_border=crop_border, y_channel=y_channel),
        ssim(*pair, crop_border=crop_border, y_channel=y_channel),
    )


if __name__ == "__main__":
    main()
