"""How the papers make what is restored, and what they count: one protocol for each task.

Super-resolution: PSNR and SSIM on Y, as many pixels of the border cropped as the scale. Denoising:
all channels, nothing cropped, noise drawn anew with seed 0 for each picture and neither clipped nor
rounded. JPEG: PSNR, SSIM and PSNR-B, nothing cropped; a gray network gets Y of a colour picture, of
a colour network both Y and all channels are counted, since papers print either. Real noise and
blur: both sides come from the set; all channels of the result clipped to 0..1 and not rounded,
nothing cropped; SSIM as each of them counts it, see restore.metrics.other_similarities.

Source: the test scripts of SwinIR (github.com/JingyunLiang/SwinIR, main_test_swinir.py), which the
others follow, BasicSR's metrics, and for real noise and blur those of Uformer
(github.com/ZhendongWang6/Uformer, test). Shape letters: H rows, W columns, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from restore.datasets.images import Colour, in_colour, read_gray, unit
from restore.datasets.single import Degradation, validation_pair
from restore.datasets.validation import cut_to_low
from restore.errors import ImageError, UsageError
from restore.image_io import read_picture
from restore.image_io.picture import to_depth
from restore.metrics import rgb_to_y
from restore.model import Model
from restore.official import published_as
from restore.padding import Padding
from restore.tasks import PAIRED, TASKS, WORDS, Task, published_tasks

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

Channels = Literal["y", "rgb", "gray"]
Measure = Literal["psnr", "ssim", "ssim_volume", "ssim_uniform", "psnr_b", "lpips", "dists", "niqe"]
GrayRule = Literal["rgb", "y"]

PERCEPTUAL: tuple[Measure, ...] = ("lpips", "dists", "niqe")
NO_LEVEL = 0  # of what is as it is in the set's files
# of the papers: standard deviations of 255, and JPEG qualities
LEVELS: dict[Task, tuple[int, ...]] = {
    "denoise": (15, 25, 50),
    "jpeg": (10, 20, 30, 40),
    "real-denoise": (NO_LEVEL,),
    "deblur": (NO_LEVEL,),
}
NOISE_SEED = 0
_SIMILARITY: dict[Task, Measure] = {"real-denoise": "ssim_volume", "deblur": "ssim_uniform"}
_SIGN: dict[Task, str] = {"sr": "x", "denoise": "sigma ", "jpeg": "q"}
_NAMES: dict[Measure, str] = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "ssim_volume": "SSIM (volume)",
    "ssim_uniform": "SSIM (uniform)",
    "psnr_b": "PSNR-B",
    "lpips": "LPIPS",
    "dists": "DISTS",
    "niqe": "NIQE",
}
_DIGITS: dict[Measure, int] = {"psnr": 2, "psnr_b": 2, "niqe": 3}  # of a table; others have 4
# what the authors' weight files are called: ..._noise25.pth, ..._jpeg40.pth, CAR_CAT_q10.pth
_LEVEL_IN_NAME = {
    "denoise": re.compile(r"noise(\d+)$"),
    "jpeg": re.compile(r"(?:jpeg|_q)(\d+)$"),
}


@dataclass(frozen=True)
class Figure:
    """A number that is counted of each picture: a column of the table.

    Attributes:
        measure: of restore.metrics.
        channels: what it is counted on.
    """

    measure: Measure
    channels: Channels

    @property
    def key(self) -> str:
        """Its name in files, such as psnr_y."""
        return f"{self.measure}_{self.channels}"

    @property
    def title(self) -> str:
        """Its name in tables, such as "PSNR Y"."""
        on = {"y": " Y", "rgb": " RGB", "gray": " gray"}[self.channels]
        return _NAMES[self.measure] + ("" if self.measure in PERCEPTUAL else on)

    @property
    def digits(self) -> int:
        """After the point, in tables."""
        return _DIGITS.get(self.measure, 4)

    @property
    def higher_is_better(self) -> bool:
        """Whether a better picture has a higher value."""
        return self.measure not in PERCEPTUAL

    def shown(self, value: float) -> str:
        """A value as papers print it: 32.55, and .8999 without the 0."""
        # what rounds to 0 has no sign
        text = f"{round(value, self.digits) + 0.0:.{self.digits}f}"
        return text.removeprefix("0") if self.measure.startswith("ssim") else text


@dataclass(frozen=True)
class Protocol:
    """What is made of a picture, and what is counted of the result.

    Attributes:
        task: which.
        level: scale, standard deviation of the noise (of 255), or JPEG quality; 0 for real noise
            and blur.
        colour: what the network sees: RGB; gray (BT.601, full range), y (BT.601, 16 to 235) of
            colour pictures, and gray pictures as they are.
        padding: how pictures grow before the network, see `restore.Model`.
        gray: a gray picture of a colour set counts as three equal channels, as BasicSR does it
            ("rgb"), or as Y itself, as tables made with MATLAB do ("y").
        figures: what is counted.
    """

    task: Task
    level: int
    colour: Colour
    padding: Padding
    gray: GrayRule
    figures: tuple[Figure, ...]

    @property
    def scale(self) -> int:
        """Pixels of the truth for each pixel of what is restored, along each axis."""
        return self.level if self.task == "sr" else 1

    @property
    def crop_border(self) -> int:
        """Pixels of each side that are not counted."""
        return self.scale if self.task == "sr" else 0

    @property
    def is_paired(self) -> bool:
        """Whether the set's own files are both sides."""
        return self.task in PAIRED

    @property
    def level_name(self) -> str:
        """Such as "x4", "sigma 25", "q10", "real noise"."""
        if self.is_paired:
            return "real noise" if self.task == "real-denoise" else "blur"
        return f"{_SIGN[self.task]}{self.level}"

    def words(self, low_side: str = "") -> str:
        """The protocol, in a sentence for the table.

        Args:
            low_side: where the low-quality pictures of a set come from; "": as the task makes them.
        """
        made = {
            "sr": "MATLAB's bicubic",
            "denoise": f"Gaussian noise, seed {NOISE_SEED} for each picture",
            "jpeg": "OpenCV's JPEG",
            "real-denoise": "pairs of files, results not rounded",
            "deblur": "pairs of files, results not rounded",
        }[self.task]
        how = "as the authors' scripts do" if self.padding == "published" else "by reflection"
        parts = [
            low_side or made,
            f"{' and '.join(figure.title for figure in self.figures)}",
            f"border of {self.crop_border} cropped" if self.crop_border else "nothing cropped",
            f"pictures grown {how}",
        ]
        if self.colour == "rgb" and any(figure.channels == "y" for figure in self.figures):
            gray = "as three equal channels" if self.gray == "rgb" else "directly as Y"
            parts.append(f"gray pictures counted {gray}")
        return "; ".join(parts)


def task_of(
    model: Model, asked: Task | None, of_sets: Collection[Task] = (), *, given: str = "--task"
) -> Task:
    """The task to score a model in: what is asked for, else what it was published for.

    Where it was published for several, or nothing is known, the sets decide.

    Args:
        model: see above.
        asked: of the options.
        of_sets: what the cards of all the sets say.
        given: option that asks for it, for messages: --noise and --quality do too.

    Raises:
        UsageError: a task that it cannot do, or nothing tells which.
    """
    if model.in_channels not in (1, 3):
        raise UsageError(
            f"{model.name}: takes {model.in_channels} channels (as of both dual-pixel views); "
            "pictures of 1 or 3 are scored here"
        )
    if asked is not None:
        if (asked == "sr") != (model.scale > 1):
            what, instead = (f"--task {asked}", "give --task sr")
            if given != "--task":
                what, instead = f"{given} is for {asked}", f"leave {given} out"
            raise UsageError(
                f"{what}: {model.name} enlarges {model.scale} times; "
                + ("expected one that enlarges" if asked == "sr" else instead)
            )
        return asked
    if model.scale > 1:
        return "sr"
    told = ", ".join(found.task for found in published_as(model.spec, model.config))
    published = published_tasks(told)
    known = published or tuple(task for task in TASKS if task != "sr")
    fitting = [task for task in known if task in of_sets] or list(known)
    if len(fitting) == 1 or len(known) == 1:
        return fitting[0]
    why = f"nothing tells its task: {model.variant} is what its settings look like, but it is no "
    why += "published network"
    if published:
        why = "was published for several tasks"
    choice = " or ".join(f"--task {task} ({WORDS[task]})" for task in known)
    raise UsageError(f"{model.name}: {why}; give {choice}")


def levels_of(model: Model, task: Task, asked: Sequence[int]) -> tuple[int, ...]:
    """Scale, standard deviations or qualities to score a model at: those asked for, its own, all.

    Its own is what official files have in their names.
    """
    if task == "sr":
        return (model.scale,)
    if asked:
        return tuple(dict.fromkeys(asked))
    pattern = _LEVEL_IN_NAME.get(task)
    own = pattern.search(model.name) if pattern else None
    return (int(own[1]),) if own else LEVELS[task]


def protocol_of(
    channels: int,
    task: Task,
    level: int,
    *,
    padding: Padding = "published",
    gray: GrayRule = "rgb",
    perceptual: Sequence[Measure] = (),
) -> Protocol:
    """The papers' protocol of a task.

    Args:
        channels: of the network, 1 or 3.
        task: which.
        level: scale, standard deviation or quality.
        padding: see `Protocol`.
        gray: see `Protocol`.
        perceptual: measures beside the task's own, of PERCEPTUAL.
    """
    colour: Colour = "rgb" if channels == 3 else "y" if task in ("sr", "jpeg") else "gray"
    kinds: list[Measure] = ["psnr", _SIMILARITY.get(task, "ssim")]
    if task == "jpeg":
        kinds.append("psnr_b")
    on: tuple[Channels, ...] = (colour,)
    if colour == "rgb" and task in ("sr", "jpeg"):
        on = ("y",) if task == "sr" else ("y", "rgb")
    figures = [Figure(kind, where) for where in on for kind in kinds]
    figures += [Figure(kind, colour) for kind in perceptual]
    return Protocol(task, level, colour, padding, gray, tuple(figures))


def prepared(
    picture: Array, low: Array | None, protocol: Protocol, where: str, low_where: str = ""
) -> tuple[Floats, Array]:
    """What the network gets, and the truth.

    Args:
        picture: [H, W, C] of any depth; of gray protocols see `read_for`.
        low: its low-quality side where there is a file of it; None: it is made.
        protocol: see there.
        where: the picture lies, for messages.
        low_where: the other side lies.

    Returns:
        [h, w, C] float32, not clipped, and [h * scale, w * scale, C] of 8 bits; of pairs of files
        float32 in 0..1.

    Raises:
        ImageError: the sizes do not fit each other, the picture is smaller than the scale, or its
            values are not in 0..1.
    """
    for pixels, place in ((picture, where), (low, low_where)):
        if pixels is not None:
            _check_values(pixels, place)
    if protocol.is_paired:
        if low is None:
            raise ImageError(f"{where}: has no low-quality side; {protocol.task} takes pairs")
        noisy, good = (unit(in_colour(x, protocol.colour)) for x in (low, picture))
        cut_to_low(good, noisy, 1, where, low_where)
        return np.ascontiguousarray(noisy), np.ascontiguousarray(good)
    truth = seen(picture, protocol.colour)
    if low is not None:
        small = seen(low, protocol.colour)
        truth = np.ascontiguousarray(cut_to_low(truth, small, protocol.scale, where, low_where))
        return unit(small), truth
    how = Degradation(noise_seed=NOISE_SEED)
    if protocol.task == "denoise":
        how = Degradation(task="noise", sigma=float(protocol.level), noise_seed=NOISE_SEED)
    elif protocol.task == "jpeg":
        how = Degradation(task="jpeg", quality=protocol.level)
    made, truth = validation_pair(truth, 0, protocol.scale, how)
    return unit(made), truth


def _check_values(pixels: Array, where: str) -> None:
    if pixels.dtype.kind != "f":
        return
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(f"{where}: has values from {low:g} to {high:g}; expected 0..1: scale them")


def read_for(path: Path, protocol: Protocol) -> Array:
    """A picture's pixels [H, W, C]; gray of colour where the protocol counts gray, see `read_gray`.

    Raises:
        ImageError: it cannot be read.
    """
    pixels = read_picture(path).pixels
    return read_gray(path, pixels) if protocol.colour == "gray" else pixels


def seen(picture: Array, colour: Colour) -> Bytes:
    """[H, W, C] as 8 bits in the colours that a network sees, contiguous."""
    pixels = to_depth(picture, 8)
    if colour == "y" and pixels.shape[2] == 3:
        luma: Bytes = rgb_to_y(pixels).round().astype(np.uint8)
        return luma
    if colour == "y":
        return pixels
    return np.ascontiguousarray(in_colour(pixels, colour))
