"""Writing safetensors files a tensor at a time, so that memory holds no second copy of them all.

The format: eight bytes with the length of a header, little-endian; the header, a JSON object that
says of each tensor its type, its shape and where its bytes begin and end; the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import BinaryIO

import torch
from torch import Tensor

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}
ALIGNMENT = 8  # of the header's end


def write_safetensors(
    file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors under their names; ones that share memory are each written.

    Args:
        file: open for writing, at its start.
        tensors: on the CPU, of the types in `TYPES`.
        metadata: any words by name, for the header.

    Raises:
        KeyError: a tensor of another type.
        OSError: the file cannot be written.
    """
    # the largest type first keeps every tensor at a multiple of its element's size
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for _, tensor in ordered:
        file.write(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
