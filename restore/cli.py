"""The command line: arguments to function calls, outcomes to lines.

PyTorch loads inside the commands that compute, so that help and mistakes are told at once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import restore
from restore.commands.arguments import COMMANDS, command_error, parser_of, top_parser
from restore.commands.computing import check_arithmetic, load_telling
from restore.commands.large import layout_of
from restore.commands.many_options import check_many, is_shared
from restore.commands.models import run_models
from restore.commands.parsing import given_setting
from restore.commands.quiet import silence_decoders
from restore.commands.screen import Screen, complain, searching, show
from restore.commands.text import plural
from restore.errors import OutputError, RestoreError, UsageError

if TYPE_CHECKING:
    from restore.batching.launch import Launch
    from restore.commands.batch import Batch
    from restore.commands.files import Job
    from restore.model import Model

DONE, SOME_FAILED, NOT_BEGUN, INTERRUPTED = 0, 1, 2, 130
DEFAULT_SCALE = 4.0  # without a model and --outscale


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its words; those of this process if None.

    Returns:
        0 all done; 1 some pictures or files failed; 2 an argument cannot be obeyed and nothing
        was begun; 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # a window's program or a service may have none
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    _leave_cleanly_when_told()
    for stream in (sys.stdout, sys.stderr):
        # a file name that the terminal cannot show must not stop a batch
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    silence_decoders()
    try:
        code = _dispatch(words)
        if code == INTERRUPTED and argv is None:
            # another Ctrl-C while PyTorch is torn down would replace the exit code
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return code
    except SystemExit as stop:  # argparse, after --help or a mistake
        return stop.code if isinstance(stop.code, int) else NOT_BEGUN
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of our output has gone; Python would complain once more at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    except RestoreError as error:
        complain(f"restore: {error}")
        return NOT_BEGUN
    except MemoryError:
        complain("restore: there is not enough memory; close other programs and try again")
        return NOT_BEGUN
    except OSError as error:
        complain(f"restore: {error.filename or 'the system'}: {error.strerror or error}")
        return NOT_BEGUN
    except ImportError as error:
        complain(f"restore: a package does not load: {error}; install restore-sr again")
        return NOT_BEGUN


def _leave_cleanly_when_told() -> None:
    """Make SIGTERM and SIGHUP end as Ctrl-C does: nothing half written stays."""

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            # left alone where the caller ignores it, as nohup does
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, leave)


def _dispatch(words: list[str]) -> int:
    if not words:
        top_parser(restore.__version__).print_help(sys.stderr)
        return NOT_BEGUN
    if words[0] in ("-h", "--help", "--version"):
        top_parser(restore.__version__).parse_args(words[:1])
    if words[0].startswith("-"):
        words = ["upscale", *words]
    if words[0] not in COMMANDS:
        raise UsageError(command_error(words[0]))
    if words[0] == "data":
        return _data(words[1:])
    if words[0] == "models":
        return run_models(words[1:])
    options = parser_of(words[0]).parse(words[1:])
    run = {
        "upscale": _upscale,
        "info": _info,
        "doctor": _doctor,
        "export": _export,
        "train": _train,
        "test": _test,
        "bench": _bench,
        "web": _web,
    }
    return run[words[0]](options)


def _upscale(options: argparse.Namespace) -> int:
    from restore.batching.launch import Launch
    from restore.commands.video import find_videos, leave_out, plan_videos, show_or_run

    launch = Launch.of()
    screen = Screen(options.quiet, options.verbose, bars=launch.local_rank == 0)
    _check_together(options)
    if not options.output:
        raise UsageError("-o is empty; a variable that was never set?")
    inputs = [*options.inputs, *options.input]
    if not inputs:
        raise UsageError('no input; give pictures, folders or quoted patterns ("photos/*.png")')
    videos = find_videos(inputs, options)
    if is_shared(options, launch.count) and not options.dry_run:
        leave_out(videos, screen)
    others, passed_by = videos.split.others, videos.split.in_folders
    if not videos.split.videos:
        return _pictures(others, options, screen, launch, passed_by)
    plan_videos(videos, options, screen.say, with_pictures=bool(others))
    code = _pictures(others, options, screen, launch, passed_by) if others else DONE
    if code == INTERRUPTED:
        return code
    if options.report:
        screen.say(f"note: {options.report} tells of pictures; videos are told of here alone")
    batch = _batch(options, [], screen, launch)
    with screen:
        try:
            failed = show_or_run(videos, batch, screen, options)
        except KeyboardInterrupt:
            return INTERRUPTED
    return SOME_FAILED if failed else code


def _pictures(
    inputs: Sequence[str],
    options: argparse.Namespace,
    screen: Screen,
    launch: Launch,
    videos: int,
) -> int:
    """Restore what is no video; so many of the other files in folders are videos."""
    from restore.commands.files import Naming, Plan, find_pictures, plan_jobs

    output = Path(options.output)
    is_folder = options.output.endswith(("/", os.sep))
    naming = Naming(output, options.suffix, options.ext, options.compare, is_folder)

    def plan() -> Plan:
        with searching(options.quiet) as count:
            found = find_pictures(inputs, recursive=options.recursive, output=output, count=count)
        jobs, left_out = plan_jobs(found.sources, naming)
        if found.others > videos:
            others = plural(found.others - videos, "other file")
            screen.say(f"note: {others} left out: not named like pictures")
        for path in left_out:
            screen.say(f"note: {path} is left out: it is the result of another picture here")
        return jobs

    if is_shared(options, launch.count) and not options.dry_run:
        from restore.commands.shared_run import run_shared

        with screen:
            batch = _batch(options, [], screen, launch)
            return run_shared(batch, screen, naming, plan, options, launch)
    jobs = plan()
    batch = _batch(options, jobs, screen, launch)
    if options.dry_run:
        from restore.commands.dry_run import dry_run_lines

        show(*dry_run_lines(batch))
        return DONE if all(not job.problem for job in jobs) else SOME_FAILED
    from restore.commands.many import run_alone

    with screen:
        return run_alone(batch, screen, output, options)


def _check_together(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other."""
    if options.model_name and options.model_path:
        raise UsageError("-n names a built-in model and --model_path a file; give one of them")
    check_arithmetic(options)
    check_many(options)
    layout_of(options)
    if options.quiet and options.verbose:
        raise UsageError("-q and -v contradict each other; give one")
    if options.padding == "published" and (options.tile not in ("auto", 0) or options.verify_tiles):
        tiles = "--verify-tiles" if options.verify_tiles else f"--tile {options.tile}"
        raise UsageError(
            f"--padding published grows whole pictures, and {tiles} is for tiles; give one of them"
        )
    if (option := given_setting(options)) and not options.model_path:
        raise UsageError(f"{option} is for a weight file; give that with --model_path")
    name = options.model_name
    if name and (Path(name).suffix or os.sep in name):
        from restore.catalogue.entries import known_as  # the authors' names of files are names too

        if not known_as(name):
            raise UsageError(f"-n takes the name of a model; for a file: --model_path {name}")


def _batch(
    options: argparse.Namespace, jobs: Sequence[Job], screen: Screen, launch: Launch
) -> Batch:
    import torch

    from restore.commands.batch import Batch, Settings
    from restore.devices import dtype_name
    from restore.image_io import DEFAULT_MAX_PIXELS
    from restore.upscaling.run import checked_outscale

    if options.outscale is not None:
        checked_outscale(options.outscale)
    if options.threads:
        torch.set_num_threads(options.threads)
    if launch.count > 1:
        own = launch.device(options.device, torch.cuda.device_count())
        if own != options.device:
            torch.cuda.set_device(own)
        options.device = own
    model = _model(options, screen)
    if launch.rank == 0:
        what = f"{model.name} ({model.variant})"
        screen.say(f"model: {what}, {dtype_name(model.dtype)}, {model.device}")
    settings = Settings(
        outscale=options.outscale,
        tile=options.tile,
        tile_pad=options.tile_pad,
        tta=options.tta,
        padding=options.padding,
        quality=options.quality,
        # 0 stands for no limit
        max_pixels=DEFAULT_MAX_PIXELS if options.max_pixels is None else options.max_pixels or None,
        skip_existing=options.skip_existing,
        verify_tiles=options.verify_tiles,
        layout=layout_of(options),
    )
    return Batch(jobs, model, settings)


def _model(options: argparse.Namespace, screen: Screen) -> Model:
    from restore.loading import load, load_builtin, official_copy

    path = options.model_path or official_copy(options.model_name)

    def loaded(dtype: str) -> Model:
        if not path:
            wanted = options.model_name or options.outscale or DEFAULT_SCALE
            return load_builtin(wanted, device=options.device, dtype=dtype)
        return load(
            path,
            device=options.device,
            dtype=dtype,
            arch=options.arch,
            config=dict(options.config),
        )

    return load_telling(options, loaded, screen.say)


def _info(options: argparse.Namespace) -> int:
    from restore.commands.info import (
        architecture_facts,
        architecture_lines,
        facts_of,
        is_weights,
        lines_of,
    )

    if option := given_setting(options):
        others = [name for name in options.files if not is_weights(name)]
        if others or not options.files:
            found = f"{others[0]} is none" if others else "give one"
            raise UsageError(f"{option} is for weight files; {found}")
    if not options.files:
        architectures = architecture_facts()
        told = json.dumps(architectures, indent=2).splitlines() if options.json else None
        show(*(told or architecture_lines(architectures)))
        return DONE
    known, failures = [], list[RestoreError]()
    for name in options.files:
        try:
            known.append(facts_of(name, arch=options.arch, config=dict(options.config)))
        except RestoreError as error:
            failures.append(error)
    if options.json:
        show(*json.dumps(known, indent=2).splitlines())
    else:
        for facts in known:
            show(*lines_of(facts))
    for failure in failures:
        complain(f"restore info: {failure}")
    if not known and all(isinstance(failure, UsageError) for failure in failures):
        return NOT_BEGUN
    return SOME_FAILED if failures else DONE


def _doctor(options: argparse.Namespace) -> int:
    from restore.commands import doctor

    facts = doctor.examine()
    lines = json.dumps(facts, indent=2).splitlines() if options.json else doctor.lines_of(facts)
    show(*lines)
    return DONE if doctor.healthy(facts) else SOME_FAILED


def _data(words: list[str]) -> int:
    from restore.commands.data import ACTIONS, data_parser, data_usage, run_data

    if not words or words[0] in ("-h", "--help"):
        show(*data_usage().splitlines())
        return DONE if words else NOT_BEGUN
    if words[0] not in ACTIONS:
        raise UsageError(f"there is no action {words[0]!r} of data; expected {', '.join(ACTIONS)}")
    options = data_parser(words[0]).parse(words[1:])
    return DONE if run_data(words[0], options) else SOME_FAILED


def _export(options: argparse.Namespace) -> int:
    from restore.commands.export import run_export

    screen = Screen(options.quiet, verbose=False)
    try:
        lines = run_export(options, screen.say)
    except OutputError as error:
        complain(f"restore export: {error}")
        return SOME_FAILED
    for line in lines:
        screen.say(line)
    return DONE


def _train(options: argparse.Namespace) -> int:
    from restore.commands.train import run_train

    return _by_option_file(run_train, options)


def _test(options: argparse.Namespace) -> int:
    from restore.commands.test import run_test

    return _by_option_file(run_test, options)


def _bench(options: argparse.Namespace) -> int:
    from restore.commands.bench import run_bench

    with Screen(options.quiet, verbose=False) as screen:
        return run_bench(options, screen.say, complain)


def _web(options: argparse.Namespace) -> int:
    from restore.commands.web import run_web

    run_web(options, Screen(options.quiet, verbose=False).say, complain)
    return DONE


def _by_option_file(
    run: Callable[[argparse.Namespace, Callable[[str], None], Callable[[str], None]], int],
    options: argparse.Namespace,
) -> int:
    try:
        return run(options, Screen(quiet=False, verbose=False).say, complain)
    except UsageError as error:
        # one line for each mistake in the file
        for line in f"restore: {error}".splitlines():
            complain(line)
        return NOT_BEGUN
