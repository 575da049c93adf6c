"""Models over sets of pictures: each picture restored, scored, and kept in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch

from restore.atomic import writing
from restore.bench.cache import Cache, file_digest, model_digest, versions
from restore.bench.memory_use import PeakMemory
from restore.bench.protocols import (
    Array,
    Bytes,
    Floats,
    Measure,
    Protocol,
    prepared,
    read_for,
)
from restore.bench.results import FORMAT, ModelFacts, PictureScore, Row
from restore.bench.scores import Perceptual, as_bytes, counted_pixels, scored
from restore.costs import parameters_and_multiply_adds
from restore.devices import dtype_name
from restore.errors import ImageError, RestoreError
from restore.image_io import Picture, read_picture, write_picture
from restore.model import Model
from restore.upscaling import RunReport, restore_floats
from restore.upscaling.run import TileChoice

PRINTED_SIZE = (1280, 720)  # of the result that papers count multiply-adds for
_WARM_SIDE = 32  # pixels of a picture that is restored before the first one that is timed


class Found(Interface):
    """A picture of a set."""

    @property
    def name(self) -> str:
        """In its set."""

    @property
    def gt(self) -> Path:
        """The picture to reach."""

    @property
    def lq(self) -> Path | None:
        """Its low-quality side; None: it is made."""


@dataclass(frozen=True)
class Settings:
    """What holds for every picture beside the protocol; see `upscale`.

    measures: tells measures with weights from others of their name; see `figures.fingerprints`.
    """

    tile: TileChoice = "auto"
    tile_pad: int | None = None
    tta: bool = False
    measures: str = ""


@dataclass
class Contender:
    """A model to score, and what is told of it."""

    model: Model
    facts: ModelFacts
    is_warm: bool = False


def contender(model: Model, source: str, name: str) -> Contender:
    """A loaded model as a contender.

    Args:
        model: from `restore.load`.
        source: path of its file, or its name.
        name: what tables call it.
    """
    per_pixel = parameters_and_multiply_adds(model.spec, model.config)[1]
    width, height = PRINTED_SIZE
    facts = ModelFacts(
        name=name,
        source=source,
        digest=model_digest(model),
        arch=model.arch,
        variant=model.variant,
        scale=model.scale,
        parameters=model.num_parameters,
        multiply_adds=per_pixel * width * height / model.scale**2,
        dtype=dtype_name(model.dtype),
        device=device_name(model.device),
        param_key=model.checkpoint_key,
        other_keys=model.other_keys,
    )
    return Contender(model, facts)


def device_name(device: torch.device) -> str:
    """Type and name: "cuda NVIDIA H200", "cpu AVX512"."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return device.type


class SetRun:
    """One model over one set at one level.

    Args:
        of: the model.
        protocol: what is made and counted.
        settings: how pictures go through the model.
        cache: where scored pictures are kept.
        perceptual: measures with weights, which `settings.measures` tell apart.
        keep_in: folder for the results; None: none is kept.
    """

    def __init__(
        self,
        of: Contender,
        protocol: Protocol,
        settings: Settings,
        cache: Cache,
        *,
        perceptual: Mapping[Measure, Perceptual] | None = None,
        keep_in: Path | None = None,
    ) -> None:
        self._of = of
        self._protocol = protocol
        self._settings = settings
        self._cache = cache
        self._perceptual = perceptual or {}
        self._keep_in = keep_in
        self.from_cache = 0

    def __call__(self, dataset: str, pictures: Sequence[Found], told: Callable[[], None]) -> Row:
        """Score every picture; one that fails does not stop the others.

        Args:
            dataset: name of the set.
            pictures: of the set.
            told: called after each picture, well or not.
        """
        row = Row(self._of.facts, dataset, self._protocol, self._depends_on(), len(pictures))
        for picture in pictures:
            try:
                row.pictures.append(self._score(dataset, picture))
            except (RestoreError, OSError) as error:
                row.failed[picture.name] = str(error)
            except MemoryError:
                row.failed[picture.name] = "there is not enough memory; try --tile or --dtype bf16"
            told()
        return row

    def _depends_on(self) -> dict[str, Any]:
        """What results depend on, beside model, protocol and pictures."""
        return {
            **dataclasses.asdict(self._settings),
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }

    def _key(self, picture: Found) -> dict[str, Any]:
        facts = self._of.facts
        return {
            "format": FORMAT,
            "model": facts.digest,
            "dtype": facts.dtype,
            "device": facts.device,
            "protocol": dataclasses.asdict(self._protocol),
            "settings": self._depends_on(),
            "truth": file_digest(picture.gt),
            "low": "made" if picture.lq is None else file_digest(picture.lq),
        }

    def _score(self, dataset: str, picture: Found) -> PictureScore:
        key = self._key(picture)
        path = self._result_path(dataset, picture, key)
        known = self._cache.find(key)
        if known is not None and (path is None or _holds(path, known.get("result_digest"))):
            self.from_cache += 1
            return _score_of(known, key, picture, path)
        gray, low, truth = self._read(picture)
        result, report, peak = self._restored(low)
        pixels = as_bytes(result)
        counted = counted_pixels(result, self._protocol)
        values = scored(counted, truth, self._protocol, is_gray=gray, perceptual=self._perceptual)
        if path is not None:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, Picture(pixels), fmt="png")
        kept = {
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "values": {name: repr(value) for name, value in values.items()},
            "seconds": report.seconds,
            "peak": peak,
            "tiles": report.tiles,
            "result_digest": _digest(pixels),
        }
        self._cache.keep(key, kept)
        return _score_of(kept, key, picture, path)

    def _read(self, picture: Found) -> tuple[bool, Floats, Array]:
        """Whether it is gray, what the network gets, and the truth."""
        pixels = read_for(picture.gt, self._protocol)
        low = None if picture.lq is None else read_for(picture.lq, self._protocol)
        ready, truth = prepared(pixels, low, self._protocol, str(picture.gt), str(picture.lq))
        return pixels.shape[2] == 1, ready, truth

    def _restored(self, low: Floats) -> tuple[Floats, RunReport, int | None]:
        model, report = self._of.model, RunReport()
        if not self._of.is_warm:
            side = min(_WARM_SIDE, *low.shape[:2])
            self._through(np.ascontiguousarray(low[:side, :side]), RunReport())
            self._of.is_warm = True
        with PeakMemory(model.device) as memory:
            began = time.perf_counter()
            result = self._through(low, report)
            report.seconds = time.perf_counter() - began
        return result, report, memory.bytes

    def _through(self, low: Floats, report: RunReport) -> Floats:
        settings = self._settings
        return restore_floats(
            low,
            self._of.model,
            tile=settings.tile,
            tile_pad=settings.tile_pad,
            tta=settings.tta,
            padding=self._protocol.padding,
            report=report,
        )

    def _result_path(self, dataset: str, picture: Found, key: Mapping[str, Any]) -> Path | None:
        if self._keep_in is None:
            return None
        # of another setting: another file
        mark = hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:8]
        level = self._protocol.level_name.replace(" ", "")
        folder = self._keep_in / self._of.facts.name / f"{Path(dataset).name}_{level}"
        return folder / f"{Path(picture.name).stem}_{mark}.png"


def _score_of(
    kept: Mapping[str, Any], key: Mapping[str, Any], picture: Found, path: Path | None
) -> PictureScore:
    return PictureScore(
        name=picture.name,
        truth=str(picture.gt),
        truth_digest=key["truth"],
        low_digest=key["low"],
        width=kept["width"],
        height=kept["height"],
        values={name: float(value) for name, value in kept["values"].items()},
        seconds=kept["seconds"],
        peak=kept["peak"],
        tiles=kept["tiles"],
        result=None if path is None else str(path),
    )


def _digest(pixels: Bytes) -> str:
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def _holds(path: Path, digest: object) -> bool:
    """Whether a result was kept and is what it was."""
    try:
        return _digest(read_picture(path).pixels) == digest
    except ImageError:
        return False
