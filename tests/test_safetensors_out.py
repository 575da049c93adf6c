"""Safetensors files written a tensor at a time, against the library that defines them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from restore.safetensors_out import TYPES, write_safetensors


def written(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    file = io.BytesIO()
    write_safetensors(file, tensors, metadata)
    return file.getvalue()


def of_types(*types: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (3, 5), "no side": (), "empty": (0, 4), "é": (7,)}
    return {
        f"{name}.{dtype}": torch.randn(shape, generator=generator).to(dtype)
        for dtype in types
        for name, shape in shapes.items()
    }


def test_files_are_those_of_the_library() -> None:
    """To the byte, where the order of the tensors is settled: by size, then by name."""
    tensors = of_types(torch.float16, torch.int64, torch.float32)
    assert written(tensors, {"format": "pt"}) == save(tensors, {"format": "pt"})


def test_every_type_is_read_back() -> None:
    tensors = of_types(*TYPES)
    again = load(written(tensors, {}))
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)


def test_views_and_shared_memory(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4).requires_grad_()
    tensors = {"whole": base, "same": base, "turned": base.t(), "column": base[:, 1]}
    (tmp_path / "net.safetensors").write_bytes(written(tensors, {"words": 'a "b"\n'}))
    with safe_open(str(tmp_path / "net.safetensors"), framework="pt") as file:
        assert file.metadata() == {"words": 'a "b"\n'}
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(file.get_tensor(name), tensor)


def test_other_types_are_refused() -> None:
    with pytest.raises(KeyError, match="complex64"):
        written({"a": torch.zeros(1, dtype=torch.complex64)}, {})
