"""`imresize` against MATLAB's results, a plain loop, and hashes of results that are right."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from restore.errors import UsageError
from restore.metrics import mod_crop
from restore.resizing import ResizeWeights, imresize, resample, resize_weights

SET5 = ["baby", "bird", "butterfly", "head", "woman"]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", SET5)
def test_equals_matlab_on_set5(shared, name, scale):
    folder = shared / "data" / "Set5"
    high = np.asarray(Image.open(folder / "HR" / f"{name}.png").convert("RGB"))
    matlab = np.asarray(Image.open(folder / "LR_bicubic" / f"X{scale}" / f"{name}x{scale}.png"))
    np.testing.assert_array_equal(imresize(mod_crop(high, scale), 1 / scale), matlab)


def formula_image(dtype: str) -> np.ndarray:
    """[37, 50, 3] with fine and coarse structure over the whole range, from integers alone."""
    y, x, c = np.meshgrid(np.arange(37), np.arange(50), np.arange(3), indexing="ij")
    return ((y * y * 7 + x * x * 11 + x * y * (c + 3) + (x // 9 + y // 7) % 2 * 2221) * 257).astype(
        dtype
    )


# results of the code that gives MATLAB's images on Set5
HASHES = {
    ("uint8", 1 / 2): "9308799a0b795081",
    ("uint8", 1 / 3): "097aa77a915fd174",
    ("uint8", 1 / 4): "419e0409f1ced0f0",
    ("uint8", 0.7): "2ab590c599c94145",
    ("uint8", 2.0): "246792f01a710db5",
    ("uint8", 3.0): "8c9b8057c326d04f",
    ("uint16", 1 / 4): "f6b706c1044d0623",
    ("uint16", 2.0): "68e55cede5ab3fd4",
}


@pytest.mark.parametrize(("dtype", "scale"), HASHES, ids=str)
def test_gives_the_stored_result(dtype, scale):
    image = formula_image(dtype)
    out = imresize(image, scale)
    assert out.dtype == dtype
    assert out.shape == (math.ceil(37 * scale), math.ceil(50 * scale), 3)
    little_endian = out.astype(out.dtype.newbyteorder("<"))
    assert hashlib.sha256(little_endian.tobytes()).hexdigest()[:16] == HASHES[dtype, scale]


def slow_axis(samples: list[float], n_out: int, scale: float, antialias: bool) -> list[float]:
    """One axis by the definition: kernel times mirrored sample over the sum of the kernel."""

    def cubic(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    mirrored = samples + samples[::-1]
    stretch = min(scale, 1.0) if antialias else 1.0
    reach = math.ceil(2 / stretch) + 1
    out = []
    for i in range(n_out):
        centre = (i + 0.5) / scale - 0.5
        near = range(math.floor(centre) - reach, math.floor(centre) + reach + 2)
        weights = [cubic(stretch * (centre - j)) for j in near]
        values = [mirrored[j % len(mirrored)] for j in near]
        out.append(
            math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)
        )
    return out


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 23),
    st.integers(1, 23),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_equals_the_definition(rows, columns, out_rows, out_columns, antialias, seed):
    image = np.random.default_rng(seed).random((rows, columns))
    half = np.array(
        [slow_axis(list(c), out_rows, out_rows / rows, antialias) for c in image.T]
    ).T  # [out_rows, columns]
    expected = [slow_axis(list(r), out_columns, out_columns / columns, antialias) for r in half]
    got = imresize(image, size=(out_rows, out_columns), antialias=antialias)
    # each pass adds at most 40 products of about 1, and centres of up to 9 are rounded
    np.testing.assert_allclose(got, expected, rtol=0, atol=200 * np.finfo(np.float64).eps)


@given(st.integers(1, 40), st.integers(1, 60), st.floats(0.05, 8), st.integers(0, 2**32 - 1))
def test_a_part_of_the_table_gives_that_part_of_the_result(n_in, n_out, scale, seed):
    image = np.random.default_rng(seed).integers(0, 256, (n_in, 3, 2), dtype=np.uint8)
    table = resize_weights(n_in, n_out, scale)
    whole = resample(image, table)
    for start in range(0, n_out, 7):
        part = ResizeWeights(table.indices[start : start + 7], table.weights[start : start + 7])
        np.testing.assert_array_equal(resample(image, part), whole[start : start + 7])


def test_rows_go_first_unless_columns_shrink_more():
    image = formula_image("uint8")
    columns_first = imresize(imresize(image, size=(37, 11)), size=(30, 11))
    np.testing.assert_array_equal(imresize(image, size=(30, 11)), columns_first)
    rows_first = imresize(imresize(image, size=(9, 50)), size=(9, 40))
    np.testing.assert_array_equal(imresize(image, size=(9, 40)), rows_first)
    assert (rows_first != imresize(imresize(image, size=(37, 40)), size=(9, 40))).any()


def test_channels_and_axes_are_kept():
    image = formula_image("uint8")
    out = imresize(image, 0.5)
    for channel in range(3):
        np.testing.assert_array_equal(imresize(image[:, :, channel], 0.5), out[:, :, channel])
    assert imresize(image[:, :, :1], 0.5).shape == (19, 25, 1)
    np.testing.assert_array_equal(imresize(image[::-1, ::2], 1.0), image[::-1, ::2])


def test_integers_are_clipped_and_floats_are_not():
    edge = np.zeros((8, 8))
    edge[:, 4:] = 1
    out = imresize(edge, 3.0)
    assert out.min() < -0.05 and out.max() > 1.05
    for dtype, white in (("uint8", 255), ("uint16", 65535)):
        clipped = imresize((edge * white).astype(dtype), 3.0)
        assert clipped.min() == 0 and clipped.max() == white
        np.testing.assert_array_equal(clipped == white, out > 1 - 0.5 / white)


def test_float32_is_computed_in_float64():
    image = formula_image("uint8").astype(np.float32) / 255
    out = imresize(image, 1 / 3)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, imresize(image.astype(np.float64), 1 / 3).astype(np.float32))


@pytest.mark.parametrize(
    ("image", "arguments", "message"),
    [
        (np.zeros((4, 4)), {}, "exactly one"),
        (np.zeros((4, 4)), {"scale": 2, "size": (8, 8)}, "exactly one"),
        (np.zeros((4, 4)), {"scale": 0}, "scale=0; expected a number from 1e-06"),
        (np.zeros((4, 4)), {"scale": "2"}, "scale='2'; expected a number"),
        (np.zeros((4, 4)), {"scale": True}, "scale=True; expected a number"),
        (np.zeros((4, 4)), {"scale": [2]}, r"scale=\[2\]; expected a number"),
        (np.zeros((4, 4)), {"scale": 1e-9}, "scale=1e-09; expected a number from 1e-06"),
        (np.zeros((4, 4)), {"size": 3}, r"size=3; expected \(rows, columns\)"),
        (np.zeros((4, 4)), {"size": (2, 3, 3)}, r"size=\(2, 3, 3\); expected"),
        (np.zeros((4, 4)), {"size": (1.5, 2)}, r"size=\(1.5, 2\); expected .* whole numbers"),
        (np.zeros((4, 4)), {"scale": 2, "antialias": "no"}, "antialias='no'; expected True or"),
        ([[1, 2]], {"scale": 2}, "image is a list"),
        (np.zeros((4, 4)), {"scale": math.nan}, "scale=nan"),
        (np.zeros((4, 4)), {"size": (0, 8)}, r"size=\(0, 8\)"),
        (np.zeros((4, 0)), {"scale": 2}, r"image is \(4, 0\)"),
        (np.zeros((1, 4, 4, 3)), {"scale": 2}, r"image is \(1, 4, 4, 3\)"),
        (np.zeros((4, 4), np.int32), {"scale": 2}, "image is int32; expected one of uint8"),
    ],
)
def test_refusals(image, arguments, message):
    with pytest.raises(UsageError, match=message):
        imresize(image, **arguments)


@pytest.mark.parametrize("arguments", [(0, 4, 2.0), (4, 0, 2.0), (4, 4, -1.0), (4, 4, math.inf)])
def test_weights_refuse_empty_axes(arguments):
    with pytest.raises(UsageError, match="resize_weights: from"):
        resize_weights(*arguments)
