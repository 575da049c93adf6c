"""Weight files: what is read, what is refused, and that nothing in them is run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from restore.checkpoint import PREFIXES, WRAPPERS, Checkpoint, read_checkpoint, unwrap
from restore.errors import CheckpointError


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.ones(2)}


def same(found: Checkpoint, state: dict[str, Tensor]) -> bool:
    return found.state.keys() == state.keys() and all(
        torch.equal(found.state[key], value) for key, value in state.items()
    )


def write_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def write_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_safetensors(content: Any, path: Path) -> None:
    save_file(content, path)


WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "zip": write_zip,
    "legacy": write_legacy,
    "safetensors": write_safetensors,
}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".safetensors", ".bin", ""])
@pytest.mark.parametrize("kind", WRITERS)
def test_the_content_decides_not_the_suffix(
    kind: str, suffix: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / f"net{suffix}"
    WRITERS[kind](state, path)
    found = read_checkpoint(path)
    assert same(found, state)
    assert found.source == str(path)
    assert found.key == ""


def test_an_archive_that_someone_packed_is_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    write_zip(state, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert same(read_checkpoint(tmp_path / "packed.pth"), state)


@pytest.mark.skipif(sys.platform == "win32", reason="peaks of memory are not known there")
@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_tensors_that_nobody_looks_at_take_no_memory(kind: str, tmp_path: Path) -> None:
    """Some official files hold a gigabyte of masks that follow from the settings."""
    WRITERS[kind]({"mask": torch.ones(48 * 2**20), "w": torch.ones(3)}, tmp_path / "net.pth")
    script = f"""
import resource, sys
from restore.checkpoint import read_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
state = read_checkpoint({str(tmp_path / "net.pth")!r}).state
assert state["w"].sum() == 3 and state["mask"][-1] == 1 and len(state["mask"]) == 48 * 2**20
unit = 1 if sys.platform == "darwin" else 1024
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 32 * 2**20  # of 192


@pytest.mark.parametrize("key", WRAPPERS)
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_every_wrapper_is_opened(
    kind: str, key: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    WRITERS[kind]({key: state, "iter": 5, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert same(found, state)
    assert found.key == key


@pytest.mark.parametrize("averaged", ["params_ema", "params-ema"])
def test_averaged_weights_are_preferred(averaged: str, state: dict[str, Tensor]) -> None:
    raw = {key: value + 1 for key, value in state.items()}
    for content in ({"params": raw, averaged: state}, {averaged: state, "params": raw}):
        found = unwrap(content, "here", {})
        assert same(found, state)
        assert found.key == averaged


def test_wrappers_in_wrappers_are_opened(state: dict[str, Tensor]) -> None:
    found = unwrap({"model": {"state_dict": {"params": state}}}, "here", {})
    assert same(found, state)
    assert found.key == "params"


def test_a_tensor_beside_the_weights_does_not_hide_them(state: dict[str, Tensor]) -> None:
    found = unwrap({"iter": torch.tensor(5), "params": state, "lr": torch.ones(3)}, "here", {})
    assert same(found, state)


def test_what_is_no_tensor_is_left_out(state: dict[str, Tensor]) -> None:
    assert same(unwrap({**state, "epoch": 3, "name": "x", "none": None}, "here", {}), state)


@given(prefixes=st.lists(st.sampled_from(PREFIXES), max_size=4))
def test_prefixes_of_trainers_are_taken_off(prefixes: list[str]) -> None:
    state = {"conv.weight": torch.ones(2), "norm.bias": torch.zeros(1)}
    wrapped = {"".join(prefixes) + key: value for key, value in state.items()}
    assert same(unwrap({"params": wrapped}, "here", {}), state)


def test_a_prefix_of_some_keys_stays(state: dict[str, Tensor]) -> None:
    mixed = {**state, "module.conv.weight": torch.zeros(1)}
    assert same(unwrap(mixed, "here", {}), mixed)


def test_a_mapping_is_not_changed(state: dict[str, Tensor]) -> None:
    content = {"params": {f"module.{key}": value for key, value in state.items()}}
    unwrap(content, "here", {})
    assert list(content["params"]) == ["module.conv.weight", "module.conv.bias"]


def test_parameters_are_tensors(state: dict[str, Tensor]) -> None:
    parameters = {key: torch.nn.Parameter(value) for key, value in state.items()}
    assert same(unwrap(parameters, "here", {}), state)


class RunsCode:
    """What a hostile file would hold: reading it with plain pickle writes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("place", ["beside", "inside", "alone"])
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_file_that_wants_code_is_refused_and_not_run(
    kind: str, place: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    witness = tmp_path / "was-run"
    hostile = RunsCode(witness)
    content = {
        "beside": {"params": state, "extra": hostile},
        "inside": {"params": {**state, "conv.bias": hostile}},
        "alone": hostile,
    }[place]
    WRITERS[kind](content, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="holds more than tensors") as caught:
        read_checkpoint(tmp_path / "net.pth")
    assert not witness.exists()
    text = str(caught.value)
    assert "mkdir" in text
    assert "net.pth" in text
    assert ".safetensors" in text  # what to do
    pickle.loads(pickle.dumps(hostile))  # the file would have done it
    assert witness.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "was-run"
    (tmp_path / "net.pth").write_bytes(pickle.dumps(RunsCode(witness)))
    with pytest.raises(CheckpointError, match=r"net\.pth"):
        read_checkpoint(tmp_path / "net.pth")
    assert not witness.exists()


@pytest.mark.parametrize("kind", WRITERS)
def test_every_truncation_is_refused(kind: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    WRITERS[kind](state, path)
    whole = path.read_bytes()
    for length in {1, 8, 9, 16, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"net\.pth: is no whole") as caught:
            read_checkpoint(path)
        assert "copy it again" in str(caught.value)


@settings(max_examples=60)
@given(content=st.binary(min_size=1, max_size=200))
def test_bytes_of_any_kind_are_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("noise") / "net.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.pth"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hello, this is text\n", "is no whole weight file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\n", "a Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "is no whole weight file"),
        (b'{"a": 1, "b": {"c": 2}}', "is no whole weight file"),
        (b"\x05\0\0\0\0\0\0\0{'a':", "is no whole safetensors file"),
    ],
    ids=["text", "page", "pointer", "picture", "json", "header"],
)
def test_other_files_are_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"net\.pth: .*{told}"):
        read_checkpoint(tmp_path / "net.pth")


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    values = torch.arange(100.0) + 0.5
    torch.save({"a.weight": values}, path)
    content = bytearray(path.read_bytes())
    content[content.index(values.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the checksum of .* is wrong"):
        read_checkpoint(path)


def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        for name in ("net/constants.pkl", "net/data.pkl", "net/code/__torch__.py"):
            archive.writestr(name, b"")
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        read_checkpoint(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_an_empty_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=f"{name}: the file is empty; download"):
        read_checkpoint(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth: cannot be read: No such file"):
        read_checkpoint(tmp_path / "none.pth")


def test_a_path_that_no_system_has_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'a\\x00b\.pth': cannot be read: .*null"):
        read_checkpoint("a\0b.pth")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (torch.ones(3), "found Tensor"),
        ([1, 2], "found list"),
        (None, "found nothing"),
        ({}, "found an empty dict"),
        ({"params": {}}, "found an empty dict"),
        ({"epoch": 3, "lr": 0.1}, "found keys 'epoch', 'lr'"),
        ({0: torch.ones(1)}, "found keys 0"),
        ({"a": {"b": torch.ones(1)}}, "found keys 'a'"),
    ],
    ids=str,
)
def test_a_file_without_a_state_dict_is_refused(
    content: object, found: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=found) as caught:
        read_checkpoint(tmp_path / "net.pth")
    assert "holds no state dict" in str(caught.value)
    assert "params_ema" in str(caught.value)  # what was expected


def test_settings_in_a_safetensors_file_are_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(state, path, metadata={"restore": "0.1.0", "config": '{"upscale": 2}'})
    assert read_checkpoint(path).config == {"upscale": 2}


@pytest.mark.parametrize(
    "metadata",
    [
        {"config": '{"model_type": "of another program"}'},
        *({"restore": "0.1.0", "config": text} for text in ("not json", "[1]", "3", "[" * 10**5)),
    ],
)
def test_metadata_of_others_is_no_error(
    metadata: dict[str, str], state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    save_file(state, path, metadata=metadata)
    assert read_checkpoint(path).config == {}
    assert same(read_checkpoint(path), state)
