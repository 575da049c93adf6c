"""Published figures: found by file or configuration, and those that the fact sheets have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from restore.bench import published as module
from restore.bench.published import is_misnamed, model_keys, plain_key, published
from restore.datasets.card_files import find_card
from restore.official import official_models


def test_every_key_is_a_published_model() -> None:
    known = {plain_key(key) for model in official_models() for key in module._keys_of(model)}
    for entry in module._entries():
        for level in entry["rows"]:
            assert plain_key(entry["key"].format(level=level)) in known
        assert entry["source"] and entry["channels"] in ("y", "rgb", "gray")
        assert len(set(entry["sets"])) == len(entry["sets"])
        for name in entry["sets"]:
            assert find_card(name) or name in ("DND", "HIDE")


def test_values_are_plausible() -> None:
    for (_, _, _, metric), figure in module._table().items():
        low, high = (0.5, 1) if metric.startswith("ssim") else (20, 45)
        assert low < figure.value < high
        assert figure.decimals in ((3, 4) if metric.startswith("ssim") else (2,))


def test_larger_scales_and_more_noise_score_less() -> None:
    """Misplaced rows would show here."""
    by_row: dict[tuple[str, str, str], dict[int, float]] = {}
    for entry in module._entries():
        for level, cells in entry["rows"].items():
            for where, figure in module._row(entry, level, str(cells)):
                row = by_row.setdefault((entry["key"], where[0], where[2] + entry["channels"]), {})
                row[level] = figure.value
    for (key, _, _), values in by_row.items():
        falling = [values[level] for level in sorted(values)]
        assert falling == sorted(falling, reverse="jpeg" not in key and "_q" not in key)


@pytest.mark.parametrize(
    ("key", "dataset", "level", "metric", "value", "decimals"),
    [
        ("HiT-SRF_x4.pth", "Set5", 4, "psnr", 32.55, 2),
        ("weights/HiT-SRF-4x.pth", "set14", 4, "ssim_y", 0.7880, 4),
        ("HiT-SRF-4x", "Urban100", 4, "psnr_y", 26.80, 2),
        ("HiT-SRF-4x-DF2K.safetensors", "B100", 4, "psnr", 27.78, 2),
        ("001_classicalSR_DF2K_s64w8_SwinIR-M_x2.pth", "Manga109", 2, "ssim", 0.9797, 4),
        ("001_classicalSR_DIV2K_s48w8_SwinIR-M_x4.pth", "DIV2K", 4, "psnr_rgb", 29.48, 2),
        ("001_classicalSR_DIV2K_s48w8_SwinIR-M_x4.pth", "DIV2K", 4, "psnr_y", 30.94, 2),
        ("004_grayDN_DFWB_s128w8_SwinIR-M_noise25.pth", "Set12", 25, "psnr_gray", 31.01, 2),
        ("005_colorDN_DFWB_s128w8_SwinIR-M_noise50.pth", "Kodak24", 50, "psnr", 29.79, 2),
        ("006_CAR_DFWB_s126w7_SwinIR-M_jpeg10.pth", "LIVE1", 10, "psnr_b", 29.50, 2),
        ("006_colorCAR_DFWB_s126w7_SwinIR-M_jpeg40.pth", "LIVE1", 40, "psnr_b_rgb", 32.12, 2),
        ("CAR_CAT_q30.pth", "Classic5", 30, "ssim", 0.8964, 4),
        ("Uformer_B.pth", "GoPro", None, "ssim_uniform", 0.967, 3),
        ("Uformer_B.pth", "SIDD", 0, "ssim_volume_rgb", 0.960, 3),
    ],
)
def test_a_figure_is_found(key, dataset, level, metric, value, decimals) -> None:
    figure = published(key, dataset, level, metric)
    assert figure is not None
    assert (figure.value, figure.decimals) == (value, decimals)


@pytest.mark.parametrize(
    ("key", "dataset", "level", "metric"),
    [
        ("HiT-SRF-4x", "Set5", 2, "psnr"),
        ("HiT-SRF-4x", "Set5", 4, "psnr_b"),
        ("HiT-SRF-4x", "Set5", 4, "psnr_rgb"),
        ("HiT-SRF-4x", "photos", 4, "psnr"),
        ("mine.pth", "Set5", 4, "psnr"),
        ("HAT-S_SRx2", "Set5", 2, "psnr"),
        ("HAT-S_SRx4", "Set5", 4, "ssim"),
    ],
)
def test_what_was_not_printed_is_none(key, dataset, level, metric) -> None:
    assert published(key, dataset, level, metric) is None


def test_a_network_is_known_by_its_file_else_by_its_configuration() -> None:
    for model in official_models():
        for name in model.files:
            keys = model_keys(f"weights/{name}", model.spec, model.config)
            assert keys == (name,)
            assert not is_misnamed(name, model.spec, model.config)
        renamed = model_keys("mine.pth", model.spec, model.config)
        assert {plain_key(key) for key in module._keys_of(model)} <= {*map(plain_key, renamed)}
    one = next(m for m in official_models() if m.variant == "HiT-SIR x3")
    keys = model_keys("mine.pth", one.spec, one.config)
    assert published(keys, "Set5", 3, "psnr") == published("HiT-SIR-3x", "Set5", 3, "psnr")
    # trained on DIV2K or DF2K: nobody can tell
    two = next(m for m in official_models() if m.variant == "HiT-SRF x3")
    keys = model_keys("mine.pth", two.spec, two.config)
    assert len(keys) == 2 and published(keys, "Set5", 3, "psnr") is None


def test_a_name_and_a_configuration_have_to_agree() -> None:
    x3 = next(m for m in official_models() if m.variant == "HiT-SIR x3")
    for name in ("HiT-SIR-2x.pth", "HiT-SRF_x4.pth", "001_classicalSR_DF2K_s64w8_SwinIR-M_x3"):
        assert model_keys(name, x3.spec, x3.config) == ()
        assert is_misnamed(name, x3.spec, x3.config)
    assert not is_misnamed("mine.pth", x3.spec, x3.config)


ROW = re.compile(
    r"^\| ([^|]+) \| ([234]) \|((?: [\d./-]+ \|){5})(?: (confirmed|README|[^|]*) ?.*)?$"
)
FACTS = {
    "swinir": {
        "DIV2K": "001_classicalSR_DIV2K_s48w8_SwinIR-M_x{}",
        "DF2K": "001_classicalSR_DF2K_s64w8_SwinIR-M_x{}",
        "S light": "002_lightweightSR_DIV2K_s64w8_SwinIR-S_x{}",
    },
    "hit_sr": {
        "HiT-SIR": "HiT-SIR-{}x",
        "HiT-SNG": "HiT-SNG-{}x",
        "HiT-SRF": "HiT-SRF-{}x",
        "HiT-SRF DF2K": "HiT-SRF-{}x-DF2K",
    },
    "cat": {
        "CAT-R": "SR_CAT_R_x{}",
        "CAT-A": "SR_CAT_A_x{}",
        "CAT-R-2": "SR_CAT_R_2_x{}",
        "CAT-A-2": "SR_CAT_A_2_x{}",
    },
    "srformer": {
        "DIV2K": "SRFormer x{} (DIV2K)",
        "DF2K": "SRFormer_SRx{}_DF2K",
        "light": "SRFormerLight_SRx{}_DIV2K",
    },
    "hat": {"HAT": "HAT_SRx{}"},
}


@pytest.mark.parametrize("sheet", FACTS)
def test_super_resolution_is_as_the_fact_sheets_have_it(shared: Path, sheet: str) -> None:
    text = (shared / "archs" / f"{sheet}.md").read_text(encoding="utf-8")
    sets = ("Set5", "Set14", "BSD100", "Urban100", "Manga109")
    compared = 0
    for line in text.splitlines():
        match = ROW.match(line)
        if match is None or match[1] not in FACTS[sheet]:
            continue
        key = FACTS[sheet][match[1]].format(match[2])
        for name, cell in zip(sets, match[3].strip(" |").split("|"), strict=True):
            for metric, value in zip(("psnr", "ssim"), cell.strip().split("/"), strict=False):
                figure = published(key, name, int(match[2]), metric)
                assert figure is not None and figure.value == float(value)
                compared += 1
    assert compared == 30 * len(FACTS[sheet])
