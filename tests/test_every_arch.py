"""What every architecture has to do, on small networks; an entry of ARCHS is tested by being there.

The networks are the small ones of tests/golden, so that an architecture needs some there.
"""

from __future__ import annotations

import copy
import io
import pickle
import re

import pytest
import torch
from golden_data import Tiny, image, small_cases, untold
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs import ARCHS
from restore.archs._spec import ArchSpec, InputRule
from restore.loading import load
from restore.model import Model

SIZES = [(1, 1), (1, 37), (5, 3), (33, 17)]

every_arch = pytest.mark.parametrize("spec", ARCHS, ids=lambda spec: spec.name)


def case_of(spec: ArchSpec) -> Tiny:
    return small_cases(spec.name)[0]


def load_small(spec: ArchSpec, **changes: object) -> Model:
    case = case_of(spec)
    given = {**untold(case), "img_size": case.config["img_size"], **changes}
    return load(case.state, device="cpu", config=given)


def fresh(spec: ArchSpec) -> nn.Module:
    """The small network as a user would start to train it, but without paths to drop."""
    torch.manual_seed(0)
    return spec.build(
        spec.config().replaced({**case_of(spec).config, **path_rate(spec, 0.0)}, "test")
    )


def path_rate(spec: ArchSpec, rate: float) -> dict[str, object]:
    """The setting of the rate at which paths are dropped, where the architecture has it."""
    return {"drop_path_rate": rate} if "drop_path_rate" in spec.config() else {}


def picture(model: Model, h: int, w: int, images: int = 1) -> Tensor:
    return image(7, (images, model.in_channels, h, w))


def legal_size(model: Model) -> tuple[int, int]:
    """A size that the bare network takes."""
    side = legal_side(model.rule, 16)
    return side, side


def legal_side(rule: InputRule, least: int) -> int:
    """The shortest side from `least` on that a bare network takes."""
    return -(-max(rule.minimum, least) // rule.multiple) * rule.multiple


def infer(model: Model, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    with torch.inference_mode():
        return model(x, dtype=dtype)


def assert_any_size(model: Model, h: int, w: int) -> None:
    x = picture(model, h, w, images=2)
    y = infer(model, x)
    assert y.shape == (2, model.in_channels, h * model.scale, w * model.scale)
    assert y.dtype == x.dtype
    assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize("size", SIZES, ids=str)
@every_arch
def test_every_size_is_taken(spec: ArchSpec, size: tuple[int, int]) -> None:
    for case in small_cases(spec.name):
        assert_any_size(load(case.state, device="cpu", config=untold(case)), *size)


@every_arch
def test_any_size_is_taken(spec: ArchSpec) -> None:
    model = load_small(spec)

    @settings(max_examples=15)
    @given(h=st.integers(1, 40), w=st.integers(1, 40))
    def check(h: int, w: int) -> None:
        assert_any_size(model, h, w)

    check()


@every_arch
def test_a_state_dict_comes_back(spec: ArchSpec) -> None:
    case, model = case_of(spec), load_small(spec)
    state = model.module.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        key: tuple(value.shape) for key, value in case.state.items()
    }
    assert all(torch.equal(state[key], value) for key, value in case.state.items())
    again = fresh(spec)
    again.load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    with torch.no_grad():
        x = picture(model, *legal_size(model))
        assert torch.equal(again.eval()(x), model.module(x))


@every_arch
def test_official_buffers_are_accepted_and_dropped_by_the_module(spec: ArchSpec) -> None:
    model = load_small(spec)
    net = fresh(spec)
    net.load_state_dict(model.official_state_dict())
    assert set(net.state_dict()) == set(case_of(spec).state)


@every_arch
def test_one_architecture_claims_it(spec: ArchSpec) -> None:
    for case in small_cases(spec.name):
        assert [other.name for other in ARCHS if other.claims(case.state)] == [spec.name]


def test_names_are_unique() -> None:
    assert len({spec.name for spec in ARCHS}) == len(ARCHS)


@every_arch
def test_the_default_settings_build(spec: ArchSpec) -> None:
    with torch.device("meta"):
        net = spec.build(spec.config())
    state = net.state_dict()
    assert spec.claims(state)
    assert spec.read_config(state).config == spec.config()


@every_arch
def test_a_module_made_double_is_double(spec: ArchSpec) -> None:
    model = load_small(spec)
    x = picture(model, 12, 20).double()
    single = infer(model, x)
    model.module.double()
    assert infer(model, x).dtype == torch.float64
    truth = infer(load(case_of(spec).state, device="cpu", dtype="fp64", config=model.config), x)
    assert torch.equal(infer(model, x), truth)
    assert not torch.equal(single, truth)


@pytest.mark.parametrize("through_data", [False, True], ids=["in place", "through .data"])
@every_arch
def test_an_edited_parameter_shows_at_once(spec: ArchSpec, through_data: bool) -> None:
    model = load_small(spec)
    x = picture(model, 16, 16)
    shown = infer(model, x)
    generator = torch.Generator().manual_seed(4)
    for name in one_of_each_kind(model.module):
        parameter = model.module.get_parameter(name)
        noise = 0.1 * torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            (parameter.data if through_data else parameter).add_(noise)
        before, shown = shown, infer(model, x)
        assert not torch.equal(before, shown) or is_without_effect(name), name
    state = {key: value.clone() for key, value in model.module.state_dict().items()}
    never_called = load(state, device="cpu", config=model.config)
    assert torch.equal(shown, infer(never_called, x))


def one_of_each_kind(net: nn.Module) -> list[str]:
    """The last parameter of every name, numbers aside."""
    kinds = {re.sub(r"\d+", "#", name): name for name, _ in net.named_parameters()}
    return list(kinds.values())


def is_without_effect(name: str) -> bool:
    """Whether a softmax or the norm of a single number cancels this parameter."""
    one_channel = name.startswith("encoder_level1.") and ".pos." in name  # of the small CAT_Unet
    return one_channel or name.endswith((".0.pos.pos3.2.bias", ".1.pos.pos3.2.bias", "norm3.bias"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_arch
def test_a_call_in_half_precision_leaves_no_trace(spec: ArchSpec, dtype: torch.dtype) -> None:
    model = load_small(spec)
    x = picture(model, 16, 16)
    exact = infer(load_small(spec), x)
    infer(model, x, dtype)
    assert torch.equal(infer(model, x), exact)
    half = infer(load_small(spec), x, dtype)
    assert torch.equal(infer(model, x, dtype), half)


@every_arch
def test_bfloat16_is_finite_and_close(spec: ArchSpec) -> None:
    for case in small_cases(spec.name):
        model = load(case.state, device="cpu", dtype="bf16", config=untold(case))
        x = picture(model, 24, 24)
        y, exact = infer(model, x), infer(model, x, torch.float32)
        assert y.dtype == torch.float32
        assert bool(torch.isfinite(y).all())
        # three digits of each product, through a dozen layers
        assert (y - exact).abs().max() <= 0.1 * exact.abs().max()
        assert not torch.equal(y, exact)
        assert all(p.dtype == torch.float32 for p in model.module.parameters())


@every_arch
def test_training_lowers_the_loss_and_reaches_every_parameter(spec: ArchSpec) -> None:
    net = fresh(spec).train()
    case = case_of(spec)
    config = spec.config().replaced(case.config, "test")
    side = legal_side(spec.input_rule(config), 32)
    x = case.image("a")[:, :, :side, :side]
    scale = spec.scale(config)
    target = F.interpolate(x, scale_factor=scale, mode="bilinear")
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for step in range(12):
        loss = F.l1_loss(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        if step == 1:  # at the start some gradients are cancelled by what is still zero
            for name, parameter in net.named_parameters():
                assert parameter.grad is not None, name
                assert bool(torch.isfinite(parameter.grad).all()), name
                assert bool(parameter.grad.any()) or is_without_effect(name), name
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


@every_arch
def test_recomputed_activations_give_the_same_gradients(spec: ArchSpec) -> None:
    """It costs time, nothing else."""
    switch = next((name for name in ("use_checkpoint", "use_chk") if name in spec.config()), None)
    if switch is None:
        pytest.skip(f"the official {spec.name} does not recompute")
    grads = []
    for recompute in (False, True):
        model = load_small(spec, **{switch: recompute}, **path_rate(spec, 0.0))
        model.module.train()
        y = model(picture(model, 16, 16))
        y.square().mean().backward()
        grads.append([p.grad for p in model.module.parameters()])
    for one, other in zip(*grads, strict=True):
        assert one is not None and other is not None
        assert torch.equal(one, other)


@every_arch
def test_paths_are_dropped_in_training_alone(spec: ArchSpec) -> None:
    if not path_rate(spec, 0.8):
        pytest.skip(f"the official {spec.name} drops no paths")
    model = load_small(spec, drop_path_rate=0.8)
    plain = load_small(spec, drop_path_rate=0.0)
    x = picture(model, 16, 16, images=2)
    assert not model.module.training
    assert torch.equal(infer(model, x), infer(plain, x))
    plain.module.train()
    assert torch.equal(infer(plain, x), infer(model, x))
    model.module.train()
    torch.manual_seed(0)
    assert not torch.equal(infer(model, x), infer(model, x))


@every_arch
def test_images_of_a_batch_do_not_see_each_other(spec: ArchSpec) -> None:
    model = load_small(spec)
    model.module.double()
    x = picture(model, 19, 21, images=3).double()
    together = infer(model, x)
    for at in range(3):
        alone = infer(model, x[at : at + 1])
        torch.testing.assert_close(together[at : at + 1], alone, rtol=0, atol=1e-11)


@every_arch
def test_copies_are_independent(spec: ArchSpec) -> None:
    model = load_small(spec)
    x = picture(model, *legal_size(model))
    y = infer(model, x)  # before copying: what a call keeps must be copied too
    twin = copy.deepcopy(model.module)
    thawed = pickle.loads(pickle.dumps(model.module))
    buffer = io.BytesIO()
    torch.save(model.module, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=False)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(0.5)
        for other in (twin, thawed, saved):
            assert torch.equal(other(x), y)
    assert not torch.equal(infer(model, x), y)


@every_arch
def test_an_inference_call_does_not_spoil_training(spec: ArchSpec) -> None:
    model = load_small(spec)
    x = picture(model, 16, 16)
    infer(model, x)
    model(x).sum().backward()
    grads = [p.grad for p in model.module.parameters()]
    other = load_small(spec)
    other(x).sum().backward()
    for one, two in zip(grads, (p.grad for p in other.module.parameters()), strict=True):
        assert one is not None and two is not None
        assert torch.equal(one, two)


@every_arch
def test_what_is_padded_depends_on_the_image_alone(spec: ArchSpec) -> None:
    """Any image gives what it gives inside a batch and again, so that tiles agree."""
    model = load_small(spec)
    x = picture(model, 7, 5)
    kept = x.clone()
    first = infer(model, x)
    assert torch.equal(infer(model, x), first)
    assert torch.equal(x, kept)
    strided = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(infer(model, strided), first)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
@every_arch
def test_compile_and_export(spec: ArchSpec) -> None:
    model = load_small(spec)
    x = picture(model, *legal_size(model))
    with torch.no_grad():
        y = model.module(x)
        compiled = torch.compile(model.module, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), y, rtol=1e-4, atol=1e-4)
        exported = torch.export.export(model.module, (x,))
        torch.testing.assert_close(exported.module()(x), y, rtol=1e-4, atol=1e-4)


@every_arch
def test_no_images_give_none(spec: ArchSpec) -> None:
    model = load_small(spec)
    h, w = legal_size(model)
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            some, none = (model.module(picture(model, h, w, images)) for images in (1, 0))
        assert none.shape == (0, *some.shape[1:])


@every_arch
def test_what_the_bare_network_cannot_take_is_told(spec: ArchSpec) -> None:
    model = load_small(spec)
    h, w = legal_size(model)
    x = picture(model, h, w)
    told = r"x is torch\.{}, its weights torch\.float32; {}"
    given = (
        (x[0], r"x is \(.*\); expected \[B, C, H, W\]"),
        (x[:, :, :0], rf"the map is \(0, {w}\); expected 1 row and 1 column or more"),
        (x[..., :0], rf"the map is \({h}, 0\); expected 1 row and 1 column or more"),
        (x.double(), told.format("float64", r"give it in torch\.float32")),
        (x.int(), told.format("int32", r"give it in torch\.float32")),
    )
    for wrong, message in given:
        with pytest.raises(ValueError, match=message):
            model.module(wrong)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.module(x.bfloat16()).shape[0] == 1
        with pytest.raises(ValueError, match=told.format("float64", "autocast lowers float32")):
            model.module(x.double())


@every_arch
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of stock attention
def test_it_can_be_mapped_over_batches(spec: ArchSpec) -> None:
    """By `torch.func.vmap`."""
    model = load_small(spec)
    batches = torch.stack([picture(model, *legal_size(model)), picture(model, *legal_size(model))])
    batches[1] *= 0.5
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            expected = torch.stack([model.module(x) for x in batches])
            torch.testing.assert_close(
                torch.func.vmap(model.module)(batches), expected, rtol=1e-4, atol=1e-5
            )
