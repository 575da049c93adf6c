"""Upscale or clean pictures of any size with a model: arrays, Pillow images, files, streams.

Shape letters: H, W rows and columns of the input, s the model's scale, C channels (1 gray, 2 gray
and alpha, 3 RGB, 4 RGB and alpha).
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
from PIL import Image

from restore.errors import ImageError, OutOfMemoryError
from restore.image_io import Picture, read_picture
from restore.image_io.row_files import RowSource
from restore.metrics import psnr
from restore.padding import Padding
from restore.upscaling.alpha import ColourSource
from restore.upscaling.network import Floats
from restore.upscaling.pixels import AnyArray, ArraySource, check_array, from_pil, from_unit, to_pil
from restore.upscaling.progress import ProgressCallback, RunReport, Tracker
from restore.upscaling.run import Run, TileChoice, checked_outscale, output_size

if TYPE_CHECKING:
    from restore.model import Model


DEFAULT_OUTSCALE = 4.0  # where neither a model nor an outscale is given

T = TypeVar("T", AnyArray, Image.Image, Picture)


class RowSink(Protocol):
    """Where a result goes, a few rows at a time, from the top down."""

    def write(self, rows: AnyArray) -> None:
        """Take the next rows [n, W', C], in the depth of the source."""
        ...


@runtime_checkable
class BlockSink(Protocol):
    """Where a result goes block by block, so that no whole rows of it have to be held."""

    def write_block(self, top: int, left: int, pixels: AnyArray) -> None:
        """Take [n, m, C] in the depth of the source, to lie at that row and column.

        Blocks come in rows from the top down, and in a row from left to right, equally high.
        """
        ...


@dataclass(frozen=True)
class TileAgreement:
    """How well a tiled result agrees with that of the whole picture, colours only."""

    rounded_db: float  # PSNR over values rounded to 8 bits; infinite where none differs
    unrounded_db: float  # PSNR over floats in 0..1
    largest_difference: float  # of floats in 0..1


@overload
def upscale(
    image: T,
    model: Model | None = None,
    *,
    outscale: float | None = None,
    tile: TileChoice = "auto",
    tile_pad: int | None = None,
    tta: bool = False,
    padding: Padding = "reflect",
    progress: ProgressCallback | None = None,
) -> T: ...
@overload
def upscale(
    image: str | os.PathLike[str],
    model: Model | None = None,
    *,
    outscale: float | None = None,
    tile: TileChoice = "auto",
    tile_pad: int | None = None,
    tta: bool = False,
    padding: Padding = "reflect",
    progress: ProgressCallback | None = None,
) -> Picture: ...
def upscale(
    image: AnyArray | Image.Image | str | os.PathLike[str] | Picture,
    model: Model | None = None,
    *,
    outscale: float | None = None,
    tile: TileChoice = "auto",
    tile_pad: int | None = None,
    tta: bool = False,
    padding: Padding = "reflect",
    progress: ProgressCallback | None = None,
) -> AnyArray | Image.Image | Picture:
    """Run a picture through a model: enlarge it, or clean it where the model's scale is 1.

    Args:
        image: an array [H, W] or [H, W, C], uint8, uint16, or float16, float32 or float64 in
            0..1; a Pillow image of mode 1, L, LA, P, RGB, RGBA, F or I;16; a `Picture`; or the
            path of a picture file. Not changed. Alpha is not premultiplied.
        model: from `restore.load`; None takes the built-in model for `outscale`.
        outscale: output pixels per input pixel, any number above 0. Where it is not the model's
            own scale, the model's result is resized (MATLAB's bicubic) to round(H * outscale) x
            round(W * outscale), at least one pixel. None is the model's scale, or 4 without one.
        tile: longest side of a tile in input pixels; "auto" takes the whole picture or the
            largest that the free memory allows; 0 is the whole picture; else at least 32, or the
            larger of `tile_pad` and `model.align` if that is less. Halved where memory runs out.
        tile_pad: pixels read around each tile; None takes the model's own number.
        tta: average the results for the 8 flips and quarter turns; 8 times slower.
        padding: "reflect", or "published" to grow the picture as the network's authors do (see
            `Model.__call__`). That is of whole pictures: `tile` is then "auto" or 0; both mean 0.
        progress: is called when tiles are planned or done, and when something happens.

    Returns:
        The same kind as `image` in the same depth, rounded to nearest; floats are clipped to
        0..1. An array keeps its number of axes and channels. A Pillow image keeps its mode but
        for 1 (becomes L) and P or a transparent colour (become RGB, RGBA or LA), and keeps
        profile, resolution and EXIF. A path gives a `Picture`.

    Raises:
        ImageError: its shape, depth or values are none of those above, or the file is unreadable.
        UsageError: an argument is out of range, or `padding` and `tile` contradict each other.
        OutOfMemoryError: there is no room even for the smallest tile, or for the result.
        RestoreError: the model gives values that are no numbers.
    """
    model = _model_for(model, outscale)
    run = Run(model, outscale, tile, tile_pad, tta, Tracker(progress), padding)
    if isinstance(image, (str, os.PathLike)):
        return _picture(read_picture(image), run)
    if isinstance(image, Picture):
        return _picture(image, run)
    if isinstance(image, Image.Image):
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise ImageError(f"image: holds {frames} frames; give one of them: image.copy()")
        return to_pil(_array(check_array(from_pil(image)), None, run), like=image)
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"image: is a {type(image).__name__}; expected a NumPy array, a Pillow image, a "
            "Picture or a path"
        )
    result = _array(check_array(image), None, run)
    return result if image.ndim == 3 else result[:, :, 0]


def upscale_picture(
    picture: Picture,
    model: Model,
    *,
    outscale: float | None = None,
    tile: TileChoice = "auto",
    tile_pad: int | None = None,
    tta: bool = False,
    padding: Padding = "reflect",
    progress: ProgressCallback | None = None,
    report: RunReport | None = None,
) -> Picture:
    """Like `upscale`, for a `Picture`, whose metadata it keeps.

    Args:
        picture: not changed.
        model: see `upscale`, as are the others.
        outscale: output pixels per input pixel.
        tile: longest side of a tile in input pixels.
        tile_pad: pixels read around each tile.
        tta: average over flips and turns.
        padding: how pictures grow before the network.
        progress: called on the way.
        report: filled in with how the picture was computed.

    Raises:
        ImageError, UsageError, OutOfMemoryError, RestoreError: see `upscale`.
    """
    tracker = Tracker(progress, report)
    return _picture(picture, Run(model, outscale, tile, tile_pad, tta, tracker, padding))


def upscale_rows(
    source: RowSource,
    sink: RowSink | BlockSink,
    model: Model,
    *,
    outscale: float | None = None,
    tile: TileChoice = "auto",
    tile_pad: int | None = None,
    tta: bool = False,
    padding: Padding = "reflect",
    progress: ProgressCallback | None = None,
    report: RunReport | None = None,
) -> RunReport:
    """Like `upscale`, for pictures that need not fit into memory.

    Of the input the rows have to that a row of tiles reads; of the result a few tiles, and the
    same of it as of the input where the sink takes rows instead of blocks.

    Args:
        source: where the picture comes from.
        sink: gets the result, `output_size` in all, with the source's channels and depth, in rows
            or, if it has `write_block`, in blocks.
        model: see `upscale`, as are the others.
        outscale: output pixels per input pixel.
        tile: longest side of a tile in input pixels.
        tile_pad: pixels read around each tile.
        tta: average over flips and turns.
        padding: how pictures grow before the network.
        progress: called on the way.
        report: filled in with how the picture was computed.

    Returns:
        The report.

    Raises:
        ImageError, UsageError, OutOfMemoryError, RestoreError: see `upscale`. The sink may then
            have taken some rows; its owner has to discard them.
    """
    tracker = Tracker(progress, report)
    run = Run(model, outscale, tile, tile_pad, tta, tracker, padding)
    if isinstance(sink, BlockSink):
        for top, left, block in run.blocks(source):
            sink.write_block(top, left, from_unit(block, source.dtype))
    else:
        for _, rows in run.rows(source):
            sink.write(rows)
    tracker.stopped()
    return tracker.report


def restore_floats(
    image: Floats,
    model: Model,
    *,
    tile: TileChoice = "auto",
    tile_pad: int | None = None,
    tta: bool = False,
    padding: Padding = "reflect",
    progress: ProgressCallback | None = None,
    report: RunReport | None = None,
) -> Floats:
    """Like `upscale`, for floats that may lie outside 0..1, as noise that is not clipped does.

    Args:
        image: [H, W, C], C = 1 (gray) or 3 (RGB). Not changed.
        model: see `upscale`, as are the others.
        tile: longest side of a tile in input pixels.
        tile_pad: pixels read around each tile.
        tta: average over flips and turns.
        padding: how pictures grow before the network.
        progress: called on the way.
        report: filled in with how the picture was computed.

    Returns:
        [H * s, W * s, C], clipped to 0..1.

    Raises:
        UsageError, OutOfMemoryError, RestoreError: see `upscale`.
    """
    tracker = Tracker(progress, report)
    run = Run(model, None, tile, tile_pad, tta, tracker, padding, bounded=False)
    result = _floats(ArraySource(image), run)
    tracker.stopped()
    return result


def verify_tiles(
    image: AnyArray | Picture, model: Model, tile: TileChoice = "auto", tile_pad: int | None = None
) -> TileAgreement:
    """Compute a picture in tiles and as a whole, and compare.

    Args:
        image: an array as for `upscale`, or a `Picture`; the whole of it has to fit into memory.
        model: see `upscale`.
        tile: see `upscale`.
        tile_pad: see `upscale`.

    Raises:
        ImageError, UsageError, OutOfMemoryError, RestoreError: see `upscale`.
    """
    if isinstance(image, Picture):
        source: RowSource = ArraySource(image.pixels, image.alpha)
    else:
        source = ArraySource(check_array(image))
    if source.channels in (2, 4):
        source = ColourSource(source)
    results = []
    for choice in (tile, 0):
        run = Run(model, None, choice, tile_pad, False, Tracker())
        results.append(_floats(source, run))
    tiled, whole = results
    eight_bits = np.dtype(np.uint8)
    return TileAgreement(
        rounded_db=psnr(from_unit(tiled, eight_bits), from_unit(whole, eight_bits)),
        unrounded_db=psnr(tiled, whole),
        largest_difference=float(np.abs(tiled - whole).max()),
    )


def _model_for(model: Model | None, outscale: float | None) -> Model:
    """The model itself, or the built-in one for a scale."""
    if model is not None:
        return model
    from restore.loading import load_builtin

    return load_builtin(DEFAULT_OUTSCALE if outscale is None else checked_outscale(outscale))


def _picture(picture: Picture, run: Run) -> Picture:
    check_array(picture.pixels)
    result = _array(picture.pixels, picture.alpha, run)
    if picture.alpha is None:
        return dataclasses.replace(picture, pixels=result)
    # copies: two views would keep the joint array alive and be slow to go through
    colours, alpha = result[:, :, :-1].copy(), result[:, :, -1].copy()
    return dataclasses.replace(picture, pixels=colours, alpha=alpha)


def _floats(source: RowSource, run: Run) -> Floats:
    """[H', W', C] in 0..1, not rounded."""
    height, width = output_size(source.height, source.width, run.outscale)
    result = np.empty((height, width, source.channels), np.float32)
    for top, left, block in run.blocks(source):
        result[top : top + len(block), left : left + block.shape[1]] = block
    return result


def _array(pixels: AnyArray, alpha: AnyArray | None, run: Run) -> AnyArray:
    """[H, W, C] and perhaps alpha [H, W] to [H', W', C (+ 1)] of the same depth."""
    source = ArraySource(pixels, alpha)
    height, width = output_size(source.height, source.width, run.outscale)
    dtype = pixels.dtype.newbyteorder("=")
    try:
        result = np.empty((height, width, source.channels), dtype)
    except (MemoryError, ValueError) as error:
        gib = height * width * source.channels * dtype.itemsize / 2**30
        raise OutOfMemoryError(
            f"a result of {width} x {height} pixels takes {gib:.1f} GiB, more than there is; "
            "choose a smaller outscale; a result in TIFF, PNG or Zarr can be written in parts"
        ) from error
    for top, left, block in run.blocks(source):
        result[top : top + len(block), left : left + block.shape[1]] = from_unit(block, dtype)
    run.tracker.stopped()
    return result
