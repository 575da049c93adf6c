"""The U-Net discriminator with spectral normalisation, which judges every pixel.

Paper: Wang et al., "Real-ESRGAN", arXiv:2107.10833, section 3.3 and figure 6 (network after
Schonfeld et al., arXiv:2002.12655; spectral norm: Miyato et al., arXiv:1802.05957). Reads and
writes the weights of its official discriminators (net_d of github.com/xinntao/Real-ESRGAN).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

from restore.errors import UsageError


class UNetDiscriminatorSN(nn.Module):
    """[B, num_in_ch, H, W] to [B, 1, H, W] logits, one a pixel; H and W multiples of 8.

    Args:
        num_in_ch: channels of the pictures.
        num_feat: channels at full resolution; they double at each of the three halvings.
        skip_connection: add what came down to what goes up.
    """

    def __init__(self, num_in_ch: int, num_feat: int = 64, skip_connection: bool = True) -> None:
        super().__init__()
        self.skip_connection = skip_connection
        self.conv0 = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        widths = [num_feat, num_feat * 2, num_feat * 4, num_feat * 8]
        for number in range(3):
            halving = nn.Conv2d(widths[number], widths[number + 1], 4, 2, 1, bias=False)
            self.add_module(f"conv{number + 1}", spectral_norm(halving))
        for number, width in enumerate((*widths[:0:-1], num_feat, num_feat), 4):
            narrower = max(width // 2, num_feat)
            same = nn.Conv2d(width, narrower, 3, 1, 1, bias=False)
            self.add_module(f"conv{number}", spectral_norm(same))
        self.conv9 = nn.Conv2d(num_feat, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits: above 0 where the picture looks true."""
        if x.shape[2] % 8 or x.shape[3] % 8:
            raise UsageError(
                f"UNetDiscriminatorSN: pictures of {x.shape[2]} x {x.shape[3]} pixels; expected "
                "multiples of 8: choose another gt_size"
            )
        maps = [_leaky(self.conv0(x))]
        for number in range(1, 4):
            maps.append(_leaky(self.get_submodule(f"conv{number}")(maps[-1])))
        y = maps.pop()
        for number in range(4, 7):
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = _leaky(self.get_submodule(f"conv{number}")(y))
            below = maps.pop()
            if self.skip_connection:
                y = y + below
        for number in (7, 8):
            y = _leaky(self.get_submodule(f"conv{number}")(y))
        logits: Tensor = self.conv9(y)
        return logits


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)
