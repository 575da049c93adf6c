"""Weight files made to do harm: refused by name, and nothing of them happens."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import tarfile
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from damage_seeds import seeds
from damage_weights import _with_program
from hostile_pickles import CANARY, HOSTILE, Calls
from small_models import tiny

from restore.checkpoint import read_checkpoint
from restore.errors import CheckpointError
from restore.loading import load
from restore.pickle_check import Program, examine
from restore.training.states import read_state

FORMS = {"archive": "bare", "legacy": "bare-legacy", "alone": ""}


def refused(path: Path) -> str:
    began = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        load(path, device="cpu")
    assert time.monotonic() - began < 10
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text) < 1000
    assert text.isprintable()
    return text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_is_refused(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pth"
    program = HOSTILE[name]
    path.write_bytes(
        program if form == "alone" else _with_program(seeds("pth")[FORMS[form]], program)
    )
    refused(path)
    assert os.listdir() == ["net.pth"]
    assert not os.path.lexists(CANARY)


@pytest.mark.parametrize("form", ["archive", "legacy", "alone"])
def test_all_that_a_file_wants_is_named(form: str, tmp_path: Path) -> None:
    content = {"a": Calls(os.system, "true"), "b": Calls(eval, "1"), "c": torch.ones(1)}
    if form == "alone":
        data = pickle.dumps(content, 4)
    else:
        out = io.BytesIO()
        torch.save(content, out, _use_new_zipfile_serialization=form == "archive")
        data = out.getvalue()
    (tmp_path / "net.pth").write_bytes(data)
    text = refused(tmp_path / "net.pth")
    assert "builtins.eval" in text.replace("__builtin__", "builtins")
    assert f"{os.system.__module__}.system" in text
    assert "it is refused" in text


def test_many_wants_are_counted(tmp_path: Path) -> None:
    wants = b"".join(b"cm%d\nf\n0" % i for i in range(50))
    (tmp_path / "net.pth").write_bytes(b"\x80\x02" + wants + b"}.")
    assert "and 42 more" in refused(tmp_path / "net.pth")


@pytest.mark.parametrize("name", seeds("pth"))
def test_the_look_ahead_takes_what_trainers_write(name: str, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(seeds("pth")[name])
    assert read_checkpoint(tmp_path / "net.pth").state


def test_the_look_ahead_takes_everything_that_the_reader_takes(tmp_path: Path) -> None:
    """Kinds of values that stand beside weights in files of trainers."""
    beside: dict[str, Any] = {
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "size": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "set": {1, 2},
        "bytes": b"some",
        "ordered": OrderedDict(a=1),
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex64),
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 0.1}]},
    }
    for is_zip in (True, False):
        content = {**beside, "params": {"a": torch.ones(2)}}
        torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=is_zip)
        assert list(read_checkpoint(tmp_path / "net.pth").state) == ["a"]


def test_a_tar_of_early_releases_is_refused_and_not_unpacked(tmp_path: Path) -> None:
    """PyTorch before 2.6 unpacks such files, and runs what is in them."""
    path = tmp_path / "net.pth"
    for first in ("storages", "\x80\x02}."):
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, encoding="latin-1") as archive:
            for name in (first, "tensors", "pickle", "../../out"):
                member = tarfile.TarInfo(name)
                member.size = 10
                archive.addfile(member, io.BytesIO(pickle.dumps(1).ljust(10)))
        refused(path)
    assert os.listdir(tmp_path) == ["net.pth"]


def test_names_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(seeds("pth")["bare"])) as plain:
        entries = {name: plain.read(name) for name in plain.namelist()}
    entries |= {"../../out": b"1", str(tmp_path / "absolute"): b"1", "archive/../../../out": b"1"}
    with zipfile.ZipFile(inside / "net.pth", "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    with contextlib.suppress(CheckpointError):  # newer readers refuse such names
        read_checkpoint(inside / "net.pth")
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [
        "a/b/net.pth"
    ]


def test_an_archive_that_unpacks_without_end(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("archive/data.pkl")
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, bytes(2**28))
    assert "would unpack to 268,435,456" in refused(path)


def test_entries_that_share_their_bytes(tmp_path: Path) -> None:
    """Ten thousand entries of a megabyte each, in a file of two."""
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("archive/0"), bytes(2**20))
        first = archive.infolist()[0]
        archive.filelist += [first] * 10_000
    assert "take more room than the file has" in refused(path)


def test_a_tensor_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    content = {key: torch.zeros(()).expand(2**14, 2**14) for key in tiny(2).module.state_dict()}
    torch.save(content, path)
    assert "bytes claim to hold tensors of" in refused(path)


@pytest.mark.parametrize("odd", ["get", "items", "keys", "__len__", "values"])
def test_attributes_of_a_mapping_are_not_taken_for_its_methods(odd: str, tmp_path: Path) -> None:
    state = OrderedDict(tiny(2).module.state_dict())
    other = "z" * len(odd)  # or torch.save would stumble already
    state.__dict__[other] = 5
    out = io.BytesIO()
    torch.save({"params": state}, out)
    with zipfile.ZipFile(out) as archive:
        program = archive.read("archive/data.pkl").replace(other.encode(), odd.encode())
    (tmp_path / "net.pth").write_bytes(_with_program(out.getvalue(), program))
    assert load(tmp_path / "net.pth", device="cpu").checkpoint_key == "params"


@pytest.mark.parametrize("odd", ["detach", "is_floating_point", "shape", "dim", "numel", "to"])
def test_attributes_of_a_parameter_are_not_taken_for_its_methods(odd: str, tmp_path: Path) -> None:
    state = {key: torch.nn.Parameter(v) for key, v in tiny(2).module.state_dict().items()}
    first = next(iter(state.values()))
    first.__dict__[odd] = 5
    torch.save(state, tmp_path / "net.pth")
    try:
        assert load(tmp_path / "net.pth", device="cpu").scale == 2
    except CheckpointError as error:  # PyTorch's reader refuses some of them
        assert "is no whole weight file" in str(error)


def test_a_state_that_someone_else_signed(tmp_path: Path) -> None:
    for name, program in {**HOSTILE, "a number": pickle.dumps(5, 2)}.items():
        data = _with_program(seeds("pth")["bare"], program)
        path = tmp_path / "5.state"
        path.write_bytes(data + b"restore training state 1" + hashlib.sha256(data).digest())
        if name in ("build", "shadowed methods"):  # dicts, with nothing of a state in them
            assert isinstance(read_state(path), dict)
            continue
        with pytest.raises(CheckpointError, match=r"5\.state: "):
            read_state(path)
        assert not os.path.lexists(CANARY)


def test_steps_are_counted_through_the_memory() -> None:
    """A thing that is remembered and taken twice counts twice."""
    assert examine(b"\x80\x02)" + b"q\0h\0\x86" * 20 + b".") == Program(())
    assert examine(b"\x80\x02)" + b"q\0h\0\x86" * 30 + b".").endless == (
        "containers hold each other without end"
    )
    for depth, endless in ((100, ""), (101, "more than 100 containers lie in each other")):
        assert examine(b"\x80\x02)" + b"\x85" * depth + b".").endless == endless
        assert examine(b"\x80\x02" + b"]" * (depth + 1) + b"a" * depth + b".").endless == endless
    for broken in (b"", b"\x80\x02", b"\x80\x02R.", b"\x80\x02h\x05.", b"words", b"\x80\x02X\xff"):
        with pytest.raises(ValueError):
            examine(broken)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_names_are_found_in_every_protocol(protocol: int) -> None:
    content = {"a": [Calls(os.mkdir, "x"), (1, 2.5, None, b"bytes", {1, 2}, 2**70)]}
    found = examine(pickle.dumps(content, protocol)).wanted
    assert [name for name in found if "mkdir" in name] == [f"{os.mkdir.__module__}.mkdir"]
    assert found == tuple(sorted(found))
