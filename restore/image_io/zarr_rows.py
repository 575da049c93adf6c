"""Zarr arrays as pictures: read in bands of rows, written chunk by chunk.

An array is [H, W] or [H, W, C]. With smaller levels it is a group after OME-NGFF 0.5, whose arrays
are [H, W] or [C, H, W], as that wants. What a picture carries beside its samples is kept in the
attribute "restore". Needs the package zarr, of the extra [large].

Source: Zarr 3 core specification; OME-NGFF 0.4 and 0.5, "multiscales".

Shape letters: H, W rows and columns, C samples of a pixel (1 gray, 2 gray and alpha, 3 RGB, 4 RGB
and alpha).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from restore.atomic import atomic_folder, writing
from restore.errors import ImageError, OutputError
from restore.extras import load_extra
from restore.image_io.picture import Array
from restore.image_io.sinks import NOTHING, Carried, Raster
from restore.image_io.source import PathLike, decoding
from restore.image_io.tile_sink import Place, TileSink

ZARR_SUFFIX = ".zarr"
ZARR_TILE = 512  # pixels of a chunk's side
_MARKS = ("zarr.json", ".zarray", ".zgroup")
_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
_KEPT = "restore"


def is_zarr(path: PathLike) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((Path(path) / mark).is_file() for mark in _MARKS)


class ZarrRows:
    """Rows of a Zarr array, or of the largest level of an OME-NGFF image; see `RowFile`.

    Raises:
        ImageError: zarr is missing, or the array is no picture; the message says why.
    """

    def __init__(self, path: PathLike) -> None:
        """Open the array, no pixels."""
        self.path = path
        zarr = load_extra("zarr", "large", str(path), ImageError)
        with decoding(path):
            node = zarr.open(store=str(path), mode="r")
            attributes = dict(node.attrs)
            self._array, axes = _largest(path, node, attributes)
            if self._array.dtype.name not in _DTYPES:
                raise ImageError(
                    f"{path}: dtype is {self._array.dtype}; expected one of {', '.join(_DTYPES)}"
                )
            self._axes = axes
            size = dict(zip(axes, self._array.shape, strict=True))
        self.height, self.width, self.channels = size["y"], size["x"], size.get("c", 1)
        if self.channels not in (1, 2, 3, 4) or min(self.height, self.width) < 1:
            raise ImageError(
                f"{path}: shape is {self._array.shape}; expected [H, W] or [H, W, C] with C = 1 "
                "(gray), 2 (gray and alpha), 3 (RGB) or 4 (RGB and alpha)"
            )
        stored = self._array.dtype
        self.dtype = np.dtype(np.float32) if stored.kind == "f" else np.dtype(stored.name)
        self.has_alpha = self.channels in (2, 4)
        self.notes = [] if stored == self.dtype else [f"{stored} samples became {self.dtype}"]
        kept = attributes.get(_KEPT)
        self._kept: Mapping[str, Any] = kept if isinstance(kept, dict) else {}
        self.icc, self.exif, self.xmp = (self._bytes(name) for name in ("icc", "exif", "xmp"))
        dpi = self._kept.get("dpi")
        self.dpi = (float(dpi[0]), float(dpi[1])) if isinstance(dpi, list) else None

    def _bytes(self, name: str) -> bytes | None:
        text = self._kept.get(name)
        try:
            return base64.b64decode(text, validate=True) if isinstance(text, str) else None
        except binascii.Error:
            self.notes.append(f"its {name} is damaged and was left out")
            return None

    def read(self, y0: int, y1: int) -> Array:
        """Rows y0 .. y1 - 1, [y1 - y0, W, C].

        Raises:
            ValueError: not 0 <= y0 < y1 <= height.
            ImageError: the rows are damaged, or hold NaN or infinity.
        """
        if not 0 <= y0 < y1 <= self.height:
            raise ValueError(f"rows {y0} to {y1}; the picture has rows 0 to {self.height}")
        wanted = {"y": slice(y0, y1), "x": slice(None), "c": slice(None)}
        part = tuple(wanted.get(axis, 0) for axis in self._axes)
        with decoding(self.path):
            rows = np.asarray(self._array[part])
        kept = [axis for axis in self._axes if axis in "yxc"]
        if "c" in kept:
            rows = np.moveaxis(rows, kept.index("c"), 2)
        rows = rows.reshape(y1 - y0, self.width, self.channels).astype(self.dtype, copy=False)
        if self.dtype.kind == "f" and not np.isfinite(rows).all():
            raise ImageError(
                f"{self.path}: rows {y0} to {y1} hold NaN or infinity; replace those samples first"
            )
        return np.ascontiguousarray(rows)

    def __enter__(self) -> ZarrRows:
        """The reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open."""


def _largest(path: PathLike, node: Any, attributes: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The array of a picture, and what each of its axes is: y, x, c, or one of length 1."""
    images = attributes.get("ome", attributes).get("multiscales")
    if images:
        array = node[images[0]["datasets"][0]["path"]]
        axes = [str(axis["name"]).lower() for axis in images[0]["axes"]]
    elif hasattr(node, "shape"):
        array = node
        named = getattr(getattr(array, "metadata", None), "dimension_names", None)
        axes = [str(name).lower() for name in named] if named else list("yxc"[: array.ndim])
    else:
        raise ImageError(
            f"{path}: is a Zarr group without an image (no OME-NGFF multiscales); name the array "
            "in it"
        )
    long = [n for axis, n in zip(axes, array.shape, strict=False) if axis not in "yxc"]
    if len(axes) != array.ndim or not {"y", "x"} <= set(axes) or any(n != 1 for n in long):
        raise ImageError(
            f"{path}: its axes are {axes}, its shape is {array.shape}; expected [H, W] or "
            "[H, W, C], further axes of length 1"
        )
    return array, axes


class ZarrTileWriter(TileSink):
    """Writes a Zarr array, or with levels an OME-NGFF group, chunk by chunk.

    Args of the constructor, beside those of `TileSink`:
        tile: side of a chunk.

    Raises:
        OutputError: zarr is missing, the folder cannot be written, or fewer pixels came than it
            has.
        ValueError: an argument or a block does not fit.
    """

    def __init__(
        self,
        path: PathLike,
        raster: Raster,
        carried: Carried = NOTHING,
        *,
        tile: int = ZARR_TILE,
        pyramid: bool = False,
    ) -> None:
        """Check the arguments; the folder is created on entering the block."""
        self._zarr = load_extra("zarr", "large", str(path), OutputError)
        super().__init__(path, raster, carried, tile=tile, pyramid=pyramid)
        there = Path(path)
        if there.is_dir() and not is_zarr(there) and any(there.iterdir()):
            raise OutputError(
                f"{path}: is a folder that holds other things than a Zarr array, which would be "
                "lost; choose another name"
            )
        self._pyramid = pyramid
        parts = {"icc": carried.icc, "exif": carried.exif, "xmp": carried.xmp}
        self._kept: dict[str, Any] = {
            name: base64.b64encode(data).decode("ascii") for name, data in parts.items() if data
        }
        if carried.dpi:
            self._kept["dpi"] = list(carried.dpi)

    def _open(self, stack: contextlib.ExitStack) -> None:
        folder = stack.enter_context(atomic_folder(self.path))
        with writing(self.path):
            self._arrays = self._create(folder)

    def _end(self) -> None:
        """Nothing stands behind the chunks."""

    def _create(self, folder: Path) -> list[Any]:
        kept = {_KEPT: self._kept} if self._kept else {}
        gray = self.channels == 1
        if not self._pyramid:
            names = ["y", "x"] if gray else ["y", "x", "c"]
            array = self._zarr.create_array(
                store=str(folder),
                shape=(self.height, self.width) + (() if gray else (self.channels,)),
                chunks=(self.tile, self.tile) + (() if gray else (self.channels,)),
                dtype=self.dtype,
                dimension_names=names,
                attributes=kept,
            )
            return [array]
        attributes = {"ome": _multiscales(len(self.sizes), self.channels), **kept}
        group = self._zarr.create_group(store=str(folder), attributes=attributes)
        return [
            group.create_array(
                str(level),
                shape=(() if gray else (self.channels,)) + size,
                chunks=(() if gray else (self.channels,)) + (self.tile, self.tile),
                dtype=self.dtype,
                dimension_names=["y", "x"] if gray else ["c", "y", "x"],
            )
            for level, size in enumerate(self.sizes)
        ]

    def _part(self, place: Place) -> tuple[Any, Any]:
        """The array that a tile lies in, and where."""
        level, row, col = place
        tall, wide = self._tile_size(level, row, col)
        y, x = row * self.tile, col * self.tile
        part: tuple[slice, ...] = (slice(y, y + tall), slice(x, x + wide))
        if self._pyramid and self.channels > 1:
            part = (slice(None), *part)
        return self._arrays[level], part

    def _packed(self, samples: Array) -> Array:
        if self.channels == 1:
            return samples[..., 0]
        return np.moveaxis(samples, 2, 0) if self._pyramid else samples

    def _store(self, place: Place, packed: Array) -> None:
        array, part = self._part(place)
        with writing(self.path):
            array[part] = packed

    def _load(self, place: Place) -> Array:
        array, part = self._part(place)
        stored = np.asarray(array[part])
        if self.channels == 1:
            return stored[..., None]
        return np.moveaxis(stored, 0, 2) if self._pyramid else stored


def _multiscales(levels: int, channels: int) -> dict[str, Any]:
    """OME-NGFF's description of a pyramid whose levels halve in size."""
    axes = [{"name": name, "type": "space"} for name in "yx"]
    if channels > 1:
        axes = [{"name": "c", "type": "channel"}, *axes]
    one = [1.0] * (len(axes) - 2)
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [*one, float(2**level), float(2**level)]}
            ],
        }
        for level in range(levels)
    ]
    return {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
