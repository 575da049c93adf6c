"""The catalogue: every name is one checkpoint's, every fact is one that its source has."""

from __future__ import annotations

import math
import re

import pytest
import torch

from restore.catalogue import entries as module
from restore.catalogue.entries import catalogue, chosen, find, known_as, nearest
from restore.errors import UsageError
from restore.official import official_models


def test_every_file_that_is_offered_is_in_it() -> None:
    named = {entry.file for entry in catalogue() if entry.file}
    assert {name for model in official_models() for name in model.offered if name} == named
    published = {name for model in official_models() for name in model.files}
    assert published <= named


def test_names_are_words_and_of_one_checkpoint_each() -> None:
    names = [entry.name for entry in catalogue()]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9-]+", name) for name in names)
    stored = [entry.stored for entry in catalogue()]
    assert len(set(stored)) == len(stored)
    assert all(name.endswith(".pth") and "/" not in name for name in stored)


def test_each_is_found_by_its_names() -> None:
    for entry in catalogue():
        for word in (entry.name, entry.name.upper(), entry.stored, entry.stored[: -len(".pth")]):
            assert find(word) is entry
        if entry.file and entry.file != "Uformer_B.pth":
            assert find(entry.file) is find(entry.file.replace(".pth", ".safetensors")) is entry


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("SwinIR-M-classical-x4-DF2K", "SwinIR-M-classical-x4-DF2K"),
        ("hat-x4", "HAT-x4"),
        ("HAT_SRx4", "HAT-x4"),
        ("HAT x4", "HAT-x4"),
        ("HAT_SRx4_ImageNet-pretrain", "HAT-x4-ImageNet"),
        ("HiT-SRF_x4.pth", "HiT-SRF-x4"),
        ("DRCT-L_X4.pth", "DRCT-L-x4"),
        ("SwinIR-L real-world x4", None),
        ("CAT_Unet real denoising", "CAT-Unet-real-denoising"),
        ("Uformer-B-GoPro", "Uformer-B-GoPro"),
    ],
)
def test_names_that_people_give(word: str, name: str | None) -> None:
    found = known_as(word)
    assert [entry.name for entry in found] == [name] if name else len(found) == 2


def test_a_name_of_several_is_told_with_all() -> None:
    told = (
        r"Uformer_B.pth is the name of Uformer-B-SIDD \(SIDD; .*\), Uformer-B-GoPro \(GoPro; .*; g"
    )
    with pytest.raises(UsageError, match=told):
        find("Uformer_B.pth")
    with pytest.raises(
        UsageError, match=r"x4-DIV2K \(DIV2K, patches of 48\), SwinIR-M-classical-x4-"
    ):
        find("SwinIR-M-classical-x4")


def test_a_typo_is_told_with_what_is_near() -> None:
    assert nearest("HTA-x4")[0] == "HAT-x4"
    assert "SwinIR-M-real-world-x4-GAN" in nearest("SwinIR-M-realworld-x4-GAN")
    assert nearest("photograph") == []
    with pytest.raises(UsageError, match="called 'DRTC-x4'; did you mean DRCT-x4"):
        find("DRTC-x4")
    with pytest.raises(UsageError, match=r"called 'photograph'; `restore models` lists them"):
        find("photograph")


@pytest.mark.parametrize("word", ["", "models/HAT-x4", "../HAT_SRx4.pth", "/HAT-x4", "."])
def test_a_path_is_no_name(word: str) -> None:
    assert known_as(word) == ()


def test_addresses() -> None:
    for entry in catalogue():
        assert entry.page.startswith("https://")
        if entry.url is not None:
            release = entry.page.replace("/releases/tag/", "/releases/download/")
            assert entry.url == f"{release}/{entry.file}" and release != entry.page
    assert sum(entry.url is not None for entry in catalogue()) == 31  # SwinIR's release
    assert module._direct("https://github.com/a/b", "x.pth") is None
    assert module._direct("https://drive.google.com/releases/tag/1", "x.pth") is None
    assert module._direct("https://github.com/a/b/releases/tag/v1", "") is None


def test_what_is_known_of_files_is_of_files_that_there_are() -> None:
    known = module._known_files()
    assert set(known) <= {entry.file for entry in catalogue()}
    digests = [sha256 for _, sha256 in known.values()]
    assert len(set(digests)) == len(digests)
    for size, sha256 in known.values():
        assert sha256 is not None and re.fullmatch("[0-9a-f]{64}", sha256)
        assert size is None or 2**23 < size < 2**30
    # facts that are not known are not made up
    assert find("HAT-x2").sha256 is find("HAT-x2").size is None
    assert find("Uformer-B-SIDD").sha256 is None


def test_sizes_are_those_of_the_networks() -> None:
    """Of one copy of the official tensors, or of two (with averages), and a little around them."""
    for entry in catalogue():
        if entry.size is not None:
            spec, config = entry.model.spec, entry.model.config
            with torch.device("meta"):
                numbers = sum(p.numel() for p in spec.build(config).parameters())
            derived = spec.derived(config).items()
            whole = 4 * numbers + sum(
                math.prod(buffer.shape) * (4 if "mask" in key else 8) for key, buffer in derived
            )
            copies = round(entry.size / whole)
            assert copies in (1, 2) and 1 < entry.size / (copies * whole) < 1.012, entry.name


def test_published_figures_are_those_of_the_checkpoint() -> None:
    def psnr(name: str, dataset: str, metric: str = "psnr_y") -> float:
        return find(name).published[dataset][metric].value

    assert psnr("SwinIR-M-classical-x4-DIV2K", "Set5") == 32.72
    assert psnr("SwinIR-M-classical-x4-DF2K", "Set5") == 32.92
    assert psnr("SwinIR-M-classical-x2-DF2K", "DIV2K", "psnr_rgb") == 35.34
    assert psnr("HAT-x4", "Urban100") == 27.97
    assert psnr("DRCT-L-x4", "Urban100") == 28.70
    assert psnr("CAT-Unet-real-denoising", "SIDD", "psnr_rgb") == 40.01
    assert find("HAT-x4-ImageNet").published == {}
    assert set(find("Uformer-B-SIDD").published) == {"SIDD"}
    assert set(find("Uformer-B-GoPro").published) == {"GoPro", "HIDE"}


@pytest.mark.parametrize(
    ("wanted", "count", "one"),
    [
        ({}, None, "HAT-x4"),
        ({"family": "hat"}, 14, "HAT-S-x2"),
        ({"family": "HiT_SRF"}, 6, "HiT-SRF-x2-DF2K"),
        ({"family": "hit-sr", "scale": 4}, 4, "HiT-SNG-x4"),
        ({"task": "jpeg"}, 12, "CAT-JPEG-artefacts-gray-q10"),
        ({"task": "denoising"}, 8, "SwinIR-M-gray-denoising-noise15"),
        ({"task": "denoise"}, 6, "SwinIR-M-colour-denoising-noise50"),
        ({"task": "deblur"}, 1, "Uformer-B-GoPro"),
        ({"task": "sr", "scale": 8}, 2, "SwinIR-M-classical-x8-DF2K"),
        ({"task": "real-world"}, 11, "HAT-x4-real-GAN"),
        ({"family": "cat", "task": "deblur"}, 0, ""),
    ],
    ids=str,
)
def test_some_can_be_chosen(wanted: dict[str, object], count: int | None, one: str) -> None:
    found = [entry.name for entry in chosen(**wanted)]  # type: ignore[arg-type]
    assert len(found) == (len(catalogue()) if count is None else count)
    assert not one or one in found


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (
            {"family": "swinri"},
            "--family: no official model is of 'swinri'; did you mean swinir. the",
        ),
        (
            {"task": "dehaze"},
            "--task: no official model is of 'dehaze'; there are super-resolution,",
        ),
        ({"scale": 5}, "--scale: no official model has 5; there are 1, 2, 3, 4, 8"),
    ],
    ids=str,
)
def test_what_cannot_be_chosen_is_told(wanted: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        chosen(**wanted)  # type: ignore[arg-type]
