"""Options as typed sections: mistakes are told with file, line, key and what is near."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from restore.errors import UsageError
from restore.training.options import (
    SECTIONS,
    DatasetOptions,
    Options,
    check_paths,
    read_options,
)
from restore.training.typed_reading import keys_of

MINIMAL = """\
name: run
model_type: SRModel
scale: 2
datasets:
  train:
    name: photos
    type: SingleHRDataset
    dataroot_gt: photos
    gt_size: 64
  val:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: Set5/HR
    dataroot_lq: Set5/LR
network_g:
  type: SwinIR
  upscale: 2
  window_size: 8
  depths: [2]
  embed_dim: 16
  num_heads: [2]
  upsampler: pixelshuffledirect
train:
  total_iter: 100
  optim_g: {type: Adam, lr: 1e-3}
  pixel_opt: {type: L1Loss}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("run.yml")
    path.write_text(MINIMAL)
    return path


def read(file: Path, *changes: str, is_train: bool = True, **more: Any) -> Options:
    return read_options(file, is_train=is_train, forced=changes, **more)


def edited(file: Path, line: str, by: str) -> str:
    """What is said of the file in which one line is another one."""
    assert f"\n{MINIMAL}".count(f"\n{line}\n") == 1
    file.write_text(f"\n{MINIMAL}".replace(f"\n{line}\n", f"\n{by}\n" if by else "\n")[1:])
    with pytest.raises(UsageError) as caught:
        read(file)
    return str(caught.value)


def test_a_file(file: Path) -> None:
    options = read(file)
    assert options.file == file
    assert [data.key for data in options.datasets.values()] == ["train", "val"]
    train, val = options.datasets["train"], options.datasets["val"]
    assert (train.phase, val.phase, val.scale) == ("train", "val", 2)
    assert train.dataroot_gt == (Path("photos"),)
    assert options.train is not None
    assert options.train.optim_g.lr == 1e-3
    assert options.train.where("total_iter") == "run.yml:24"
    assert options.train.where("ema_decay") == "run.yml:23", "a key left out: the section's line"
    assert options.train.given("total_iter") and not options.train.given("ema_decay")
    assert options.network_g.arguments["depths"] == [2]


@pytest.mark.parametrize(
    ("line", "by", "words"),
    [
        (
            "  total_iter: 100",
            "  total_iters: 100",
            "'train.total_iters' is not known; did you mean 'total_iter'?",
        ),
        (
            "  total_iter: 100",
            "",
            "run.yml:23: key 'train.total_iter' is missing; expected a whole number, 1 or more",
        ),
        (
            "  total_iter: 100",
            "  total_iter:",
            "run.yml:24: key 'train.total_iter' is empty; expected a whole number",
        ),
        (
            "  total_iter: 100",
            "  total_iter: many",
            "run.yml:24: key 'train.total_iter' is 'many'; expected a whole number, 1 or more",
        ),
        ("  total_iter: 100", "  total_iter: 1.5", "is 1.5; expected a whole number"),
        ("  total_iter: 100", "  total_iter: true", "is true; expected a whole number"),
        ("  total_iter: 100", "  total_iter: [100]", "is [100]; expected a whole number"),
        (
            "  total_iter: 100",
            "  total_iter: {a: 1}",
            "is a section with a; expected a whole number",
        ),
        ("  total_iter: 100", "  total_iter: 0", "is 0; expected a whole number, 1 or more"),
        ("  total_iter: 100", "  total_iter: 1e300", "is 1e300; expected a whole number"),
        (
            "  total_iter: 100",
            "  total_iter: 1e30",
            "'train.total_iter' is 1e30; expected a whole number, 1 or more; "
            "9,007,199,254,740,992 (2**53) is the most that any number may be",
        ),
        (
            "    name: Set5",
            "    name: ../Set5",
            "datasets.val.name' is '../Set5'; expected a folder",
        ),
        (
            "scale: 2",
            "scale: 2\nval: {suffix: a/b}",
            "'val.suffix' is 'a/b'; expected a part of a file's name",
        ),
        ("  total_iter: 100", f"  total_iter: {10**400}", "(2**53) is the most that any"),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  grad_clip: 1e30",
            "run.yml:25: key 'train.grad_clip' is 1e30; expected a number, 0 or more; "
            "9,007,199,254,740,992 (2**53) is the most",
        ),
        (
            "scale: 2",
            "scale: 2\nnoise_range: [30, 1]",
            "'noise_range' is [30, 1]; expected a list of 2 values, each a number, 0 or more; "
            "the lesser one stands first",
        ),
        (
            "  total_iter: 100",
            "  total_iter: .nan",
            "is .nan; expected a whole number, 1 or more; it has to be finite",
        ),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  ema_decay: 1.5",
            "'train.ema_decay' is 1.5; expected a number, 0 to 1",
        ),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  grad_clip: .inf",
            "'train.grad_clip' is .inf; expected a number, 0 or more",
        ),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  amp: fp8",
            "'train.amp' is 'fp8'; expected one of none, bf16, fp16",
        ),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  compile: 1",
            "'train.compile' is 1; expected true or false",
        ),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  compile: 'true'",
            "'train.compile' is 'true'; expected true or false",
        ),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  gt_size: 3",
            "'train.gt_size' is not known; it belongs to",
        ),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  progressive: 3",
            "'train.progressive' is 3; expected a list of sections",
        ),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  progressive: [{start: 5, gt_size: 64, batch_size_per_gpu: 1}]",
            "start at [5]; expected 0, then later",
        ),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  progressive: [{start: 0, gt_size: 63, batch_size_per_gpu: 1}]",
            "gt_size is 63; expected a multiple of scale, 2",
        ),
        (
            "  total_iter: 100",
            "  total_iter: 100\n  progressive: [{strat: 0}]",
            "'train.progressive[0].strat' is not known; did you mean 'start'?",
        ),
        (
            "  optim_g: {type: Adam, lr: 1e-3}",
            "  optim_g: {type: Adm, lr: 1e-3}",
            "'train.optim_g.type' is 'Adm'; expected one of Adam, AdamW, SGD, ScheduleFreeAdamW",
        ),
        (
            "  optim_g: {type: Adam, lr: 1e-3}",
            "  optim_g: {type: Adam, lr: 0}",
            "'train.optim_g.lr' is 0; expected a number, above 0",
        ),
        (
            "  optim_g: {type: Adam, lr: 1e-3}",
            "  optim_g: {type: Adam, lr: 1e-3, betas: [0.9]}",
            "'train.optim_g.betas' is [0.9]; expected a list of 2 values, each a number, 0 to 1",
        ),
        (
            "  optim_g: {type: Adam, lr: 1e-3}",
            "  optim_g: Adam",
            "'train.optim_g' is 'Adam'; expected a section",
        ),
        ("  pixel_opt: {type: L1Loss}", "", "run.yml:23: train has no loss; expected pixel_opt"),
        (
            "  pixel_opt: {type: L1Loss}",
            "  fft_opt: {type: L1Loss}",
            "'train.fft_opt.type' is L1Loss; expected FFTLoss",
        ),
        (
            "  pixel_opt: {type: L1Loss}",
            "  pixel_opt: {type: L1Loss}\n  scheduler: {type: MultiStepLR}",
            "key 'milestones' is missing; MultiStepLR needs it",
        ),
        (
            "  pixel_opt: {type: L1Loss}",
            "  pixel_opt: {type: L1Loss}\n"
            "  scheduler: {type: MultiStepLR, milestones: [1], restarts: [0, 5]}",
            "2 restarts, but 1 restart_weights",
        ),
        (
            "  pixel_opt: {type: L1Loss}",
            "  pixel_opt: {type: L1Loss}\n"
            "  scheduler: {type: CosineAnnealingRestartLR, periods: [50]}",
            "periods end after 50 iterations, before total_iter, 100",
        ),
        (
            "model_type: SRModel",
            "model_type: SRGANModel",
            "key 'network_d' is missing; SRGANModel needs it",
        ),
        (
            "model_type: SRModel",
            "model_type: SwinIR",
            "key 'model_type' is 'SwinIR'; did you mean SwinIRModel?",
        ),
        (
            "model_type: SRModel",
            "model_type: RealESRGANModel",
            "model_type RealESRGANModel and data set SingleHRDataset: expected RealESRGANDataset",
        ),
        ("scale: 2", "scale: 3", "key 'scale' is 3; network_g enlarges 2 times"),
        ("scale: 2", "scale: two", "key 'scale' is 'two'; expected a whole number, 1 or more"),
        ("name: run", "name: a/b", "key 'name' is 'a/b'; expected a name for a folder"),
        ("name: run", "name: ..", "key 'name' is '..'; expected a name for a folder"),
        (
            "    type: SingleHRDataset",
            "    type: SingleHR",
            "'datasets.train.type' is 'SingleHR'; did you mean SingleHRDataset?",
        ),
        (
            "    type: SingleHRDataset",
            "    type: SingleHRDataset\n    dataroot_lq: x",
            "'datasets.train.dataroot_lq' is not for SingleHRDataset",
        ),
        (
            "    type: SingleHRDataset",
            "    type: PairedImageDataset",
            "'datasets.train.dataroot_lq' is missing; PairedImageDataset needs it",
        ),
        (
            "    type: SingleHRDataset",
            "    type: SingleHRDataset\n    task: noise",
            "task noise keeps the size of pictures; scale is 2",
        ),
        (
            "    type: SingleHRDataset",
            "    type: SingleHRDataset\n    color: gray",
            "datasets.train has 1 channels, network_g takes 3",
        ),
        (
            "    type: SingleHRDataset",
            "    type: SingleHRDataset\n    sigma: [50, 0]",
            "'datasets.train.sigma' is [50, 0]; expected a number, 0 or more or a list",
        ),
        (
            "    type: SingleHRDataset",
            "    type: SingleHRDataset\n    io_backend: {type: lmdb}",
            "io_backend lmdb takes folders *.lmdb",
        ),
        (
            "    type: SingleHRDataset",
            "    type: SingleHRDataset\n    io_backend: {type: memcached}",
            "expected one of disk, lmdb",
        ),
        (
            "    type: SingleHRDataset",
            "    type: SingleHRDataset\n    filename_tmpl: x4",
            "filename_tmpl' is 'x4'; expected a {} in it",
        ),
        (
            "    type: SingleHRDataset",
            "    type: SingleHRDataset\n    mean: [0.5]",
            "'datasets.train.mean' has 1 values, not 3",
        ),
        (
            "    dataroot_gt: photos",
            "    dataroot_gt: [a, b]\n    dataroot_gt: c",
            "key 'dataroot_gt' stands there already",
        ),
        (
            "    dataroot_gt: photos",
            "    dataroot_gt: ['']",
            "'datasets.train.dataroot_gt' is ['']; expected a path",
        ),
        ("    gt_size: 64", "", "key 'datasets.train.gt_size' is missing"),
        ("    gt_size: 64", "    gt_size: 65", "gt_size is 65; expected a multiple of scale, 2"),
        (
            "  val:",
            "  validation:",
            "data set 'validation' has no known phase; expected train, val",
        ),
        ("  val:", "  train_2:", "data set 'train_2' has no known phase"),
        (
            "  type: SwinIR",
            "  type: SwinR",
            "run.yml:16: key 'network_g.type' is 'SwinR'; did you mean SwinIR?",
        ),
        (
            "  window_size: 8",
            "  windowsize: 8",
            "run.yml:18: network_g of type SwinIR: has no 'windowsize'; did you mean 'window_size'",
        ),
        (
            "  embed_dim: 16",
            "  embed_dim: sixteen",
            "run.yml:20: network_g of type SwinIR: embed_dim is 'sixteen'; expected a whole number",
        ),
        ("  embed_dim: 16", "  embed_dim: 15", "run.yml:15: network_g of type SwinIR: config"),
    ],
)
def test_a_mistake_is_told(file: Path, line: str, by: str, words: str) -> None:
    message = edited(file, line, by)
    assert words in message
    assert message.startswith("run.yml:")


def test_every_mistake_is_told_at_once(file: Path) -> None:
    text = MINIMAL.replace("total_iter: 100", "total_iter: x\n  emadecay: 0.9")
    file.write_text(text.replace("name: photos", "name: photos\n    usehflip: true"))
    with pytest.raises(UsageError) as caught:
        read(file)
    places = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    assert places == ["run.yml:7", "run.yml:26", "run.yml:25"]


def test_a_training_needs_its_sections(file: Path) -> None:
    content = yaml.safe_load(MINIMAL)
    for key in ("train", "datasets", "network_g", "model_type", "name"):
        less = {k: v for k, v in content.items() if k != key}
        file.write_text(yaml.safe_dump(less, sort_keys=False))
        with pytest.raises(UsageError, match=f"run.yml:1: key '{key}' is missing"):
            read(file)
    del content["datasets"]["train"]
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UsageError, match=r"key 'datasets.train' is missing; a training needs it"):
        read(file)


def test_a_test_leaves_the_training_alone(file: Path) -> None:
    file.write_text(MINIMAL.replace("total_iter: 100", "total_iter: nonsense"))
    options = read(file, is_train=False)
    assert options.train is None
    assert list(options.datasets) == ["val"]
    with pytest.raises(UsageError, match="no data set to test on"):
        read(file, "datasets={train: {}}", is_train=False)


def test_one_folder_or_several(file: Path) -> None:
    options = read(file, "datasets:train:dataroot_gt=[~/a, b]")
    assert options.datasets["train"].dataroot_gt == (Path.home() / "a", Path("b"))
    options = read(file, root=Path("/top"))
    assert options.datasets["val"].dataroot_lq == (Path("/top/Set5/LR"),)
    with pytest.raises(UsageError, match=r"1 folders of dataroot_lq, but 2 of dataroot_gt"):
        read(file, "datasets:val:dataroot_gt=[a, b]")


def test_text_that_yaml_takes_for_something_else(file: Path) -> None:
    options = read(file, "name=007", "val:suffix=no", "datasets:train:name=1e3")
    assert (options.name, options.val.suffix) == ("007", "no")
    assert options.datasets["train"].name == "1e3"


def test_none_in_words(file: Path) -> None:
    file.write_text(MINIMAL + "path:\n  pretrain_network_g: None\nmanual_seed: ~\n")
    options = read(file)
    assert options.path.pretrain_network_g is None and options.manual_seed is None


def test_the_name_of_a_built_in_model_is_a_weight_file(file: Path) -> None:
    weights = read(file, "path:pretrain_network_g=swinir_builtin_x2").path.pretrain_network_g
    assert weights is not None and weights.is_file() and weights.suffix == ".safetensors"


def test_debug(file: Path) -> None:
    options = read(file, debug=True)
    assert options.name == "debug_run"
    assert (options.val.val_freq, options.logger.print_freq) == (8, 1)
    assert (options.logger.save_checkpoint_freq, options.logger.use_tb_logger) == (8, False)
    assert read(file, "name=my_debug_run").logger.print_freq == 1


def test_paths_that_are_not_there(file: Path) -> None:
    Path("Set5/HR").mkdir(parents=True)
    Path("photos").touch()
    options = read(
        file, "path:pretrain_network_g=w/x.pth", "datasets:train:meta_info_file=Set5/list.txt"
    )
    with pytest.raises(UsageError) as caught:
        check_paths(options)
    assert str(caught.value).splitlines() == [
        "run.yml:8: dataroot_gt photos: is no folder",
        "--force_yml datasets:train:meta_info_file: meta_info_file Set5/list.txt: there is no such "
        "file; Set5 is there, it has HR",
        "run.yml:14: dataroot_lq Set5/LR: there is no such folder; Set5 is there, it has HR",
        "--force_yml path:pretrain_network_g: pretrain_network_g w/x.pth: there is no such file; "
        "the current folder is there, it has Set5, photos, run.yml",
    ]
    Path("photos").unlink()
    Path("photos").mkdir()
    Path("Set5/LR").mkdir()
    check_paths(read(file))


def test_options_go_to_other_processes(file: Path) -> None:
    options = read(file)
    again = pickle.loads(pickle.dumps(options))
    assert again == options
    assert again.train.where("total_iter") == options.train.where("total_iter")  # type: ignore[union-attr]
    assert copy.deepcopy(options) == options


def test_options_cannot_be_changed(file: Path) -> None:
    options = read(file)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.name = "other"  # type: ignore[misc]


def test_every_section_is_in_the_table_of_sections() -> None:
    """Hints for keys in the wrong place, and the documentation, go by it."""
    listed = set(SECTIONS.values())
    found = {Options, DatasetOptions}
    for kind in [*found, *listed]:
        for hint in get_type_hints(kind).values():
            for part in (hint, *get_args(hint)):
                if isinstance(part, type) and part.__module__.startswith("restore.training"):
                    found.add(part)
    flat = {"KernelOptions", "DegradationOptions", "ModelKind"}
    assert {kind.__name__ for kind in found} - flat <= {kind.__name__ for kind in listed}
    assert "blur_kernel_size" in keys_of(DatasetOptions)
    assert "jpeg_range2" in keys_of(Options)
