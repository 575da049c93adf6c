"""SIDD's validation blocks, taken out of the .mat files in which its authors offer them.

Source: the files' layout as the tests of Uformer and CAT read it: [40, 32, 256, 256, 3] uint8, 32
blocks of each of 40 pictures, called 0001_01 to 0040_32 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore.datasets.prepare import Outcome, check_target, write_files
from restore.datasets.real_pairs import SIDD_BLOCKS
from restore.errors import ImageError, OutputError, UsageError

Blocks = NDArray[np.uint8]  # [pictures, blocks, H, W, 3]
FOLDERS = ("input", "target")  # of what is made, in the order of SIDD_BLOCKS


def holds_blocks(folder: Path) -> bool:
    """Whether the noisy blocks lie in a folder."""
    return (folder / f"{SIDD_BLOCKS[0]}.mat").is_file()


def read_blocks(folder: Path) -> list[Blocks]:
    """The noisy and the good blocks of a folder.

    Raises:
        UsageError: scipy is not installed, or a file is missing, damaged or another one.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UsageError(
            f"{folder}: scipy reads .mat files, and it is not installed; pip install scipy"
        ) from error
    found = [_array(folder / f"{name}.mat", name, loadmat) for name in SIDD_BLOCKS]
    if found[0].shape != found[1].shape:
        shapes = " and ".join(
            f"{name} {each.shape}" for name, each in zip(SIDD_BLOCKS, found, strict=True)
        )
        raise UsageError(f"{folder}: the two sides differ in shape: {shapes}")
    return found


def _array(path: Path, name: str, loadmat: Callable[..., Any]) -> Blocks:
    if not path.is_file():
        raise UsageError(f"{path}: is not there; SIDD's authors offer it beside the other side's")
    try:
        content = loadmat(path, variable_names=[name])
    except Exception as error:
        # scipy raises whatever a damaged file leads it to
        raise UsageError(f"{path}: cannot be read as a .mat file: {error}") from error
    blocks = content.get(name)
    if blocks is None or blocks.ndim != 5 or blocks.shape[4] != 3 or blocks.dtype != np.uint8:
        what = "nothing" if blocks is None else f"{blocks.dtype} {blocks.shape}"
        raise UsageError(
            f"{path}: holds {what} as {name}; expected uint8 [pictures, blocks, H, W, 3]"
        )
    return np.asarray(blocks)


def prepare_blocks(sides: list[Blocks], folder: Path, progress: Callable[[], None]) -> Outcome:
    """Write each block of `read_blocks` as a PNG into folder/input and folder/target, or none."""
    outcome = Outcome()
    for target, block in _files(sides, folder):
        try:
            outcome.kept += check_target(target, block)
        except (ImageError, OutputError) as error:
            outcome.failed.append(str(error))
    if outcome.failed:
        return outcome
    outcome.unknown = 2 * sides[0].shape[0] * sides[0].shape[1]
    new = ((target, block, None) for target, block in _files(sides, folder) if not target.exists())
    try:
        outcome.written = write_files(new, folder, progress)
    except OutputError as error:
        outcome.failed.append(str(error))
    return outcome


def _files(sides: list[Blocks], folder: Path) -> Iterator[tuple[Path, Blocks]]:
    for name, blocks in zip(FOLDERS, sides, strict=True):
        for i, k in np.ndindex(blocks.shape[:2]):
            yield folder / name / f"{i + 1:04d}_{k + 1:02d}.png", blocks[i, k]
