"""What comes out of a benchmark: rows of scored pictures, and the file that holds them.

A row is a model on a set at a level (scale, noise or quality). Files hold JSON; numbers that it has
no notation for, such as the infinite PSNR of equal pictures, stand there as words.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restore.atomic import atomic_output, writing
from restore.bench.protocols import Figure, Protocol
from restore.errors import UsageError

FORMAT = 2
RESULTS = "results.json"
# what a mean may differ from the published one: the unit of the last printed digit, and how many
_ALLOWED = {"psnr": (0.01, 1), "psnr_b": (0.01, 1)}
_ALLOWED |= dict.fromkeys(("ssim", "ssim_volume", "ssim_uniform"), (0.0001, 5))


@dataclass(frozen=True)
class ModelFacts:
    """A model, and how it computed.

    Attributes:
        name: of its file, without the suffix.
        source: path of its file, or its name.
        digest: of its weights and configuration.
        arch, variant: see `restore.Model`.
        scale: output pixels per input pixel, along each axis.
        parameters: how many.
        multiply_adds: for a result of 1280 x 720 pixels.
        dtype: of the arithmetic.
        device: its type and name.
        param_key: under which the weights lay in their file, "" for none; None: not told.
        other_keys: of other weights in that file.
    """

    name: str
    source: str
    digest: str
    arch: str
    variant: str
    scale: int
    parameters: int
    multiply_adds: float
    dtype: str
    device: str
    param_key: str | None = None
    other_keys: tuple[str, ...] = ()

    def weights(self) -> str:
        """Which weights of the file these are, in words; "" where that is not told."""
        if self.param_key is None:
            return ""
        words = f"weights under {self.param_key or 'no key'} of its file"
        if self.other_keys:
            more = " and ".join(self.other_keys)
            words += f", which also has {more} (--param_key takes others)"
        return words


@dataclass(frozen=True)
class PictureScore:
    """A picture, restored and scored.

    Attributes:
        name: in its set.
        truth: path of the picture to reach.
        truth_digest: SHA-256 of that file.
        low_digest: that of its low-quality side; "made" where it was made of the truth.
        width, height: of the result.
        values: by the figure's key.
        seconds: that restoring took, without reading and scoring.
        peak: bytes that restoring took beyond the loaded model; None: not known here.
        tiles: that it was cut into.
        result: path of the result, where it was kept.
    """

    name: str
    truth: str
    truth_digest: str
    low_digest: str
    width: int
    height: int
    values: dict[str, float]
    seconds: float
    peak: int | None
    tiles: int
    result: str | None = None


@dataclass(frozen=True)
class Compared:
    """A mean beside what was published for it.

    Attributes:
        value: the published one.
        source: paper and table.
        difference: of our mean, rounded as papers round, to it.
        ok: whether that is within 0.01 dB, or 0.0005 of SSIM.
    """

    value: float
    source: str
    difference: float
    ok: bool


@dataclass
class Row:
    """A model on a set at a level.

    Attributes:
        model: see there.
        dataset: name of the set.
        protocol: see there.
        settings: all else that results depend on.
        count: pictures of the set.
        pictures: those that are scored.
        failed: name to reason.
        published: by the figure's key.
        unpublished: why nothing stands there, in words.
        notes: sentences: what is wrong with the set.
        low_side: where the low-quality pictures come from; "": as the protocol says.
        made: low-quality pictures that were made, of a set that has files of the others.
        left_out: pictures of a set of pairs that have no partner; they count in `count`.
    """

    model: ModelFacts
    dataset: str
    protocol: Protocol
    settings: dict[str, Any]
    count: int
    pictures: list[PictureScore] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    published: dict[str, Compared] = field(default_factory=dict)
    unpublished: str = ""
    notes: list[str] = field(default_factory=list)
    low_side: str = ""
    made: int = 0
    left_out: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether all pictures are scored; only then does a mean stand for the set."""
        return len(self.pictures) == self.count > 0

    def values(self, figure: Figure) -> list[float]:
        """Of the pictures, in their order."""
        return [picture.values[figure.key] for picture in self.pictures]

    def mean(self, figure: Figure) -> float:
        """Over the pictures; NaN without one."""
        return mean(self.values(figure))

    def standard_error(self, figure: Figure) -> float:
        """Of the mean, over pictures; NaN where there are fewer than two."""
        return standard_error(self.values(figure))

    @property
    def seconds(self) -> float:
        """Of one picture, on average."""
        return mean([picture.seconds for picture in self.pictures])

    @property
    def pixels_per_second(self) -> float:
        """Of the results."""
        seconds = math.fsum(picture.seconds for picture in self.pictures)
        pixels = sum(picture.width * picture.height for picture in self.pictures)
        return pixels / seconds if seconds else math.nan

    @property
    def peak(self) -> int | None:
        """The largest of the pictures'."""
        return max((p.peak for p in self.pictures if p.peak is not None), default=None)


def mean(values: Iterable[float]) -> float:
    """The mean; NaN of nothing."""
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan


def standard_error(values: Iterable[float]) -> float:
    """Of the mean: the standard deviation (n - 1) over the root of n; NaN below two values."""
    found = list(values)
    if len(found) < 2 or not all(map(math.isfinite, found)):
        return math.nan
    middle = mean(found)
    spread = math.fsum((value - middle) ** 2 for value in found) / (len(found) - 1)
    return math.sqrt(spread / len(found))


def compared(
    figure: Figure, ours: float, value: float, source: str, decimals: int | None = None
) -> Compared:
    """A mean beside what was published for it.

    Ours is rounded as papers round; ok is within 0.01 dB or 0.0005 of SSIM of that.

    Args:
        figure: which.
        ours: the mean.
        value: the published one.
        source: paper and table.
        decimals: that were printed; None: as many as papers print.
    """
    unit, most = _ALLOWED[figure.measure]
    difference = round(ours, figure.digits if decimals is None else decimals) - value
    steps = difference / unit
    return Compared(value, source, round(difference, figure.digits), abs(steps) <= most + 0.01)


def write_results(folder: Path, rows: Iterable[Row], machine: Mapping[str, Any]) -> Path:
    """Write results.json into a folder; OutputError where it cannot be written."""
    path = folder / RESULTS
    content = {
        "format": FORMAT,
        "machine": dict(machine),
        "rows": [_row_as_json(row) for row in rows],
    }
    with atomic_output(path) as file, writing(path):
        file.write((json.dumps(_in_words(content), indent=1) + "\n").encode())
    return path


def read_results(path: Path) -> list[Row]:
    """The rows of a results.json, or of the one in a folder.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    file = path / RESULTS if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise UsageError(
                f"{file}: is of format {content['format']}, and {FORMAT} is read here; run "
                "`restore bench` again"
            )
        return [_row_of_json(row) for row in content["rows"]]
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file}: is no results.json of `restore bench`: {error}") from error


def _row_as_json(row: Row) -> dict[str, Any]:
    """All of it, and the means for those who read the file."""
    means = {
        figure.key: {"mean": row.mean(figure), "standard_error": row.standard_error(figure)}
        for figure in row.protocol.figures
    }
    more = {
        "means": means,
        "seconds_per_picture": row.seconds,
        "result_pixels_per_second": row.pixels_per_second,
        "peak_bytes": row.peak,
    }
    return {**dataclasses.asdict(row), **more}


def _row_of_json(content: Mapping[str, Any]) -> Row:
    protocol = dict(content["protocol"])
    protocol["figures"] = tuple(Figure(**figure) for figure in protocol["figures"])
    pictures = []
    for picture in content["pictures"]:
        values = {key: float(value) for key, value in picture["values"].items()}
        for figure in protocol["figures"]:
            if figure.key not in values:
                raise ValueError(f"{picture['name']} has no {figure.key}")
        pictures.append(PictureScore(**{**picture, "values": values}))
    facts = {**content["model"]}
    facts["other_keys"] = tuple(facts.get("other_keys", ()))
    return Row(
        model=ModelFacts(**facts),
        dataset=content["dataset"],
        protocol=Protocol(**protocol),
        settings=content["settings"],
        count=content["count"],
        pictures=pictures,
        failed=content["failed"],
        published={key: Compared(**found) for key, found in content["published"].items()},
        unpublished=content["unpublished"],
        notes=content["notes"],
        low_side=content.get("low_side", ""),
        made=content.get("made", 0),
        left_out=content.get("left_out", []),
    )


def _in_words(content: Any) -> Any:
    """Numbers that JSON has no notation for become "inf", "-inf" and "nan"."""
    if isinstance(content, dict):
        return {key: _in_words(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_in_words(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    return content
