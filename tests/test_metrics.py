"""PSNR, SSIM and PSNR-B against plain loops, closed forms, BasicSR and published values."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from restore.errors import UsageError
from restore.metrics import mod_crop, psnr, psnr_b, rgb_to_y, similarity, ssim
from restore.resizing import imresize
from restore.torchvision_remedies import declare_torchvision_operators, supply_functional_tensor

METRICS = (psnr, ssim, psnr_b)


@pytest.fixture(params=["native", "definition"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSIM by the native kernel, where it is built, and without."""
    if request.param == "definition":
        monkeypatch.setattr(similarity, "_native_sums", lambda _: None)


@pytest.fixture(scope="module")
def basicsr():
    """BasicSR's module of PSNR and SSIM, or skip."""
    if importlib.util.find_spec("basicsr") is None:
        pytest.skip("needs BasicSR: pip install --no-build-isolation --no-deps basicsr==1.4.2")
    declare_torchvision_operators()
    supply_functional_tensor()
    return importlib.import_module("basicsr.metrics.psnr_ssim")


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
def test_equal_plain_loops(border, y_channel, path):
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


def test_gray_can_be_y_itself():
    a, b = pair(channels=1)
    for metric in METRICS[:2]:
        value = metric(a, b, y_channel=True, gray="y")
        assert value == metric(a, b)
        colours = [x.repeat(3, axis=2) for x in (a, b)]
        assert metric(*colours, y_channel=True, gray="y") == metric(*colours, y_channel=True)
    difference = psnr(a, b, y_channel=True) - psnr(a, b, y_channel=True, gray="y")
    assert difference == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)


def test_equal_images():
    a, _ = pair()
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == 1
    assert psnr_b(np.zeros((16, 16)), np.zeros((16, 16))) == math.inf


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
        (np.zeros((4, 4)), np.zeros((4, 4)), {"crop_border": "1"}, "crop_border='1'; expected a"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"crop_border": 1.0}, "crop_border=1.0; expected a"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"crop_border": None}, "crop_border=None; expected"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"crop_border": True}, "crop_border=True; expected"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"y_channel": "no"}, "y_channel='no'; expected True"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"data_range": "1"}, "data_range='1'; expected the"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"data_range": math.nan}, "data_range=nan; expected"),
        (None, np.zeros((4, 4)), {}, "got a NoneType and a ndarray"),
    ],
)
def test_refusals(a, b, options, message):
    for metric in (psnr, ssim):
        with pytest.raises(UsageError, match=f"{metric.__name__}: .*{message}"):
            metric(a, b, **options)


@pytest.mark.parametrize("scale", ["2", None, 2.0, True, 0, 5])
def test_mod_crop_refuses(scale):
    with pytest.raises(UsageError, match=r"mod_crop: scale=.*; expected a whole number from 1 to"):
        mod_crop(np.zeros((4, 4)), scale)


def test_what_is_no_image_is_told():
    for image in ([[1]], None, 5, np.zeros(4)):
        with pytest.raises(UsageError, match=r"mod_crop: got .*; expected a NumPy array"):
            mod_crop(image, 2)
    for image in ([[1]], torch.zeros(3, 4, 4), np.zeros((4, 4)), np.zeros((4, 4, 2))):
        with pytest.raises(UsageError, match=r"rgb_to_y: got .*; expected a NumPy array"):
            rgb_to_y(image)


def test_black_against_white_is_zero_without_a_sign():
    black = np.zeros((16, 16, 3), np.uint8)
    tensors = [torch.from_numpy(x).movedim(2, 0)[None] for x in (black, black + 255)]
    assert str(psnr(black, black + 255)) == str(psnr(*tensors).item()) == "0.0"


def test_ssim_needs_room_for_its_window():
    a, b = pair(13, 20)
    assert 0 < ssim(a, b, crop_border=1) < 1
    with pytest.raises(UsageError, match=r"9 x 16 pixels after crop_border=2; .* 11 x 11"):
        ssim(a, b, crop_border=2)


def slow_psnr_b(a: np.ndarray, b: np.ndarray, border: int, y_channel: bool) -> float:
    values = []
    for x, y in zip(
        slow_planes(a, border, y_channel), slow_planes(b, border, y_channel), strict=True
    ):
        rows, columns = len(x), len(x[0])
        steps = [
            ((x[i][j] - x[i][j + 1]) ** 2, j % 8 == 7)
            for i in range(rows)
            for j in range(columns - 1)
        ] + [
            ((x[i][j] - x[i + 1][j]) ** 2, i % 8 == 7)
            for i in range(rows - 1)
            for j in range(columns)
        ]
        edges = rows * (columns // 8 - 1) + columns * (rows // 8 - 1)
        at_edges = math.fsum(step for step, is_edge in steps if is_edge) / edges
        others = math.fsum(step for step, is_edge in steps if not is_edge)
        excess = at_edges - others / (len(steps_of(rows, columns)) - edges)
        mse = math.fsum(
            (p - q) ** 2 for u, v in zip(x, y, strict=True) for p, q in zip(u, v, strict=True)
        ) / (rows * columns)
        bef = max(0.0, excess) * 3 / math.log2(min(rows, columns))
        values.append(10 * math.log10(255**2 / (mse + bef)))
    return math.fsum(values) / len(values)


def steps_of(rows: int, columns: int) -> range:
    return range(rows * (columns - 1) + columns * (rows - 1))


@pytest.mark.parametrize("y_channel", [False, True], ids=["rgb", "y"])
@pytest.mark.parametrize(("rows", "columns", "border"), [(16, 24, 0), (21, 27, 0), (37, 35, 8)])
def test_psnr_b_equals_plain_loops(rows, columns, border, y_channel):
    smooth, _ = pair(rows, columns)
    blocky = smooth // 8 + np.kron(
        np.random.default_rng(1).integers(0, 200, (5, 5, 1)), np.ones((8, 8, 1), int)
    )[:rows, :columns].astype(np.uint8)
    for a, b in ((blocky, smooth), (smooth, blocky)):
        value = psnr_b(a, b, crop_border=border, y_channel=y_channel)
        assert value == pytest.approx(slow_psnr_b(a, b, border, y_channel), abs=1e-10)
    options = {"crop_border": border, "y_channel": y_channel}
    # only what the restored picture's own blocks show is taken off
    assert psnr_b(blocky, smooth, **options) < psnr(blocky, smooth, **options) - 0.1


def test_psnr_b_wants_whole_blocks():
    a, b = pair(40, 40)
    with pytest.raises(UsageError, match="crop_border=4 cuts blocks; expected a multiple of 8"):
        psnr_b(a, b, crop_border=4)
    for rows, columns in ((15, 15), (7, 40)):
        with pytest.raises(UsageError, match=f"{rows} x {columns} pixels after crop_border=0"):
            psnr_b(a[:rows, :columns], b[:rows, :columns])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64], ids=str)
def test_a_batch_of_tensors_scores_as_its_images_do(channels, dtype, device, path):
    pairs = [pair(24, 29, channels, seed) for seed in range(3)]
    scale = 1 if dtype == torch.uint8 else 255
    batches = [
        torch.stack([torch.from_numpy(images[i]).movedim(2, 0) for images in pairs]).to(device)
        for i in (0, 1)
    ]
    batches = [batch.to(dtype) / scale if scale > 1 else batch for batch in batches]
    # float32 has 24 bits for 0..1; the rest are sums in another order
    limit = 1e-5 if dtype == torch.float32 else 1e-10
    for metric in METRICS:
        for options in ({}, {"crop_border": 0, "y_channel": True}, {"gray": "y"}):
            values = metric(*batches, **options)
            assert (values.shape, values.dtype) == ((3,), torch.float64)
            assert values.device.type == device.type
            expected = [metric(a, b, **options) for a, b in pairs]
            assert values.tolist() == pytest.approx(expected, abs=limit)
    assert (psnr(batches[0], batches[0]) == math.inf).all()
    assert (ssim(batches[0], batches[0]) == 1).all()


def test_large_tensors_go_in_one_strip_away_from_the_cpu(monkeypatch):
    """What a GPU runs: all rows at once, and no native kernel."""
    a, b = pair(70, 50)
    tensors = [torch.from_numpy(x).movedim(2, 0)[None] for x in (a, b)]
    expected = [metric(a, b, y_channel=True) for metric in METRICS]
    monkeypatch.setattr("restore.metrics.pairs.Pair.on_cpu", False)
    values = [metric(*tensors, y_channel=True).item() for metric in METRICS]
    assert values == pytest.approx(expected, abs=1e-10)


def test_tensors_need_no_copy_or_gradient():
    a, b = (torch.from_numpy(x).movedim(2, 0)[None] / 255 for x in pair(20, 20))
    before = a.clone(), b.clone()
    for metric in METRICS:
        value = metric(a.requires_grad_(), b)
        assert not value.requires_grad
        assert value.item() == metric(a.detach().contiguous(), b).item()
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (torch.zeros(3, 4, 4), torch.zeros(3, 4, 4), {}, r"\(3, 4, 4\); expected \[B, 1, H, W\]"),
        (torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 3), {}, r"expected \[B, 1, H, W\] or"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(2, 1, 4, 4), {}, "differ in kind"),
        (torch.zeros(1, 1, 4, 4), np.zeros((4, 4)), {}, "got a Tensor and a ndarray"),
        (torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 2.0), {}, "second image has values"),
        (torch.zeros(0, 3, 4, 4), torch.zeros(0, 3, 4, 4), {}, "a batch of none; expected B from"),
        (*(torch.zeros(1, 1, 4, 4, device="meta"),) * 2, {}, "on meta, without values"),
        (*(torch.zeros(1, 1, 4, 4).to_sparse(),) * 2, {}, "torch.sparse_coo; expected dense"),
        (torch.zeros(1, 1, 4, 4).int(), torch.zeros(1, 1, 4, 4).int(), {}, "int32 images"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"data_range": 0}, "data_range=0; expected"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"gray": "bgr"}, "gray is 'bgr'; expected rgb or y"),
        (np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8) * 9, {"data_range": 5}, "to 9"),
    ],
)
def test_refusals_of_tensors_and_settings(a, b, options, message):
    for metric in METRICS:
        with pytest.raises(UsageError, match=f"{metric.__name__}: .*{message}"):
            metric(a, b, **options)


def enlarged_photo(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, smaller and larger again, and itself."""
    image = mod_crop(np.asarray(Image.open(root / "samples" / "photo.png").convert("RGB")), 4)
    return imresize(imresize(image, 1 / 4), 4), image


# what BasicSR 1.4.2 gives for `enlarged_photo`: crop_border, y_channel, PSNR, SSIM
RECORDED = [
    (0, False, 27.769593526715855, 0.7287275752881466),
    (0, True, 29.127298616472345, 0.7522739699149351),
    (4, True, 28.89903333495957, 0.7443921729847466),
]


@pytest.mark.parametrize(("border", "y_channel", "decibel", "similar"), RECORDED)
def test_recorded_values_of_basicsr(root, border, y_channel, decibel, similar, path):
    result, truth = enlarged_photo(root)
    options = {"crop_border": border, "y_channel": y_channel}
    assert psnr(result, truth, **options) == pytest.approx(decibel, abs=1e-6)
    assert ssim(result, truth, **options) == pytest.approx(similar, abs=1e-6)


@pytest.mark.parametrize("y_channel", [False, True], ids=["rgb", "y"])
@pytest.mark.parametrize("border", [0, 4])
def test_equal_basicsr(basicsr, root, border, y_channel):
    pairs = [pair(40 + seed, 61 - seed, seed=seed) for seed in range(4)]
    for a, b in (enlarged_photo(root), *pairs):
        bgr = [np.ascontiguousarray(x[:, :, ::-1]) for x in (a, b)]
        options = {"crop_border": border, "test_y_channel": y_channel}
        expected = basicsr.calculate_psnr(*bgr, **options)
        assert psnr(a, b, crop_border=border, y_channel=y_channel) == pytest.approx(
            expected, abs=1e-6
        )
        expected = basicsr.calculate_ssim(*bgr, **options)
        assert ssim(a, b, crop_border=border, y_channel=y_channel) == pytest.approx(
            expected, abs=1e-6
        )


def test_equal_basicsr_on_urban100(basicsr, shared):
    files = sorted((shared / "data" / "Urban100" / "HR").glob("*.png"))[:6]
    for file in files:
        truth = mod_crop(np.asarray(Image.open(file).convert("RGB")), 4)
        result = imresize(imresize(truth, 1 / 4), 4)
        bgr = [np.ascontiguousarray(x[:, :, ::-1]) for x in (result, truth)]
        options = {"crop_border": 4, "test_y_channel": True}
        for own, theirs in ((psnr, basicsr.calculate_psnr), (ssim, basicsr.calculate_ssim)):
            value = own(result, truth, crop_border=4, y_channel=True)
            assert value == pytest.approx(theirs(*bgr, **options), abs=1e-6)


def test_numpy_images_are_compared_without_pytorch(monkeypatch):
    """`restore.psnr` need not load it; SSIM does, for the native kernel."""
    a, b = pair()
    expected = psnr(a, b)
    monkeypatch.delitem(sys.modules, "torch")
    assert psnr(a, b) == expected
