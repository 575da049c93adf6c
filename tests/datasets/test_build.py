"""From the sections of an option file to sets, loaders and validation pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restore import imresize
from restore.datasets.build import cache_bytes, training_loader, training_set, validation_set
from restore.datasets.degradations import compressed, published_noise
from restore.datasets.images import unit
from restore.datasets.lmdb_store import write_database
from restore.datasets.loader import TrainingBatch
from restore.errors import ImageError, UsageError
from restore.training.dataset_options import BackendOptions, DatasetOptions, KernelOptions

CPU = torch.device("cpu")


def pictures(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir()
    for number, size in enumerate(sizes):
        shape = (*size, 3)
        pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def section(tmp_path: Path) -> DatasetOptions:
    """24 x 32 and 28 x 24 pixels of gt, and their lq at a scale of 2."""
    gt = pictures(tmp_path / "gt", [(24, 32), (28, 24)])
    (tmp_path / "lq").mkdir()
    for path in gt.iterdir():
        small = imresize(np.asarray(Image.open(path)), 1 / 2)
        Image.fromarray(small).save(tmp_path / "lq" / path.name)
    return DatasetOptions(
        key="train",
        phase="train",
        scale=2,
        type="PairedImageDataset",
        name="photos",
        dataroot_gt=(gt,),
        dataroot_lq=(tmp_path / "lq",),
        gt_size=16,
        batch_size_per_gpu=3,
        cache_gb=0.01,
        places={"": "x.yml:3", "dataroot_gt": "x.yml:5", "gt_size": "x.yml:9", "type": "x.yml:4"},
    )


def first(options: DatasetOptions) -> TrainingBatch:
    return next(iter(training_loader(options, seed=0, device=CPU)))


def test_pairs_of_folders(section: DatasetOptions) -> None:
    batch = first(section)
    assert batch.lq.shape == (3, 3, 8, 8)
    assert batch.gt.shape == (3, 3, 16, 16)


def test_pairs_of_data_bases_are_those_of_folders(section: DatasetOptions, tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    for side in ("gt", "lq"):
        write_database(tmp_path / f"{side}.lmdb", sorted((tmp_path / side).iterdir()), raw=True)
    stored = replace(
        section,
        dataroot_gt=(tmp_path / "gt.lmdb",),
        dataroot_lq=(tmp_path / "lq.lmdb",),
        io_backend=BackendOptions(type="lmdb"),
    )
    one, other = first(section), first(stored)
    torch.testing.assert_close(one.lq, other.lq, rtol=0, atol=0)
    torch.testing.assert_close(one.gt, other.gt, rtol=0, atol=0)


def test_several_folders_are_taken_together(section: DatasetOptions) -> None:
    twice = replace(
        section, dataroot_gt=section.dataroot_gt * 2, dataroot_lq=section.dataroot_lq * 2
    )
    assert len(training_set(twice, seed=0)) == 4
    with pytest.raises(UsageError, match="1 folders of lq and 2 of gt"):
        training_set(replace(section, dataroot_gt=section.dataroot_gt * 2), seed=0)


def test_a_list_chooses(section: DatasetOptions, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("1.png (28,24,3)\n")
    chosen = replace(section, meta_info_file=tmp_path / "list.txt")
    assert len(training_set(chosen, seed=0)) == 1
    single = replace(chosen, type="SingleHRDataset")
    assert len(training_set(single, seed=0)) == 1


@pytest.mark.parametrize("task", ["bicubic", "noise", "jpeg", "blur"])
def test_single_sets_make_their_lq(section: DatasetOptions, task: str) -> None:
    single = replace(section, type="SingleHRDataset", task=task, dataroot_lq=())
    batch = first(single)
    assert batch.lq.shape == (3, 3, 8, 8)
    assert batch.lq_path == batch.gt_path


def test_bicubic_sets_are_the_pairs_that_matlab_makes(section: DatasetOptions) -> None:
    stored, made = (
        list(validation_set(replace(section, type=name)))
        for name in ("PairedImageDataset", "SingleHRDataset")
    )
    for one, other in zip(stored, made, strict=True):
        torch.testing.assert_close(one.lq, other.lq, rtol=0, atol=0)
        torch.testing.assert_close(one.gt, other.gt, rtol=0, atol=0)


def test_the_second_order_chain(section: DatasetOptions) -> None:
    chain = replace(section, type="RealESRGANDataset", dataroot_lq=(), batch_size_per_gpu=1)
    batch = first(chain)
    assert batch.lq.shape == (1, 3, 8, 8)
    assert batch.gt_usm is not None and batch.gt_usm.shape == batch.gt.shape == (1, 3, 16, 16)


def test_mistakes_are_told_with_their_line(section: DatasetOptions, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^x\.yml:9: gt_size is 15; expected a multiple of"):
        training_loader(replace(section, gt_size=15), seed=0, device=CPU)
    missing = replace(section, dataroot_gt=(tmp_path / "none",))
    with pytest.raises(UsageError, match=r"^x\.yml:5: .*none: no such folder"):
        training_set(missing, seed=0)
    with pytest.raises(UsageError, match=r"^x\.yml:3: .* needs dataroot_lq"):
        training_set(replace(section, dataroot_lq=()), seed=0)
    with pytest.raises(UsageError, match=r"^x\.yml:4: SingleImageDataset holds no gt"):
        training_set(replace(section, type="SingleImageDataset"), seed=0)
    with pytest.raises(UsageError, match=r"^x\.yml:4: RealESRGANDataset is for training alone"):
        validation_set(replace(section, type="RealESRGANDataset"))
    odd = replace(
        section, type="SingleHRDataset", task="blur", kernels=KernelOptions(blur_kernel_size=8)
    )
    with pytest.raises(UsageError, match=r"^x\.yml:3: blur_kernel_size is 8"):
        training_set(odd, seed=0)


def test_memory_is_shared_out(section: DatasetOptions) -> None:
    assert cache_bytes(replace(section, cache_gb=1.0), 4) == 2**28
    assert cache_bytes(replace(section, cache_gb=0.0), 1) == 0
    assert cache_bytes(replace(section, cache_gb=None), 1) > 0


def test_validation_pictures_are_whole(section: DatasetOptions) -> None:
    pairs = list(validation_set(section))
    assert [tuple(pair.lq.shape) for pair in pairs] == [(1, 3, 12, 16), (1, 3, 14, 12)]
    assert pairs[0].gt is not None and pairs[0].gt.shape == (1, 3, 24, 32)
    assert Path(pairs[1].lq_path).parent.name == "lq"


def test_gt_beyond_a_multiple_of_the_scale_is_cut(section: DatasetOptions, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(tmp_path / "gt" / "0.png"))
    Image.fromarray(np.pad(pixels, ((0, 1), (0, 1), (0, 0)))).save(tmp_path / "gt" / "0.png")
    pair = validation_set(section)[0]
    assert pair.gt is not None
    np.testing.assert_array_equal(pair.gt[0].permute(1, 2, 0), unit(pixels))
    Image.fromarray(np.pad(pixels, ((0, 2), (0, 0), (0, 0)))).save(tmp_path / "gt" / "0.png")
    with pytest.raises(ImageError, match="26 x 32 pixels are not 2 times the 12 x 16"):
        validation_set(section)[0]


def test_validation_noise_is_the_same_for_every_picture_and_run(section: DatasetOptions) -> None:
    options = replace(section, type="SingleHRDataset", task="noise", scale=1, sigma=15.0)
    for pair in validation_set(options):
        assert pair.gt is not None
        clean = pair.gt[0].permute(1, 2, 0).numpy()
        noise = published_noise(clean.shape, 15, 0)
        np.testing.assert_array_equal(pair.lq[0].permute(1, 2, 0), clean + noise)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "jpeg", "quality": (10, 90)},
        {"task": "noise", "sigma": (5.0, 50.0)},
        {"task": "blur"},
    ],
)
def test_what_validation_draws_is_drawn_alike_again(
    section: DatasetOptions, changes: dict[str, object]
) -> None:
    options = replace(section, type="SingleHRDataset", **changes)  # type: ignore[arg-type]
    once, again = list(validation_set(options)), validation_set(options)
    for index in (1, 0):
        torch.testing.assert_close(again[index].lq, once[index].lq, rtol=0, atol=0)


def test_validation_jpeg_is_the_coders(section: DatasetOptions) -> None:
    options = replace(section, type="SingleHRDataset", task="jpeg", scale=1, quality=30)
    pair = validation_set(options)[0]
    assert pair.gt is not None
    clean = (pair.gt[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(pair.lq[0].permute(1, 2, 0), unit(compressed(clean, 30)))


def test_lq_alone(section: DatasetOptions) -> None:
    pair = validation_set(replace(section, type="SingleImageDataset", dataroot_gt=()))[0]
    assert pair.gt is None
    assert pair.gt_path == ""
    assert pair.lq.shape == (1, 3, 12, 16)


def test_colours_and_scaling_of_validation(section: DatasetOptions) -> None:
    plain = validation_set(section)[0]
    gray = validation_set(replace(section, color="gray"))[0]
    assert gray.lq.shape[1] == 1
    scaled = validation_set(replace(section, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))[0]
    torch.testing.assert_close(scaled.lq, (plain.lq - 0.5) / 0.5)
