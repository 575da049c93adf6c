"""The checkpoints that authors offer: their names, where they are, what is known of the files.

Derived from official.yml (which there are), files.yml (bytes and SHA-256) and the bench's
published.yml (what their authors scored).
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePath
from typing import TYPE_CHECKING

from restore.errors import UsageError
from restore.official import OfficialModel, official_models
from restore.tasks import published_tasks

if TYPE_CHECKING:
    from restore.bench.published import Published

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
_SHOWN = 8  # names in a message before "and N more"


@dataclass(frozen=True)
class Entry:
    """One checkpoint.

    Attributes:
        name: that people give, such as "SwinIR-M-classical-x4-DF2K".
        model: the published network whose weights it holds.
        file: name under which the authors offer it; "" where nobody recorded it.
        stored: name of its copy in the cache.
        size: bytes; None where unknown.
        sha256: None where unknown.
        url: of the file itself; None where a person has to take it from `page`.
    """

    name: str
    model: OfficialModel
    file: str
    stored: str
    size: int | None
    sha256: str | None
    url: str | None

    @property
    def page(self) -> str:
        """Address at which the authors offer it."""
        return self.model.source

    @property
    def published(self) -> Mapping[str, Mapping[str, Published]]:
        """What its authors printed, by set and metric; empty where nothing was found."""
        from restore.bench.published import figures_of  # few who name a model want its scores

        return figures_of(self.model, self.file)


@functools.cache
def catalogue() -> tuple[Entry, ...]:
    """All of them, in the order of official.yml."""
    offered = [pair for model in official_models() for pair in _offers(model)]
    files = [file for _, _, file in offered]
    known = _known_files()
    entries = []
    for name, model, file in offered:
        # two files of one name could not lie in one folder
        stored = file if file and files.count(file) == 1 else f"{name}.pth"
        size, sha256 = known.get(file, (None, None))
        entries.append(Entry(name, model, file, stored, size, sha256, _direct(model.source, file)))
    return tuple(entries)


def _offers(model: OfficialModel) -> Iterator[tuple[str, OfficialModel, str]]:
    """Name, model and file of each file of a model."""
    for file, mark in zip(model.offered, model.marks, strict=True):
        yield "-".join(filter(None, (_joined(model.variant), mark))), model, file


def _joined(variant: str) -> str:
    """A variant as one word: "SwinIR-M classical x4" as "SwinIR-M-classical-x4"."""
    return variant.replace("(", "").replace(")", "").replace(" ", "-").replace("_", "-")


def _direct(source: str, file: str) -> str | None:
    """Address of a file of a GitHub release; None for what only a page offers."""
    repository, release, tag = source.partition("/releases/tag/")
    if not (file and release and repository.startswith("https://github.com/")):
        return None
    return f"{repository}/releases/download/{tag}/{file}"


def _known_files() -> dict[str, tuple[int | None, str | None]]:
    import yaml

    text = resources.files("restore.catalogue").joinpath("files.yml").read_text(encoding="utf-8")
    return {name: (size, sha256) for name, (size, sha256) in yaml.safe_load(text).items()}


def known_as(word: str) -> tuple[Entry, ...]:
    """The checkpoints that a name can mean, none or several too.

    Args:
        word: a name, a file's name with or without suffix, or a variant ("HAT-x4", "SwinIR-M
            classical x4"), which several files may have; in any case of letters.
    """
    if not word or PurePath(word).name != word:
        return ()  # a path is no name
    from restore.bench.published import plain_key  # knows other names of the same file

    exact = [entry for entry in catalogue() if _plain(word) == _plain(entry.name)]
    words = {_plain(word), _plain(plain_key(word))}
    return tuple(exact or [e for e in catalogue() if words & set(map(_plain, _spelled(e)))])


def find(word: str) -> Entry:
    """The checkpoint of a name; see `known_as`.

    Raises:
        UsageError: there is none, or there are several; the message has the nearest or all.
    """
    found = known_as(word)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{word} is the name of {_listed(found)}; give one of them")
    near = nearest(word)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(
        f"no official model is called {word!r}; {hint}`restore models` lists them. For a weight "
        "file that is none of them: --model_path FILE"
    )


def nearest(word: str, most: int = 3) -> list[str]:
    """Names that look like a word, the nearest first."""
    names = {_plain(entry.name): entry.name for entry in catalogue()}
    for entry in catalogue():
        for other in _spelled(entry):
            names.setdefault(_plain(other), entry.name)
    near = difflib.get_close_matches(_plain(word), names, n=2 * most, cutoff=0.6)
    return list(dict.fromkeys(names[other] for other in near))[:most]


def _spelled(entry: Entry) -> list[str]:
    words = entry.name, _joined(entry.model.variant), entry.file, entry.stored
    return list(filter(None, words))


def _plain(word: str) -> str:
    folded = word.casefold()
    for suffix in SUFFIXES:
        folded = folded.removesuffix(suffix)
    return folded.replace(" ", "-").replace("_", "-")


def _listed(entries: Sequence[Entry]) -> str:
    told = [f"{entry.name} ({entry.model.data})" for entry in entries]
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return ", ".join(told[:_SHOWN]) + more


def chosen(
    family: str | None = None, scale: int | None = None, task: str | None = None
) -> tuple[Entry, ...]:
    """The checkpoints that fit what is given.

    Args:
        family: or architecture, such as "hat", "HiT-SR" or "HiT_SRF".
        scale: output pixels per input pixel, along each axis.
        task: a part of it, such as "denoising" or "jpeg", or a word of `restore bench --task`.

    Raises:
        UsageError: no checkpoint at all is of that family, scale or task.
    """
    entries = catalogue()
    if family is not None:
        known = {entry.model.spec.family: None for entry in entries}
        entries = _those(entries, "--family", family, [*known], _is_of_family)
    if task is not None:
        told = {entry.model.task: None for entry in catalogue()}
        fitting = _those(catalogue(), "--task", task, [*told], _is_for_task)
        entries = tuple(entry for entry in entries if entry in fitting)
    if scale is not None:
        scales = sorted({entry.model.scale for entry in catalogue()})
        if scale not in scales:
            found = ", ".join(map(str, scales))
            raise UsageError(f"--scale: no official model has {scale}; there are {found}")
        entries = tuple(entry for entry in entries if entry.model.scale == scale)
    return entries


def _those(
    entries: Sequence[Entry],
    option: str,
    word: str,
    known: Sequence[str],
    fits: Callable[[Entry, str], bool],
) -> tuple[Entry, ...]:
    found = tuple(entry for entry in entries if fits(entry, word))
    if not found:
        near = difflib.get_close_matches(word.casefold(), [k.casefold() for k in known], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        told = ", ".join(known)
        raise UsageError(f"{option}: no official model is of {word!r}; {hint}there are {told}")
    return found


def _is_of_family(entry: Entry, word: str) -> bool:
    spec = entry.model.spec
    return _letters(word) in (_letters(spec.family), _letters(spec.name))


def _is_for_task(entry: Entry, word: str) -> bool:
    tasks: tuple[str, ...] = ("sr",)
    if entry.model.scale == 1:
        tasks = published_tasks(entry.model.task)
    return word.casefold() in tasks or word.casefold() in entry.model.task.casefold()


def _letters(word: str) -> str:
    return "".join(filter(str.isalnum, word.casefold()))
