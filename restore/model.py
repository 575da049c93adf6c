"""A network with the weights it was loaded from, ready for images of any size."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore import __version__
from restore.archs import ARCHS
from restore.archs._spec import ArchConfig, ArchSpec, StoredBuffer
from restore.atomic import atomic_output, writing
from restore.checkpoint import MARK, without_prefixes
from restore.devices import dtype_name, resolve_device, resolve_dtype
from restore.errors import UsageError
from restore.padding import Grown, Padding, check_padding, grow, grow_as_published
from restore.pickle_out import write_pickle
from restore.safetensors_out import write_safetensors


class AssumedPatchWarning(UserWarning):
    """A file was written with masks for a training patch that nothing told."""


class Model:
    """A recognised network. `restore.load` makes it.

    Attributes:
        module: the network itself, with official parameter names and forward semantics. It stays
            an ordinary nn.Module: whatever is done to it is seen by the next call.
        config: constructor values under their official names; a mapping that is also a dataclass.
        name: the file or built-in model it came from, for messages.
        dtype: of the arithmetic. float16 and bfloat16 keep parameters and the residual stream in
            float32 and take products in half precision (torch.autocast).
        evidence: what told each part of the configuration, in sentences.
        checkpoint_key: key under which the weights lay in their file, "" if they lay bare.
        other_keys: keys of other weights that the file holds beside them.
        new_keys: parameters that the file had no values for when it was loaded for another scale.
        patch_is_assumed: whether img_size, for which `save` makes masks, is a guess.
    """

    def __init__(
        self,
        spec: ArchSpec,
        config: ArchConfig,
        module: nn.Module,
        *,
        name: str,
        dtype: torch.dtype = torch.float32,
        evidence: tuple[str, ...] = (),
        checkpoint_key: str = "",
        other_keys: tuple[str, ...] = (),
        new_keys: tuple[str, ...] = (),
        patch_is_assumed: bool = False,
    ) -> None:
        self.spec = spec
        self.config = config
        self.module = module
        self.name = name
        self.dtype = dtype
        self.evidence = evidence
        self.checkpoint_key = checkpoint_key
        self.other_keys = other_keys
        self.new_keys = new_keys
        self.patch_is_assumed = patch_is_assumed
        self.rule = spec.input_rule(config)

    @property
    def arch(self) -> str:
        """Official class name, such as "SwinIR" or "HiT_SRF"."""
        return self.spec.name

    @property
    def variant(self) -> str:
        """What a person calls this configuration, such as "SwinIR-M classical x4"."""
        return self.spec.variant(self.config)

    @property
    def scale(self) -> int:
        """Output pixels per input pixel, along each axis."""
        return self.spec.scale(self.config)

    @property
    def in_channels(self) -> int:
        """Channels of the image: 1 for gray, 3 for RGB."""
        return self.spec.in_channels(self.config)

    @property
    def out_channels(self) -> int:
        """Channels of the result: `in_channels`, but for networks that fuse several pictures."""
        return (self.spec.out_channels or self.spec.in_channels)(self.config)

    @property
    def align(self) -> int:
        """Input pixels: tiles between multiples of it see the windows of the whole image."""
        return self.rule.align

    @property
    def halo(self) -> int:
        """Input pixels of context that a tile needs on each side: the default tile_pad."""
        return self.rule.halo

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.module.parameters()).device

    @property
    def num_parameters(self) -> int:
        """How many numbers were trained."""
        return sum(p.numel() for p in self.module.parameters())

    def __repr__(self) -> str:
        """Name, variant and where it runs."""
        return f"<Model {self.name}: {self.variant}, {dtype_name(self.dtype)} on {self.device}>"

    def to(self, device: str | torch.device) -> Model:
        """Move the parameters; returns self. UsageError if there is no such device."""
        self.module.to(resolve_device(device))
        return self

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the architecture by its name."""
        return {**self.__dict__, "spec": self.arch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From pickle."""
        spec = next(spec for spec in ARCHS if spec.name == state["spec"])
        self.__dict__.update({**state, "spec": spec})

    def __call__(
        self,
        x: Tensor,
        *,
        dtype: str | torch.dtype | None = None,
        padding: Padding = "reflect",
    ) -> Tensor:
        """Restore images of any size.

        Args:
            x: [B, in_channels, H, W], floating point, 0..1, H and W >= 1, on `device`.
            dtype: of the arithmetic of this call; `self.dtype` if None. Parameters that are not
                float32 compute in their own dtype and in no other.
            padding: how small or odd images grow before the network; results are cropped.
                "reflect": at the right and bottom by reflection, or by repeating the edge where
                they are smaller than what is missing. "published": as the authors' test scripts
                do, for their scores; the same as "reflect" where the architecture has no
                `published_padding`, because its scripts do so too or it pads inside.

        Returns:
            [B, out_channels, H * scale, W * scale], dtype of x, not clamped.

        Raises:
            UsageError: x is no such tensor, `dtype` cannot be had, or `padding` is none of these;
                the message has what was found.
        """
        asked = None if dtype is None else resolve_dtype(dtype)
        self._check(x)
        with self._arithmetic(asked) as cast:
            grown = self._grown(x.to(cast), padding)
            y: Tensor = self.module(grown.x)
        return grown.crop(y, self.scale).to(x.dtype)

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise UsageError(f"{self.name}: input is a {type(x).__name__}; expected a tensor")
        if x.dim() != 4 or x.shape[1] != self.in_channels or 0 in x.shape:
            raise UsageError(
                f"{self.name}: input is {list(x.shape)}; expected "
                f"[B, {self.in_channels}, H, W] with at least one pixel"
            )
        if not x.is_floating_point():
            raise UsageError(f"{self.name}: input is {x.dtype}; expected floating point in 0..1")
        if x.device != self.device:
            raise UsageError(f"{self.name}: input is on {x.device}, the model on {self.device}")

    @contextlib.contextmanager
    def _arithmetic(self, asked: torch.dtype | None) -> Iterator[torch.dtype]:
        held = next(self.module.parameters()).dtype
        half = (torch.float16, torch.bfloat16)
        if asked is not None and asked != held and (held != torch.float32 or asked not in half):
            raise UsageError(
                f"{self.name}: cannot compute in {dtype_name(asked)}: its parameters are "
                f"{dtype_name(held)}, and only float32 ones serve another, fp16 or bf16"
            )
        dtype = asked or self.dtype
        context: AbstractContextManager[object] = contextlib.nullcontext()
        if held == torch.float32 and dtype in half:
            context = torch.autocast(self.device.type, dtype)
        with context:
            yield held

    def _grown(self, x: Tensor, padding: Padding) -> Grown:
        check_padding(padding)
        how = self.spec.published_padding(self.config) if padding == "published" else None
        return grow(x, self.rule) if how is None else grow_as_published(x, how)

    def official_state_dict(self) -> dict[str, Tensor]:
        """Parameters and the buffers that follow from them, under official keys, on the CPU."""
        # what torch.compile or DataParallel around the module puts before its keys is taken off
        held = without_prefixes(self.module.state_dict())
        state = {key: value.detach().cpu() for key, value in held.items()}
        made: dict[StoredBuffer, Tensor] = {}
        for key, make in self.spec.derived(self.config).items():
            if make not in made:
                made[make] = make()
            state[key] = made[make]
        return state

    def save(self, path: str | Path) -> None:
        """Write the weights in the official layout, so that the authors' code loads them.

        Args:
            path: ".safetensors" (flat, with the settings that weights do not tell in its
                metadata) or ".pth"/".pt" (a dict with the weights under every key that the
                authors' scripts look for: "params" and "params_ema", and for Uformer
                "state_dict" with names that begin with "module."). Written under a temporary
                name and renamed.

        Raises:
            UsageError: another suffix.
            OutputError: the file cannot be written.

        Warns:
            AssumedPatchWarning: the file's masks are for a training patch that is a guess.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in (".safetensors", ".pth", ".pt"):
            raise UsageError(f"{path}: suffix is {suffix!r}; expected .safetensors, .pth or .pt")
        state = self.official_state_dict()
        with atomic_output(path) as file, writing(path):
            if suffix == ".safetensors":
                metadata = {
                    "format": "pt",
                    MARK: __version__,
                    "arch": self.arch,
                    "config": json.dumps(dict(self.config)),
                }
                write_safetensors(file, state, metadata)
            else:
                named = {self.spec.prefix + key: value for key, value in state.items()}
                write_pickle(file, dict.fromkeys(self.spec.wrappers, named))
        if self.patch_is_assumed:
            warnings.warn(
                f"{path}: its attn_mask is for training patches of {self.config['img_size']} "
                "pixels, a guess; the authors' loader takes it for networks of these alone. Where "
                "others were trained on, load with config={'img_size': ...} before saving",
                AssumedPatchWarning,
                stacklevel=2,
            )
