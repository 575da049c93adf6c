"""Growing pictures before a network and cropping after it, as we do it and as authors do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _fake_models import Fake, out_of_memory_above
from golden_data import image, small_cases, tiny, untold
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from restore import cli
from restore.archs import ARCHS, swinir, uformer
from restore.archs._spec import ArchSpec, InputRule, PublishedPadding
from restore.commands.batch import Batch, Settings
from restore.commands.dry_run import estimate
from restore.commands.files import Naming, Source, plan_jobs
from restore.errors import OutOfMemoryError, UsageError
from restore.image_io import Picture, read_picture, write_picture
from restore.loading import load
from restore.model import Model
from restore.padding import PADDINGS, Grown, grow, grow_as_published, published_size
from restore.upscaling import upscale, upscale_picture

every_arch = pytest.mark.parametrize("spec", ARCHS, ids=lambda spec: spec.name)
sides = st.integers(1, 40)


def row(*values: float) -> Tensor:
    """One row of pixels, [1, 1, 1, W]."""
    return torch.tensor(values)[None, None, None]


def rule(multiple: int, minimum: int = 1) -> InputRule:
    return InputRule(multiple=multiple, minimum=minimum, align=multiple, halo=0)


@pytest.mark.parametrize(
    ("given", "unit", "expected"),
    [
        ([1, 2, 3], 4, [1, 2, 3, 2]),
        ([1, 2, 3, 4], 4, [1, 2, 3, 4]),
        ([1, 2, 3, 4, 5], 4, [1, 2, 3, 4, 5, 4, 3, 2]),
        ([1, 2], 4, [1, 2, 2, 2]),
        ([1], 4, [1, 1, 1, 1]),
    ],
    ids=str,
)
def test_reflection_by_hand(given: list[float], unit: int, expected: list[float]) -> None:
    grown = grow(row(*given), rule(unit))
    assert grown.x.tolist() == [[[expected] * unit]]  # the only row is repeated
    assert (grown.top, grown.left, grown.height, grown.width) == (0, 0, 1, len(given))


def test_a_minimum_is_reached() -> None:
    assert grow(torch.rand(1, 1, 5, 9), rule(2, minimum=8)).x.shape == (1, 1, 8, 10)


@pytest.mark.parametrize(
    ("how", "given", "expected"),
    [
        (PublishedPadding("symmetric", 4), [1, 2, 3], [1, 2, 3, 3]),
        (PublishedPadding("symmetric", 4), [1, 2, 3, 4], [1, 2, 3, 4]),
        (PublishedPadding("symmetric", 4, always=True), [1, 2, 3], [1, 2, 3, 3]),
        (PublishedPadding("symmetric", 4, always=True), [1, 2, 3, 4], [1, 2, 3, 4, 4, 3, 2, 1]),
        (PublishedPadding("symmetric", 8), [1, 2], [1, 2, 2, 1, 1, 2, 2, 1]),
        (PublishedPadding("symmetric", 3), [1], [1, 1, 1]),
        (PublishedPadding("reflect", 4), [1, 2, 3], [1, 2, 3, 2]),
        (PublishedPadding("reflect", 4, always=True), [1, 2, 3, 4], [1, 2, 3, 4, 3, 2, 1, 2]),
        (PublishedPadding("reflect", 8), [1, 2, 3], [1, 2, 3, 2, 1, 2, 3, 2]),
        (PublishedPadding("zeros", 4), [1, 2, 3], [1, 2, 3, 0]),
        (PublishedPadding("zeros", 3, always=True), [1, 2, 3], [1, 2, 3, 0, 0, 0]),
    ],
    ids=str,
)
def test_published_rows_by_hand(
    how: PublishedPadding, given: list[float], expected: list[float]
) -> None:
    grown = grow_as_published(row(*given), how)
    assert grown.x[0, 0, 0].tolist() == expected
    assert (grown.top, grown.left, grown.height, grown.width) == (0, 0, 1, len(given))
    assert grown.x.shape[2] % how.multiple == 0


def test_a_centred_square_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]])
    grown = grow_as_published(x, PublishedPadding("zeros", 4, square=True))
    # of an odd rest, the larger half lies at the bottom or right, as the script's // has it
    assert grown.x[0, 0].tolist() == [[0, 1, 2, 0], [0, 3, 4, 0], [0, 5, 6, 0], [0, 0, 0, 0]]
    assert (grown.top, grown.left, grown.height, grown.width) == (0, 1, 3, 2)
    assert torch.equal(grown.crop(grown.x, 1), x)


def test_only_zeros_make_a_square() -> None:
    with pytest.raises(ValueError, match="square goes with zeros alone; found 'symmetric'"):
        PublishedPadding("symmetric", 4, square=True)


@given(h=sides, w=sides, unit=st.integers(1, 17), always=st.booleans())
def test_numpy_grows_alike(h: int, w: int, unit: int, always: bool) -> None:
    x = np.random.default_rng(h * w).random((h, w))
    for mode, theirs in (("symmetric", "symmetric"), ("reflect", "reflect"), ("zeros", "constant")):
        how = PublishedPadding(mode, unit, always)
        rows, cols = published_size(h, w, how)
        for side, grown in ((h, rows), (w, cols)):
            assert grown % unit == 0
            assert (0 < grown - side <= unit) if always else (0 <= grown - side < unit)
        expected = np.pad(x, ((0, rows - h), (0, cols - w)), mode=theirs)
        got = grow_as_published(torch.from_numpy(x)[None, None], how).x
        assert np.array_equal(got[0, 0].numpy(), expected)


hows = st.builds(
    PublishedPadding, st.sampled_from(["reflect", "symmetric", "zeros"]), st.integers(1, 20)
) | st.builds(
    PublishedPadding, st.just("zeros"), st.integers(1, 20), st.booleans(), square=st.booleans()
)


def enlarged(x: Tensor, scale: int) -> Tensor:
    return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def assert_comes_back(grown: Grown, x: Tensor, scale: int) -> None:
    assert torch.equal(grown.crop(grown.x, 1), x)
    assert torch.equal(grown.crop(enlarged(grown.x, scale), scale), enlarged(x, scale))


@given(h=sides, w=sides, how=hows, scale=st.integers(1, 4), least=st.integers(1, 50))
def test_what_is_grown_is_cropped(
    h: int, w: int, how: PublishedPadding, scale: int, least: int
) -> None:
    x = torch.rand(2, 3, h, w)
    grown = grow_as_published(x, how)
    assert grown.x.shape[2:] == published_size(h, w, how)
    if how.square:
        assert grown.x.shape[2] == grown.x.shape[3]
    assert_comes_back(grown, x, scale)
    assert_comes_back(grow(x, rule(how.multiple, least)), x, scale)


def test_gradients_reach_every_pixel_through_what_is_repeated() -> None:
    x = torch.rand(1, 1, 3, 2, dtype=torch.float64, requires_grad=True)
    how = PublishedPadding("symmetric", 4)
    assert torch.autograd.gradcheck(lambda t: grow_as_published(t, how).x.square(), (x,))


class Enlarge(nn.Module):
    """A network that only enlarges, and remembers what sizes it got."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.scale = scale
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(tuple(x.shape[2:]))
        return enlarged(x, self.scale)


@every_arch
@given(h=st.integers(1, 300), w=st.integers(1, 300), padding=st.sampled_from(PADDINGS))
def test_networks_get_sizes_that_they_take(spec: ArchSpec, h: int, w: int, padding: Any) -> None:
    config = spec.config()
    net = Enlarge(spec.scale(config))
    model = Model(spec, config, net, name="enlarge")
    x = torch.rand(1, model.in_channels, h, w)
    assert torch.equal(model(x, padding=padding), enlarged(x, net.scale))
    (got,) = net.sizes
    rule = spec.input_rule(config)
    assert all(side % rule.multiple == 0 and side >= rule.minimum for side in got)


@every_arch
def test_without_published_padding_it_is_reflection(spec: ArchSpec) -> None:
    if spec.published_padding(spec.config()) is not None:
        pytest.skip(f"{spec.name} has one")
    case = small_cases(spec.name)[0]
    model = load(case.state, device="cpu", config=untold(case))
    x = image(0, (1, model.in_channels, 13, 19))
    with torch.inference_mode():
        assert torch.equal(model(x, padding="published"), model(x))


def small(name: str) -> Model:
    case = tiny(name)
    return load(case.state, device="cpu", config={**untold(case), "img_size": 64})


@pytest.mark.parametrize("size", [(12, 16), (13, 9), (3, 5)], ids=str)
def test_swinir_grows_by_up_to_a_whole_window(size: tuple[int, int]) -> None:
    """By joining the flipped image and cutting, as its script does it."""
    model = small("swinir_1")
    window = model.config["window_size"]
    x = image(1, (1, model.in_channels, *size))
    h, w = ((side // window + 1) * window for side in size)
    by_hand = torch.cat([x, x.flip(2)], 2)[:, :, :h]
    by_hand = torch.cat([by_hand, by_hand.flip(3)], 3)[:, :, :, :w]
    assert by_hand.shape[2:] == (h, w)
    s = model.scale
    with torch.inference_mode():
        expected = model.module(by_hand)[:, :, : size[0] * s, : size[1] * s]
        assert torch.equal(model(x, padding="published"), expected)
        assert not torch.equal(model(x), expected)


@pytest.mark.parametrize("size", [(64, 64), (30, 64), (41, 70)], ids=str)
def test_uformer_gets_a_centred_square(size: tuple[int, int]) -> None:
    model = small("uformer_2")
    unit = model.config["win_size"] * 16
    side = -(-max(size) // unit) * unit
    x = image(1, (1, 3, *size))
    square = torch.zeros(1, 3, side, side)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    part = (..., slice(top, top + size[0]), slice(left, left + size[1]))
    square[part] = x
    with torch.inference_mode():
        y = model(x, padding="published")
        assert torch.equal(y, model.module(square)[part])
        assert torch.equal(y, model(x)) == (size == (unit, unit))


def test_what_the_authors_scripts_do() -> None:
    """The multiples are windows of networks as published."""
    assert swinir.SPEC.published_padding(swinir.SwinIRConfig()) == PublishedPadding(
        "symmetric", 8, always=True
    )
    assert uformer.SPEC.published_padding(uformer.UformerConfig()) == PublishedPadding(
        "zeros", 128, square=True
    )


@pytest.mark.parametrize("padding", ["zeros", "", None, "Reflect"])
def test_another_padding_is_refused(padding: Any) -> None:
    model = small("swinir_1")
    with pytest.raises(UsageError, match="expected 'reflect' or 'published'"):
        model(torch.zeros(1, 3, 8, 8), padding=padding)
    with pytest.raises(UsageError, match="expected 'reflect' or 'published'"):
        upscale(np.zeros((8, 8, 3), np.uint8), model, padding=padding)


def test_a_picture_is_grown_as_a_tensor_is() -> None:
    model = small("swinir_1")
    x = image(0, (1, model.in_channels, 16, 21))
    with torch.inference_mode():
        expected = {padding: model(x, padding=padding).clip(0, 1) for padding in PADDINGS}
    pixels = x[0].permute(1, 2, 0).numpy()
    for padding, y in expected.items():
        got = upscale(pixels, model, padding=padding)
        assert np.array_equal(got, y[0].permute(1, 2, 0).numpy())
    assert not torch.equal(*expected.values())


class Told(Fake):
    """Remembers how it was to grow its inputs."""

    def __call__(self, x: Tensor, **given: Any) -> Tensor:
        self.config["padding"] = given["padding"]
        return super().__call__(x, **given)


@pytest.mark.parametrize("tile", ["auto", 0])
@pytest.mark.parametrize("tta", [False, True])
def test_published_padding_takes_pictures_whole(tile: Any, tta: bool) -> None:
    model = Told()
    pixels = np.zeros((5, 3000, 3), np.uint8)  # too long to be taken whole by itself
    upscale(pixels, model, tile=tile, tta=tta, padding="published")
    assert set(model.sizes) <= {(1, 3, 5, 3000), (1, 3, 3000, 5)}
    assert model.config["padding"] == "published"
    model = Told()
    upscale(pixels, model)
    assert len(set(model.sizes)) > 1 or model.sizes[0][3] < 3000
    assert model.config["padding"] == "reflect"


def test_published_padding_and_tiles_contradict_each_other() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(UsageError, match='"published" grows whole pictures, and tile is 32'):
        upscale(pixels, Fake(), tile=32, padding="published")


def test_no_room_for_the_whole_picture_is_told() -> None:
    model = Fake(before=out_of_memory_above(60 * 60), name="big.pth")
    pixels = np.zeros((64, 64, 3), np.uint8)
    assert upscale(pixels, model).shape == (64, 64, 3)  # in tiles
    with pytest.raises(OutOfMemoryError, match=r"big\.pth: cpu has no room for the whole picture"):
        upscale(pixels, model, padding="published")


def test_transparency_goes_with_it() -> None:
    model = small("swinir_1")
    rng = np.random.default_rng(0)
    pixels, alpha = rng.random((8, 9, 3), np.float32), rng.random((8, 9), np.float32)
    opaque = Picture(pixels, np.ones_like(alpha))
    got = upscale_picture(opaque, model, padding="published")
    assert np.array_equal(got.pixels, upscale(pixels, model, padding="published"))
    one, other = (upscale_picture(Picture(pixels, alpha), model, padding=p) for p in PADDINGS)
    assert not np.array_equal(one.pixels, other.pixels)


@pytest.fixture
def restore_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run `restore upscale a.png` with a small SwinIR; gives exit code and all that was told."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    write_picture("a.png", Picture(random.integers(0, 256, (16, 24, 3), np.uint8)), fmt="png")
    small("swinir_1").save("net.safetensors")

    def run(*words: str) -> tuple[int, str]:
        code = cli.main(["upscale", "a.png", "--model_path", "net.safetensors", *words])
        return code, "".join(capsys.readouterr())

    return run


def test_the_flag_does_what_the_argument_does(
    restore_one: Callable[..., tuple[int, str]],
) -> None:
    results = {}
    for padding in PADDINGS:
        assert restore_one("--padding", padding, "-o", f"{padding}.png")[0] == 0
        results[padding] = read_picture(f"{padding}.png").pixels
        expected = upscale(read_picture("a.png"), small("swinir_1"), padding=padding)
        assert np.array_equal(results[padding], expected.pixels)
    assert restore_one("-o", "default.png")[0] == 0
    assert np.array_equal(read_picture("default.png").pixels, results["reflect"])
    assert not np.array_equal(results["reflect"], results["published"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tile", "64"], "--padding published grows whole pictures, and --tile 64 is for tiles"),
        (["--verify-tiles"], "and --verify-tiles is for tiles; give one of them"),
    ],
    ids=str,
)
def test_the_flag_and_tiles_contradict_each_other(
    restore_one: Callable[..., tuple[int, str]], words: list[str], told: str
) -> None:
    code, text = restore_one("--padding", "published", *words)
    assert code == 2
    assert told in text
    assert not Path("results").exists()


def test_another_word_is_told(restore_one: Callable[..., tuple[int, str]]) -> None:
    code, text = restore_one("--padding", "zeros")
    assert code == 2
    assert "--padding: is 'zeros'; expected one of reflect, published" in text


def test_a_dry_run_counts_what_is_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_picture("a.png", Picture(np.zeros((16, 24, 3), np.uint8)), fmt="png")
    (job,), _ = plan_jobs([Source(Path("a.png"))], Naming())
    assert job.info is not None
    model = small("swinir_1")
    reflect, published = (
        estimate(Batch([job], model, Settings(padding=padding)), job, job.info, speed=1.0)
        for padding in PADDINGS
    )
    assert reflect.seconds == 16 * 24
    assert published.seconds == 20 * 28
    assert published.memory > reflect.memory
    assert published.size == reflect.size == (48, 32)
