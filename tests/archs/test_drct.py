"""What is peculiar to DRCT: its groups, and settings with no or half an effect."""

from __future__ import annotations

import pytest
import torch
from golden_data import image, tiny

from restore.archs._branches import DropPath
from restore.archs.drct import DRCT, DRCTConfig
from restore.errors import UsageError
from restore.loading import load

SMALL = DRCTConfig(embed_dim=18, gc=8, window_size=4, depths=(6, 6), num_heads=(3, 3))


def test_heads_follow_from_the_channels() -> None:
    official = DRCTConfig()
    assert official.widths == (180, 212, 244, 276, 308)
    assert [official.heads_for(dim, 6) for dim in official.widths] == [6, 4, 2, 6, 4]


def test_all_blocks_of_a_group_drop_paths_at_the_rate_of_its_first() -> None:
    net = DRCT(SMALL)
    rates = {name: m.rate for name, m in net.named_modules() if isinstance(m, DropPath)}
    assert len(rates) == 10
    assert {rate for name, rate in rates.items() if name.startswith("layers.0.")} == {0.0}
    of_the_second = [rate for name, rate in rates.items() if name.startswith("layers.1.")]
    assert of_the_second == pytest.approx([0.1 * 6 / 11] * 5)


def test_arguments_of_other_networks_are_taken_and_change_nothing() -> None:
    case = tiny("drct_1")
    x = image(0, (1, 3, 8, 8))
    others = {"compress_ratio": 9, "squeeze_factor": 2, "conv_scale": 5.0, "overlap_ratio": 0.25}
    model = load(case.state, device="cpu", config={**others, "depths": [1, 2]})
    assert model.config["conv_scale"] == 5.0
    with torch.inference_mode():
        assert torch.equal(model(x), load(case.state, device="cpu")(x))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"upsampler": "nearest+conv"}, r"expected one of \('pixelshuffle',\)"),
        ({"resi_connection": "3conv"}, "resi_connection is '3conv'; expected one of .*identity"),
        ({"gc": 0}, "gc is 0"),
        ({"depths": [6, 0]}, r"depths \(6, 0\): expected 1 or more"),
        ({"num_heads": [0, 3]}, "do not divide embed_dim 18"),
        ({"num_heads": [18, 3]}, "num_heads 18 with embed_dim 18 and gc 8 gives 10 heads to 26"),
    ],
    ids=str,
)
def test_settings_that_name_no_network_are_told(config: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tiny("drct_1").state, device="cpu", config=config)


def test_a_group_adds_a_fifth_of_its_result() -> None:
    """Without its last convolution a group is the identity; the rest goes in at 0.2."""
    torch.manual_seed(0)
    group = DRCT(SMALL).eval().layers[0]
    x = torch.randn(1, 8, 8, 18)
    with torch.no_grad():
        whole = group(x) - x
        group.adjust5.bias.add_(1.0)
        assert torch.allclose(group(x) - x, whole + 0.2, atol=1e-5)
        for parameter in group.adjust5.parameters():
            parameter.zero_()
        assert torch.equal(group(x), x)
