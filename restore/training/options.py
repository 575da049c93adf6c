"""What an option file says, typed; names and defaults are BasicSR's, and our own keys say so.

`read_options` reads a file. All sections are frozen and know the file and line of their keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from restore.training.dataset_options import (
    PHASES,
    BackendOptions,
    DatasetOptions,
    DegradationOptions,
)
from restore.training.official import ModelKind, model_kind, translated, warn_of_no_effect
from restore.training.option_checks import contradictions, idle_keys, missing
from restore.training.option_file import Value, read_file
from restore.training.option_file import forced as with_forced
from restore.training.option_types import Count, Flat, Positive, Rest, Section
from restore.training.train_options import (
    GANOptions,
    LossOptions,
    MixingOptions,
    OptimOptions,
    PerceptualOptions,
    SchedulerOptions,
    StageOptions,
    TrainOptions,
)
from restore.training.typed_reading import Mistakes, Reader, keys_of


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Section):
    """`network_g` or `network_d`.

    Attributes:
        type: official class name.
        arguments: of its constructor, by name; lists as lists.
    """

    type: str
    arguments: Annotated[Mapping[str, Any], Rest()] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PathOptions(Section):
    """Files that a run begins from.

    Attributes:
        pretrain_network_g: weights to begin with.
        param_key_g: under which key of that file they lie; where it is missing, `params` is taken.
        strict_load_g: False: parameters that the file lacks, or has in another shape, keep their
            first values.
        resume_state: training state to go on from.
    """

    pretrain_network_g: Path | None = None
    param_key_g: str | None = "params"
    strict_load_g: bool = True
    pretrain_network_d: Path | None = None
    param_key_d: str | None = "params"
    strict_load_d: bool = True
    resume_state: Path | None = None


@dataclass(frozen=True, kw_only=True)
class MetricOptions(Section):
    """One of `val: metrics`.

    Attributes:
        type: official names are translated (calculate_psnr); niqe and lpips need weights.
        crop_border: pixels left out at every edge.
        test_y_channel: of Y (YCbCr, 16-235) instead of RGB.
        better: whether higher or lower is; None: higher for psnr and ssim, else lower.
    """

    type: Literal["psnr", "ssim", "niqe", "lpips"]
    crop_border: Count = 0
    test_y_channel: bool = False
    better: Literal["higher", "lower"] | None = None


@dataclass(frozen=True, kw_only=True)
class ValOptions(Section):
    """`val`.

    Attributes:
        val_freq: iterations between validations; 0: none.
        save_img: keep pictures.
        suffix: of their names in a test; None: the run's name.
        metrics: name, as logs have it, to metric.
        use_chop: tiles of 200 pixels with 16 around (CAT, HiT-SR).
        self_ensemble: mean over the 8 mirrored and turned pictures.
        max_pictures: validate on the first so many of every set (ours); 0: on all.
    """

    val_freq: Count = 5000
    save_img: bool = False
    suffix: str | None = None
    metrics: Mapping[str, MetricOptions] = field(default_factory=dict)
    use_chop: bool = False
    self_ensemble: bool = False
    max_pictures: Count = 0


@dataclass(frozen=True, kw_only=True)
class TileOptions(Section):
    """`tile`: pictures are restored in parts.

    Attributes:
        tile_size: side of a part in the input, pixels.
        tile_pad: pixels around it; None: what the network needs.
    """

    tile_size: Positive
    tile_pad: Count | None = None


@dataclass(frozen=True, kw_only=True)
class WandbOptions(Section):
    """`logger: wandb`.

    Attributes:
        project: None: no wandb.
        resume_id: of a run to go on with.
    """

    project: str | None = None
    resume_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class LoggerOptions(Section):
    """`logger`.

    Attributes:
        print_freq: iterations between lines of the log.
        save_checkpoint_freq: iterations between checkpoints.
        use_tb_logger: write for TensorBoard.
        wandb: and for wandb.
    """

    print_freq: Positive = 100
    save_checkpoint_freq: Positive = 5000
    use_tb_logger: bool = True
    wandb: WandbOptions = WandbOptions()


@dataclass(frozen=True, kw_only=True)
class DistOptions(Section):
    """`dist_params`, for --launcher pytorch.

    Attributes:
        backend: None: nccl on GPUs, gloo on CPUs.
        strategy: ddp: every process has the network; fsdp: a part of it (ours).
    """

    backend: Literal["nccl", "gloo"] | None = None
    strategy: Literal["ddp", "fsdp"] = "ddp"


@dataclass(frozen=True, kw_only=True)
class Options(Section):
    """A whole option file.

    Attributes:
        file: where it lies.
        forced: what --force_yml changed, as given.
        name: of the run and its folders.
        model_type: as the file says.
        kind: what that means.
        scale: output pixels per input pixel.
        num_gpu: how many GPUs; "auto": all that are there; 0: the CPU.
        manual_seed: of every random number; None: drawn at the start, and told.
        deterministic: give up speed for results that are the same bit for bit on GPUs (ours).
        find_unused_parameters: of DistributedDataParallel.
        datasets: by key: "train", "val", "val_2", "test_1", in the file's order.
        network_g: the network.
        network_d: its discriminator.
        path: files to begin from.
        train: None in a test.
        val: validation.
        logger: logs and checkpoints.
        dist_params: several processes.
        tile: restore pictures in parts; None: whole.
        degradation: the second-order chain; its keys stand at the top level.
    """

    file: Path
    forced: tuple[str, ...] = ()
    name: str
    model_type: str
    kind: ModelKind
    scale: Positive = 1
    num_gpu: Count | Literal["auto"] = "auto"
    manual_seed: Count | None = None
    deterministic: bool = False
    find_unused_parameters: bool = False
    datasets: Mapping[str, DatasetOptions]
    network_g: NetworkOptions
    network_d: NetworkOptions | None = None
    path: PathOptions = PathOptions()
    train: TrainOptions | None = None
    val: ValOptions = ValOptions()
    logger: LoggerOptions = LoggerOptions()
    dist_params: DistOptions = DistOptions()
    tile: TileOptions | None = None
    degradation: Annotated[DegradationOptions, Flat()] = field(default_factory=DegradationOptions)

    def datasets_of(self, phase: str) -> tuple[DatasetOptions, ...]:
        """The data sets that serve "train", "val" or "test", in the file's order."""
        return tuple(data for data in self.datasets.values() if data.phase == phase)


def read_options(
    path: str | Path,
    *,
    is_train: bool,
    forced: Sequence[str] = (),
    root: Path | None = None,
    debug: bool = False,
) -> Options:
    """Read, translate and check an option file.

    Args:
        path: YAML file.
        is_train: for `restore train`, which needs `train` and `datasets: train`; a test leaves
            both alone.
        forced: of --force_yml, such as "train:ema_decay=0.5".
        root: where relative paths begin; None: the current folder.
        debug: a run for trying things: see `for_trying`, as which a name with "debug" in it is
            taken too.

    Returns:
        What it says. Nothing but the file itself was looked for on the disk: `check_paths` does.

    Raises:
        UsageError: it cannot be read or obeyed; the message has file, line and key of every
            mistake, one a line.

    Warns:
        NoEffectWarning: once for every key that changes nothing.
    """
    tree = translated(with_forced(read_file(path), forced))
    content = dict(tree.section or {})
    datasets = content.pop("datasets", None)
    if not is_train:
        content.pop("train", None)
    mistakes = Mistakes()
    reader = Reader(mistakes, _sections_by_key(), root)
    kind = model_kind(content["model_type"]) if "model_type" in content else ModelKind()
    scale = _scale(content.get("scale"))
    options = reader.section(
        Options,
        Value(content, tree.place),
        "",
        file=Path(path),
        forced=tuple(forced),
        kind=kind,
        datasets=_datasets(reader, mistakes, datasets, scale, is_train, tree.place),
    )
    if is_train and "train" not in content:
        mistakes.add(tree.place, "key 'train' is missing; a training needs it")
    mistakes.raise_any()
    assert options is not None
    for place, text in contradictions(options):
        mistakes.add(place, text)
    mistakes.raise_any()
    for place, key, reason in idle_keys(options):
        warn_of_no_effect([place], key, reason)
    options = dataclasses.replace(options, path=_with_builtin(options.path))
    return for_trying(options) if debug or "debug" in options.name else options


def _with_builtin(path: PathOptions) -> PathOptions:
    """The same, where the name of a built-in model stands for its weight file."""
    weights = path.pretrain_network_g
    if weights is None or weights.exists():
        return path
    builtin = Path(__file__).parents[1] / "weights" / f"{weights.name}.safetensors"
    return dataclasses.replace(path, pretrain_network_g=builtin) if builtin.is_file() else path


def _scale(value: Value | None) -> int:
    """For data sets; what is wrong with it is told at the top level."""
    return value.content if value is not None and type(value.content) is int else 1


def _datasets(
    reader: Reader,
    mistakes: Mistakes,
    value: Value | None,
    scale: int,
    is_train: bool,
    place: str,
) -> dict[str, DatasetOptions]:
    made: dict[str, DatasetOptions] = {}
    if value is None or value.section is None:
        found = "is missing" if value is None else f"is {value}"
        mistakes.add(
            place, f"key 'datasets' {found}; expected a section with one section a data set"
        )
        return made
    for key, section in value.section.items():
        phase = key.split("_")[0]
        if phase not in PHASES or (phase == "train" and key != "train"):
            text = f"data set {key!r} has no known phase; expected train, val, val_1, test_1, ..."
            mistakes.add(section.place, text)
        elif is_train or phase != "train":
            data = reader.section(
                DatasetOptions, section, f"datasets.{key}", key=key, phase=phase, scale=scale
            )
            if data is not None:
                made[key] = data
    if is_train and "train" not in value.section:
        mistakes.add(value.place, "key 'datasets.train' is missing; a training needs it")
    if not is_train and not any(key.split("_")[0] in ("val", "test") for key in value.section):
        mistakes.add(value.place, "there is no data set to test on; expected test_1 or val")
    return made


def _sections_by_key() -> dict[str, list[str]]:
    """Key to the sections that take it, "" for the top level."""
    known: dict[str, list[str]] = {}
    for name, kind in SECTIONS.items():
        for key in keys_of(kind):
            known.setdefault(key, []).append(name)
    return known


def for_trying(options: Options) -> Options:
    """The same run with --debug: as BasicSR, with a name of its own, much told and little written.

    The name begins with debug_; every iteration is logged, every 8th validated and kept, and
    neither TensorBoard nor wandb is written.
    """
    name = options.name if "debug" in options.name else f"debug_{options.name}"
    val = dataclasses.replace(options.val, val_freq=8)
    logger = dataclasses.replace(
        options.logger,
        print_freq=1,
        save_checkpoint_freq=8,
        use_tb_logger=False,
        wandb=WandbOptions(),
    )
    return dataclasses.replace(options, name=name, val=val, logger=logger)


def check_paths(options: Options) -> None:
    """UsageError, with file, line and key, for folders and files that are named and not there."""
    mistakes = Mistakes()
    for place, text in missing(options):
        mistakes.add(place, text)
    mistakes.raise_any()


SECTIONS: Mapping[str, type[Section]] = {
    "": Options,
    "datasets.<key>": DatasetOptions,
    "datasets.<key>.io_backend": BackendOptions,
    "network_g": NetworkOptions,
    "path": PathOptions,
    "train": TrainOptions,
    "train.optim_g": OptimOptions,
    "train.scheduler": SchedulerOptions,
    "train.pixel_opt": LossOptions,
    "train.perceptual_opt": PerceptualOptions,
    "train.gan_opt": GANOptions,
    "train.progressive": StageOptions,
    "train.mixing_augs": MixingOptions,
    "val": ValOptions,
    "val.metrics.<name>": MetricOptions,
    "tile": TileOptions,
    "logger": LoggerOptions,
    "logger.wandb": WandbOptions,
    "dist_params": DistOptions,
}
