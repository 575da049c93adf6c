"""What the official constructors do where ours differ: their defaults, and what they ignore.

An option file may leave arguments out; BasicSR then takes the default of the official class, which
is often no published network. Architectures without an entry take the defaults of their own config.
Read from the constructors' signatures at the commits that tests/golden/README.md names; of
SRFormer's only one is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from restore.archs._spec import ArchConfig, ArchSpec
from restore.errors import UsageError

_SWIN: dict[str, Any] = {
    "img_size": 64,
    "in_chans": 3,
    "embed_dim": 96,
    "depths": [6, 6, 6, 6],
    "num_heads": [6, 6, 6, 6],
    "window_size": 7,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "patch_norm": True,
    "use_checkpoint": False,
    "upscale": 2,
    "img_range": 1.0,
    "upsampler": "",
    "resi_connection": "1conv",
}
_RATES: dict[str, Any] = {"drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": 0.1}
_HAT = {
    **_SWIN,
    **_RATES,
    "compress_ratio": 3,
    "squeeze_factor": 30,
    "conv_scale": 0.01,
    "overlap_ratio": 0.5,
}
_HIT: dict[str, Any] = {
    "img_size": 64,
    "in_chans": 3,
    "embed_dim": 60,
    "depths": [6, 6, 6, 6],
    "num_heads": [6, 6, 6, 6],
    "base_win_size": [8, 8],
    "mlp_ratio": 2.0,
    "drop_rate": 0.0,
    "value_drop_rate": 0.0,
    "drop_path_rate": 0.0,
    "patch_norm": True,
    "use_checkpoint": False,
    "upscale": 4,
    "img_range": 1.0,
    "upsampler": "pixelshuffledirect",
    "resi_connection": "1conv",
    "hier_win_ratios": [0.5, 1, 2, 4, 6, 8],
}
_CAT: dict[str, Any] = {
    **_RATES,
    "img_size": 64,
    "in_chans": 3,
    "depth": [2, 2, 2, 2],
    "split_size_0": [0, 0, 0, 0],
    "split_size_1": [0, 0, 0, 0],
    "num_heads": [2, 2, 2, 2],
    "qkv_bias": True,
    "qk_scale": None,
    "img_range": 1.0,
}

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "SwinIR": {**_SWIN, **_RATES},
    "HAT": _HAT,
    "DRCT": {**_HAT, "gc": 32},
    "ATD": {
        **_SWIN,
        "embed_dim": 90,
        "window_size": 8,
        "category_size": 128,
        "num_tokens": 64,
        "reducted_dim": 4,
        "convffn_kernel_size": 5,
        "mlp_ratio": 2.0,
    },
    "HiT_SIR": _HIT,
    "HiT_SNG": _HIT,
    "HiT_SRF": _HIT,
    "SRFormerv2": {"squeeze_dim": 45},
    "CAT": {
        **_CAT,
        "embed_dim": 180,
        "mlp_ratio": 4.0,
        "use_chk": False,
        "upscale": 2,
        "resi_connection": "1conv",
        "upsampler": "",
        "block_name": "CATB_axial",
    },
    "CAT_Unet": {
        **_CAT,
        "dim": 180,
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.0,
        "bias": False,
        "num_refinement_blocks": 4,
        "dual_pixel_task": False,
    },
    "Uformer": {
        **_RATES,
        "img_size": 256,
        "in_chans": 3,
        "dd_in": 3,
        "embed_dim": 32,
        "depths": [2, 2, 2, 2, 2, 2, 2, 2, 2],
        "num_heads": [1, 2, 4, 8, 16, 16, 8, 4, 2],
        "win_size": 8,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "shift_flag": True,
        "modulator": False,
    },
}

# in official option files, and without effect there: only **kwargs takes them
IGNORED: Mapping[str, tuple[str, ...]] = {
    "HiT_SIR": ("expansion_factor",),
    "HiT_SNG": ("expansion_factor",),
    "HiT_SRF": ("expansion_factor",),
}


def given_and_default(spec: ArchSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of an option file as the official class takes them.

    Those without effect are left out; those left out get the official default where it is not ours.
    """
    given = {key: value for key, value in options.items() if key not in IGNORED.get(spec.name, ())}
    return {**DEFAULTS.get(spec.name, {}), **given}


def official_config(spec: ArchSpec, options: Mapping[str, Any], where: str) -> ArchConfig:
    """The settings that official options stand for, with the official defaults.

    Args:
        spec: the architecture.
        options: constructor arguments as YAML gives them, without `type`.
        where: named in messages.

    Raises:
        UsageError: an argument that the official constructor does not have, or a value that no
            network has; the message names both and what is near.
    """
    return spec.config().replaced(given_and_default(spec, options), where, UsageError)
