"""`restore info` about weight files: as they are, and with settings given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_data import tiny

from restore import cli
from restore.commands.info import is_weights
from restore.image_io import Picture, write_picture
from restore.loading import load

Info = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(tiny("swinir_1").state, "net.pth")
    torch.save({"state_dict": tiny("uformer_1").state}, "Uformer.pth")


@pytest.fixture
def info(capsys: pytest.CaptureFixture[str]) -> Info:
    """Run `restore info`; gives exit code, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        return cli.main(["info", *words]), *capsys.readouterr()

    return run


def facts(info: Info, *words: str) -> dict[str, Any]:
    code, out, err = info(*words, "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)
    return dict(found)


def test_settings_are_obeyed(info: Info) -> None:
    words = ("--config", "img_range=255", "--config", "img_size=[8, 16]", "--arch", "swinir")
    found = facts(info, "net.pth", *words)
    given = {"img_range": 255, "img_size": [8, 16]}
    assert found["config"] == {**dict(load("net.pth", device="cpu").config), **given}
    told = "given, and counts before what was read: img_size [8, 16], img_range 255"
    assert told in found["recognised_by"]


def test_powers_of_ten_are_numbers(info: Info) -> None:
    """YAML wants a point in them, and people do not know."""
    found = facts(info, "net.pth", "--config", "qk_scale=2e-1", "--config", "img_range=1E1")
    assert (found["config"]["qk_scale"], found["config"]["img_range"]) == (0.2, 10.0)


def test_a_doubt_that_is_settled_is_no_note(info: Info) -> None:
    assert "give either" in facts(info, "Uformer.pth")["notes"][0]
    found = facts(info, "Uformer.pth", "--config", "img_size=64")
    assert found["notes"] == []
    assert found["config"]["img_size"] == 64


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["net.pth", "--config", "img_rang=1"], 2, "config has no 'img_rang'; did you mean"),
        (["net.pth", "--config", "img_range=1e300"], 2, "img_range is 1e+300; expected"),
        (["nothing"], 2, "nothing: no such file, and no built-in model is called 'nothing'"),
        (["nothing.pth"], 1, "no such file, and no built-in model is called 'nothing.pth'"),
        (["net.pth", "--arch", "HAT"], 1, "is not for arch HAT"),
        (["net.pth", "--config", "img_range"], 2, "expected KEY=VALUE"),
        (["net.pth", "a.png", "--config", "a=1"], 2, "--config is for weight files; a.png is none"),
        (["none", "--arch", "HAT"], 2, "--arch is for weight files; none is none"),
        (["--config", "a=1"], 2, "--config is for weight files; give one"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_obeyed_are_told(
    words: list[str], code: int, told: str, info: Info
) -> None:
    write_picture("a.png", Picture(torch.zeros(2, 2, 3, dtype=torch.uint8).numpy()), fmt="png")
    found, out, err = info(*words)
    assert (found, out) == (code, "")
    assert told in err


def test_a_name_does_not_hide_what_a_file_is(info: Info) -> None:
    load("net.pth", device="cpu", config={"img_size": 8}).save("net.safetensors")
    for source, name in {"net.pth": "pytorch_model.bin", "net.safetensors": "latest"}.items():
        Path(source).rename(name)
        assert is_weights(name)
        assert facts(info, name)["variant"] == "SwinIR-dim24 classical x2"
    Path("notes.txt").write_text("{ some text {", encoding="utf-8")
    assert not is_weights("notes.txt")
    assert info("notes.txt")[0] == 1


def test_what_is_guessed_is_said(info: Info) -> None:
    assert "no attn_mask tells img_size: 64 is a guess" in info("net.pth")[1]


def test_networks_that_pictures_do_not_fit_are_told(info: Info) -> None:
    from restore.archs.uformer import Uformer, UformerConfig

    heads = (1, 2, 2, 4, 4, 4, 4, 2, 2)
    config = UformerConfig(embed_dim=4, depths=(1,) * 9, num_heads=heads, dd_in=6)
    torch.save({"state_dict": Uformer(config).state_dict()}, "dual.pth")
    write_picture("a.png", Picture(torch.zeros(8, 8, 3, dtype=torch.uint8).numpy()), fmt="png")
    assert "none: takes 6 channels and makes 3; for tensors" in info("dual.pth")[1]
    found = facts(info, "dual.pth")
    assert (found["channels"], found["channels_of_result"]) == (6, 3)


def test_a_network_that_pictures_do_not_fit_is_refused_before_any(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from restore.archs.uformer import Uformer, UformerConfig

    heads = (1, 2, 2, 4, 4, 4, 4, 2, 2)
    config = UformerConfig(embed_dim=4, depths=(1,) * 9, num_heads=heads, dd_in=1)
    torch.save({"state_dict": Uformer(config).state_dict()}, "colours.pth")
    write_picture("a.png", Picture(torch.zeros(8, 8, 3, dtype=torch.uint8).numpy()), fmt="png")
    assert cli.main(["upscale", "a.png", "--model_path", "colours.pth"]) == 2
    assert "colours: makes 3 channels of 1; pictures have 1 (gray)" in capsys.readouterr().err
    assert not Path("results").exists()
