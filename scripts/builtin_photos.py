"""Training pairs for `train_builtin.py`: photographs, their low sides, and random crops of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from restore.errors import UsageError
from restore.metrics import mod_crop
from restore.resizing import imresize

Pixels = npt.NDArray[np.uint8]  # [H, W, 3] RGB
Pair = tuple[Pixels, Pixels]  # low side, high side

SUFFIXES = {".jpg", ".jpeg", ".png"}


def read_pairs(folder: Path, scale: int, at_least: int = 1) -> list[Pair]:
    """All pictures of a folder in the order of their names, each with its low side.

    A picture whose low side is shorter than `at_least` pixels is left out.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise UsageError(f"{folder}: no pictures ({', '.join(sorted(SUFFIXES))})")
    pairs = []
    for path in paths:
        high = mod_crop(np.asarray(Image.open(path).convert("RGB")), scale)
        if min(high.shape[:2]) >= at_least * scale:
            pairs.append((imresize(high, 1 / scale), high))
    if not pairs:
        raise UsageError(f"{folder}: every picture is smaller than {at_least * scale} pixels")
    return pairs


def crop(pair: Pair, scale: int, top: int, left: int, rows: int, columns: int) -> Pair:
    """The same rectangle of both sides, given in low-resolution pixels; views."""
    low, high = pair
    return (
        low[top : top + rows, left : left + columns],
        high[top * scale : (top + rows) * scale, left * scale : (left + columns) * scale],
    )


def middle(pair: Pair, side: int, scale: int) -> Pair:
    """The middle of both sides, at most `side` high-resolution pixels high and wide."""
    height, width = pair[0].shape[:2]
    rows, columns = min(side // scale, height), min(side // scale, width)
    return crop(pair, scale, (height - rows) // 2, (width - columns) // 2, rows, columns)


def random_batch(
    pairs: list[Pair], scale: int, size: int, count: int, tries: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Aligned crops, turned and mirrored alike, as tensors in 0..1.

    Args:
        pairs: pictures whose low sides are at least `size` pixels high and wide.
        scale: high-resolution pixels per low-resolution pixel along each axis.
        size: side P of the low-resolution crops.
        count: crops B of the batch.
        tries: random crops of which the one with most detail is taken.
        random: drawn from.

    Returns:
        [B, 3, P, P] and [B, 3, P * scale, P * scale].
    """
    crops = []
    for _ in range(count):
        found = []
        for _ in range(tries):
            pair = pairs[random.integers(len(pairs))]
            top, left = (int(random.integers(n - size + 1)) for n in pair[0].shape[:2])
            found.append(crop(pair, scale, top, left, size, size))
        turns, mirror = int(random.integers(4)), bool(random.integers(2))
        crops.append([turned(side, turns, mirror) for side in max(found, key=detail)])
    lows, highs = zip(*crops, strict=True)
    return to_tensor(np.stack(lows)), to_tensor(np.stack(highs))


def detail(pair: Pair) -> float:
    """How much neighbouring pixels of the high side differ, in its green channel."""
    green = pair[1][:, :, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def turned(image: Pixels, quarter_turns: int, mirror: bool) -> Pixels:
    """One of the eight symmetries of the square."""
    image = np.rot90(image, quarter_turns)
    return image[:, ::-1] if mirror else image


def to_tensor(pixels: Pixels) -> Tensor:
    """[B, H, W, 3] uint8 to [B, 3, H, W] float32 in 0..1, in channels-last memory."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2) / 255
