"""The option files that come with the package: each is read and builds its network."""

from __future__ import annotations

import functools
import re
import warnings
from pathlib import Path

import pytest
import torch

from restore.official import official_models
from restore.training.building import build_discriminator, build_generator
from restore.training.networks import described
from restore.training.options import Options, read_options

FOLDER = Path(__file__).resolve().parents[2] / "options"
TRAIN = sorted((FOLDER / "train").glob("*.yml"))
TEST = sorted((FOLDER / "test").glob("*.yml"))
FAMILIES = ("swinir", "srformer", "hat", "drct", "atd", "cat", "hit", "uformer")


@functools.cache
def read(path: Path) -> Options:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none of our files has a key without effect
        return read_options(path, is_train=path.parent.name == "train")


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", [*TRAIN, *TEST], ids=name_of)
def test_a_file_is_read(path: Path) -> None:
    assert read(path).name == path.stem


@pytest.mark.parametrize("family", [*FAMILIES, "builtin"])
def test_the_networks_are_built(family: str) -> None:
    built: list[object] = []
    for path in [*TRAIN, *TEST]:
        options = read(path)
        settings = (options.network_g.type, options.network_g.arguments)
        if path.stem.split("_")[0].removesuffix("v2") == family and settings not in built:
            built.append(settings)
            with torch.device("meta"):
                assert build_generator(options.network_g, options.scale).num_parameters > 10_000
                if options.network_d is not None:
                    build_discriminator(options.network_d)
    assert built


@pytest.mark.parametrize("path", [*TRAIN, *TEST], ids=name_of)
def test_a_file_says_in_its_first_line_what_it_is_for(path: Path) -> None:
    """`--list` shows that line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert re.match(r"# [A-Z]", lines[0])
    assert max(map(len, lines)) <= 100


def test_every_family_has_files_for_training_and_testing() -> None:
    for files in (TRAIN, TEST):
        assert {path.stem.split("_")[0] for path in files} >= set(FAMILIES)


@pytest.mark.parametrize("path", TRAIN, ids=name_of)
def test_what_a_training_begins_from_is_what_another_file_trains(path: Path) -> None:
    options = read(path)
    weights = options.path.pretrain_network_g
    if weights is None or weights.suffix == ".safetensors":
        return
    first = read(FOLDER / "train" / f"{weights.parts[1]}.yml")
    assert weights == Path("experiments") / first.name / "models" / "net_g_latest.pth"
    # what the loaded weights have to share: all but the scale and the training patch
    (one, here), (two, there) = described(first.network_g), described(options.network_g)
    apart = {"upscale": None, "img_size": None, "use_checkpoint": None}
    assert one is two and {**here, **apart} == {**there, **apart}
    assert options.path.strict_load_g == (first.scale == options.scale)
    assert first.train is not None
    assert options.path.param_key_g == "params" or first.train.ema_decay > 0


@pytest.mark.parametrize("path", TEST, ids=name_of)
def test_a_test_names_the_published_weights_of_its_network(path: Path) -> None:
    options = read(path)
    weights = options.path.pretrain_network_g
    assert weights is not None
    if weights.suffix == ".safetensors":
        return
    spec, config = described(options.network_g)
    patch = {"img_size": None, "use_checkpoint": None, "drop_path_rate": None}
    known = [
        model
        for model in official_models()
        if model.spec is spec and {**model.config, **patch} == {**config, **patch}
    ]
    assert known, "a network that nobody published"
    files = {name for model in known for name in model.files}
    assert not files or weights.name in files


@pytest.mark.parametrize("path", TRAIN, ids=name_of)
def test_a_schedule_ends_with_the_training(path: Path) -> None:
    train = read(path).train
    assert train is not None and train.scheduler is not None
    assert max(train.scheduler.milestones, default=0) <= train.total_iter
    assert sum(train.scheduler.periods) in (0, train.total_iter)
