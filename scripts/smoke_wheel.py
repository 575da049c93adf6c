"""Build the wheel, check what is in it, install it in an empty environment and use it there.

The wheel is built from a copy, so the checkout stays clean; and a second time from the source
archive and a third from a copy whose links are text files, as some Windows checkouts have them:
all three must hold the same files.

Usage: smoke_wheel.py [--torch-index URL] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
SAMPLE = ROOT / "samples" / "drawing.png"
# as setup.cfg has it, said once more so that a slip there shows here
SHIPPED = {
    "restore": ("restore", ("*.py", "*.json", "*.yml", "py.typed", "weights/*.safetensors")),
    "restore/basicsr": ("restore/basicsr", ("*.py",)),
    "restore/batching": ("restore/batching", ("*.py",)),
    "restore/bench": ("restore/bench", ("*.py", "*.yml")),
    "restore/catalogue": ("restore/catalogue", ("*.py", "*.yml")),
    "restore/commands": ("restore/commands", ("*.py",)),
    "restore/image_io": ("restore/image_io", ("*.py",)),
    "restore/metrics": ("restore/metrics", ("*.py",)),
    "restore/training": ("restore/training", ("*.py", "*.yml")),
    "restore/upscaling": ("restore/upscaling", ("*.py", "*.json")),
    "restore/video": ("restore/video", ("*.py",)),
    "restore/web": ("restore/web", ("*.py", "*.css", "*.svg")),
    "archs": ("restore/archs", ("*.py",)),
    "kernels": ("restore/kernels", ("*.py", "native/*.h", "native/*.cpp")),
    "options": ("restore/options", ("*.yml", "train/*.yml", "test/*.yml")),
    "datasets": ("restore/datasets", ("*.py", "*.yml")),
}
COMPILED = "restore/kernels/_native.so"  # where there is a compiler for it
WHOLE_PROGRAM = ("archs/*.py", "kernels/*.py", "options/*.yml", "datasets/*.py", "datasets/*.yml")


class SmokeError(Exception):
    """The wheel is not what it has to be."""


def run(*command: str | Path, cwd: Path, timeout_s: float = 1200) -> str:
    """Run a command without input and return what it wrote to stdout.

    Raises:
        SmokeError: it failed; the message holds the command and both streams.
    """
    words = [str(word) for word in command]
    began = time.monotonic()
    # the checkout must not be importable, nor may a user's folder of packages help out
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {
        "PYTHONNOUSERSITE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        # a file: address, because pip splits these at spaces
        "PIP_CONSTRAINT": CONSTRAINTS.as_uri(),
        "PIP_BUILD_CONSTRAINT": CONSTRAINTS.as_uri(),
    }
    done = subprocess.run(
        words,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
    shown = " ".join([Path(words[0]).name, *words[1:]])
    print(f"{time.monotonic() - began:6.1f} s  {shown}", flush=True)
    if done.returncode:
        raise SmokeError(f"{shown}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def copy_checkout(target: Path) -> None:
    """Copy what git tracks or would track; links stay links."""
    listed = run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT
    ).split("\0")
    for name in filter(None, listed):
        source, copy = ROOT / name, target / name
        if not os.path.lexists(source):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy, follow_symlinks=False)


def links_to_text(tree: Path) -> None:
    """Turn each link in restore/ into a file that holds its target, as git does on Windows."""
    for link in (tree / "restore").iterdir():
        if link.is_symlink():
            target = os.readlink(link)
            link.unlink()
            link.write_text(target, encoding="utf-8")


def contents(wheel: Path) -> dict[str, str]:
    """The SHA-256 of each file in a wheel, without the record of those sums."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/RECORD")]
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}


def the_one(folder: Path, pattern: str) -> Path:
    """The only file of that name pattern."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SmokeError(f"{folder}: found {len(found)} files {pattern}; expected one")
    return found[0]


def check_contents(tree: Path, wheel: Path) -> None:
    """The wheel holds exactly the package's files, and nothing but `restore` can be imported."""
    expected = {
        f"{home}/{path.relative_to(tree / folder).as_posix()}"
        for folder, (home, patterns) in SHIPPED.items()
        for pattern in patterns
        for path in (tree / folder).glob(pattern)
    }
    for pattern in WHOLE_PROGRAM:
        if not any(tree.glob(pattern)):
            raise SmokeError(f"{pattern}: the checkout has no such file")
    if not any(name.endswith(".safetensors") for name in expected):
        raise SmokeError("restore/weights: no *.safetensors, so there is no built-in model")
    found = {name for name in contents(wheel) if ".dist-info/" not in name} - {COMPILED}
    if found != expected:
        missing, surplus = sorted(expected - found), sorted(found - expected)
        raise SmokeError(f"{wheel.name}: misses {missing}; holds, and should not, {surplus}")


def build(work: Path) -> Path:
    """Build three ways, compare, and return the wheel made from the plain copy."""
    linked, unlinked = work / "linked", work / "unlinked"
    copy_checkout(linked)
    shutil.copytree(linked, unlinked, symlinks=True)
    links_to_text(unlinked)
    run(sys.executable, "-m", "build", "--wheel", "-o", work / "plain", ".", cwd=linked)
    run(sys.executable, "-m", "build", "-o", work / "sdist", ".", cwd=linked)
    run(sys.executable, "-m", "build", "--wheel", "-o", work / "text", ".", cwd=unlinked)
    wheel = the_one(work / "plain", "*.whl")
    check_contents(linked, wheel)
    for way in ("sdist", "text"):
        if contents(the_one(work / way, "*.whl")) != contents(wheel):
            raise SmokeError(f"the wheel built by way of {work / way} differs from {wheel}")
    return wheel


def install(work: Path, wheel: Path, torch_index: str) -> Path:
    """Install the wheel into an empty environment and return that environment's programs."""
    home = work / "venv"
    venv.create(home, with_pip=True)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    index = ["--index-url", torch_index] if torch_index else []
    run(programs / "python", "-m", "pip", "install", "-q", *index, "torch", cwd=work)
    run(programs / "python", "-m", "pip", "install", "-q", wheel, cwd=work)
    return programs


def check_top_level(programs: Path, elsewhere: Path) -> None:
    """What pip recorded as installed: one importable name."""
    code = (
        "from importlib.metadata import files\n"
        "print(*sorted({f.parts[0] for f in files('restore-sr') if f.parts[0] != '..'}))"
    )
    found = run(programs / "python", "-c", code, cwd=elsewhere).split()
    names = [name for name in found if not name.endswith(".dist-info")]
    if names != ["restore"]:
        raise SmokeError(f"the wheel installs {names} at the top level; expected only restore")


def use(programs: Path, elsewhere: Path, models: list[str]) -> None:
    """Run the installed command as a user would, in a folder that is no checkout."""
    program = programs / "restore"
    for words in (["--version"], ["--help"], ["doctor"]):
        run(program, *words, cwd=elsewhere)
    for model in models:
        run(program, "info", model, cwd=elsewhere)
    shutil.copy2(SAMPLE, elsewhere / "picture.png")
    run(program, "upscale", "-i", "picture.png", "-o", "results", cwd=elsewhere)
    if not list((elsewhere / "results").glob("picture*.png")):
        raise SmokeError("restore upscale: exit code 0 but no picture in results/")
    train(program, elsewhere)
    if list(elsewhere.glob("restore*")):
        raise SmokeError(f"{elsewhere} holds a 'restore' that could hide the installed one")


def train(program: Path, elsewhere: Path) -> None:
    """Train two steps as an option file of the package says."""
    (elsewhere / "photos").mkdir()
    shutil.copy2(SAMPLE, elsewhere / "photos" / "drawing.png")
    forced = (
        *("datasets:train:dataroot_gt=photos", "datasets:val:dataroot_gt=photos", "num_gpu=0"),
        *("train:total_iter=2", "train:scheduler:periods=[2]", "name=two_steps"),
    )
    file = "options/train/swinir_small_x2.yml"
    run(program, "train", "-opt", file, "--force_yml", *forced, cwd=elsewhere)
    weights = elsewhere / "experiments" / "two_steps" / "models" / "net_g_latest.pth"
    if not weights.is_file():
        raise SmokeError(f"restore train: exit code 0 but no {weights}")


def main() -> int:
    """Build, check, install, use; say what failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--torch-index",
        default=os.environ.get("TORCH_INDEX", ""),
        help="where pip takes PyTorch from (default: $TORCH_INDEX, else PyPI)",
    )
    parser.add_argument("--keep", type=Path, help="copy the wheel and source archive into here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="restore-wheel-") as name:
        work = Path(name)
        try:
            wheel = build(work)
            programs = install(work, wheel, arguments.torch_index)
            elsewhere = work / "elsewhere"
            elsewhere.mkdir()
            check_top_level(programs, elsewhere)
            models = sorted(path.stem for path in (ROOT / "restore/weights").glob("*.safetensors"))
            use(programs, elsewhere, models)
        except SmokeError as failure:
            print(f"smoke_wheel: {failure}", file=sys.stderr)
            return 1
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for file in (wheel, the_one(work / "sdist", "*.tar.gz")):
                print(shutil.copy2(file, arguments.keep))
    return 0


if __name__ == "__main__":
    sys.exit(main())
