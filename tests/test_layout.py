"""The repository's shape: links, package mapping, what may lie where, and its own samples."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LINKED = ("archs", "kernels", "options", "datasets")
CODE = ("restore", "archs", "kernels", "datasets")
LARGEST = 2_500_000  # bytes, of any tracked file but weights
MOST_LINES = 400  # of a file of code
MOST_LINES_IN_FUNCTION = {"restore": 60, "archs": 60, "kernels": 100, "datasets": 60}


def python_files(folder: Path) -> list[Path]:
    """Without what lies behind links."""
    found: list[Path] = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not (Path(here) / name).is_symlink()]
        found += [Path(here) / name for name in names if name.endswith(".py")]
    return sorted(found)


def code_files(root: Path) -> list[Path]:
    return [path for folder in CODE for path in python_files(root / folder)]


def lines_of(setup_cfg: configparser.ConfigParser, key: str) -> list[str]:
    return setup_cfg["options"][key].strip().split("\n")


@pytest.fixture(scope="module")
def setup_cfg(root: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg", encoding="utf-8")
    return parser


@pytest.mark.skipif(sys.platform == "win32", reason="git may make text files of links there")
@pytest.mark.parametrize("name", LINKED)
def test_a_link_is_a_relative_link(root: Path, name: str) -> None:
    assert (root / "restore" / name).is_symlink()
    assert (root / "restore" / name).readlink() == Path("..") / name


def test_nothing_else_is_linked(root: Path) -> None:
    assert {path.name for path in (root / "restore").iterdir() if path.is_symlink()} <= set(LINKED)


@pytest.mark.parametrize("name", ["datasets", "kernels"])
def test_a_folder_cannot_hide_another_package_of_that_name(root: Path, name: str) -> None:
    assert not (root / name / "__init__.py").exists()


def test_a_folder_of_settings_holds_no_python(root: Path) -> None:
    assert python_files(root / "options") == []


def test_setup_cfg_lists_every_package(root: Path, setup_cfg: configparser.ConfigParser) -> None:
    mapping = dict(line.split(" = ") for line in lines_of(setup_cfg, "package_dir"))
    assert sorted(lines_of(setup_cfg, "packages")) == sorted(mapping)
    with_code = {path.parent.relative_to(root).as_posix() for path in code_files(root)}
    assert with_code | set(LINKED) == set(mapping.values())


def test_the_version_can_be_read_without_importing_torch(root: Path) -> None:
    """A build reads `__version__` as a literal; otherwise it would import the package."""
    tree = ast.parse((root / "restore" / "__init__.py").read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [target.id for target in node.targets if isinstance(target, ast.Name)]
        == ["__version__"]
    ]
    assert len(values) == 1
    assert isinstance(ast.literal_eval(values[0]), str)


def test_the_changelog_knows_the_version(root: Path) -> None:
    import restore

    assert f"## [{restore.__version__}]" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def test_files_and_functions_are_short(root: Path) -> None:
    too_long = []
    for path in code_files(root):
        name = path.relative_to(root)
        source = path.read_text(encoding="utf-8")
        if len(source.splitlines()) > MOST_LINES:
            too_long.append(f"{name}: {len(source.splitlines())} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MOST_LINES_IN_FUNCTION[name.parts[0]]:
                    too_long.append(f"{name}: {node.name} has {length} lines")
    assert too_long == []


def test_no_tracked_file_is_large(root: Path) -> None:
    if not (root / ".git").exists():
        pytest.skip("needs a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    paths = [root / name for name in listed.stdout.split("\0") if name]
    large = [
        path.relative_to(root).as_posix()
        for path in paths
        if path.is_file() and path.suffix != ".safetensors" and path.stat().st_size > LARGEST
    ]
    assert large == []


def test_the_drawing_is_what_its_script_draws(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("draw", root / "scripts" / "draw_samples.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with Image.open(root / "samples" / "drawing.png") as picture:
        stored = np.asarray(picture).astype(int)
    # platforms differ in the last bit of sin and pow, which can turn one rounding
    assert np.abs(module.draw().astype(int) - stored).max() <= 1


@pytest.mark.parametrize("name", ["photo.png", "coffee.png", "drawing.png"])
def test_a_sample_is_small_and_its_origin_is_told(root: Path, name: str) -> None:
    path = root / "samples" / name
    assert path.stat().st_size < 100_000
    assert f"`{name}`" in (root / "samples" / "ORIGIN.md").read_text(encoding="utf-8")
