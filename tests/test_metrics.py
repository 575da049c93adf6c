"""PSNR and SSIM against plain loops, closed forms and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from restore.errors import UsageError
from restore.metrics import mod_crop, psnr, rgb_to_y, ssim
from restore.resizing import imresize


def pair(rows: int = 15, columns: int = 13, channels: int = 3, seed: int = 0):
    """Two uint8 images of which the second is the first with noise."""
    random = np.random.default_rng(seed)
    a = random.integers(0, 256, (rows, columns, channels))
    b = np.clip(a + random.integers(-40, 41, a.shape), 0, 255)
    return a.astype(np.uint8), b.astype(np.uint8)


def slow_planes(image: np.ndarray, border: int, y_channel: bool) -> list[list[list[float]]]:
    """Channels as lists of rows; Y by the BT.601 formula of one pixel."""
    rows = image.tolist()
    rows = [row[border : len(row) - border] for row in rows[border : len(rows) - border]]
    if y_channel:
        return [
            [
                [16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255 for r, g, b in row]
                for row in rows
            ]
        ]
    return [[[float(pixel[c]) for pixel in row] for row in rows] for c in range(3)]


def slow_psnr(a: np.ndarray, b: np.ndarray, border: int, y_channel: bool) -> float:
    squares = [
        (p - q) ** 2
        for plane_a, plane_b in zip(
            slow_planes(a, border, y_channel), slow_planes(b, border, y_channel), strict=True
        )
        for row_a, row_b in zip(plane_a, plane_b, strict=True)
        for p, q in zip(row_a, row_b, strict=True)
    ]
    return 20 * math.log10(255) - 10 * math.log10(math.fsum(squares) / len(squares))


def slow_ssim(a: np.ndarray, b: np.ndarray, border: int, y_channel: bool) -> float:
    kernel = [
        [math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for j in range(11)] for i in range(11)
    ]
    mass = math.fsum(map(math.fsum, kernel))
    values = []
    for x, y in zip(
        slow_planes(a, border, y_channel), slow_planes(b, border, y_channel), strict=True
    ):
        for top in range(len(x) - 10):
            for left in range(len(x[0]) - 10):
                cells = [
                    (kernel[i][j] / mass, x[top + i][left + j], y[top + i][left + j])
                    for i in range(11)
                    for j in range(11)
                ]
                mean_x = math.fsum(w * p for w, p, _ in cells)
                mean_y = math.fsum(w * q for w, _, q in cells)
                var_x = math.fsum(w * (p - mean_x) ** 2 for w, p, _ in cells)
                var_y = math.fsum(w * (q - mean_y) ** 2 for w, _, q in cells)
                both = math.fsum(w * (p - mean_x) * (q - mean_y) for w, p, q in cells)
                c1, c2 = 2.55**2, 7.65**2
                luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
                values.append(luminance * (2 * both + c2) / (var_x + var_y + c2))
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("y_channel", [False, True], ids=["rgb", "y"])
@pytest.mark.parametrize("border", [0, 1])
def test_equal_plain_loops(border, y_channel):
    a, b = pair()
    options = {"crop_border": border, "y_channel": y_channel}
    # variances are differences of squares up to 255 ** 2: 1e5 * 2 ** -53 on at least C2 = 58
    assert ssim(a, b, **options) == pytest.approx(slow_ssim(a, b, border, y_channel), abs=1e-11)
    assert psnr(a, b, **options) == pytest.approx(slow_psnr(a, b, border, y_channel), abs=1e-11)


@given(st.integers(1, 255), st.integers(1, 20), st.integers(1, 20))
def test_psnr_of_a_constant_difference(difference, rows, columns):
    black = np.zeros((rows, columns, 3), np.uint8)
    expected = 20 * math.log10(255 / difference)
    assert psnr(black, black + np.uint8(difference)) == pytest.approx(expected, abs=1e-12)
    # R, G and B together reach 219 of 255 steps of Y
    expected += 20 * math.log10(255 / 219)
    assert psnr(black, black + np.uint8(difference), y_channel=True) == pytest.approx(
        expected, abs=1e-9
    )


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_order_depth_and_layout_change_nothing(seed, y_channel):
    a, b = pair(seed=seed)
    for metric in (psnr, ssim):
        value = metric(a, b, y_channel=y_channel)
        assert metric(b, a, y_channel=y_channel) == value
        wide = [x.astype(np.uint16) * np.uint16(257) for x in (a, b)]
        assert metric(*wide, y_channel=y_channel) == pytest.approx(value, abs=1e-11)
        real = [x / 255 for x in (a, b)]
        assert metric(*real, y_channel=y_channel) == pytest.approx(value, abs=1e-11)
        real = [x.astype(np.float64) for x in (a, b)]
        assert metric(*real, y_channel=y_channel, data_range=255) == value
        turned = [np.asfortranarray(x) for x in (a, b)]
        assert metric(*turned, y_channel=y_channel) == pytest.approx(value, abs=1e-11)


def test_gray_counts_as_three_equal_channels():
    a, b = pair(channels=1)
    for options in ({}, {"y_channel": True}, {"crop_border": 1, "y_channel": True}):
        for metric in (psnr, ssim):
            expected = metric(a.repeat(3, axis=2), b.repeat(3, axis=2), **options)
            assert metric(a, b, **options) == pytest.approx(expected, abs=1e-12)
            assert metric(a[:, :, 0], b[:, :, 0], **options) == metric(a, b, **options)


def test_equal_images():
    a, _ = pair()
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == 1


def test_the_border_is_not_counted():
    a, b = pair()
    b[2:-2, 2:-2] = a[2:-2, 2:-2]
    assert psnr(a, b) < 40
    assert psnr(a, b, crop_border=2) == math.inf


def test_y_of_black_white_and_primaries():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]])
    expected = [16, 235, 16 + 65.481, 16 + 128.553, 16 + 24.966]
    np.testing.assert_allclose(rgb_to_y(colours)[0, :, 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Set5", {2: 33.67, 3: 30.40, 4: 28.43}), ("Set14", {3: 27.63, 4: 26.09})],
)
def test_published_values_of_bicubic(shared, name, expected):
    """Y-PSNR of bicubic down and up again, as the tables of the field give it."""
    for scale, published in expected.items():
        values = []
        for path in sorted((shared / "data" / name / "HR").glob("*.png")):
            image = mod_crop(np.asarray(Image.open(path).convert("RGB")), scale)
            again = imresize(imresize(image, 1 / scale), scale)
            values.append(psnr(again, image, crop_border=scale, y_channel=True))
        assert round(float(np.mean(values)), 2) == published


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 8))
def test_mod_crop(rows, columns, scale):
    image = np.zeros((rows, columns, 3), np.uint8)
    if min(rows, columns) < scale:
        with pytest.raises(UsageError, match=f"scale={scale} for an image of {rows} x {columns}"):
            mod_crop(image, scale)
        return
    cropped = mod_crop(image, scale)
    assert cropped.shape[0] % scale == cropped.shape[1] % scale == 0
    assert rows - cropped.shape[0] < scale and columns - cropped.shape[1] < scale


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), {}, r"\(4, 4\) float64 and \(4, 5\) float64"),
        (np.zeros((4, 4)), np.zeros((4, 4), np.uint8), {}, "float64 and .* uint8"),
        (np.zeros((4, 4), int), np.zeros((4, 4), int), {}, "int64 images; expected one of uint8"),
        (np.zeros((4, 4, 4)), np.zeros((4, 4, 4)), {}, r"\(4, 4, 4\); expected \[H, W\]"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"crop_border": 2}, "leaves nothing of 4 x 4"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"crop_border": -1}, "crop_border=-1"),
        (np.zeros((4, 4)), np.full((4, 4), 255.0), {}, "second image has values from 255 to 255"),
        (np.full((4, 4), -0.1), np.zeros((4, 4)), {}, "first image has values from -0.1"),
        (np.full((4, 4), math.nan), np.zeros((4, 4)), {}, "first image has values from nan"),
    ],
)
def test_refusals(a, b, options, message):
    for metric in (psnr, ssim):
        with pytest.raises(UsageError, match=f"{metric.__name__}: .*{message}"):
            metric(a, b, **options)


def test_ssim_needs_room_for_its_window():
    a, b = pair(13, 20)
    assert 0 < ssim(a, b, crop_border=1) < 1
    with pytest.raises(UsageError, match=r"9 x 16 pixels after crop_border=2; .* 11 x 11"):
        ssim(a, b, crop_border=2)
