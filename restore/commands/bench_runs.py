"""What `restore bench` does: models over sets, two models compared, models timed."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from restore.atomic import writing
from restore.bench.cache import Cache
from restore.bench.compare import made_otherwise, matched, paired, pictures_of_both
from restore.bench.crops import Wish, crop_wish, refuse_impossible
from restore.bench.figures import add_published, fingerprints, perceptual_of
from restore.bench.outputs import Outputs
from restore.bench.protocols import (
    Measure,
    Protocol,
    levels_of,
    protocol_of,
    task_of,
)
from restore.bench.results import RESULTS, Row, read_results, write_results
from restore.bench.runs import Contender, SetRun, Settings, contender
from restore.bench.sets import found_set, task_of_set, verdict_on
from restore.bench.sheets import refuse_unkept, write_sheet
from restore.bench.speed import machine_facts, speed_lines, timed, write_speeds
from restore.bench.tables import TABLE_FILES, paired_lines, screen_lines, write_paired, write_tables
from restore.commands.bench import OF_SCORING, given_beside
from restore.commands.computing import load_telling
from restore.commands.screen import counted
from restore.commands.text import plural
from restore.datasets.cards import FoundSet, some
from restore.errors import ImageError, UsageError
from restore.image_io import read_picture
from restore.loading import builtin_names, load, no_builtin, official_copy
from restore.padding import Padding
from restore.tasks import Task

Tell = Callable[[str], None]

TABLES = (RESULTS, *TABLE_FILES)
DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130
_PADDINGS: dict[str, Padding] = {"papers": "published", "reflect": "reflect"}


def score(options: argparse.Namespace, say: Tell, complain: Tell) -> int:
    """Score models on sets, and write the tables; the exit code."""
    rows: list[Row] = []
    try:
        found = _scored(options, options.model, say, rows, keep=options.save_images)
    except KeyboardInterrupt:
        return _interrupted(options, rows, complain)
    for path in found.written:
        say(str(path))
    return _code(options, rows, complain)


def compare(options: argparse.Namespace, say: Tell, complain: Tell) -> int:
    """Compare two models, or two folders of results; the exit code."""
    wishes = [crop_wish(text) for text in options.crops]
    _refuse_missing(options.compare)
    kinds = [_holds_results(name) for name in options.compare]
    if any(kinds) and not all(kinds):
        model = options.compare[kinds.index(False)]
        raise UsageError(
            f"--compare: one is a folder of results, and {model} is not; give two models or two "
            "folders of results"
        )
    rows: list[Row] = []
    if all(kinds):
        if given := given_beside(options, OF_SCORING):
            raise UsageError(
                f"--compare of two folders of results computes nothing; leave {given} out"
            )
        sides = [read_results(Path(name)) for name in options.compare]
    else:
        if not options.dataset:
            raise UsageError("no set to compare them on; give names of cards or folders with -d")
        if options.compare[0] == options.compare[1]:
            raise UsageError(f"--compare: {options.compare[0]} is both models; give two")
        try:

            def check(planned: Sequence[_Planned]) -> None:
                _refuse_incomparable(planned, wishes)

            _scored(options, options.compare, say, rows, keep=True, check=check)
        except KeyboardInterrupt:
            return _interrupted(options, rows, complain)
        first = rows[0].model
        sides = [
            [row for row in rows if row.model == first],
            [row for row in rows if row.model != first],
        ]
    pairs = matched(sides[0], sides[1])
    if all(kinds) and wishes:
        both = [each for a, b in pairs for each in pictures_of_both(a, b)]
        refuse_impossible(wishes, ((one.a.name, (one.a.height, one.a.width)) for one in both))
        for each in both:
            refuse_unkept(each)
    statistics = [figure for a, b in pairs for figure in paired(a, b)]
    for line in paired_lines(statistics):
        say(line)
    for words in dict.fromkeys(words for a, b in pairs for words in made_otherwise(a, b)):
        say(f"note: {words}")
    _make_folder(options.output)
    outputs = Outputs(options.output)
    if all(kinds):
        # tables of another run do not belong to these statistics, those of one of the two do
        of_both = (
            Path(name) if Path(name).is_dir() else Path(name).parent for name in options.compare
        )
        here = any(folder.resolve() == options.output.resolve() for folder in of_both)
        outputs.begin(keep=TABLES if here else ())
    say(str(outputs.add(write_paired(options.output, statistics))))
    for path in _sheets(options, pairs, wishes, say):
        say(str(outputs.add(path)))
    return _code(options, rows, complain) if rows else DONE


def speed(options: argparse.Namespace, say: Tell, complain: Tell) -> int:
    """Time models; the exit code."""
    contenders = list(_contenders(options, options.model, say))
    total = len(options.size) * options.rounds
    with counted(total, "rounds", options.quiet) as told:
        timings = timed(contenders, options.size, options.rounds, told)
    for line in speed_lines(timings, contenders):
        say(line)
    _make_folder(options.output)
    say(str(write_speeds(options.output, timings, contenders)))
    short = [timing for timing in timings if not timing.seconds]
    for timing in short:
        complain(f"{timing.model}: no memory for {timing.width} x {timing.height} pixels")
    return SOME_FAILED if short else DONE


@dataclass
class _Written:
    written: list[Path]


@dataclass(frozen=True)
class _Planned:
    """A model that is to be scored on a set at a level."""

    of: Contender
    protocol: Protocol
    found: FoundSet


def _plan(
    options: argparse.Namespace, contenders: Sequence[Contender], measures: Sequence[Measure]
) -> Iterator[_Planned]:
    for each in contenders:
        for protocol in _protocols(options, each, measures):
            sets: dict[Path, FoundSet] = {}
            for name in options.dataset:
                found = found_set(name, options.data_root, protocol)
                # one folder under two names is one set
                sets.setdefault(found.folder.resolve(), found)
            yield from (_Planned(each, protocol, found) for found in sets.values())


def _refuse_incomparable(planned: Sequence[_Planned], wishes: Sequence[Wish]) -> None:
    """Refuse two models that share no level, and crops that cannot be cut, before computing."""
    first = planned[0].of
    sides: tuple[list[Row], list[Row]] = ([], [])
    for one in planned:
        row = Row(one.of.facts, one.found.name, one.protocol, {}, len(one.found.pictures))
        sides[one.of is not first].append(row)
    matched(*sides)
    if wishes:
        refuse_impossible(wishes, (each for one in planned for each in _sizes(one)))


def _sizes(one: _Planned) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Names of a set's pictures, with rows and columns of their results where they can be read."""
    for picture in one.found.pictures:
        size = None
        with contextlib.suppress(ImageError):
            rows, columns = read_picture(picture.gt).pixels.shape[:2]
            size = (rows - rows % one.protocol.scale, columns - columns % one.protocol.scale)
        yield picture.name, size


def _scored(
    options: argparse.Namespace,
    names: Sequence[str],
    say: Tell,
    rows: list[Row],
    *,
    keep: bool,
    check: Callable[[Sequence[_Planned]], None] = lambda _: None,
) -> _Written:
    """Score models on sets; rows are added as they are done, then shown and written."""
    measures = cast("Sequence[Measure]", list(dict.fromkeys(options.metrics)))
    perceptual = perceptual_of(measures, options.device)
    cache = Cache(options.output / "cache")
    _make_folder(options.output)
    marks = fingerprints(perceptual)
    settings = Settings(options.tile, options.tile_pad, options.tta, marks)
    # all models and sets are looked for before the first picture
    contenders = list(_contenders(options, names, say))
    planned = list(_plan(options, contenders, measures))
    check(planned)
    folders: dict[str, Path] = {}
    for one in planned:
        each, protocol, found = one.of, one.protocol, one.found
        # two folders of one name are two sets
        is_first = folders.setdefault(found.name, found.folder) == found.folder
        label = found.name if is_first else str(found.folder)
        run = SetRun(
            each,
            protocol,
            settings,
            cache,
            perceptual=perceptual,
            keep_in=options.output / "pictures" if keep else None,
        )
        with counted(len(found.pictures), f"pictures of {label}", options.quiet) as n:
            row = run(label, found.pictures, n)
        verdict = verdict_on(found, cache)
        row.notes += verdict.notes
        row.low_side, row.made = verdict.low_side, verdict.made
        row.left_out, row.count = list(found.alone), row.count + len(found.alone)
        add_published(row, each.model, found.name, verdict.unlike)
        rows.append(row)
        say(_row_line(row, run.from_cache))
    say("")
    for line in screen_lines(rows):
        say(line)
    outputs = Outputs(options.output)
    outputs.begin()
    written = [write_results(options.output, rows, machine_facts(contenders))]
    written += write_tables(options.output, rows)
    return _Written([outputs.add(path) for path in written])


def _row_line(row: Row, from_cache: int) -> str:
    means = ", ".join(
        f"{figure.title} {figure.shown(row.mean(figure))}" for figure in row.protocol.figures
    )
    part = "" if row.is_whole else f"{len(row.pictures)} of "
    kept = f" ({from_cache} from the cache)" if from_cache else ""
    return (
        f"{row.model.name}, {row.dataset} {row.protocol.level_name}: "
        f"{part}{plural(row.count, 'picture')}{kept}: {means if row.pictures else 'none scored'}"
    )


def _contenders(
    options: argparse.Namespace, names: Sequence[str], say: Tell
) -> Iterator[Contender]:
    """The models one after the other, each under a name of its own."""
    if options.threads:
        torch.set_num_threads(options.threads)
    taken: dict[str, str] = {}  # by name and by digest
    for source in names:

        def loaded(dtype: str, source: str = source) -> Any:
            return load(
                source,
                device=options.device,
                dtype=dtype,
                arch=options.arch,
                config=dict(options.config),
                param_key=options.param_key,
            )

        model = load_telling(options, loaded, say)
        found = contender(model, source, model.name)
        if model.name in taken:
            found = contender(model, source, f"{model.name}-{found.facts.digest[:8]}")
        if found.facts.digest in taken:
            raise UsageError(
                f"{source} holds the same network as {taken[found.facts.digest]}; leave one out"
            )
        taken |= {found.facts.name: source, found.facts.digest: source}
        say(f"model: {found.facts.name} ({model.variant}), {found.facts.dtype}, {model.device}")
        yield found


def _protocols(
    options: argparse.Namespace, each: Contender, measures: Sequence[Measure]
) -> list[Protocol]:
    model = each.model
    told = {task_of_set(name) for name in options.dataset}
    # sets without a card, or of several tasks, decide nothing
    of_sets = [task for task in told if task is not None] if len(told) == 1 else []
    given = "--noise" if options.noise else "--quality" if options.quality else "--task"
    task = task_of(model, cast("Task | None", options.task), of_sets, given=given)
    return [
        protocol_of(
            model.in_channels,
            task,
            level,
            padding=_PADDINGS[options.protocol],
            gray=options.gray,
            perceptual=measures,
        )
        for level in levels_of(model, task, options.noise or options.quality)
    ]


def _sheets(
    options: argparse.Namespace,
    pairs: Sequence[tuple[Row, Row]],
    wishes: Sequence[Wish],
    say: Tell,
) -> Iterator[Path]:
    """The contact sheets that can be made."""
    for number, (a, b) in enumerate(pairs, 1):
        level = a.protocol.level_name.replace(" ", "")
        more = f"_{number}" if len(pairs) > 1 else ""
        path = options.output / f"compare_{Path(a.dataset).name}_{level}{more}.png"
        try:
            yield write_sheet(path, a, b, wishes, options.most, lambda words: say(f"note: {words}"))
        except UsageError as error:
            # of results that were not kept, the statistics are all there is
            say(f"note: no sheet of {a.dataset}: {error}")


def _refuse_missing(names: Sequence[str]) -> None:
    """UsageError for what is neither there nor a model that has a name."""
    for name in names:
        if os.path.lexists(name) or name in builtin_names():
            continue
        if official_copy(name) is None:
            # nobody takes a path for the name of a built-in model
            more = "" if {os.sep, "."} & set(name) else f", and {no_builtin(name)}"
            raise UsageError(f"--compare: {name}: no such folder of results or model{more}")


def _holds_results(name: str) -> bool:
    path = Path(name)
    return path.suffix == ".json" or (path / RESULTS).is_file() or path.is_dir()


def _make_folder(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _interrupted(options: argparse.Namespace, rows: Sequence[Row], complain: Tell) -> int:
    complain(
        f"interrupted: {plural(len(rows), 'set')} finished; pictures that are scored are kept in "
        f"{options.output / 'cache'}, and the same command goes on from there"
    )
    return INTERRUPTED


def _code(options: argparse.Namespace, rows: Sequence[Row], complain: Tell) -> int:
    """The exit code, and what went wrong in words."""
    wrong = [
        f"{row.model.name}, {row.dataset} {row.protocol.level_name}: {name}: {why}"
        for row in rows
        for name, why in row.failed.items()
    ]
    if wrong:
        complain(f"failed, {plural(len(wrong), 'picture')}:")
    wrong += [
        f"{row.model.name}, {row.dataset} {row.protocol.level_name}: {len(row.left_out)} of "
        f"{plural(row.count, 'picture')} left out, without a partner: {some(row.left_out)}"
        for row in rows
        if row.left_out
    ]
    if options.check:
        wrong += [
            f"{row.model.name}, {row.dataset} {row.protocol.level_name}: {told}"
            for row in rows
            for told in _not_reached(row)
        ]
    for line in wrong:
        complain(f"  {line}")
    return SOME_FAILED if wrong else DONE


def _not_reached(row: Row) -> Iterator[str]:
    if not row.published:
        yield row.unpublished
    for figure in row.protocol.figures:
        found = row.published.get(figure.key)
        if found is not None and not found.ok:
            mean = figure.shown(row.mean(figure))
            yield f"{figure.title} is {mean}; published was {figure.shown(found.value)}"
