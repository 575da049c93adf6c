"""What an option file says, typed; names and defaults are BasicSR's, and our own keys say so.

`read_options` reads a file. All sections are frozen and know the file and line of their keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from restore.training.dataset_options import DatasetOptions, DegradationOptions
from restore.training.option_types import Count, Flat, Positive, Range, Section
from restore.training.train_options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Section):
    """`network_g` or `network_d`.

    Attributes:
        type: official class name.
        arguments: of its constructor, by name; lists as lists.
    """

    type: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


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
        type: official names are translated (calculate_psnr).
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
        pbar: show a progress bar.
        metrics: name, as logs have it, to metric.
        use_chop: tiles of 200 pixels with 16 around (CAT, HiT-SR).
        self_ensemble: mean over the 8 mirrored and turned pictures.
        max_pictures: validate on the first so many of every set (ours); 0: on all.
    """

    val_freq: Count = 5000
    save_img: bool = False
    suffix: str | None = None
    pbar: bool = True
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
        port: for the processes to meet; torchrun's own counts more.
        strategy: ddp: every process has the network; fsdp: a part of it (ours).
    """

    backend: Literal["nccl", "gloo"] | None = None
    port: Annotated[int, Range(1, 65535)] = 29500
    strategy: Literal["ddp", "fsdp"] = "ddp"


@dataclass(frozen=True)
class ModelKind:
    """What a model type means.

    Attributes:
        gan: trains a discriminator too.
        degrades: makes lq from gt by the second-order chain.
        padding: how whole pictures grow in tests: as `restore.Model` takes it.
        self_ensemble: tests are means over 8 mirrored and turned pictures.
    """

    gan: bool = False
    degrades: bool = False
    padding: Literal["reflect", "published"] = "reflect"
    self_ensemble: bool = False


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
    path: str | Path, *, is_train: bool, forced: Sequence[str] = (), root: Path | None = None
) -> Options:
    """Read, translate and check an option file.

    Args:
        path: YAML file.
        is_train: for `restore train`, which needs `train` and `datasets: train`; a test leaves
            both alone.
        forced: of --force_yml, "train:ema_decay=0.5".
        root: where relative paths begin; None: the current folder.

    Returns:
        What it says. Nothing but the file itself was looked for on the disk: `check_paths` does.

    Raises:
        UsageError: it cannot be read or obeyed; the message has file, line and key.

    Warns:
        NoEffectWarning: a key of official files that never had an effect.
    """
    raise NotImplementedError


def check_paths(options: Options) -> None:
    """Raise UsageError, with file, line and key, for the first folder or file that is not there."""
    raise NotImplementedError


class NoEffectWarning(UserWarning):
    """An option file has a key that changes nothing."""
