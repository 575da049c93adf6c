"""Degradations made on the fly: parts of them are parts of the whole."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore import imresize
from restore.datasets.blur_kernels import KernelRound, draw_kernel, sinc_kernel
from restore.datasets.degradations import (
    blurring,
    compressed,
    compressing,
    gaussian_noise,
    published_noise,
    resized,
)
from restore.datasets.images import Box
from restore.errors import ImageError, UsageError
from restore.image_io import read_picture

KINDS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
ROUND = KernelRound(
    21, KINDS, (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), 0.1, (0.2, 3), (0.5, 4), (1, 2)
)


def smooth(rows: int, columns: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (rows, columns, channels), np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 1.2).reshape(rows, columns, channels)


@st.composite
def a_part(draw: st.DrawFn, scale: int = 1) -> tuple[np.ndarray, Box]:
    rows, columns = (draw(st.integers(1, 12)) * scale for _ in range(2))
    channels = draw(st.sampled_from([1, 3]))
    top, left = draw(st.integers(0, rows // scale - 1)), draw(st.integers(0, columns // scale - 1))
    height = draw(st.integers(1, rows // scale - top))
    width = draw(st.integers(1, columns // scale - left))
    return smooth(rows, columns, channels), Box(top, left, height, width)


@pytest.mark.parametrize("scale", [2, 3, 4])
@settings(max_examples=40)
@given(data=st.data())
def test_a_part_of_a_smaller_picture_is_made_of_its_surroundings(
    scale: int, data: st.DataObject
) -> None:
    picture, box = data.draw(a_part(scale))
    part, size = resized(lambda b: b.of(picture), picture.shape[:2], 1 / scale)
    whole = imresize(picture, 1 / scale)
    assert size == whole.shape[:2]
    np.testing.assert_array_equal(part(box), box.of(whole))


@pytest.mark.parametrize("factor", [0.9, 0.75, 0.6, 1 / 3])
def test_any_factor_of_a_real_picture(shared: Path, factor: float) -> None:
    picture = read_picture(shared / "data" / "Set5" / "HR" / "butterfly.png").pixels
    part, size = resized(lambda b: b.of(picture), picture.shape[:2], factor)
    whole = imresize(picture, factor)
    assert size == whole.shape[:2]
    for box in (Box(0, 0, 40, 50), Box(size[0] - 9, size[1] - 30, 9, 30), Box(0, 0, *size)):
        np.testing.assert_array_equal(part(box), box.of(whole))


def test_only_the_surroundings_are_read() -> None:
    picture, boxes = smooth(400, 400), list[Box]()

    def read(box: Box) -> np.ndarray:
        boxes.append(box)
        return box.of(picture)

    resized(read, (400, 400), 1 / 4)[0](Box(40, 40, 10, 10))
    # 8 pixels to each side of 40 x 40 at a scale of 4
    assert all(side <= 40 + 2 * 8 for box in boxes for side in box[2:])


@settings(max_examples=60)
@given(where=a_part(), quality=st.integers(1, 100), times=st.integers(1, 6))
def test_a_part_of_a_compressed_picture(
    where: tuple[np.ndarray, Box], quality: int, times: int
) -> None:
    picture, box = where[0].repeat(times, 0).repeat(times, 1), where[1].times(times)
    part = compressing(lambda b: b.of(picture), picture.shape[:2], quality)
    np.testing.assert_array_equal(part(box), box.of(compressed(picture, quality)))


def test_compression_is_opencvs() -> None:
    picture = smooth(40, 50)
    coded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    np.testing.assert_array_equal(compressed(picture, 30), cv2.imdecode(coded, 1)[:, :, ::-1])
    gray = picture[:, :, :1]
    coded = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    np.testing.assert_array_equal(compressed(gray, 30)[:, :, 0], cv2.imdecode(coded, 0))


def test_what_jpeg_does_not_take_is_refused() -> None:
    with pytest.raises(UsageError, match="quality is 0"):
        compressed(smooth(8, 8), 0)
    with pytest.raises(ImageError, match="8 bits"):
        compressed(smooth(8, 8).astype(np.uint16), 50)


@settings(max_examples=30)
@given(where=a_part(), seed=st.integers(0, 9))
def test_a_part_of_a_blurred_picture(where: tuple[np.ndarray, Box], seed: int) -> None:
    picture, box = where[0].repeat(3, 0).repeat(3, 1), where[1].times(3)
    kernel = draw_kernel(ROUND, np.random.default_rng(seed))
    part = blurring(lambda b: b.of(picture), picture.shape[:2], kernel)
    whole = Box(0, 0, *picture.shape[:2])
    np.testing.assert_array_equal(part(box), box.of(part(whole)))


def test_noise_has_its_standard_deviation() -> None:
    noise = gaussian_noise((400, 400, 3), 25, np.random.default_rng(0))
    # of n samples, the standard deviation of the estimate is sigma / sqrt(2 n)
    assert abs(noise.std() * 255 - 25) < 4 * 25 / np.sqrt(2 * noise.size)
    assert abs(noise.mean() * 255) < 4 * 25 / np.sqrt(noise.size)


def test_validation_noise_is_the_papers() -> None:
    """Drawn for BGR by numpy.random.seed(0), as SwinIR's test script does for each picture."""
    state = np.random.RandomState(0)
    bgr = state.normal(0, 15 / 255.0, (6, 7, 3))
    np.testing.assert_array_equal(
        published_noise((6, 7, 3), 15, 0), bgr[:, :, ::-1].astype(np.float32)
    )


@pytest.mark.parametrize("kind", [*KINDS, "sinc"])
def test_kernels_sum_to_one_and_are_even(kind: str) -> None:
    """All are even functions, so a kernel is itself turned by half a turn."""
    chosen = KernelRound(
        21,
        (kind if kind != "sinc" else "iso",),
        (1,),
        float(kind == "sinc"),
        (0.2, 3),
        (0.5, 4),
        (1, 2),
    )
    for seed in range(20):
        kernel = draw_kernel(chosen, np.random.default_rng(seed))
        assert kernel.shape == (21, 21)
        assert kernel.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], rtol=0, atol=1e-15)
        if kind.endswith("_iso") or kind == "iso":
            np.testing.assert_allclose(kernel, kernel.T, rtol=0, atol=1e-15)


def test_a_gaussian_is_opencvs() -> None:
    chosen = KernelRound(7, ("iso",), (1,), 0, (1.3, 1.3), (1, 1), (1, 1))
    line = cv2.getGaussianKernel(7, 1.3)
    kernel = draw_kernel(chosen, np.random.default_rng(0))
    np.testing.assert_allclose(kernel, line @ line.T, rtol=0, atol=1e-15)


def test_a_sinc_kernel_passes_low_frequencies_alone() -> None:
    kernel = sinc_kernel(np.pi / 2, 21)
    gain = np.abs(np.fft.fft2(kernel, (64, 64)))
    assert gain[0, 0] == pytest.approx(1)
    assert gain[0, 4] > 0.9  # a quarter of the cutoff
    assert gain[0, 30] < 0.1  # near the highest frequency


@pytest.mark.parametrize(
    ("size", "kinds", "weights", "message"),
    [
        (20, ("iso",), (1.0,), "odd number"),
        (5, ("iso",), (1.0,), "from 7"),
        (21, ("iso", "aniso"), (1.0,), "1 numbers for 2 kinds"),
        (21, ("iso",), (0.0,), "not all 0"),
    ],
)
def test_kernels_that_cannot_be_drawn(size, kinds, weights, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=message):
        KernelRound(size, kinds, weights, 0, (1, 1), (1, 1), (1, 1))
