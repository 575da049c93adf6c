"""Features of VGG (Simonyan and Zisserman, arXiv:1409.1556), for perceptual losses.

Layers have BasicSR's names: convN_M, reluN_M, poolN, and with batch norm bnN_M.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from restore.checkpoint import read_checkpoint
from restore.errors import CheckpointError, UsageError

_CONVOLUTIONS = {  # in each of the five parts between poolings
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_CHANNELS = (64, 128, 256, 512, 512)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FOLDER = Path("experiments", "pretrained_models")  # where BasicSR looks


def layer_names(vgg_type: str) -> list[str]:
    """Names of the layers in the order of torchvision's `features`; UsageError if unknown."""
    plain, norms = vgg_type.removesuffix("_bn"), vgg_type.endswith("_bn")
    if plain not in _CONVOLUTIONS:
        raise UsageError(
            f"PerceptualLoss: vgg_type is {vgg_type!r}; expected one of "
            f"{', '.join(_CONVOLUTIONS)}, perhaps with _bn"
        )
    names = []
    for part, count in enumerate(_CONVOLUTIONS[plain], 1):
        for number in range(1, count + 1):
            kinds = ("conv", "bn", "relu") if norms else ("conv", "relu")
            names += [f"{kind}{part}_{number}" for kind in kinds]
        names.append(f"pool{part}")
    return names


class VGGFeatures(nn.Module):
    """The outputs of some layers of a VGG trained on ImageNet; its parameters are frozen.

    Args:
        layers: names of those whose outputs are wanted.
        vgg_type: "vgg19" and so on.
        use_input_norm: see `PerceptualLoss`.
        range_norm: see `PerceptualLoss`.
        weights: torchvision's file; None: see `weight_file`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: Sequence[str],
        vgg_type: str,
        use_input_norm: bool,
        range_norm: bool,
        weights: Path | None = None,
    ) -> None:
        super().__init__()
        names = layer_names(vgg_type)
        for layer in layers:
            if layer not in names:
                raise UsageError(
                    f"PerceptualLoss: {vgg_type} has no layer {layer!r}; known: {', '.join(names)}"
                )
        if not layers:
            raise UsageError("PerceptualLoss: layer_weights names no layer")
        self.wanted = frozenset(layers)
        self.use_input_norm = use_input_norm
        self.range_norm = range_norm
        last = max(names.index(layer) for layer in layers)
        self.features = nn.Sequential()
        channels = 3
        for name in names[: last + 1]:
            width = _CHANNELS[int(name.split("_")[0][-1]) - 1]
            self.features.add_module(name, _layer(name, channels, width))
            channels = width
        self._load(names[: last + 1], weights or weight_file(vgg_type))
        for name, values in (("mean", _MEAN), ("std", _STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> VGGFeatures:
        """Stay in eval mode: batch norms keep their statistics."""
        return super().train(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W] to the wanted outputs by name."""
        if self.range_norm:
            x = (x + 1) / 2
        if self.use_input_norm:
            x = (x - self.mean) / self.std
        found = {}
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in self.wanted:
                found[name] = x
        return found

    def _load(self, names: Sequence[str], path: Path) -> None:
        """Take the weights from torchvision's file, whose layers have numbers."""
        state = read_checkpoint(path).state
        try:
            own = {
                f"{name}.{key}": state[f"features.{number}.{key}"]
                for number, name in enumerate(names)
                for key in self.features.get_submodule(name).state_dict()
            }
            self.features.load_state_dict(own)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: is not torchvision's file of this VGG: {error}"
            ) from None


def weight_file(vgg_type: str) -> Path:
    """Torchvision's weights on this disk; UsageError that says where they are looked for."""
    folders = [FOLDER, Path(torch.hub.get_dir()) / "checkpoints"]
    for folder in folders:
        found = sorted(folder.glob(f"{vgg_type}-*.pth"))
        if found:
            return found[0]
    raise UsageError(
        f"PerceptualLoss: the weights of {vgg_type} are not at hand: no {vgg_type}-*.pth in "
        f"{' or '.join(map(str, folders))}; put torchvision's file there, name it as "
        "vgg_weights, or leave out perceptual_opt"
    )


def _layer(name: str, channels: int, width: int) -> nn.Module:
    if name.startswith("conv"):
        return nn.Conv2d(channels, width, 3, padding=1)
    if name.startswith("bn"):
        return nn.BatchNorm2d(width)
    # not in place: the output of a layer may be wanted that a ReLU follows
    return nn.ReLU() if name.startswith("relu") else nn.MaxPool2d(2)
