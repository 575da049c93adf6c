"""Which sets `restore data check` looks through: those of its words, or of an option file."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from restore.datasets import listing
from restore.datasets.check import Wanted
from restore.datasets.listing import Entry, Pair
from restore.errors import UsageError
from restore.training.dataset_options import DatasetOptions
from restore.training.option_file import read_file
from restore.training.options import read_options


@dataclass(frozen=True)
class CheckedSet:
    """One set.

    Attributes:
        title: what it is called.
        wanted: what it has to be.
        pairs: pairs, or gt alone where lq is made on the fly.
        unpaired: pictures without another side.
        against: test pictures that must not be in it.
    """

    title: str
    wanted: Wanted
    pairs: Sequence[Pair | Entry]
    unpaired: Sequence[Entry]
    against: Sequence[Entry]


def set_of_words(options: argparse.Namespace, max_shift: float) -> CheckedSet:
    """The set that --gt, --lq and their companions name."""
    wanted = Wanted(
        scale=options.scale,
        gt_size=options.gt_size,
        max_shift=max_shift,
        training=not options.test_set,
    )
    found = find_set(options.gt, options.lq, options.meta_info_file, options.filename_tmpl)
    return CheckedSet(str(options.gt), wanted, *found, _tests(options.against))


def sets_of_file(path: Path, against: Sequence[Path], max_shift: float) -> list[CheckedSet]:
    """All sets with gt of an option file; training sets are compared with all others too."""
    tree = read_file(path).section or {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what has no effect is told by the training itself
        read = read_options(path, is_train="train" in tree)
    sections = [data for data in read.datasets.values() if data.dataroot_gt]
    if not sections:
        raise UsageError(f"{path}: datasets has no section with dataroot_gt to look through")
    sets = [_set_of_section(section, max_shift) for section in sections]
    tests = _tests(against)
    for one in sets:
        if not one.wanted.training:
            tests += [pair.gt if isinstance(pair, Pair) else pair for pair in one.pairs]
    return [replace(one, against=tests) if one.wanted.training else one for one in sets]


def _set_of_section(section: DatasetOptions, max_shift: float) -> CheckedSet:
    paired = section.type == "PairedImageDataset"
    training = section.phase == "train"
    gt = section.dataroot_gt
    lq: Sequence[Path | None] = section.dataroot_lq if paired else [None] * len(gt)
    if len(gt) != len(lq):
        where = section.where("dataroot_lq")
        raise UsageError(f"{where}: {len(lq)} folders of lq and {len(gt)} of gt; expected as many")
    pairs, unpaired = list[Pair | Entry](), list[Entry]()
    for high, low in zip(gt, lq, strict=True):
        found = find_set(high, low, section.meta_info_file, section.filename_tmpl)
        pairs += found[0]
        unpaired += found[1]
    wanted = Wanted(
        scale=section.scale if paired else 1,
        gt_size=section.gt_size if training else 0,
        max_shift=max_shift,
        training=training,
    )
    return CheckedSet(section.key, wanted, pairs, unpaired, [])


def find_set(
    gt: Path, lq: Path | None, list_file: Path | None, template: str
) -> tuple[Sequence[Pair | Entry], list[Entry]]:
    """Pairs (or gt alone), and what has no partner."""
    database = gt.suffix == ".lmdb"
    if lq is None:
        if database:
            return listing.database_entries(gt), []
        if list_file:
            return listing.listed_entries(gt, list_file), []
        return listing.folder_entries(gt), []
    if database != (lq.suffix == ".lmdb"):
        raise UsageError(f"{gt} and {lq}: a folder and a data base; expected two of a kind")
    if database:
        return _matched_databases(gt, lq)
    if list_file:
        return listing.paired_by_list(gt, lq, list_file, template), []
    pairs, gt_alone, lq_alone = listing.match_folders(gt, lq, template)
    alone = [Entry(gt / name) for name in gt_alone]
    return pairs, [*alone, *(Entry(lq / name) for name in lq_alone)]


def _matched_databases(gt: Path, lq: Path) -> tuple[list[Pair], list[Entry]]:
    here, there = listing.database_keys(gt), listing.database_keys(lq)
    both = set(here) & set(there)
    alone = [Entry(gt, key) for key in here if key not in both]
    alone += [Entry(lq, key) for key in there if key not in both]
    return [Pair(Entry(lq, key), Entry(gt, key)) for key in here if key in both], alone


def _tests(folders: Sequence[Path]) -> list[Entry]:
    found: list[Entry] = []
    for folder in folders:
        database = folder.suffix == ".lmdb"
        found += listing.database_entries(folder) if database else listing.folder_entries(folder)
    return found
