"""The training script of the built-in models: options, data, resuming, the weight file."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from restore.errors import CheckpointError, UsageError
from restore.resizing import imresize

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = [ROOT / "options" / f"builtin_x{scale}.yml" for scale in (2, 4)]


# the scripts are no part of the package; each finds its neighbours in its own folder
sys.path.insert(0, str(ROOT / "scripts"))
import builtin_photos as photos_script  # noqa: E402
import train_builtin as script  # noqa: E402


@pytest.fixture
def options():
    """A network and a schedule small enough for a test."""
    shipped = script.read_options(SHIPPED[0])
    network = {**shipped.network_g, "embed_dim": 28, "depths": [2], "num_heads": [2]}
    return dataclasses.replace(
        shipped, network_g=network, batch=2, patch=16, steps=6, warmup=2, log_every=2, valid_every=4
    )


@pytest.fixture
def photos(tmp_path):
    """train/ and valid/ with two pictures each, and one in train/ that is too small."""
    random = np.random.default_rng(0)
    for part in ("train", "valid"):
        (tmp_path / part).mkdir()
        for name, size in (("b.png", (51, 70)), ("a.png", (64, 48))):
            coarse = random.integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
            Image.fromarray(imresize(coarse, size=size)).save(tmp_path / part / name)
    Image.new("RGB", (40, 31)).save(tmp_path / "train" / "small.png")
    return tmp_path


def run_main(monkeypatch, options, photos, *more):
    """Call the script as from the command line; gives the weight file."""
    path = photos / "options.yml"
    path.write_text(yaml.safe_dump(dataclasses.asdict(options)))
    out = photos / f"x{options.scale}.safetensors"
    arguments = [
        path,
        "--data",
        photos,
        "--work",
        photos / f"x{options.scale}",
        "--out",
        out,
        *more,
    ]
    monkeypatch.setattr(sys, "argv", ["train_builtin.py", *map(str, arguments)])
    script.main()
    return out


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_options_build(path):
    options = script.read_options(path)
    net = script.build(options)
    assert net(torch.rand(1, 3, 9, 11)).shape == (1, 3, 9 * options.scale, 11 * options.scale)
    assert path.stem == f"builtin_x{options.scale}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stepz", 3, r"unknown keys \['stepz'\], missing keys \[\]"),
        ("steps", None, "steps is None; expected int"),
        ("lr", "1e-3", "lr is '1e-3'; expected float"),
        ("network_g", 3, "network_g is 3"),
    ],
)
def test_options_are_checked(tmp_path, key, value, message):
    content = {**yaml.safe_load(SHIPPED[0].read_text()), key: value}
    (tmp_path / "o.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=message):
        script.read_options(tmp_path / "o.yml")


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("type", "EDSR", UsageError, "type is 'EDSR'"),
        ("upscale", 3, UsageError, "upscale is 3, scale is 2"),
        ("windw_size", 8, CheckpointError, "did you mean 'window_size'"),
    ],
)
def test_the_network_is_checked(options, key, value, error, message):
    wrong = dataclasses.replace(options, network_g={**options.network_g, key: value})
    with pytest.raises(error, match=message):
        script.build(wrong)


def test_batches_are_aligned_crops_in_all_eight_symmetries(photos, options):
    pairs = script.read_pairs(photos / "train", 2, at_least=options.patch)
    assert [high.shape for _, high in pairs] == [(64, 48, 3), (50, 70, 3)]
    # mark every pixel with its own place, which each low pixel shares with its 2 x 2 high ones
    y, x = np.meshgrid(np.arange(32), np.arange(24), indexing="ij")
    low = np.stack([y, x, y * 7 + x * 3], axis=2).astype(np.uint8)
    high = low.repeat(2, axis=0).repeat(2, axis=1)
    seen = set()
    random = np.random.default_rng(1)
    for _ in range(40):
        lows, highs = photos_script.random_batch([(low, high)], 2, 16, 2, 1, random)
        assert lows.shape == (2, 3, 16, 16) and highs.shape == (2, 3, 32, 32)
        assert torch.equal(lows, highs[:, :, ::2, ::2]) and torch.equal(
            lows, highs[:, :, 1::2, 1::2]
        )
        for crop in (lows * 255).round().int():
            steps = (crop[:2, 1, 0] - crop[:2, 0, 0], crop[:2, 0, 1] - crop[:2, 0, 0])
            seen.add(tuple(tuple(step.tolist()) for step in steps))
    assert len(seen) == 8


def test_of_several_crops_the_one_with_most_detail_is_taken():
    flat = np.full((8, 8, 3), 100, np.uint8)
    random = np.random.default_rng(0)
    fine = random.integers(0, 256, flat.shape, dtype=np.uint8)
    pairs = [(image[::2, ::2], image) for image in (flat, fine)]
    _, highs = photos_script.random_batch(pairs, 2, 4, 64, 1, random)
    assert 10 < (highs.std(dim=(1, 2, 3)) == 0).sum() < 54
    _, highs = photos_script.random_batch(pairs, 2, 4, 64, 20, random)
    assert (highs.std(dim=(1, 2, 3)) > 0).all()


def test_the_learning_rate_rises_then_falls(options):
    rates = [script.learning_rate(options, step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(options.lr / 2)
    assert max(rates) == rates[1]
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[50] == pytest.approx((options.lr + options.lr_min) / 2)
    assert rates[-1] == pytest.approx(options.lr_min)


def test_a_resumed_run_is_the_uninterrupted_run(photos, options):
    pairs = script.read_pairs(photos / "train", 2, at_least=options.patch)
    whole = script.start(options, None)
    losses = [loss for loss, _ in script.train(whole, options, pairs, math.inf, 1)]
    assert len(losses) == options.steps

    first = script.start(options, None)
    steps = script.train(first, options, pairs, math.inf, 1)
    again = [next(steps)[0] for _ in range(3)]
    script.save_checkpoint(first, photos / "checkpoint.pt")
    assert [path.name for path in photos.glob("checkpoint*")] == ["checkpoint.pt"]

    second = script.start(dataclasses.replace(options, seed=99), None)
    second.restore(torch.load(photos / "checkpoint.pt", weights_only=True))
    again += [loss for loss, _ in script.train(second, options, pairs, math.inf, 1)]
    assert again == losses
    for module in ("net", "average"):
        for a, b in zip(
            getattr(whole, module).parameters(), getattr(second, module).parameters(), strict=True
        ):
            assert torch.equal(a, b)


def test_minutes_end_a_run(photos, options):
    pairs = script.read_pairs(photos / "train", 2, at_least=options.patch)
    run = script.start(dataclasses.replace(options, steps=10**6), None)
    run.minutes = 0.999999
    rates = [rate for _, rate in script.train(run, options, pairs, 1.0, 1)]
    assert 1 <= len(rates) < options.steps
    assert rates[0] <= 2 * options.lr_min


def test_from_options_to_weights_and_on_to_another_scale(monkeypatch, photos, options):
    out = run_main(monkeypatch, options, photos, "--set5", str(photos / "valid"))
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["arch"] == "SwinIR" and metadata["name"] == options.name
    network = {k: v for k, v in options.network_g.items() if k != "type"}
    assert json.loads(metadata["config"]) == network
    facts = json.loads(metadata["training"])
    assert facts["steps"] == 6 and facts["images"] == 2 and facts["seed"] == options.seed

    tensors = load_file(out)
    net = script.build(options)
    assert tensors.keys() == dict(net.named_parameters()).keys()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    net.load_state_dict({k: v.float() for k, v in tensors.items()})
    whole = script.read_pairs(photos / "valid", 2)
    assert facts["set5_psnr_y"] == script.mean_psnr(net, whole, 2) == facts["valid_psnr_y"]

    lines = (photos / "x2" / "log.csv").read_text().splitlines()
    assert lines[0] == "step,minutes,loss,lr,valid,set5"
    assert [line.split(",")[0] for line in lines[1:]] == ["2", "4", "6"]
    assert [bool(line.split(",")[4]) for line in lines[1:]] == [False, True, False]

    with pytest.raises(UsageError, match="give --resume"):
        run_main(monkeypatch, options, photos)
    larger = dataclasses.replace(
        options, scale=4, network_g={**options.network_g, "upscale": 4}, patch=8
    )
    monkeypatch.setattr(script, "train", lambda *_: iter(()))  # the start is what is looked at
    started = load_file(run_main(monkeypatch, larger, photos, "--init", str(out)))
    for key, tensor in started.items():
        assert key.startswith(script.TAIL) or torch.equal(tensor, tensors[key])


def test_another_scale_starts_as_the_first_model_enlarged(options, tmp_path):
    small = script.start(options, None)
    torch.nn.init.normal_(small.net.upsample[0].weight, std=0.1)
    script.write_weights(options, dict(small.net.named_parameters()), {}, tmp_path / "x2")
    larger = dataclasses.replace(options, scale=4, network_g={**options.network_g, "upscale": 4})
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        expected = small.net(x).repeat_interleave(2, 2).repeat_interleave(2, 3)
        # the same sums, in other batches of output channels
        torch.testing.assert_close(script.start(larger, tmp_path / "x2").net(x), expected)

    third = dataclasses.replace(options, scale=3, network_g={**options.network_g, "upscale": 3})
    with pytest.raises(UsageError, match="is for x2, of which x3 is no multiple"):
        script.start(third, tmp_path / "x2")
    deeper = dataclasses.replace(larger, network_g={**larger.network_g, "depths": [3]})
    with pytest.raises(UsageError, match=r"does not fit network_g: \['layers\.0"):
        script.start(deeper, tmp_path / "x2")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_fresh_network_is_the_bicubic_function(options, scale):
    network = {**options.network_g, "upscale": scale}
    net = script.start(dataclasses.replace(options, scale=scale, network_g=network), None).net
    image = np.random.default_rng(0).random((16, 24, 3)).astype(np.float32)
    with torch.no_grad():
        result = net(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    inside = (slice(2 * scale, -2 * scale),) * 2  # at the border a convolution sees zeros
    # 25 products of at most 1, and the mean taken off and added
    error = np.abs(result - imresize(image, scale))[inside].max()
    assert error <= 32 * np.finfo(np.float32).eps


def test_pictures_that_do_not_serve(photos):
    with pytest.raises(UsageError, match="no such folder"):
        script.read_pairs(photos / "none", 2)
    with pytest.raises(UsageError, match="no pictures"):
        script.read_pairs(photos, 2)
    with pytest.raises(UsageError, match="every picture is smaller than 200 pixels"):
        script.read_pairs(photos / "train", 2, at_least=100)
