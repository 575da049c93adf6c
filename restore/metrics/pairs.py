"""Two pictures to compare: checked, cropped, and given out in strips of rows as float64 in 0..255.

Source: the conventions of BasicSR (github.com/XPixelGroup/BasicSR, basicsr/metrics), which most
published tables follow. Written anew, in float64 throughout.

The metrics are written once for NumPy and PyTorch, in what both call by one name; `Pair.xp` is the
one or the other module, and what is named `Planes` is an array of it.

Shape letters: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from restore.errors import UsageError
from restore.value_kinds import is_finite_number, is_whole

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]
Planes = Any  # [B, C, H, W] float64, of NumPy or PyTorch
Gray = Literal["rgb", "y"]

PEAK = 255.0  # every image is brought to 0..255 first, because the Y formula has an offset
_DEFAULT_RANGE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}
_TENSOR_RANGE = _DEFAULT_RANGE | {"float16": 1.0, "bfloat16": 1.0}
_SIGNED = {"uint8": "int16", "uint16": "int32"}  # holds every difference
_Y_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255  # of R, G, B in 0..255
_Y_OFFSET = 16.0
# in a plane of a strip: what is computed of a strip stays in the second-level cache
_STRIP_ELEMENTS = 1 << 14


def mod_crop(image: AnyArray, scale: int) -> AnyArray:
    """Cut rows and columns off the end so that both divide by `scale`; a view.

    Raises:
        UsageError: no image, or scale no whole number from 1 to the image's shorter side.
    """
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
        raise UsageError(
            f"mod_crop: got {_kind(image)}; expected a NumPy array [H, W] or [H, W, C]"
        )
    rows, columns = image.shape[:2]
    if not is_whole(scale) or scale < 1 or min(rows, columns) < scale:
        raise UsageError(
            f"mod_crop: scale={scale!r} for an image of {rows} x {columns} pixels; expected a "
            "whole number from 1 to its shorter side"
        )
    return image[: rows - rows % scale, : columns - columns % scale]


def rgb_to_y(image: AnyArray) -> FloatArray:
    """[H, W, 3] RGB (or [H, W, 1] gray) in 0..255 to [H, W, 1] Y in 16..235, not rounded.

    Raises:
        UsageError: it is another kind of array, or none.
    """
    numbers = isinstance(image, np.ndarray) and image.dtype.kind in "uif"
    if not numbers or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise UsageError(
            f"rgb_to_y: got {_kind(image)}; expected a NumPy array of numbers, [H, W, 3] or "
            "[H, W, 1]"
        )
    weights = _Y_WEIGHTS if image.shape[2] == 3 else _Y_WEIGHTS.sum(keepdims=True)
    y: FloatArray = image.astype(np.float64) @ weights[:, None] + _Y_OFFSET
    return y


@dataclass(frozen=True)
class Pair:
    """What `pair_of` checked.

    Attributes:
        xp: NumPy or PyTorch, whose arrays these are.
        a: cropped, in its own dtype and memory, [B, H, W, C].
        b: likewise.
        weights: [C] of each channel in the one that is counted; None: each channel counts.
        offset: added to that one.
        factor: from the pictures' values to 0..255.
    """

    xp: ModuleType
    a: Any
    b: Any
    weights: FloatArray | None
    offset: float
    factor: float

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, C, H, W) of what is counted."""
        count, rows, columns, channels = self.a.shape
        return count, channels if self.weights is None else 1, rows, columns

    @property
    def on_cpu(self) -> bool:
        """Whether NumPy can read them."""
        return self.xp is np or bool(self.a.device.type == "cpu")

    def rows_at_once(self, least: int = 8) -> int:
        """How many rows a strip should have, if there are; all, away from the CPU."""
        count, channels, rows, columns = self.shape
        if not self.on_cpu:
            return rows
        return min(rows, max(least, _STRIP_ELEMENTS // (count * channels * columns)))

    def empty(self, *shape: int, dtype: str = "float64") -> Any:
        """Room for values where the pictures are."""
        if self.xp is np:
            return np.empty(shape, dtype)
        return self.xp.empty(shape, dtype=getattr(self.xp, dtype), device=self.a.device)

    def constant(self, values: FloatArray) -> Any:
        """An array where the pictures are."""
        return values if self.xp is np else self.xp.from_numpy(values).to(self.a.device)


class Strips:
    """Some rows at a time of both pictures, in memory that is written again at each call.

    Fresh memory for each strip would cost more than all that is computed: the system clears it.

    Args:
        pair: the pictures.
        rows: the most that will be asked for at once.
    """

    def __init__(self, pair: Pair, rows: int) -> None:
        self.pair = pair
        count, height, width, channels = pair.a.shape
        shape = (count, min(rows, height), width, channels)
        self._wide = pair.empty(*shape), pair.empty(*shape)
        between = _SIGNED.get(name_of(pair.a.dtype), "float64")
        self._signed = pair.empty(*shape, dtype=between), pair.empty(*shape, dtype=between)
        self._ones = pair.constant(np.ones(shape[1] * shape[2]))
        self._weights = None
        if pair.weights is not None:
            self._weights = pair.constant(pair.weights * pair.factor)
            self._narrow = pair.empty(*shape[:3]), pair.empty(*shape[:3])

    def planes(self, first: int, last: int) -> tuple[Planes, Planes]:
        """Rows first:last of both, [B, C, last - first, W]; to be overwritten, if need be."""
        found = []
        for which, picture in enumerate((self.pair.a, self.pair.b)):
            wide = self._wide[which][:, : last - first]
            wide[...] = picture[:, first:last]
            x = self._counted(wide, which)
            if self.pair.offset:
                x += self.pair.offset
            found.append(x)
        return found[0], found[1]

    def squared_error(self, first: int, last: int) -> Any:
        """Squares of the difference added up over rows first:last, [B, C]."""
        # exact for integers, whose differences take a quarter of the bytes
        one, two = (x[:, : last - first] for x in self._signed)
        one[...] = self.pair.a[:, first:last]
        two[...] = self.pair.b[:, first:last]
        one -= two
        wide = self._wide[0][:, : last - first]
        wide[...] = one
        # as pixels [B, (last - first) * W, C], which one product adds up
        difference = self.pair.xp.moveaxis(self._counted(wide, 0), 1, 3)
        pixels = difference.reshape(len(wide), -1, difference.shape[3])
        pixels *= pixels
        return self.pair.xp.matmul(self._ones[: pixels.shape[1]], pixels)

    def _counted(self, wide: Any, which: int) -> Planes:
        """[B, h, W, C] to [B, C, h, W] of the channels as they are counted, without offset."""
        if self._weights is not None:
            narrow = self._narrow[which][:, : wide.shape[1]]
            return self.pair.xp.matmul(wide, self._weights, out=narrow)[:, None]
        if self.pair.factor != 1:
            wide *= self.pair.factor
        return self.pair.xp.moveaxis(wide, 3, 1)


def pair_of(
    name: str,
    a: AnyArray | Tensor,
    b: AnyArray | Tensor,
    crop_border: int,
    y_channel: bool,
    data_range: float | None,
    gray: Gray,
) -> Pair:
    """Check two pictures, or batches of them, and crop them.

    Args:
        name: of the metric, for errors; the others are as for `psnr`.

    Raises:
        UsageError: as for `psnr`.
    """
    xp, first, second = _same_kind(name, a, b)
    _, rows, columns, channels = first.shape
    if not is_whole(crop_border):
        raise UsageError(
            f"{name}: crop_border={crop_border!r}; expected a whole number of pixels, from 0"
        )
    if crop_border < 0 or min(rows, columns) <= 2 * crop_border:
        raise UsageError(f"{name}: crop_border={crop_border} leaves nothing of {rows} x {columns}")
    if not isinstance(y_channel, (bool, np.bool_)):
        raise UsageError(f"{name}: y_channel={y_channel!r}; expected True or False")
    if gray not in get_args(Gray):
        raise UsageError(f"{name}: gray is {gray!r}; expected rgb or y")
    dtype = name_of(first.dtype)
    white = _TENSOR_RANGE[dtype] if data_range is None else data_range
    if not (is_finite_number(white) and white > 0):
        raise UsageError(f"{name}: data_range={data_range!r}; expected the value of white, above 0")
    white = float(white)
    for which, image in (("first", first), ("second", second)):
        _check_range(name, which, image, white)
    bottom, right = rows - crop_border, columns - crop_border
    first, second = (x[:, crop_border:bottom, crop_border:right] for x in (first, second))
    weights, offset = None, 0.0
    if y_channel and not (channels == 1 and gray == "y"):
        weights = _Y_WEIGHTS if channels == 3 else _Y_WEIGHTS.sum(keepdims=True)
        offset = _Y_OFFSET
    # no rounding for uint8, where the factor is 1, and one for every other value
    return Pair(xp, first, second, weights, offset, PEAK / white)


def _same_kind(name: str, a: Any, b: Any) -> tuple[ModuleType, Any, Any]:
    """The module that both are of, and both, as NumPy's own arrays or tensors without gradient."""
    torch = sys.modules.get("torch")  # who has tensors has imported it
    xp: ModuleType = np
    if torch is not None and isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        xp = torch
        if a.device != b.device:
            raise UsageError(f"{name}: one image is on {a.device}, the other on {b.device}")
        if a.device.type == "mps":
            raise UsageError(f"{name}: the images are on mps, which has no float64: .cpu() them")
        if a.device.type == "meta" or torch.strided not in (a.layout, b.layout):
            kind = "on meta, without values" if a.device.type == "meta" else f"{a.layout}"
            raise UsageError(f"{name}: the images are {kind}; expected dense tensors")
        a, b = a.detach(), b.detach()
    else:
        for image in (a, b):
            if not isinstance(image, np.ndarray):
                raise UsageError(
                    f"{name}: got a {type(a).__name__} and a {type(b).__name__}; expected two "
                    "NumPy arrays or two tensors"
                )
        a, b = np.asarray(a), np.asarray(b)  # of a subclass, only the values
    if a.shape != b.shape or a.dtype != b.dtype:
        raise UsageError(
            f"{name}: images differ in kind: {tuple(a.shape)} {name_of(a.dtype)} and "
            f"{tuple(b.shape)} {name_of(b.dtype)}"
        )
    known = _DEFAULT_RANGE if xp is np else _TENSOR_RANGE
    if name_of(a.dtype) not in known:
        raise UsageError(f"{name}: {name_of(a.dtype)} images; expected one of {', '.join(known)}")
    return xp, _laid_out(name, xp, a), _laid_out(name, xp, b)


def _laid_out(name: str, xp: ModuleType, image: Any) -> Any:
    """A view [B, H, W, C] of it."""
    shape = tuple(image.shape)
    if xp is np:
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
            raise UsageError(f"{name}: images are {shape}; expected [H, W], [H, W, 1] or [H, W, 3]")
        return image[None, :, :, None] if len(shape) == 2 else image[None]
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise UsageError(f"{name}: images are {shape}; expected [B, 1, H, W] or [B, 3, H, W]")
    if not shape[0]:
        raise UsageError(f"{name}: images are {shape}, a batch of none; expected B from 1")
    return image.movedim(1, 3)


def _check_range(name: str, which: str, image: Any, white: float) -> None:
    if name_of(image.dtype) in _SIGNED and white >= _DEFAULT_RANGE[name_of(image.dtype)]:
        return
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= white):
        raise UsageError(
            f"{name}: {which} image has values from {low:g} to {high:g}; expected 0..{white:g}: "
            "clip it, or say what white is with data_range"
        )


def _kind(image: object) -> str:
    """What was given, in words."""
    if isinstance(image, np.ndarray):
        return f"{image.dtype} {image.shape}"
    return f"a {type(image).__name__}"


def name_of(dtype: Any) -> str:
    """ "float32" of NumPy's or PyTorch's."""
    return str(dtype).removeprefix("torch.")
