"""The native kernels' library: finding it, its C interface, and when it cannot run a call."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, c_double, c_int64, c_uint64, c_void_p
from pathlib import Path as FilePath

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from restore.kernels.dispatch import Path, is_transformed, takes_forward_derivatives
from restore.kernels.native_calls import (
    Attention,
    AttentionGradients,
    Branch,
    ConvMlp,
    Correlation,
    Depthwise,
    Dictionary,
    Gated,
    Groups,
    Refinement,
    Similarity,
    Tokens,
)
from restore.kernels.precision import autocast_dtype

ABI = 9  # RESTORE_ABI of native/restore_native.h, whose structures are in native_calls
FILE = FilePath(__file__).with_name("_native.so")  # so named on every platform
ISAS = ("portable", "AVX2", "AVX-512")
BFLOAT16 = len(ISAS)  # AVX-512 with products in bfloat16
WIDEST_PANEL = 32  # tokens that any instruction set computes at once


class Library:
    """The library for one instruction set.

    Args:
        functions: as loaded.
        isa: index in `ISAS`, or BFLOAT16.
    """

    def __init__(self, functions: ctypes.CDLL, isa: int) -> None:
        self._functions = functions
        self.isa = isa
        self.terms = 2 if isa == BFLOAT16 else 1  # of a product that are taken at once
        self.panel: int = functions.restore_panel(isa)

    def pack(self, weight: Tensor) -> Tensor:
        """The numbers of a matrix [outputs, inputs] as the kernels read them.

        Returns:
            [outputs * inputs] float32; [outputs * ceil(inputs / 2)] with two bfloat16 in each.
        """
        weight = weight.contiguous()
        outputs, inputs = weight.shape
        packed = weight.new_empty(outputs * ((inputs + self.terms - 1) // self.terms))
        self._functions.restore_pack(self.isa, weight.data_ptr(), *weight.shape, packed.data_ptr())
        return packed

    def digest(self, tensors: Sequence[Tensor]) -> int:
        """A number that changes with the values of tensors, which are float32 or bfloat16."""
        plain = [
            t if t.dtype is torch.float32 and t.is_contiguous() else t.float().contiguous()
            for t in tensors
        ]
        pointers = (c_void_p * len(plain))(*[tensor.data_ptr() for tensor in plain])
        counts = (c_int64 * len(plain))(*[tensor.numel() for tensor in plain])
        return int(self._functions.restore_digest(self.isa, len(plain), pointers, counts))

    def similarity(self, call: Similarity) -> float:
        """A sum of SSIM; see `native_similarity`."""
        return float(self._functions.restore_similarity(self.isa, ctypes.byref(call)))

    def run(self, name: str, call: Structure) -> None:
        """Run one of the ops in as many threads as PyTorch would use.

        Raises:
            MemoryError: there is none for its work.
        """
        function = getattr(self._functions, name)
        if function(self.isa, ctypes.byref(call), torch.get_num_threads()):
            raise MemoryError(f"{name}: no memory for what {call.channels} channels need")


@functools.cache
def loaded() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and why there is none."""
    if not FILE.is_file():
        return None, "the native library is not built"
    if _is_cut_short():
        return None, f"{FILE} is cut short; build it again"
    try:
        functions = ctypes.CDLL(str(FILE))
        _declare(functions)
    except OSError as error:
        return None, f"the native library does not load: {error}"
    except AttributeError:  # it lacks a function
        functions = None
    if functions is None or functions.restore_abi() != ABI:
        return None, f"{FILE} is of another version; build it again"
    return functions, ""


def _is_cut_short() -> bool:
    """Whether an ELF file ends before its last table; loading such a one can kill the process."""
    with FILE.open("rb") as file:
        head = file.read(64)
    if not head.startswith(b"\x7fELF\x02\x01"):  # 64 bits, little-endian
        return False
    if len(head) < 64:
        return True
    (tables,) = struct.unpack_from("<Q", head, 0x28)
    entry, count = struct.unpack_from("<HH", head, 0x3A)
    return FILE.stat().st_size < int(tables) + int(entry) * int(count)


def _declare(functions: ctypes.CDLL) -> None:
    """Tell ctypes what the functions take and give."""
    functions.restore_abi.restype = c_int64
    for name, arguments in {
        "restore_best_isa": [],
        "restore_has_isa": [c_int64],
        "restore_panel": [c_int64],
        "restore_branch": [c_int64, POINTER(Branch), c_int64],
        "restore_attention": [c_int64, POINTER(Attention), c_int64],
        "restore_tokens": [c_int64, POINTER(Tokens), c_int64],
        "restore_gated": [c_int64, POINTER(Gated), c_int64],
        "restore_correlation": [c_int64, POINTER(Correlation), c_int64],
        "restore_groups": [c_int64, POINTER(Groups), c_int64],
        "restore_dictionary": [c_int64, POINTER(Dictionary), c_int64],
        "restore_refinement": [c_int64, POINTER(Refinement), c_int64],
        "restore_conv_mlp": [c_int64, POINTER(ConvMlp), c_int64],
        "restore_depthwise": [c_int64, POINTER(Depthwise), c_int64],
        "restore_attention_gradients": [c_int64, POINTER(AttentionGradients), c_int64],
    }.items():
        function = getattr(functions, name)
        function.restype, function.argtypes = c_int64, arguments
    functions.restore_similarity.restype = c_double
    functions.restore_similarity.argtypes = [c_int64, POINTER(Similarity)]
    functions.restore_digest.restype = c_uint64
    functions.restore_digest.argtypes = [
        c_int64,
        c_int64,
        POINTER(c_void_p),
        POINTER(c_int64),
    ]
    functions.restore_pack.restype = None
    functions.restore_pack.argtypes = [c_int64, c_void_p, c_int64, c_int64, c_void_p]


@functools.cache
def library(isa: int | None = None) -> Library:
    """The library for an instruction set that this CPU has, by default its best.

    Raises:
        LookupError: there is no library, or the CPU lacks the set.
    """
    functions, why = loaded()
    if functions is None:
        raise LookupError(why)
    if isa is None:
        isa = int(functions.restore_best_isa())
    if not functions.restore_has_isa(isa):
        name = "AVX512-BF16, or the library was built without it" if isa == BFLOAT16 else ISAS[isa]
        raise LookupError(f"this CPU has no {name}")
    return Library(functions, isa)


@functools.cache
def bfloat16_refuses() -> str | None:
    """Why no products can be taken in bfloat16, or None if they can."""
    try:
        library(BFLOAT16)
    except LookupError as why:
        return str(why)
    return None


def with_native(
    refusals: Mapping[Path, str | None],
    x: Tensor,
    *others: Tensor | None,
    has_backward: bool = False,
) -> dict[Path, str | None]:
    """The refusals of an op, and that of its native kernel; see `native_refuses`."""
    native = native_refuses(x, *others, has_backward=has_backward)
    return {"triton": refusals["triton"], "native": native, "torch": refusals["torch"]}


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether one of what is computed from these is to be differentiated."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def native_refuses(x: Tensor, *others: Tensor | None, has_backward: bool = False) -> str | None:
    """Why no native kernel can run on these tensors, or None if one may.

    Args:
        x: the map or the tokens.
        others: weights and whatever else a gradient may be wanted of.
        has_backward: whether the op computes gradients itself.
    """
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return "it is no part of graphs that are traced"
    if loaded()[0] is None:
        return loaded()[1]
    given = [x, *(other for other in others if other is not None)]
    lowered = autocast_dtype(x)
    if lowered not in (None, torch.bfloat16):
        return f"autocast asks for {lowered}; it computes float32 and bfloat16"
    if lowered is not None and bfloat16_refuses():
        return f"autocast asks for {lowered}, and {bfloat16_refuses()}"
    dtypes = (torch.float32,) if lowered is None else (torch.float32, lowered)
    for tensor in given:
        if tensor.device.type != "cpu":
            return f"it is for CPUs and this is on {tensor.device.type}"
        if tensor.dtype not in dtypes:
            kinds = "float32, and bfloat16 under autocast"
            return f"it computes {kinds}, and this is {tensor.dtype}"
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
            kind = f"{type(tensor).__name__} of {tensor.layout}"
            return f"it computes plain tensors, and this is a {kind}"
        if tensor.is_neg() or tensor._is_zerotensor():
            return "it reads memory, and this tensor's does not hold its values"
    if not has_backward and wants_gradient(*given):
        return "an input needs a gradient; it has no backward"
    if takes_forward_derivatives():
        return "forward-mode derivatives are taken; it has none"
    if is_in_torch_dispatch_mode() or is_transformed():
        return "a dispatch mode or a transform wants to see stock ops"
    return None
