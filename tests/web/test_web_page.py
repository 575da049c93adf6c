"""The page in a real browser: what a person does, sees and gets."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_server import Running, served

from restore.image_io import Picture, read_picture, write_picture
from restore.loading import load_builtin
from restore.upscaling import upscale_picture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM cannot be caught there"),
]
PATIENCE = 90_000  # ms
DONE = "#status >> text=/estored\\.|Stopped/"


@pytest.fixture(scope="module")
def page_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("needs Gradio: pip install 'restore-sr[web]'")
    with served(tmp_path_factory.mktemp("page"), "--threads", "1") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs the package playwright")
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        if found is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip(f"needs Chromium: none of {', '.join(names)} is in the path")
        # the sandbox does not start for root, as whom containers run
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=found, args=arguments)
        yield started
        started.close()


@pytest.fixture
def asked() -> list[str]:
    """Addresses that the browser asked for."""
    return []


@pytest.fixture
def tab(browser: Any, page_process: Running, asked: list[str]) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = open_page(context, page_process, asked)
    yield opened
    context.close()


def open_page(context: Any, page_process: Running, asked: list[str]) -> Any:
    opened = context.new_page()
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(page_process.url)
    opened.wait_for_selector("#go", timeout=PATIENCE)
    return opened


def photo(folder: Path, name: str, height: int = 40, width: int = 60, **more: Any) -> Path:
    path = folder / name
    y, x = np.mgrid[:height, :width]
    plane = (np.sin(x / 3) * np.cos(y / 5) + 1) / 2
    pixels = np.stack([plane, 1 - plane, plane**2], 2)
    picture = Picture(np.round(pixels * 65535).astype(np.uint16), **more)
    if name.endswith(".jpg"):
        picture = Picture((picture.pixels >> 8).astype(np.uint8), **more)
    write_picture(path, picture, fmt="jpg" if name.endswith(".jpg") else "png")
    return path


def put(tab: Any, *paths: Path) -> None:
    tab.set_input_files("#pictures input[type=file]", [str(path) for path in paths])
    for path in paths:
        tab.wait_for_selector(f"#listing th:has-text('{path.name}')", timeout=PATIENCE)


def restore(tab: Any) -> str:
    tab.click("#go")
    tab.wait_for_selector(DONE, timeout=PATIENCE)
    tab.wait_for_selector("#go:not([disabled])")
    return str(tab.inner_text("#status p >> nth=0"))


def fetched(tab: Any, selector: str, folder: Path) -> Path:
    with tab.expect_download(timeout=PATIENCE) as waiting:
        tab.click(selector)
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def test_a_picture_goes_in_and_comes_out_whole(
    tab: Any, tmp_path: Path, asked: list[str], page_process: Running
) -> None:
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    alpha = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    path = photo(tmp_path, "wave.png", alpha=alpha, dpi=(300.0, 300.0))
    put(tab, path)
    assert "60 x 40" in tab.inner_text("#listing") and "240 x 160" in tab.inner_text("#listing")
    assert restore(tab) == "Restored."
    result = fetched(tab, ".rs-button", tmp_path)
    assert result.name == "wave_x4.png"
    got = read_picture(result)
    want = upscale_picture(read_picture(path), load_builtin("swinir_builtin_x4", device="cpu"))
    assert np.array_equal(got.pixels, want.pixels)
    assert got.alpha is not None and want.alpha is not None
    assert np.array_equal(got.alpha, want.alpha)
    assert got.dpi == pytest.approx((300, 300), abs=0.01)  # PNG has dots per metre
    hosts = {
        address.split("/")[2] for address in asked if not address.startswith(("data:", "blob:"))
    }
    assert hosts == {page_process.url.split("/")[2]}
    assert errors == []


def test_the_slider_moves_by_keyboard_and_mouse(tab: Any, tmp_path: Path) -> None:
    put(tab, photo(tmp_path, "wave.jpg"))
    restore(tab)
    tab.wait_for_selector(".rs-stage img")
    loaded = "() => [...document.querySelectorAll('.rs-stage img')].map(i => i.naturalWidth)"
    tab.wait_for_function(f"({loaded})().every(width => width == 240)")
    at = "() => document.querySelector('.rs-stage').style.getPropertyValue('--at')"
    slider = tab.locator(".rs-stage input")
    slider.focus()
    slider.press("ArrowLeft")
    assert tab.evaluate(at) == "49.5%"
    box = slider.bounding_box()
    tab.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
    assert 75 < float(tab.evaluate(at).rstrip("%")) < 85
    assert "Left bicubic x4" in slider.get_attribute("aria-label")


def test_many_pictures_one_broken(tab: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    evil = photo(tmp_path, "a&b 'x' ${1+1}.jpg", 30, 30)
    put(tab, photo(tmp_path, "one.png"), photo(tmp_path, "two.jpg"), broken)
    tab.set_input_files("#pictures input[type=file]", [str(evil)])
    tab.wait_for_function("document.querySelectorAll('#listing tr').length == 4")
    tab.click("#scale >> text=x2")
    tab.wait_for_selector("#listing >> text=120 x 80")
    assert restore(tab) == "3 of 4 pictures restored."
    told = tab.inner_text("#status")
    assert "broken.png: " in told and "Traceback" not in told and "restore-web" not in told
    archive = fetched(tab, ".rs-button", tmp_path)
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
    assert names[:2] == ["one_x2.png", "two_x2.jpg"] and len(names) == 3
    tab.click("#shown input")
    tab.click("[role=option]:has-text('two.jpg')")
    tab.wait_for_selector(".rs-compare figcaption:has-text('two.jpg')")


def test_stop_ends_it_and_it_can_begin_again(tab: Any, tmp_path: Path) -> None:
    put(tab, photo(tmp_path, "small.png"), photo(tmp_path, "large.png", 1500, 1500))
    tab.click("#go")
    tab.wait_for_selector("#status progress[value]", timeout=PATIENCE)
    tab.wait_for_selector("#status >> text=large.png", timeout=PATIENCE)
    began = time.monotonic()
    tab.click("#stop")
    tab.wait_for_selector("#status >> text=Stopped. 1 of 2 pictures restored.", timeout=PATIENCE)
    assert time.monotonic() - began < 60  # a step of it takes seconds on one slow core
    assert "small_x4.png" in tab.inner_text("#result")
    tab.wait_for_selector("#go:not([disabled])")


def test_mistakes_are_told_in_words(tab: Any, tmp_path: Path) -> None:
    tab.click("#go")
    tab.wait_for_selector("#status >> text=there is no picture yet")
    put(tab, photo(tmp_path, "wave.png"))
    tab.click("#scale >> text=other")
    tab.fill("#other textarea, #other input", "many")
    tab.wait_for_selector("#card >> text=expected a number above 0")
    tab.click("#go")
    tab.wait_for_selector("#status >> text=the scale is 'many'")
    tab.fill("#other textarea, #other input", "2,5")
    tab.wait_for_selector("#listing >> text=150 x 100")
    assert restore(tab) == "Restored."
    assert "wave_x2.5.png" in tab.inner_text("#result")


def test_others_wait_and_a_closed_page_leaves_nothing(
    tab: Any, browser: Any, tmp_path: Path, page_process: Running, asked: list[str]
) -> None:
    put(tab, photo(tmp_path, "large.png", 1500, 1500))
    tab.click("#go")
    tab.wait_for_selector("#status progress[value]", timeout=PATIENCE)
    second = browser.new_context()
    other = open_page(second, page_process, asked)
    put(other, photo(tmp_path, "wave.png"))
    other.click("#go")
    other.wait_for_selector("#status >> text=1 other is before you", timeout=PATIENCE)
    tab.close()
    other.wait_for_selector("#status >> text=Restored.", timeout=PATIENCE)
    second.close()
    (base,) = page_process.folder.glob("restore-web-*")
    deadline = time.monotonic() + 60
    while list(base.rglob("large*")) + list(base.rglob("wave*")):
        assert time.monotonic() < deadline, list(base.rglob("*"))
        time.sleep(0.2)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_sees_all_of_it(
    browser: Any, page_process: Running, tmp_path: Path, asked: list[str], dark: bool
) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 800},
        has_touch=True,
        color_scheme="dark" if dark else "light",
    )
    tab = open_page(context, page_process, asked)
    put(tab, photo(tmp_path, "a-rather-long-name-of-a-picture-that-was-taken-in-a-garden.jpg"))
    restore(tab)
    tab.wait_for_selector(".rs-stage img")
    width = tab.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    shade = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, shade[shade.index("(") + 1 : -1].split(",")[:3])) < 300) == dark
    context.close()
