"""The models that the page offers, what each is for, and those that are loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore.errors import CheckpointError, RestoreError, UsageError

if TYPE_CHECKING:
    from restore.model import Model

# from a path or the name of a built-in model; the other is told what there is to note
Load = Callable[[str, Callable[[str], None]], "Model"]
MOST_LOADED = 2  # a large network takes 160 MB; going to and fro between two is common

_PURPOSES = {
    "super-resolution": (
        "Enlarges clean pictures faithfully: nothing is invented, and noise or JPEG blocks are "
        "enlarged with the rest."
    ),
    "real-world super-resolution": (
        "Enlarges pictures that are noisy, blurred or compressed, as phones, scans and the web "
        "give them. Those trained as GANs invent fine detail that looks right and may not be true."
    ),
    "denoising": "Takes away noise and keeps the size; made for the strength in its name.",
    "real-world denoising": "Takes away the noise of cameras in little light; keeps the size.",
    "JPEG artefacts": (
        "Takes away the blocks and rings of JPEG and keeps the size; made for the quality in its "
        "name, a lower number for stronger compression."
    ),
    "motion deblurring": "Sharpens what moved while the picture was taken; keeps the size.",
}


@dataclass(frozen=True)
class Entry:
    """A model on the page.

    Attributes:
        name: in the list; no other has it.
        source: its file, or the name of a built-in model.
        scale: output pixels per input pixel.
        variant: what a person calls it.
        purpose: what it does and when to take it, in sentences.
        builtin: whether it comes with the program.
        notes: what its loading had to say.
    """

    name: str
    source: str
    scale: int
    variant: str
    purpose: str
    builtin: bool = False
    notes: tuple[str, ...] = ()


class Shelf:
    """Models by name; the last two that were used stay loaded.

    Args:
        entries: in the order of the list, at least one.
        load: makes a model of a source.
    """

    def __init__(self, entries: Sequence[Entry], load: Load) -> None:
        if not entries:
            raise UsageError("there is no model to offer; name a weight file with -m")
        self.entries = {entry.name: entry for entry in entries}
        self._load = load
        self._loaded: dict[str, Model] = {}
        self._lock = threading.Lock()

    def entry(self, name: str) -> Entry:
        """The model of a name; UsageError where there is none."""
        if name not in self.entries:
            raise UsageError(f"there is no model {name!r} here; choose one from the list")
        return self.entries[name]

    def model(self, name: str) -> Model:
        """The model of a name, loaded now if it is not."""
        source = self.entry(name).source
        with self._lock:
            model = self._loaded.pop(name, None)
            if model is None:
                while len(self._loaded) >= MOST_LOADED:
                    del self._loaded[next(iter(self._loaded))]
                # told when the page was started, and beside the model
                model = self._load(source, lambda note: None)
            self._loaded[name] = model  # last: used last
        return model


def find_weights(paths: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Weight files that were named, and those in folders that were named.

    Raises:
        UsageError: there is no such file or folder, or a folder holds no weight file.
    """
    from restore.commands.info import WEIGHT_SUFFIXES

    named, found = list[Path](), list[Path]()
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in WEIGHT_SUFFIXES)
            if not inside:
                raise UsageError(
                    f"-m {text}: the folder holds no weight file; expected names ending in "
                    f"{', '.join(WEIGHT_SUFFIXES)}"
                )
            found += inside
        elif path.is_file():
            named.append(path)
        else:
            raise UsageError(f"-m {text}: no such file or folder")
    return named, found


def make_entries(
    builtin: Sequence[str],
    named: Sequence[Path],
    found: Sequence[Path],
    load: Load,
    say: Callable[[str], None],
) -> list[Entry]:
    """Load every model once, to see what it is.

    Args:
        builtin: names of built-in models.
        named: files; one that does not load is an error.
        found: files; one that does not load, or restores no pictures, is left out and told.
        load: makes a model of a source.
        say: is told.

    Raises:
        RestoreError: see `restore.load`.
    """
    entries: dict[str, Entry] = {}
    seen: set[Path] = set()
    sources: list[str | Path] = [*builtin, *named, *found]
    for source in sources:
        if isinstance(source, Path) and source.resolve() in seen:
            continue
        try:
            entry = _entry(source, load, set(entries))
        except RestoreError as error:
            if source not in found or source in named:
                raise
            say(f"note: left out: {error}")
            continue
        entries[entry.name] = entry
        if isinstance(source, Path):
            seen.add(source.resolve())
            for note in entry.notes:
                say(note)
    return list(entries.values())


def _entry(source: str | Path, load: Load, taken: set[str]) -> Entry:
    from restore.upscaling.run import check_channels

    notes: list[str] = []
    model = load(str(source), notes.append)
    try:
        check_channels(model)
    except UsageError as error:
        raise CheckpointError(str(error)) from error
    name, n = model.name, 1
    while name in taken:
        n += 1
        name = f"{model.name} ({n})"
    builtin = isinstance(source, str)
    purpose = purpose_of(model, builtin)
    return Entry(name, str(source), model.scale, model.variant, purpose, builtin, tuple(notes))


def purpose_of(model: Model, builtin: bool) -> str:
    """What a model does and when to take it, in sentences."""
    from restore.official import published_as

    if builtin:
        return (
            "Small and quick, comes with the program. " + _PURPOSES["super-resolution"] + " For "
            "the best results take official weights of a large network."
        )
    tasks = {
        task
        for published in published_as(model.spec, model.config)
        for task in published.task.split(", ")
    }
    known = [text for task, text in _PURPOSES.items() if task in tasks]
    if len(known) > 1:
        return "Depending on its training: " + " Or: ".join(known)
    if known:
        return known[0]
    return f"Enlarges {model.scale} times." if model.scale > 1 else "Cleans and keeps the size."
