"""What options must say together: checks across keys, beyond each key's own type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from restore.training.dataset_options import DatasetOptions
from restore.training.option_types import Section
from restore.training.train_options import SchedulerOptions, TrainOptions

if TYPE_CHECKING:
    from restore.training.options import Options

Found = Iterator[tuple[str, str]]  # place, what is wrong
# data set type, to the roots it takes
ROOTS = {
    "PairedImageDataset": ("dataroot_gt", "dataroot_lq"),
    "SingleHRDataset": ("dataroot_gt",),
    "SingleImageDataset": ("dataroot_lq",),
    "RealESRGANDataset": ("dataroot_gt",),
}
_SEPARATORS = set("/\\\0")  # of folders in paths
_NAME = re.compile(r"[\w.\-+ ()@]+")


def contradictions(options: Options) -> Found:
    """Everything in the options that does not go together, as place and text."""
    if not _NAME.fullmatch(options.name) or options.name in (".", ".."):
        yield (
            options.where("name"),
            f"key 'name' is {options.name!r}; expected a name for a folder: letters, digits, _-+.",
        )
    for data in options.datasets.values():
        yield from _dataset(data)
    yield from _names(options)
    if options.logger.wandb.project is not None and not options.logger.use_tb_logger:
        wish = "wandb takes what is written for TensorBoard; set logger: use_tb_logger: true"
        yield options.logger.wandb.where("project"), f"{wish}, or leave wandb out"
    if options.train is not None:
        yield from _training(options, options.train)
    yield from _colours(options)


def _dataset(data: DatasetOptions) -> Found:
    section = f"datasets.{data.key}"
    for root in ("dataroot_gt", "dataroot_lq"):
        given = bool(getattr(data, root))
        if root in ROOTS[data.type] and not given:
            yield data.where(), f"key '{section}.{root}' is missing; {data.type} needs it"
        elif given and root not in ROOTS[data.type]:
            text = f"key '{section}.{root}' is not for {data.type}; leave it out"
            yield data.where(root), text
    pair = (data.dataroot_gt, data.dataroot_lq)
    if all(pair) and len(pair[0]) != len(pair[1]):
        text = f"{len(pair[1])} folders of dataroot_lq, but {len(pair[0])} of dataroot_gt"
        yield data.where("dataroot_lq"), text
    if data.io_backend.type == "lmdb":
        for root in ROOTS[data.type]:
            for path in getattr(data, root):
                if path.suffix != ".lmdb":
                    text = f"'{section}.{root}' is {path}; io_backend lmdb takes folders *.lmdb"
                    yield data.where(root), text
    if "{}" not in data.filename_tmpl:
        text = f"key '{section}.filename_tmpl' is {data.filename_tmpl!r}; expected a {{}} in it"
        yield data.where("filename_tmpl"), text
    if data.type == "SingleHRDataset" and data.task != "bicubic" and data.scale != 1:
        text = f"task {data.task} keeps the size of pictures; scale is {data.scale}, expected 1"
        yield data.where("task"), text
    for suffix in ("", "2"):
        kinds = getattr(data.kernels, f"kernel_list{suffix}")
        often = getattr(data.kernels, f"kernel_prob{suffix}")
        if len(kinds) != len(often):
            text = f"kernel_list{suffix} has {len(kinds)} kinds, kernel_prob{suffix} {len(often)}"
            yield data.where(f"kernel_prob{suffix}"), text
    for key in ("mean", "std"):
        value = getattr(data, key)
        channels = 3 if data.color == "rgb" else 1
        if value is not None and len(value) != channels:
            yield data.where(key), f"key '{section}.{key}' has {len(value)} values, not {channels}"


def _names(options: Options) -> Found:
    if set(options.val.suffix or "") & _SEPARATORS:
        text = f"key 'val.suffix' is {options.val.suffix!r}; expected a part of a file's name"
        yield options.val.where("suffix"), text
    for phase in ("val", "test"):
        for data in options.datasets_of(phase):
            if set(data.name) & _SEPARATORS or data.name in (".", ".."):
                text = f"key 'datasets.{data.key}.name' is {data.name!r}; expected a folder's name"
                yield data.where("name"), text
        seen: dict[str, DatasetOptions] = {}
        for data in options.datasets_of(phase):
            first = seen.setdefault(data.name, data)
            if first is not data:
                text = (
                    f"name {data.name!r} is that of datasets.{first.key} too; results are kept by "
                    "name, so give each its own"
                )
                yield data.where("name"), text


def _training(options: Options, train: TrainOptions) -> Found:
    data = options.datasets.get("train")
    if data is None:
        return
    if data.type == "SingleImageDataset":
        yield data.where("type"), "SingleImageDataset has no gt to learn from"
    if not data.gt_size:
        yield data.where(), "key 'datasets.train.gt_size' is missing; patches need a size"
    sizes = [(data.gt_size, data.where("gt_size"))]
    sizes += [(stage.gt_size, stage.where("gt_size")) for stage in train.progressive]
    for size, place in sizes:
        if size % options.scale:
            yield place, f"gt_size is {size}; expected a multiple of scale, {options.scale}"
    if (data.type == "RealESRGANDataset") != options.kind.degrades and (
        options.degradation.high_order_degradation
    ):
        needs = "RealESRGANDataset" if options.kind.degrades else "a RealESRGANModel"
        text = f"model_type {options.model_type} and data set {data.type}: expected {needs}"
        yield options.where("model_type"), text
    starts = [stage.start for stage in train.progressive]
    if starts and (starts[0] != 0 or sorted(set(starts)) != starts):
        text = f"stages of progressive start at {starts}; expected 0, then later and later"
        yield train.where("progressive"), text
    yield from _losses(options, train)
    if train.scheduler is not None:
        yield from _scheduler(train.scheduler, train)


def _losses(options: Options, train: TrainOptions) -> Found:
    direct = (train.pixel_opt, train.perceptual_opt, train.fft_opt, train.ssim_opt, train.lpips_opt)
    if not any(direct):
        text = "train has no loss; expected pixel_opt, perceptual_opt, fft_opt, ssim_opt, lpips_opt"
        yield train.where(), text
    for key, kind in (("fft_opt", "FFTLoss"), ("ssim_opt", "SSIMLoss"), ("lpips_opt", "LPIPSLoss")):
        loss = getattr(train, key)
        if loss is not None and loss.type != kind:
            yield loss.where("type"), f"key 'train.{key}.type' is {loss.type}; expected {kind}"
    if options.kind.gan:
        parts: tuple[tuple[str, Section | None, Section], ...] = (
            ("network_d", options.network_d, options),
            ("train.optim_d", train.optim_d, train),
            ("train.gan_opt", train.gan_opt, train),
        )
        for key, value, section in parts:
            if value is None:
                yield section.where(), f"key {key!r} is missing; {options.model_type} needs it"


def idle_keys(options: Options) -> Iterator[tuple[str, str, str]]:
    """Keys that change nothing in these options, as place, key and why."""
    from restore.training.networks import idle_arguments

    if not options.kind.gan:
        sections: dict[str, Section | None] = {"network_d": options.network_d}
        if options.train is not None:
            sections |= {"optim_d": options.train.optim_d, "gan_opt": options.train.gan_opt}
        for key, section in sections.items():
            if section is not None:
                yield section.where(), key, f"{options.model_type} has no discriminator"
    for key in idle_arguments(options.network_g):
        network = options.network_g
        yield network.where(key), f"network_g.{key}", f"{network.type} takes it and leaves it alone"


def _scheduler(scheduler: SchedulerOptions, train: TrainOptions) -> Found:
    weights = len(scheduler.restart_weights)
    if scheduler.type.startswith("MultiStep"):
        if len(scheduler.restarts) != weights:
            text = f"{len(scheduler.restarts)} restarts, but {weights} restart_weights"
            yield scheduler.where("restart_weights"), text
        if not scheduler.milestones:
            yield scheduler.where(), f"key 'milestones' is missing; {scheduler.type} needs it"
        return
    if not scheduler.periods:
        yield scheduler.where(), f"key 'periods' is missing; {scheduler.type} needs it"
        return
    if len(scheduler.periods) != weights:
        text = f"{len(scheduler.periods)} periods, but {weights} restart_weights"
        yield scheduler.where("restart_weights"), text
    if sum(scheduler.periods) < train.total_iter:
        text = f"periods end after {sum(scheduler.periods)} iterations, before total_iter"
        yield scheduler.where("periods"), f"{text}, {train.total_iter}"
    cyclic = scheduler.type == "CosineAnnealingRestartCyclicLR"
    if cyclic and len(scheduler.eta_mins) != len(scheduler.periods):
        text = f"{len(scheduler.periods)} periods, but {len(scheduler.eta_mins)} eta_mins"
        yield scheduler.where("eta_mins"), text


def _colours(options: Options) -> Found:
    """Scale and channels of the network and of the data."""
    from restore.training.networks import described

    spec, config = described(options.network_g)
    if spec.scale(config) != options.scale:
        text = f"key 'scale' is {options.scale}; network_g enlarges {spec.scale(config)} times"
        yield options.where("scale"), text
    channels = spec.in_channels(config)
    for data in options.datasets.values():
        has = 3 if data.color == "rgb" else 1
        if has != channels:
            wanted = "gray or y" if channels == 1 else "rgb"
            text = f"datasets.{data.key} has {has} channels, network_g takes {channels}"
            yield data.where("color"), f"{text}; set its color: {wanted}"


def missing(options: Options) -> Found:
    """Folders and files that are named and not there, as place and text."""
    places: list[tuple[Section, str, Path, Callable[[Path], bool]]] = []
    for data in options.datasets.values():
        for key in ROOTS[data.type]:
            places += [(data, key, path, Path.is_dir) for path in getattr(data, key)]
        if data.meta_info_file is not None:
            places.append((data, "meta_info_file", data.meta_info_file, Path.is_file))
    for key in ("pretrain_network_g", "pretrain_network_d", "resume_state"):
        if (path := getattr(options.path, key)) is not None:
            places.append((options.path, key, path, Path.is_file))
    perceptual = options.train.perceptual_opt if options.train else None
    if perceptual is not None and perceptual.vgg_weights is not None:
        places.append((perceptual, "vgg_weights", perceptual.vgg_weights, Path.is_file))
    for section, key, path, is_there in places:
        if not is_there(path):
            kind = "folder" if is_there is Path.is_dir else "file"
            yield section.where(key), f"{key} {path}: {_why_missing(path, kind)}"


def _why_missing(path: Path, kind: str) -> str:
    if path.exists():
        return f"is no {kind}"
    there = next((parent for parent in path.parents if parent.exists()), Path())
    try:
        names = sorted(item.name for item in there.iterdir() if not item.name.startswith("."))
    except OSError:
        names = []
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    inside = f"it has {shown}" if names else "it is empty"
    where = "the current folder" if there == Path() else str(there)
    return f"there is no such {kind}; {where} is there, {inside}"
