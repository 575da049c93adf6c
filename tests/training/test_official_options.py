"""Official option files: their keys are read, mean what they meant, and build their networks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from official_keys import FILES, official_file

from restore.training.building import build_generator
from restore.training.official import NoEffectWarning
from restore.training.option_file import Value, read_file
from restore.training.option_types import Section
from restore.training.options import Options, read_options

SEQUENCE = "tag:yaml.org,2002:seq"


class KeyALine(yaml.SafeDumper):
    """Writes lists within their line, so that every line has one key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


KeyALine.add_representer(
    list, lambda dumper, value: dumper.represent_sequence(SEQUENCE, value, flow_style=True)
)


def as_yaml(content: dict[str, Any]) -> str:
    return yaml.dump(content, Dumper=KeyALine, sort_keys=False, width=10_000)


def read(tmp_path: Path, content: dict[str, Any]) -> tuple[Options, list[str]]:
    """The options of a file with this content, and what was warned of."""
    path = tmp_path / "options.yml"
    path.write_text(as_yaml(content), encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = read_options(path, is_train="train" in content)
    assert all(warning.category is NoEffectWarning for warning in caught)
    return options, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("kind", FILES)
def test_the_keys_are_read_and_build_the_network(tmp_path: Path, kind: str) -> None:
    options, _ = read(tmp_path, official_file(kind))
    with torch.device("meta"):
        model = build_generator(options.network_g, options.scale)
    assert model.num_parameters > 1000


@pytest.mark.parametrize("kind", FILES)
def test_no_key_is_dropped_in_silence(tmp_path: Path, kind: str) -> None:
    options, told = read(tmp_path, official_file(kind))
    of_warnings = [line for text in told for line in lines_in(text)]
    assert len(told) == len({text.split("'")[1] for text in told}), "one warning for each key"
    written = set(key_lines(read_file(options.file)))
    assert written <= {*of_warnings, *lines_of(options)}


def lines_in(warning: str) -> list[int]:
    """The lines that a warning names."""
    numbers = re.match(r".*?\.yml:([\d, ]+):", warning)
    assert numbers is not None
    return [int(number) for number in numbers[1].split(",")]


def key_lines(value: Value) -> Iterator[int]:
    """Lines of all keys that have a value of their own; layers of VGG are values, not keys."""
    for key, part in (value.section or {}).items():
        if part.section is not None and key != "layer_weights":
            yield from key_lines(part)
        elif part.content is not None:
            yield int(part.place.rpartition(":")[2])


def lines_of(section: Any) -> Iterator[int]:
    """Lines that options know of."""
    if isinstance(section, Section):
        yield from (int(place.rpartition(":")[2]) for place in section.places.values())
        section = tuple(vars(section).values())
    for part in section.values() if isinstance(section, Mapping) else section:
        if isinstance(part, (Section, tuple, Mapping)):
            yield from lines_of(part)


def test_model_types_say_what_is_trained_and_how_pictures_grow(tmp_path: Path) -> None:
    gan, _ = read(tmp_path, official_file("HAT train real with a discriminator"))
    assert (gan.kind.gan, gan.kind.degrades) == (True, True)
    mse, told = read(tmp_path, official_file("HAT train real"))
    assert (mse.kind.gan, mse.kind.degrades) == (False, True)
    assert any("'optim_d' has no effect: RealHATMSEModel" in line for line in told)
    ensemble, _ = read(tmp_path, official_file("CAT test with self-ensemble"))
    assert ensemble.kind.self_ensemble and ensemble.kind.padding == "published"
    assert ensemble.val.self_ensemble


def test_the_second_order_chain_is_found_at_the_top_level(tmp_path: Path) -> None:
    options, _ = read(tmp_path, official_file("HAT train real with a discriminator"))
    assert options.degradation.resize_prob == (0.2, 0.7, 0.1)
    assert options.degradation.gan_gt_usm is True  # this test's value, not the default
    kernels = options.datasets["train"].kernels
    assert (kernels.kernel_list, kernels.kernel_prob2) == (("iso", "aniso"), (0.7, 0.3))
    # the patch size is that of the top level: the data set's own is for what comes before
    assert options.datasets["train"].gt_size == 96


def test_hats_imagenet_makes_the_low_resolution_itself(tmp_path: Path) -> None:
    options, _ = read(tmp_path, official_file("HAT train on ImageNet"))
    data = options.datasets["train"]
    assert (data.type, data.task, data.scale) == ("SingleHRDataset", "bicubic", 2)
    assert data.dataroot_gt == (Path("datasets/HR"),)


def test_cats_jpeg_task_reads_gray_pictures(tmp_path: Path) -> None:
    options, _ = read(tmp_path, official_file("CAT train on JPEG"))
    assert [data.color for data in options.datasets.values()] == ["gray", "gray"]
    assert options.val.use_chop
    options, told = read(tmp_path, official_file("CAT train"))
    assert options.datasets["train"].color == "rgb"
    assert sum("'datasets.*.task' has no effect" in line for line in told) == 1


def test_progressive_patches_of_restormers_loop(tmp_path: Path) -> None:
    options, _ = read(tmp_path, official_file("CAT train on real noise"))
    assert options.train is not None
    stages = options.train.progressive
    assert [s.start for s in stages] == [0, 30, 50]
    assert [s.gt_size for s in stages] == [64, 96, 128]
    assert [s.batch_size_per_gpu for s in stages] == [8, 4, 2]
    assert options.train.grad_clip == 0.01
    assert options.train.mixing_augs.mixup and options.train.mixing_augs.use_identity
    assert options.train.scheduler is not None
    assert options.train.scheduler.eta_mins == (3e-4, 1e-6)
    data = options.datasets["train"]
    assert (data.use_hflip, data.use_rot) == (True, True)


def test_metrics_and_tiles(tmp_path: Path) -> None:
    options, _ = read(tmp_path, official_file("HAT test in tiles"))
    metric = options.val.metrics["psnr"]
    assert (metric.type, metric.crop_border, metric.test_y_channel) == ("psnr", 2, True)
    assert options.tile is not None
    assert (options.tile.tile_size, options.tile.tile_pad) == (256, 32)
    assert options.train is None


def test_arguments_without_effect_are_told_with_their_line(tmp_path: Path) -> None:
    content = official_file("HiT-SR train")
    _, told = read(tmp_path, content)
    lines = as_yaml(content).splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "expansion_factor" in line)
    expected = (
        f"{tmp_path / 'options.yml'}:{number}: key 'network_g.expansion_factor' has no effect"
    )
    assert any(line.startswith(expected) for line in told)


def test_left_out_keys_have_basicsrs_defaults(tmp_path: Path) -> None:
    """Of the keys that BasicSR does not ask for, those whose value changes a training."""
    content = official_file("HAT train")
    for key in ("ema_decay", "warmup_iter"):
        del content["train"][key]
    for key in ("param_key_g", "strict_load_g"):
        del content["path"][key]
    del content["datasets"]["train"]["dataset_enlarge_ratio"]
    content["train"]["optim_g"] = {"type": "Adam", "lr": 1e-4}
    content["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [10]}
    content["train"]["pixel_opt"] = {"type": "CharbonnierLoss"}
    options, _ = read(tmp_path, content)
    train = options.train
    assert train is not None and train.scheduler is not None and train.pixel_opt is not None
    assert (train.ema_decay, train.warmup_iter) == (0, -1)
    assert (train.scheduler.gamma, train.scheduler.restarts) == (0.1, (0,))
    assert train.scheduler.restart_weights == (1,)
    assert (train.pixel_opt.loss_weight, train.pixel_opt.eps) == (1, 1e-12)
    assert (train.optim_g.betas, train.optim_g.weight_decay) == ((0.9, 0.999), None)
    assert (options.path.param_key_g, options.path.strict_load_g) == ("params", True)
    assert options.datasets["train"].dataset_enlarge_ratio == 1
