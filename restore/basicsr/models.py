"""BasicSR's models with a test for pictures of any size, whole or in tiles.

Shape letters: B images, C channels, H rows, W columns, s scale.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.models.realesrnet_model import RealESRNetModel
from basicsr.models.sr_model import SRModel
from basicsr.models.swinir_model import SwinIRModel
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from restore.basicsr.networks import network_type, put
from restore.errors import UsageError
from restore.model import Model
from restore.padding import Padding
from restore.training.whole_pictures import CHOP, How, restored_batch


class RestoreModel(SRModel):  # type: ignore[misc]  # BasicSR has no types
    """Trains as its base does; tests a network of ours as `restore.Model` runs it.

    Small or odd pictures are grown as `padding` says to what the network takes, results cropped;
    `tile` and `use_chop` go through the tiles of `restore.upscale`. Any other network is left to
    the base's own test.
    """

    padding: ClassVar[Padding] = "reflect"  # of whole pictures

    def __init__(self, opt: dict[str, Any]) -> None:
        options = dict(opt["network_g"])
        kind = network_type(options.pop("type"))
        self._network = None if kind is None else (kind.spec, kind.config(options))
        self._tile, self._tile_pad = _tiles(opt)
        self._tta = bool((opt.get("val") or {}).get("selfensemble_testing"))
        where = f"model_type {opt['model_type']}"
        if self._network is None:
            if self._tile or self._tta:
                raise UsageError(
                    f"{where}: tile, use_chop and selfensemble_testing need a network of "
                    f"restore.basicsr; network_g is of type {opt['network_g']['type']!r}"
                )
        else:
            spec, config = self._network
            scale = opt.get("scale", 1)
            if scale != spec.scale(config):
                raise UsageError(
                    f"{where}: scale is {scale}, but network_g enlarges {spec.scale(config)} times"
                )
        super().__init__(opt)

    def test(self) -> None:
        """From `lq` [B, C, H, W] to `output` [B, C, H * s, W * s]; no gradients."""
        if self._network is None:
            super().test()
            return
        spec, config = self._network
        average = hasattr(self, "net_g_ema")
        net: nn.Module = self.net_g_ema if average else self.get_bare_model(self.net_g)
        training = net.training
        net.eval()
        try:
            with torch.no_grad():
                self.output = self._restored(Model(spec, config, net, name=spec.name), self.lq)
        finally:
            net.train(training)

    def _restored(self, model: Model, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, H * s, W * s]."""
        how = How(self._tile, self._tile_pad, self._tta, self.padding)
        return restored_batch(model, x, how)


def _tiles(opt: dict[str, Any]) -> tuple[int, int | None]:
    """tile and tile_pad of the options; a tile of 0 is the whole picture."""
    tile = opt.get("tile")
    if not tile:
        return CHOP if (opt.get("val") or {}).get("use_chop") else (0, None)
    if "tile_size" not in tile or not tile.keys() <= {"tile_size", "tile_pad"}:
        raise UsageError(f"tile: has {', '.join(tile)}; expected tile_size and perhaps tile_pad")
    return tile["tile_size"], tile.get("tile_pad")


# the model types of official option files, and what they are beside their test
MODEL_TYPES: dict[str, type] = {
    "SwinIRModel": SwinIRModel,
    "HATModel": SRModel,
    "DRCTModel": SRModel,
    "ATDModel": SRModel,
    "HITModel": SRModel,
    "CATModel": SRModel,
    "CATSEModel": SRModel,
    "RealHATMSEModel": RealESRNetModel,
    "RealHATGANModel": RealESRGANModel,
    "RealDRCTMSEModel": RealESRNetModel,
    "RealDRCTGANModel": RealESRGANModel,
}
# the others' authors reflect, as `restore.Model` does anyway, or let the network pad
AS_PUBLISHED = ("CATModel", "CATSEModel")


def register() -> None:
    """Put the model types into BasicSR's registry."""
    put(MODEL_REGISTRY, RestoreModel.__name__, RestoreModel)
    for name, base in MODEL_TYPES.items():
        padding: Padding = "published" if name in AS_PUBLISHED else "reflect"
        put(MODEL_REGISTRY, name, type(name, (RestoreModel, base), {"padding": padding}))
